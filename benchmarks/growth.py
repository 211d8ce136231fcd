"""What a store that has grown costs, and what scheduling and storing cost beside training.

    python -m benchmarks.growth [--trials 20000] [--tiny 2000]

Fills a store with results that were never trained, and times `normlab status`, `plan`, `compare` and `report`, each as
a process of its own with its largest memory: of a study of 200 trials in that store, and of one of all of them. Then
runs studies of tiny trials, as the quickstart's and smaller ones, and tells what they lose to all that is no training.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normlab import datasets
from normlab.grid import trials_by_arm
from normlab.pool import MAX_COHORT
from normlab.processes import cores
from normlab.provenance import environment
from normlab.result import Details, Result
from normlab.store import Store
from normlab.study import Study

EPOCHS = 10  # of each result's curves
LARGE = """question: Which of them?
base: {{data: digits, split: fraction, network: 4K-1C1B-10D, epochs: 10}}
factors:
  norm: [none, batch, mean_only, renorm]
  learning_rate: [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1]
  batch_size: [4, 8, 16, 32, 64]
seeds: {seeds}
contrasts: [{{norm: [batch, none]}}]
"""
SMALLEST = "{data: digits, split: fraction, network: 4K-1C1B-10D, epochs: 2, train_images: 400, test_images: 100}"
QUICKSTART = "{data: digits, split: fraction, network: 8K-2C2B-32D-10D, epochs: 10, learning_rate: 1e-2}"
TINY = """question: What do tiny trials cost?
base: {base}
factors:
  norm: [none, batch]
seeds: {seeds}
"""
CLOCKED = """import runpy, time
try:
    runpy.run_module("normlab", run_name="__main__")
finally:
    print(time.process_time())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--tiny", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3, help="of tiny trials")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the curves, which memory must not grow with")
    arguments = parser.parse_args()
    where = environment()
    print(f"{where['processor']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}\n")
    with tempfile.TemporaryDirectory() as folder:
        time_verbs(Path(folder), arguments.trials, arguments.epochs)
        time_tiny(Path(folder), arguments.tiny, arguments.rounds)


def time_verbs(folder: Path, trials: int, epochs: int) -> None:
    (folder / "large.yaml").write_text(LARGE.format(seeds=trials // 200))
    study, store = Study.load(folder / "large.yaml"), Store(folder / "store")
    fill(study, store, epochs)
    print(f"| a store of {len(store.ids()):,} results | trials asked for | seconds | MiB |\n|---|---|---|---|")
    some = ["norm=none,batch", "learning_rate=1e-3,1e-2", "batch_size=16", "seeds=50"]
    for overrides, count in ((some, 200), ([], trials)):
        for verb in ("status", "plan", "compare", "report"):
            command = [sys.executable, "-m", "normlab", verb, str(folder / "large.yaml"), *overrides]
            seconds, kilobytes = measure([*command, "--store", str(store.root)])
            print(f"| {verb} | {count:,} | {seconds:.1f} | {kilobytes / 1024:.0f} |", flush=True)


def fill(study: Study, store: Store, epochs: int = EPOCHS) -> None:
    """Results as so many epochs would leave them, written without waiting for the disk."""
    store.require_writable()
    generator, sync = np.random.default_rng(0), os.fsync
    os.fsync = lambda fd: None
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate")
    metrics = ("test_loss", "train_loss", "train_accuracy", "test_accuracy_recomputed", "dead_channels")
    for _, row in trials_by_arm(study, datasets.fingerprint):
        for trial in row:
            curves: dict[str, list[float | None]] = {"epoch": list(range(1, epochs + 1))}
            curves |= {name: generator.random(epochs).tolist() for name in names}
            found = {
                "num_test": 359.0,
                "test_accuracy": float(generator.uniform(0.7, 0.9)),
                **dict.fromkeys(metrics, 0.5),
            }
            store.save(
                Result(
                    id=trial.id, spec=trial.spec, status="finished", metrics=found,
                    provenance=environment() | {"seconds": 1.5, "flops": 1e9, "cohort_size": 4, "device": "cpu"},
                    details=Details(curves=curves, classes=tuple("0123456789"), confusion=[[36] * 10] * 10),
                )
            )  # fmt: skip
    os.fsync = sync


def measure(command: list[str]) -> tuple[float, int]:
    """Wall seconds and the largest memory in KiB: the better of two runs."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        found.append((time.perf_counter() - started, usage.ru_maxrss))
        assert status == 0, command
    return min(found)


def time_tiny(folder: Path, trials: int, rounds: int) -> None:
    """What of its time a study of tiny trials loses to planning, scheduling and storing: while workers wait, and while
    the runner uses their cores. Both less what it is for one trial a core, which is starting and ending."""
    os.environ["NORMLAB_HOME"] = str(folder / "home")  # where nothing is remembered yet
    subprocess.run([sys.executable, "-m", "normlab", "data", "fetch", "digits"], capture_output=True, check=True)
    print("\n| trials | cohorts | study, s | training of one, ms | workers wait, s | runner computes, s | lost |")
    print("|---|---|---|---|---|---|---|")
    for name, base in (("the quickstart's", QUICKSTART), ("smaller ones", SMALLEST)):
        run_tiny(folder / f"{name}-first", base, 2 * MAX_COHORT * cores())  # measures which cohorts are fastest, once
        for i in range(rounds):
            few = run_tiny(folder / f"{name}-few-{i}", base, cores(), "--cohort", "1")
            many = run_tiny(folder / f"{name}-many-{i}", base, trials)
            waited, computed = many.waited - few.waited, many.computed - few.computed
            lost = (waited + computed / cores()) / many.wall
            each = 1e3 * (many.wall - many.waited - computed / cores()) * cores() / trials
            times = f"{many.wall:.1f} | {each:.0f} | {waited:.2f} | {computed:.2f}"
            print(f"| {trials:,}, {name} | {many.cohorts} | {times} | {100 * lost:.1f} % |", flush=True)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Seconds of a run: by the clock, of them those in which a worker did not train, on average, and of the runner's
    own processor time."""

    wall: float
    waited: float
    computed: float
    cohorts: int


def run_tiny(folder: Path, base: str, trials: int, *options: str) -> Run:
    """Trains so many trials with these settings."""
    folder.mkdir()
    source, store = folder / "tiny.yaml", folder / "store"
    source.write_text(TINY.format(base=base, seeds=-(-trials // 2)))
    command = [sys.executable, "-c", CLOCKED, "run", str(source), "--store", str(store), *options]
    started = time.perf_counter()
    process = subprocess.run(command, capture_output=True, check=True, text=True)
    wall = time.perf_counter() - started
    trained = {}
    for path in (store / "trials").glob("*/result.json"):
        provenance = json.loads(path.read_text())["provenance"]
        trained[provenance["cohort"]] = provenance["seconds"]
    waited = wall - sum(trained.values()) / cores()
    return Run(wall=wall, waited=waited, computed=float(process.stdout.split()[-1]), cohorts=len(trained))


if __name__ == "__main__":
    main()
