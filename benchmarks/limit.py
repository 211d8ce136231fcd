"""How near a training step comes to the machine's own limit: the time of its convolutions alone, by oneDNN or cuDNN and
as normlab computes them.

    python -m benchmarks.limit [--profile]

Each convolution of the network is run by itself, forward and for both gradients, on the shapes, type and memory layout
that training uses; their sum is what a step would take if all else cost nothing. Floating-point operations are those
of the direct sum, whatever is computed instead. One thread on a CPU, as a worker has.
`--profile` adds where a step goes: on a CPU each operation and kernel of the recorded step is timed as it is replayed,
on a GPU torch's profiler is asked.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.study import has_bfloat16, save_images
from normlab.convolution import WAYS, Way, convolve
from normlab.notation import layer_shapes, parse_notation
from normlab.provenance import environment
from normlab.rates import step_seconds
from normlab.trial import TrialSpec, make_spec
from normlab.worker import prepare_process

CASES = [(16, 4, 1), (16, 4, 8), (16, 16, 1), (16, 16, 4), (16, 128, 1), (64, 16, 1)]  # width, batch, trials together
SECONDS = 3.0


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prepare_process(1 if device == "cpu" else 2, device)
    where = environment()
    print(f"{where['processor']}, {device}, torch {where['torch']}, commit {where['commit']}\n")
    library = "oneDNN" if device == "cpu" else "cuDNN"
    columns = f"{library}'s convolutions alone (GFLOP/s) | normlab's alone | ratio | step beside {library}'s"
    print(f"| width, batch, together | type | step, images/s | {columns} | normlab's in a step |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data, _ = save_images(Path(folder))
    for precision in ("bfloat16", "float32") if has_bfloat16(device) else ("float32",):
        for width, batch, trials in CASES:
            network = f"{width}K-4C3B-256D-Dropout0.5-10D"
            spec = make_spec({"data": data, "network": network, "norm": "batch", "epochs": 1, "batch_size": batch,
                              "precision": precision, "train_images": 10_000, "optimizer": "adam"})  # fmt: skip
            step = statistics.median(step_seconds(spec, trials, device, SECONDS))
            images, cells = trials * batch, []
            both, flops = convolutions((WAYS["grouped"], convolve), spec, trials, device)
            for alone in both:
                cells.append(f"{images / alone:,.0f} ({flops / alone / 1e9:,.0f})")
            shares = both[0] / step, both[1] / step
            cells += [f"{both[0] / both[1]:.2f}", *(f"{100 * share:.0f} %" for share in shares)]
            print(
                f"| {width}, {batch}, {trials} | {precision} | {images / step:,.0f} | {' | '.join(cells)} |", flush=True
            )
            if arguments.profile:
                profile(spec, trials, device)


def convolutions(ways: Sequence[Way], spec: TrialSpec, trials: int, device: str) -> tuple[list[float], float]:
    """Seconds that the convolutions of one step take alone, one after another, each in several ways by turns; and
    their floating-point operations."""
    dtype = torch.bfloat16 if spec.precision == "bfloat16" else torch.float32
    autocast = torch.autocast(device, torch.bfloat16, enabled=spec.precision == "bfloat16")
    seconds, flops = [0.0 for _ in ways], 0.0
    channels, size = 3, 32
    for row in layer_shapes(parse_notation(spec.network), channels, size):
        if row.kind == "convolution":
            x = torch.randn(spec.batch_size, trials * channels, size, size, device=device, dtype=dtype)
            x = x.to(memory_format=torch.channels_last).requires_grad_(channels > 3)  # the images need no gradient
            weight = torch.randn(trials * row.shape[0], channels, 3, 3, device=device)
            weight = weight.to(memory_format=torch.channels_last).requires_grad_()
            with autocast:
                gradient = torch.randn_like(WAYS["grouped"](x, weight, None, trials))

            def run(
                way: Way, x: torch.Tensor = x, weight: torch.Tensor = weight, gradient: torch.Tensor = gradient
            ) -> None:
                with autocast:
                    y = way(x, weight, None, trials)
                y.backward(gradient)
                x.grad = weight.grad = None

            for i, median in enumerate(_median_seconds(run, ways, device)):
                seconds[i] += median
            flops += (6 if channels > 3 else 4) * trials * spec.batch_size * row.macs
            channels = row.shape[0]
        elif row.kind == "pool":
            size //= 2
    return seconds, flops


def _median_seconds(run: Callable[[Way], None], ways: Sequence[Way], device: str) -> list[float]:
    times: list[list[float]] = []  # of a round of all ways each
    while len(times) < 7 or sum(map(sum, times)) < len(ways) * SECONDS / 12:
        times.append([])
        for way in ways:
            started = time.perf_counter()
            run(way)
            if device != "cpu":
                torch.cuda.synchronize()
            times[-1].append(time.perf_counter() - started)
    return [statistics.median(column) for column in zip(*times[2:], strict=True)]


def profile(spec: TrialSpec, trials: int, device: str) -> None:
    """Prints the operations and kernels that take most of a step, with their shares."""
    spent = defaultdict[str, float](float)

    @torch.no_grad()
    def timed(recording: Any) -> None:
        for call, arguments, named in recording.calls:
            started = time.perf_counter()
            call(*arguments, **named)
            spent[getattr(call, "__name__", str(call))] += time.perf_counter() - started

    if device == "cpu":
        with mock.patch("normlab.graphs._Recording.replay", timed):
            step_seconds(spec, trials, device, SECONDS)
    else:
        with torch.profiler.profile() as profiler:
            step_seconds(spec, trials, device, SECONDS)
        for row in profiler.key_averages():
            spent[row.key] += row.self_device_time_total
    most = sorted(spent.items(), key=lambda one: -one[1])[:9]
    shares = (f"{name} {100 * seconds / sum(spent.values()):.0f} %" for name, seconds in most)
    print("|", "; ".join(shares), "|")


if __name__ == "__main__":
    main()
