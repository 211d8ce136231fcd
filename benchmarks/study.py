"""A whole study in normlab against what people would use instead, interleaved.

    python -m benchmarks.study [--rounds 3] [--only plain] [--peers PYTHON]

A study is 16 trials of WIDTHK-4C3B-256D-Dropout0.5 on 10,000 CIFAR-10 images, tested on 2,000 after each of its epochs.
normlab's time is the wall time of `normlab run` into an empty store: start-up, all evaluations, probes and storing
included, but not compiling the kernels, which a machine does once, in a short run before. The others train two of the
trials, one after another (Ray Tune: at once, one thread each), and each further trial counts as long as the second,
which found everything warm. In a round every side runs once; a ratio is of two sides of one round, the table gives the
median of the ratios and their range.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from normlab import datasets
from normlab.datasets.split import split_images
from normlab.errors import UsageError
from normlab.provenance import environment

TRIALS, EPOCHS, TRAIN_IMAGES, TEST_IMAGES = 16, 5, 10_000, 2_000
PEER_TRIALS = 2
PEERS = Path(__file__).parent / "peers"
STUDY = """question: How fast is a study of {trials} trials?
base: {{data: "{data}", split: official, train_images: {train}, test_images: {test}, norm: batch, epochs: {epochs},
  network: {width}K-4C3B-256D-Dropout0.5-10D, batch_size: {batch}, precision: {precision}, optimizer: adam}}
factors:
  learning_rate: [1e-4, 2e-4, 5e-4, 1e-3]
seeds: {seeds}
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    width: int
    batch: int
    trials: int = TRIALS  # of normlab; where a trial takes minutes, fewer stand for all
    epochs: int = EPOCHS


CASES = [
    Case(width=16, batch=4),
    Case(width=16, batch=16),
    Case(width=16, batch=128),
    Case(width=64, batch=16, trials=4, epochs=2),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peers", default=sys.executable, help="the Python that has the peers (peers/requirements.txt)"
    )
    parser.add_argument("--only", nargs="*", default=["plain", "keras_jax", "ray_tune"], help="which of the peers")
    parser.add_argument("--cases", nargs="*", help="such as 16x4 for width 16, batch 4")
    parser.add_argument("--precisions", nargs="*", default=precisions(), choices=precisions(), help="normlab's")
    parser.add_argument("--epochs", type=int, help="instead of each case's own")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which also ends the side that runs
    cases = [case for case in CASES if not arguments.cases or f"{case.width}x{case.batch}" in arguments.cases]
    cases = [replace(case, epochs=arguments.epochs or case.epochs) for case in cases]
    where = environment()
    print(f"{where['processor']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}, ", end="")
    print(f"{arguments.rounds} rounds, interleaved")
    print("| network | batch | epochs | normlab in | against | images/s there | images/s here | ratio (range) |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        name, arrays = save_images(Path(folder))
        for case in cases:
            measure(case, arguments, name, arrays, Path(folder))


def save_images(folder: Path) -> tuple[str, Path]:
    """CIFAR-10 from wherever it is found, as arrays that every side can read."""
    name = "folder:cifar10-jpeg.zip"
    try:
        datasets.describe(name)
    except UsageError:
        name = "cifar10"
    split = split_images(datasets.load(name), split="official", train_images=TRAIN_IMAGES, test_images=TEST_IMAGES)
    path = folder / "images.npz"
    np.savez(
        path, train_x=split.train_images, train_y=split.train_labels, test_x=split.test_images, test_y=split.test_labels
    )
    return name, path


def measure(case: Case, arguments: argparse.Namespace, name: str, arrays: Path, folder: Path) -> None:
    rates: dict[str, list[float]] = {}
    for precision in arguments.precisions:
        our_rate(precision, replace(case, epochs=1), name, folder, train_images=500)  # where kernels are compiled
    for _ in range(arguments.rounds):
        for peer in arguments.only:
            python = sys.executable if peer == "plain" else arguments.peers
            rates.setdefault(peer, []).append(peer_rate(python, peer, case, arrays))
        for precision in arguments.precisions:
            rates.setdefault(precision, []).append(our_rate(precision, case, name, folder))
    for precision in arguments.precisions:
        for peer in arguments.only:
            ratios = [ours / theirs for ours, theirs in zip(rates[precision], rates[peer], strict=True)]
            there, here = statistics.median(rates[peer]), statistics.median(rates[precision])
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            what = f"{case.width}K-4C3B-256D | {case.batch} | {case.epochs} | {precision} | {peer}"
            print(f"| {what} | {there:,.0f} | {here:,.0f} | {ratio} |", flush=True)


def has_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16, and does not only pretend to."""
    if device != "cpu":
        return True
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def precisions() -> list[str]:
    """Those that the processor computes in, and does not only pretend to."""
    return ["bfloat16", "float32"] if has_bfloat16("cpu") else ["float32"]


def peer_rate(python: str, peer: str, case: Case, arrays: Path) -> float:
    """Training images a second of the whole study."""
    command = [python, str(PEERS / f"{peer}.py"), str(arrays), "--width", str(case.width), "--batch", str(case.batch)]
    command += ["--trials", str(PEER_TRIALS), "--epochs", str(case.epochs)]
    started = time.perf_counter()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wall, result = time.perf_counter() - started, json.loads(output.splitlines()[-1])
    seconds = wall + (case.trials - PEER_TRIALS) * result["seconds"][-1]
    return float(case.trials * case.epochs * TRAIN_IMAGES / seconds)


def our_rate(precision: str, case: Case, name: str, folder: Path, *, train_images: int = TRAIN_IMAGES) -> float:
    study = folder / "study.yaml"
    study.write_text(
        STUDY.format(
            trials=case.trials, data=name, train=train_images, test=TEST_IMAGES, epochs=case.epochs, width=case.width,
            batch=case.batch, precision=precision, seeds=case.trials // 4,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as store:
        started = time.perf_counter()
        command = [sys.executable, "-m", "normlab", "run", str(study), "--store", store]
        subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    return case.trials * case.epochs * train_images / seconds


if __name__ == "__main__":
    main()
