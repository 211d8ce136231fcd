"""How fast one GPU trains: the paper's base and final network, alone and several as one program.

    python -m benchmarks.gpu [--minutes 7] [--device cuda] [--small]

Images a second of whole training steps (fetch, forward, backward, update; bfloat16, replayed as a CUDA graph) for each
batch size, number of trials trained together, and way of computing their convolutions; beside them a loop that anyone
would write (eager PyTorch, float32, one trial after another), the share of the matrix rate that this GPU reaches in
bfloat16, and what that means for the paper's studies, which train in float32 (TF32 on a GPU): at batch 16 both are
measured, and their ratio is taken for the other sizes. Cases are measured in order of worth until the minutes are over;
what was not reached, did not fit in memory, or failed, says so. `--small` replaces both networks by tiny ones, for a
CPU.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from benchmarks.peers import plain
from normlab import convolution, datasets
from normlab.errors import UsageError
from normlab.grid import trials_by_arm
from normlab.notation import forward_macs, layer_shapes, parse_notation
from normlab.plan import FLOPS_PER_MAC, TRAINING_PASSES, training_flops
from normlab.provenance import environment
from normlab.rates import step_seconds
from normlab.study import Study
from normlab.trial import TrialSpec, make_spec

NETWORKS = {"base": "64K-4C3B-256D-Dropout0.5-10D", "final": "256K-4C3B-1024D-Dropout0.5-10D"}
SMALL = {"base": "8K-1C2B-16D-Dropout0.5-10D", "final": "16K-1C2B-16D-Dropout0.5-10D"}
BATCHES, TOGETHER = (16, 4, 64, 2, 256), (1, 8, 16, 4, 32)
BOTH = 16  # the batch size that is measured in both precisions
STUDIES = ("learning-rate", "batch-size", "small-batch", "activation", "order", "order-cats-dogs", "precision", "final")
SECONDS = 0.5  # of steps a case


@dataclass(frozen=True)
class Case:
    network: str
    batch: int
    together: int
    way: str
    precision: str = "bfloat16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    networks, device = SMALL if arguments.small else NETWORKS, arguments.device
    name = torch.cuda.get_device_name(device) if device != "cpu" else environment()["processor"]
    peak = matrix_rate(device, 512 if arguments.small else 8192)
    print(f"{name}, torch {torch.__version__}, commit {environment()['commit']}")
    print(f"A product of matrices in bfloat16 reaches {peak / 1e12:,.1f} TFLOP/s.\n")
    loops = {
        (kind, batch): loop_rate(networks[kind], batch, device)
        for kind in networks for batch in BATCHES if time.monotonic() < end
    }  # fmt: skip
    rates = {}
    for case in cases():
        rates[case] = rate(networks[case.network], case, device) if time.monotonic() < end else "not reached"
        print(f"{case}: {rates[case]}", file=sys.stderr, flush=True)  # should the rest be lost
    print_table(networks, rates, loops, peak)
    project(networks, rates)


def cases() -> Iterator[Case]:
    """The targets' own batch size first; both networks by turns."""
    for batch in BATCHES:
        for precision in ("bfloat16", "float32") if batch == BOTH else ("bfloat16",):
            for together in TOGETHER:
                for network in NETWORKS:
                    for way in convolution.WAYS if together > 1 else ["grouped"]:
                        yield Case(network, batch, together, way, precision)


def rate(network: str, case: Case, device: str) -> float | str:
    """Images a second of all trials together, or why there are none."""
    spec = make_spec({"data": "cifar10", "network": network, "norm": "batch", "epochs": 1, "batch_size": case.batch,
                      "precision": case.precision, "optimizer": "adam_keras"})  # fmt: skip
    chosen = convolution.fastest_way
    convolution.fastest_way = lambda *_: case.way
    try:
        seconds = statistics.median(step_seconds(spec, case.together, device, SECONDS))
    except RuntimeError as error:  # such as cuDNN's, that finds no algorithm where its workspace does not fit
        return "no memory" if isinstance(error, torch.OutOfMemoryError) else "failed"
    finally:
        convolution.fastest_way = chosen
        if device != "cpu":
            torch.cuda.empty_cache()
    return case.batch * case.together / seconds


def loop_rate(network: str, batch: int, device: str) -> float | str:
    """Images a second of the plain loop, one trial, float32, images on the device."""
    layers = parse_notation(network)
    kernels = next(row.shape[0] for row in layer_shapes(layers, 3, 32) if row.kind == "convolution")
    dense = next(row.shape[0] for row in layer_shapes(layers, 3, 32) if row.kind == "dense")
    try:
        model = plain.network(kernels, 10, dense).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, eps=1e-7)
        images, labels = torch.rand(batch, 3, 32, 32, device=device), torch.randint(10, (batch,), device=device)
        times: list[float] = []
        while len(times) < 8 or sum(times[3:]) < SECONDS:
            started = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    except RuntimeError as error:
        return "no memory" if isinstance(error, torch.OutOfMemoryError) else "failed"
    return batch / statistics.median(times[3:])


