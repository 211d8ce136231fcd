"""How fast this machine trains, one trial or several as one program: from earlier results, else measured."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata

import numpy as np

from normlab import datasets
from normlab.datasets import cache
from normlab.grid import Trial
from normlab.notation import forward_macs
from normlab.plan import FLOPS_PER_MAC, TRAINING_PASSES, speed_class, training_bytes
from normlab.provenance import accelerator, processor
from normlab.store import Store
from normlab.trial import TrialSpec

GENERATION = 8  # raised when training becomes faster or is measured otherwise: what is remembered no longer holds
MEASURE_SECONDS = 0.3
COHORT_SECONDS = 0.3  # for each size of a cohort
GAIN = 1.03  # a larger cohort must be faster by this
GPU_STEPS = 20  # between two times that a GPU is waited for
MAX_MEASURED = 6  # classes of trials that are measured; further ones borrow the median rate


def worker_rates(store: Store, trials: Iterable[Trial], device: str) -> Callable[[TrialSpec], float]:
    """A function from a spec to the FLOP/s that one worker process reaches on it.

    What had to be measured is remembered for this machine.
    """
    known: dict[tuple[object, ...], list[float]] = {}
    wanted: dict[tuple[object, ...], TrialSpec] = {}
    for trial in trials:
        key = speed_class(trial.spec)
        wanted.setdefault(key, trial.spec)
        try:
            result = store.load(trial.id)
        except ValueError:
            continue
        if result is None or result.status != "finished":  # one that diverged early did not do all of its FLOPs
            continue
        source = result.provenance
        made = (source.get("processor"), source.get("device"), source.get("gpu", ""))
        if made == (processor(), device, accelerator(device)) and source.get("images_per_second"):
            known.setdefault(key, []).append(source["images_per_second"])
    rates = {key: float(np.median(found)) * _flops_per_image(wanted[key]) for key, found in known.items()}
    for key, spec in wanted.items():
        if key not in rates and len(rates) < MAX_MEASURED:
            name = known_as("rate", device, key)
            rates[key] = float(cache.remembered(name, functools.partial(_measured, spec, device)))
    typical = float(np.median(list(rates.values()))) if rates else 1.0
    return lambda spec: rates.get(speed_class(spec), typical)


def known_as(what: str, device: str, *of: object) -> str:
    """The name under which a measurement on this machine is remembered."""
    return " ".join(
        map(str, (what, GENERATION, processor(), metadata.version("torch"), device, accelerator(device), *of))
    )


def _measured(spec: TrialSpec, device: str) -> str:
    return str(measure_rate(spec, device))


def measure_rate(spec: TrialSpec, device: str) -> float:
    """FLOP/s of training steps of one trial on random images, by this process with its threads."""
    flops = spec.batch_size * _flops_per_image(spec)
    return flops / float(np.median(step_seconds(spec, 1, device, MEASURE_SECONDS)))


def _flops_per_image(spec: TrialSpec) -> float:
    """Floating-point operations to train one image."""
    info = datasets.describe(spec.data, image_size=spec.image_size)
    return float(FLOPS_PER_MAC * TRAINING_PASSES * forward_macs(spec.network, info.channels, info.image_size))


def cohort_rates(spec: TrialSpec, device: str, most: int, memory_bytes: float) -> list[float]:
    """Steps a second of 1, 2, 4, … trials like this one as one program, those of all its trials counted: up to `most`,
    until two sizes in a row gain nothing, or would need more memory than there is."""
    info = datasets.describe(spec.data, image_size=spec.image_size)
    needed = training_bytes(spec, info.channels, info.image_size)
    rates, size = list[float](), 1
    while size <= most and (size == 1 or size * needed <= memory_bytes):
        try:
            rates.append(size / min(step_seconds(spec, size, device, COHORT_SECONDS)))
        except RuntimeError:  # out of memory, in one word or another
            if size == 1:
                raise
            break
        if len(rates) > 2 and max(rates[-2:]) <= GAIN * max(rates[:-2]):
            break
        size *= 2
    return rates


def best_cohort(rates: Sequence[Sequence[float]]) -> int:
    """The size of cohort at which workers, of each its `cohort_rates`, train most together."""
    totals, best = [sum(of_size) for of_size in zip(*rates, strict=False)], 0
    for i, total in enumerate(totals):
        best = i if total > GAIN * totals[best] else best
    return 1 << best


def step_seconds(spec: TrialSpec, trials: int, device: str, seconds: float) -> list[float]:
    """The times of training steps of `trials` trials, at least three, after some that warm up. On a GPU each is the
    mean of as many steps as nothing has to be waited for."""
    import torch

    from normlab.batches import as_images, draw_batches
    from normlab.graphs import WARM_UP
    from normlab.step import Step, make_network
    from normlab.worker import prepare_process

    on_gpu = torch.device(device).type == "cuda"
    prepare_process(1 if device == "cpu" else 2, device)
    info = datasets.describe(spec.data, image_size=spec.image_size)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (spec.batch_size, info.image_size, info.image_size, info.channels), np.uint8)
    labels = generator.integers(0, len(info.classes), spec.batch_size)
    data = as_images(pixels, labels, pixels="unit", reference=pixels, device=torch.device(device))
    specs = [spec.model_copy(update={"seed": seed}) for seed in range(trials)]
    step = Step(specs, make_network(specs, data, 1000), data)
    step.begin(1)
    index, warps = next(draw_batches(data, specs, 1))
    run, rates = step.runner(), torch.zeros(trials, dtype=torch.float64, device=device)
    for _ in range(WARM_UP + 1):
        run(index, warps, rates)
    started = time.perf_counter()
    float(run(index, warps, rates)[0].sum())
    one = time.perf_counter() - started
    repeats = max(1, min(GPU_STEPS, int(seconds / one))) if on_gpu else 1
    times: list[float] = []
    while len(times) < 3 or sum(times) * repeats < seconds:
        started = time.perf_counter()
        for _ in range(repeats):
            loss_T = run(index, warps, rates)[0]
        float(loss_T.sum())
        times.append((time.perf_counter() - started) / repeats)
    return times
