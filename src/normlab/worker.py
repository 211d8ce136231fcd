"""A worker process: trains the cohorts it is sent, one at a time, and sends back what was measured.

It speaks JSON lines, and may be sent a request while it serves another.

    {"specs": [...], "weights": folder or null, "checkpoint": folder, "checkpoint_seconds": between two, "deadline":
     seconds since 1970 or null, "ahead": whether sent while another is served, "epochs": whether each is told of}
    → {"progress": ...}, {"epoch": curves, "trial": place in the cohort}, {"warning": text}, and in the end
      {"outcomes": [...]}, {"stopped": true} at the deadline or after SIGTERM, with a checkpoint, or {"failed": reason},
      after which it ends

    {"measure": spec, "memory": bytes, "most": N, "workers": that measure at the same time}
    → {"rates": of 1, 2, 4, … trials of this kind, at most N, that train together}

It reads data sets from the cache and writes no results; with `weights` it leaves each trial's weights in that folder
for the runner. Started by `pool.py`.
"""

import ctypes
import functools
import json
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch

from normlab import datasets
from normlab.datasets.split import Split, split_images
from normlab.result import details_to_json
from normlab.train import train
from normlab.trial import TrialSpec
from normlab.watch import Progress, Stopped

_OVER = threading.Event()  # set by SIGTERM


def main(device: str, threads: str) -> None:
    """Serves requests on a device with so many threads, until its standard input closes."""
    channel = _claim_stdout()
    _die_with_parent()
    prepare_process(int(threads), device)
    signal.signal(signal.SIGTERM, lambda *_: _OVER.set())
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    while (line := lines.get()) and not _OVER.is_set():
        request = json.loads(line)
        try:
            if "measure" in request:
                _send(channel, {"rates": _measure(request, device)})
            elif request["ahead"] and request["deadline"] is not None and time.time() > request["deadline"]:
                raise Stopped  # not begun in time
            else:
                _send(channel, {"outcomes": _train(request, torch.device(device), channel)})
        except Stopped:
            _send(channel, {"stopped": True})
            if _OVER.is_set():
                return
        except Exception as error:  # whatever it is, it belongs to these trials alone
            traceback.print_exc()
            _send(channel, {"failed": _reason(error)})
            return  # what is left of a failure, such as its memory, goes with the process


def _listen(lines: queue.SimpleQueue[str]) -> None:
    """Reads standard input while this process trains, for a runner that sends work ahead would wait once a pipe is
    full; an empty line is its end."""
    try:
        with os.fdopen(os.dup(0)) as channel:  # of its own: sys.stdin is closed under a thread that reads it
            for line in channel:
                lines.put(line)
    finally:
        lines.put("")


def _reason(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())[:500]
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text
    return f"{'out of memory: ' if is_memory else ''}{type(error).__name__}: {text}"


def prepare_process(threads: int, device: str) -> None:
    """Settings of a process that trains on a device, with so many threads of the CPU; the same for all arms."""
    if torch.device(device).index is not None:  # graphs are captured, and memory is measured, on the current one
        torch.cuda.set_device(device)
    if torch.device(device).type == "cuda":  # as cuDNN multiplies float32 by itself: in every way of a convolution
        torch.set_float32_matmul_precision("high")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # denormals in dead parameters slow a step by up to 1.8
    if platform.libc_ver()[0] == "glibc":
        # Keep large blocks in the heap: thousands of page faults a step become none. The arithmetic is untouched.
        libc = ctypes.CDLL(None)
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # M_… in malloc.h
        for option, value in ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)):
            libc.mallopt(option, value)


def _die_with_parent() -> None:
    """On Linux, ends this process when the one that started it ends, however that comes; elsewhere the closed pipe
    does so at the next message."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG in prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _train(request: dict[str, Any], device: torch.device, channel: TextIO) -> list[dict[str, Any]]:
    specs = [TrialSpec.model_validate_json(json.dumps(spec)) for spec in request["specs"]]

    def report(progress: Progress) -> None:
        _send(channel, {"progress": asdict(progress)})

    def tell(trial: int, row: Mapping[str, float | None]) -> None:
        if request["epochs"]:
            _send(channel, {"epoch": row, "trial": trial})

    outcomes = train(
        specs,
        load_split(specs[0]),
        device=device,
        report=report,
        on_epoch=tell,
        checkpoint=Path(request["checkpoint"]) if request["checkpoint"] else None,
        deadline=request["deadline"],
        is_over=_OVER.is_set,
        checkpoint_seconds=request["checkpoint_seconds"],
        warn=lambda text: _send(channel, {"warning": text}),
    )
    replies = []
    for position, outcome in enumerate(outcomes):
        reply = {name: value for name, value in vars(outcome).items() if name != "weights"}
        assert outcome.details is not None  # whatever became of it
        reply["details"] = details_to_json(outcome.details)
        if request["weights"]:
            # A name of its own: the runner may read it while the next cohort ends.
            name = f"{os.getpid()}-{time.monotonic_ns()}-{position}"
            reply["weights_file"] = _save_weights(Path(request["weights"]) / name, outcome.weights)
        replies.append(reply)
    return replies


def _measure(request: dict[str, Any], device: str) -> list[float]:
    from normlab.rates import cohort_rates

    spec = TrialSpec.model_validate_json(json.dumps(request["measure"]))
    memory = float(request["memory"])
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()  # what was measured before is no longer used
        memory = 0.6 * torch.cuda.mem_get_info()[0] / request["workers"]
    return cohort_rates(spec, device, request["most"], memory)


def load_split(spec: TrialSpec) -> Split:
    """The images a spec trains and tests on, from the cache."""
    return _load_split(
        spec.data, spec.data_fingerprint, spec.image_size, spec.split, spec.test_fraction, spec.split_seed,
        spec.train_images, spec.test_images,
    )  # fmt: skip


@functools.lru_cache(maxsize=2)
def _load_split(
    data: str,
    fingerprint: str,
    image_size: int | None,
    split: str,
    test_fraction: float,
    split_seed: int,
    train_images: int | None,
    test_images: int | None,
) -> Split:
    images = datasets.load(data, image_size=image_size)
    if images.fingerprint != fingerprint:
        raise RuntimeError(f"data {data} changed while the study ran: {fingerprint} became {images.fingerprint}")
    return split_images(
        images,
        split=split,
        test_fraction=test_fraction,
        train_images=train_images,
        test_images=test_images,
        seed=split_seed,
    )


def _save_weights(path: Path, weights: dict[str, torch.Tensor]) -> str:
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path)
    return str(path)


def _claim_stdout() -> TextIO:
    """Standard output as the channel; whatever a library prints from now on goes to standard error."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def _send(channel: TextIO, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()
