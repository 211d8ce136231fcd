"""How fast this machine trains: from earlier results of a study, else measured for a second. For plans alone."""

import time
from collections.abc import Callable, Iterable

import numpy as np

from normlab.grid import Trial
from normlab.notation import forward_macs
from normlab.plan import FLOPS_PER_MAC, TRAINING_PASSES, speed_class
from normlab.provenance import processor
from normlab.store import Store
from normlab.trial import TrialSpec

MEASURE_SECONDS = 1.0
MAX_MEASURED = 6  # classes of trials that are measured; further ones borrow the median rate


def worker_rates(store: Store, trials: Iterable[Trial], device: str) -> Callable[[TrialSpec], float]:
    """A function from a spec to the FLOP/s that one worker process reaches on it."""
    known: dict[tuple[object, ...], list[float]] = {}
    wanted: dict[tuple[object, ...], TrialSpec] = {}
    for trial in trials:
        key = speed_class(trial.spec)
        wanted.setdefault(key, trial.spec)
        try:
            result = store.load(trial.id)
        except ValueError:
            continue
        if result is None:
            continue
        source = result.provenance
        if source.get("processor") == processor() and source.get("device") == device and source.get("seconds"):
            rate = source["flops"] * source["cohort_size"] / source["seconds"]
            known.setdefault(key, []).append(rate)
    rates = {key: float(np.median(found)) for key, found in known.items()}
    for key, spec in wanted.items():
        if key not in rates and len(rates) < MAX_MEASURED:
            rates[key] = measure_rate(spec, device)
    typical = float(np.median(list(rates.values()))) if rates else 1.0
    return lambda spec: rates.get(speed_class(spec), typical)


def measure_rate(spec: TrialSpec, device: str) -> float:
    """FLOP/s of training steps of one trial on random images, one thread, after two steps of warm-up."""
    import torch

    from normlab import datasets
    from normlab.batches import as_images
    from normlab.train import Step, make_network
    from normlab.worker import prepare_process

    prepare_process(1 if device == "cpu" else 2)
    info = datasets.describe(spec.data, image_size=spec.image_size)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (spec.batch_size, info.image_size, info.image_size, info.channels), np.uint8)
    labels = generator.integers(0, len(info.classes), spec.batch_size)
    data = as_images(pixels, labels, pixels="unit", reference=pixels, device=torch.device(device))
    step = Step([spec], make_network([spec], data, 1000), torch.device(device))
    index = torch.arange(spec.batch_size, device=device).expand(1, -1)
    done, started = -2, time.perf_counter()
    while done < 1 or time.perf_counter() - started < MEASURE_SECONDS:
        if done == 0:
            started = time.perf_counter()
        float(step(data.inputs(index), data.labels[index].T, [0.0])[0].sum())
        done += 1
    seconds = (time.perf_counter() - started) / done
    macs = forward_macs(spec.network, info.channels, info.image_size)
    return FLOPS_PER_MAC * TRAINING_PASSES * macs * spec.batch_size / seconds