def matrix_rate(device: str, size: int) -> float:
    """FLOP/s of a square product in bfloat16, the best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, FLOPS_PER_MAC * size**3 / (time.perf_counter() - started))
    return best


def flops_per_image(network: str) -> float:
    return float(FLOPS_PER_MAC * TRAINING_PASSES * forward_macs(network, 3, 32))


def print_table(
    networks: dict[str, str],
    rates: dict[Case, float | str],
    loops: dict[tuple[str, int], float | str],
    peak: float,
) -> None:
    ways = list(convolution.WAYS)
    print(f"| network, batch, together | {' | '.join(ways)} | the loop | times the loop | of the matrix rate |")
    print("|---" * (len(ways) + 4) + "|")
    rows = sorted({(case.network, case.batch, case.together, case.precision) for case in rates})
    for network, batch, together, precision in rows:
        found = [rates.get(Case(network, batch, together, way, precision), "") for way in ways]
        loop, fastest = loops.get((network, batch), "not reached"), max(_numbers(found), default=None)
        if set(found) <= {"", "not reached"}:
            continue
        here = " | ".join(f"{rate:,.0f}" if isinstance(rate, float) else rate for rate in (*found, loop))
        ratio = f"{fastest / loop:.1f}" if fastest and isinstance(loop, float) else ""
        share = f"{100 * fastest * flops_per_image(networks[network]) / peak:.0f} %" if fastest else ""
        name = f"{networks[network]}, {batch}, {together}{', float32' * (precision == 'float32')}"
        print(f"| {name} | {here} | {ratio} | {share} |")
    print(f"\n{list(rates.values()).count('not reached')} of {len(rates)} cases were not reached.")


def _numbers(values: Iterable[object]) -> list[float]:
    return [value for value in values if isinstance(value, float)]


def project(networks: dict[str, str], rates: dict[Case, float | str]) -> None:
    """Prints the hours of the paper's studies at the fastest measured rates, by FLOPs and the nearest batch size."""
    together, alone = (fastest(networks, rates, most) for most in (max(TOGETHER), 1))
    print("\n| study | trials | PFLOP | hours at the fastest rates above |\n|---|---|---|---|")
    total = 0.0
    for name in STUDIES:
        study = Study.load(f"paper/{name}", scale="paper")
        specs = [trial.spec for _, row in trials_by_arm(study, lambda data: "0" * 64) for trial in row]
        try:
            flops, hours = sum(map(cost, specs)), sum(hours_of(spec, together) for spec in specs)
        except UsageError as error:
            print(f"| {name} | {len(specs)} | | left out: {error} |")
            continue
        total += hours
        print(f"| {name} | {len(specs)} | {flops / 1e15:,.0f} | {hours:,.2f} |")
    print(f"\nTogether {total:,.2f} hours, without evaluations. One final model alone: ", end="")
    print(f"{60 * hours_of(specs[0], alone):,.1f} minutes.")


Speeds = dict[tuple[str, int, str], float]  # FLOP/s of a network, a batch size and a precision


def fastest(networks: dict[str, str], rates: dict[Case, float | str], most: int) -> Speeds:
    """With at most so many trials together."""
    best: Speeds = {}
    for case, found in rates.items():
        if isinstance(found, float) and case.together <= most:
            key = case.network, case.batch, case.precision
            best[key] = max(best.get(key, 0.0), found * flops_per_image(networks[case.network]))
    return best


def hours_of(spec: TrialSpec, speeds: Speeds) -> float:
    """At the nearest batch size in bfloat16, and for float32 as much longer as it is at the size measured in both."""
    kind = "final" if spec.network.startswith("256K") else "base"
    there = {batch: speed for (network, batch, precision), speed in speeds.items()
             if (network, precision) == (kind, "bfloat16")}  # fmt: skip
    if not there:
        return float("nan")
    slower = there.get(BOTH, float("nan")) / speeds.get((kind, BOTH, "float32"), float("nan"))
    nearest = there[min(there, key=lambda batch: abs(batch - spec.batch_size))]
    return cost(spec) / nearest / 3600 * (slower if spec.precision == "float32" else 1.0)


def cost(spec: TrialSpec) -> float:
    info = datasets.describe(spec.data, image_size=spec.image_size)
    return training_flops(spec, spec.train_images or 45_000, info.channels, info.image_size)


if __name__ == "__main__":
    main()
