"""How fast images come: decoded beside Pillow alone, opened from the cache, and augmented beside a training step.

    python -m benchmarks.images [--data cifar10-jpeg.zip]

The data are a zip of JPEG images. Pillow alone opens and converts each image of the zip in one process; its rate times
the cores is what decoding is held to. By turns; start-up and storing are included on normlab's side.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from normlab.augment import training_warps
from normlab.batches import as_images, fetch
from normlab.datasets.archive import open_files
from normlab.datasets.cache import new_images
from normlab.datasets.folder import decode_all
from normlab.datasets.places import find
from normlab.processes import cores
from normlab.provenance import environment
from normlab.rates import step_seconds
from normlab.trial import make_spec
from normlab.worker import prepare_process

ROUNDS = 3
ENDINGS = (".jpg", ".jpeg")
CASES = [(16, 4, 8), (16, 16, 4), (16, 128, 1), (64, 16, 1)]  # width, batch, trials together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10-jpeg.zip")
    arguments = parser.parse_args()
    where = environment()
    print(f"{where['processor']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}\n")
    if find(arguments.data) is None:
        print(f"{arguments.data} is not there, and nothing is timed; set NORMLAB_DATA to its folder")
        return
    time_decoding(arguments.data)
    time_augmentation(f"folder:{arguments.data}")


def time_decoding(name: str) -> None:
    path = find(name)
    assert path is not None
    rows: dict[str, list[float]] = {"Pillow alone, times cores": [], "decoding": [], "`data fetch`, all in all": []}
    for _ in range(ROUNDS):
        count, alone = pillow_alone(path)
        with tempfile.TemporaryDirectory() as home:
            seconds = (alone / cores(), decoding_seconds(path, Path(home)), fetch_seconds(name, home))
            again = fetch_seconds(name, home)
        for times, spent in zip(rows.values(), seconds, strict=True):
            times.append(spent)
    print(f"| {count:,} images | a second | beside Pillow (range of {ROUNDS} rounds by turns) |\n|---|---|---|")
    bounds = next(iter(rows.values()))
    for what, times in rows.items():
        ratios = [bound / spent for bound, spent in zip(bounds, times, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {what} | {count / statistics.median(times):,.0f} | {ratio} |")
    print(f"\nThe cached data set opens in {again:.2f} s, the command's start-up included.\n")


def pillow_alone(path: Path) -> tuple[int, float]:
    """The number of images, and the seconds that one process needs to decode them."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(ENDINGS)]
        started = time.perf_counter()
        for name in names:
            np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
    return len(names), time.perf_counter() - started


def decoding_seconds(path: Path, folder: Path) -> float:
    """Of the processes that decode, their start included, into an array on disk."""
    with open_files(path) as files:
        names = [member.path for member in files.members() if member.path.lower().endswith(ENDINGS)]
        with Image.open(io.BytesIO(files.read(names[0]))) as first:
            size = first.width
    new_images(folder, len(names), size)
    started = time.perf_counter()
    assert not decode_all(path, names, size, False, folder)
    return time.perf_counter() - started


def fetch_seconds(name: str, home: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "normlab", "data", "fetch", f"folder:{name}"]
    subprocess.run(command, env={**os.environ, "NORMLAB_HOME": home}, capture_output=True, check=True)
    return time.perf_counter() - started


def time_augmentation(data_set: str) -> None:
    """What rotation, shift and flip of every batch cost, beside the step they are part of; one thread."""
    prepare_process(1, "cpu")
    device, generator = torch.device("cpu"), np.random.default_rng(0)
    pixels, labels = generator.integers(0, 256, (512, 32, 32, 3), np.uint8), generator.integers(0, 10, 512)
    data = as_images(pixels, labels, pixels="unit", reference=pixels, device=device)
    print("| width, batch, together | step, ms | augmentation, ms | share |\n|---|---|---|---|")
    for width, batch, trials in CASES:
        spec = make_spec({"data": data_set, "epochs": 1, "norm": "batch", "augment": "on_the_fly",
                          "network": f"{width}K-4C3B-256D-Dropout0.5-10D", "batch_size": batch})  # fmt: skip
        drawn = training_warps(spec, len(data), data.image_size, 1)
        assert drawn is not None
        index_TB = torch.arange(batch).expand(trials, -1)
        warps_TB4 = torch.from_numpy(drawn)[index_TB]
        times: list[list[float]] = [[], []]
        for _ in range(100):
            for kind, warps in enumerate((None, warps_TB4)):
                started = time.perf_counter()
                fetch(data, index_TB, warps)
                times[kind].append(time.perf_counter() - started)
        cost = statistics.median(times[1]) - statistics.median(times[0])
        step = statistics.median(step_seconds(spec, trials, "cpu", 3.0)) + cost
        print(
            f"| {width}, {batch}, {trials} | {1e3 * step:.1f} | {1e3 * cost:.2f} | {100 * cost / step:.1f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
