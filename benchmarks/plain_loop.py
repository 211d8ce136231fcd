"""One trial of normlab against the same network in a plain PyTorch loop, data in memory, interleaved.

    python -m benchmarks.plain_loop [--rounds 5] [--images 1024]

Both train one epoch of the same images in float32 with the same number of threads. The ratio of each round is of two
runs that followed each other; the table gives the median of the ratios and their range.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from normlab.batches import as_images, training_batches
from normlab.provenance import environment
from normlab.train import Step, make_network
from normlab.trial import TrialSpec, make_spec
from normlab.worker import prepare_process


@dataclass(frozen=True, kw_only=True)
class Case:
    width: int
    batch_size: int
    threads: int
    precision: str = "float32"


CASES = [
    Case(width=8, batch_size=16, threads=1),
    Case(width=16, batch_size=4, threads=1),
    Case(width=16, batch_size=16, threads=1),
    Case(width=16, batch_size=128, threads=1),
    Case(width=16, batch_size=16, threads=2),
    Case(width=64, batch_size=16, threads=2),
    Case(width=16, batch_size=16, threads=1, precision="bfloat16"),
]


def plain_network(width: int) -> nn.Sequential:
    """`width`K-4C3B-256D-Dropout0.5-10D with batch normalization, as anyone would write it."""
    layers: list[nn.Module] = []
    channels = 3
    for block in range(3):
        for _ in range(4):
            out = width * 2**block
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)]
            layers += [nn.LeakyReLU(0.01)]
            channels = out
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(channels * 16, 256), nn.LeakyReLU(0.01), nn.Dropout(0.5), nn.Linear(256, 10)]
    return nn.Sequential(*layers)


class PlainLoop:
    """float32 images in memory, torch.optim.Adam, shuffled batches."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        self.x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
        self.y = torch.from_numpy(labels)
        self.batch_size = case.batch_size
        self.model = plain_network(case.width)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, eps=1e-7)

    def epoch(self) -> None:
        self.model.train()
        for index in torch.randperm(len(self.x)).split(self.batch_size):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x[index]), self.y[index]).backward()
            self.optimizer.step()


class Ours:
    """The same work through normlab's own batches and step."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        self.spec: TrialSpec = make_spec(
            {
                "data": "memory", "network": f"{case.width}K-4C3B-256D-Dropout0.5-10D", "norm": "batch", "epochs": 1,
                "batch_size": case.batch_size, "optimizer": "adam", "precision": case.precision,
            }
        )  # fmt: skip
        cpu = torch.device("cpu")
        self.data = as_images(images, labels, pixels="unit", reference=images, device=cpu)
        self.step = Step([self.spec], make_network([self.spec], self.data, 1000), cpu)
        self.number = 0

    def epoch(self) -> None:
        self.number += 1
        self.step.network.train()
        for x, y in training_batches(self.data, [self.spec], self.number):
            self.step(x, y, [1e-3])


def measure(case: Case, rounds: int, num_images: int) -> dict[str, Any]:
    torch.set_num_threads(case.threads)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    labels = generator.integers(0, 10, num_images)
    sides: dict[str, PlainLoop | Ours] = {"plain": PlainLoop(case, images, labels), "ours": Ours(case, images, labels)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):  # the first warms up
        for name, side in sides.items():
            started = time.perf_counter()
            side.epoch()
            if number:
                rates[name].append(num_images / (time.perf_counter() - started))
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
    return {
        "case": case,
        "plain": statistics.median(rates["plain"]),
        "ours": statistics.median(rates["ours"]),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    arguments = parser.parse_args()
    prepare_process(1)
    where = environment()
    print(f"{where['processor']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}, ", end="")
    print(f"{arguments.rounds} interleaved rounds of {arguments.images} images")
    print("| network | batch | threads | ours in | plain loop, images/s | normlab, images/s | ratio (range) |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        row = measure(case, arguments.rounds, arguments.images)
        print(
            f"| {case.width}K-4C3B-256D | {case.batch_size} | {case.threads} | {case.precision} "
            f"| {row['plain']:,.0f} | {row['ours']:,.0f} | {row['ratio']:.2f} ({row['low']:.2f}–{row['high']:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
