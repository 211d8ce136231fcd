"""What a store that has grown costs, and what scheduling and storing cost beside training.

    python -m benchmarks.growth [--trials 20000] [--tiny 2000]

Fills a store with results that were never trained, and times `normlab status`, `plan`, `compare` and `report`, each as
a process of its own with its largest memory: of a study of 200 trials in that store, and of one of all of them. Then
runs studies of tiny trials and compares the time of their workers with what they spent training.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
TINY = """question: What do tiny trials cost?
base: {data: digits, split: fraction, train_images: 400, test_images: 100, network: 4K-1C1B-10D, epochs: 2}
factors:
  norm: [none, batch]
seeds: 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--tiny", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the curves, which memory must not grow with")
    arguments = parser.parse_args()
    where = environment()
    print(f"{where['processor']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}\n")
    with tempfile.TemporaryDirectory() as folder:
        time_verbs(Path(folder), arguments.trials, arguments.epochs)
        time_tiny(Path(folder), arguments.tiny)


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


def time_tiny(folder: Path, trials: int) -> None:
    """Three runs, each into a store of its own: of one trial a worker, which but for its training is what starting and
    ending cost; of so many that the size of cohorts is measured, which is remembered; and of all."""
    workers, source = cores(), folder / "tiny.yaml"
    source.write_text(TINY)
    os.environ["NORMLAB_HOME"] = str(folder / "home")  # where nothing is remembered yet
    subprocess.run([sys.executable, "-m", "normlab", "data", "fetch", "digits"], capture_output=True, check=True)
    wall, trained, _ = run_tiny(source, workers, "--cohort", "1")
    start = wall - trained
    print(f"\n{start:.1f} s to start {workers} workers and to end them.")
    wall, trained, _ = run_tiny(source, 2 * MAX_COHORT * workers)  # of each norm a full cohort a worker
    print(f"{wall - trained - start:.1f} s to measure which cohorts are fastest, once for a machine.")
    wall, trained, cohorts = run_tiny(source, trials)
    lost = wall - trained - start
    print(
        f"{trials:,} tiny trials in {cohorts} cohorts: {wall:.1f} s, of which each worker trained {trained:.1f} s and"
    )
    print(f"{lost:.1f} s, {100 * lost / wall:.1f} %, went to scheduling and storing.")


def run_tiny(source: Path, trials: int, *options: str) -> tuple[float, float, int]:
    """Trains so many trials of the study. Returns wall seconds, the seconds that each worker trained on average, and
    the number of cohorts."""
    store = source.parent / f"tiny-{trials}"
    command = [sys.executable, "-m", "normlab", "run", str(source), f"seeds={-(-trials // 2)}"]
    started = time.perf_counter()
    subprocess.run([*command, "--store", str(store), *options], capture_output=True, check=True)
    wall = time.perf_counter() - started
    found = {}
    for path in (store / "trials").glob("*/result.json"):
        provenance = json.loads(path.read_text())["provenance"]
        found[provenance["cohort"]] = provenance["seconds"]
    return wall, sum(found.values()) / min(cores(), len(found)), len(found)


if __name__ == "__main__":
    main()
