"""Worker processes: started, asked, heard and ended. What they are asked for is the runner's affair.

Each is a `normlab.worker`, which reads requests and answers in JSON lines; worker.py says which.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from normlab import datasets
from normlab.errors import UsageError
from normlab.grid import Trial
from normlab.plan import training_bytes
from normlab.processes import cores
from normlab.rates import best_cohort
from normlab.trial import TrialSpec

MAX_COHORT = 32  # chosen: sizes up to it are tried
CLOSING_SECONDS = 5.0  # for workers that are interrupted, to save where they stand
DEAF_SECONDS = 30.0  # chosen: between two turns of a runner that is not stopped pass fractions of a second
SILENCE_SECONDS = 900.0  # chosen: who trains sends a line every half a second; loading and compiling take less
# normlab.worker, imported without the garbage collector, which is a third of its start-up and never looks at it again.
WORKER = "import gc, sys; gc.disable(); from normlab.worker import main; gc.freeze(); gc.enable(); main(*sys.argv[1:])"


class Unmeasured(Exception):  # noqa: N818 - who asks goes on without
    """A worker failed where all were asked to measure."""


@dataclass(eq=False)
class Worker:
    """A process, the cohort it holds, and the one it was sent ahead, to go on with."""

    process: subprocess.Popen[str]
    log: Any  # its standard error
    held: list[Trial] = field(default_factory=list)
    ahead: list[Trial] = field(default_factory=list)
    started: str = ""
    joules: float | None = 0.0  # since then; None where it cannot be read
    heard: float = 0.0  # on the clock of time.monotonic, when it last said anything
    is_silent: bool = False
    progress: dict[str, Any] = field(default_factory=dict)

    def begin(self, trials: list[Trial]) -> None:
        """Holds these from now on, and nothing ahead."""
        self.held, self.ahead, self.progress, self.joules = trials, [], {}, 0.0
        self.started, self.heard = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()

    def ask(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # that it is dead will be heard
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def death(self) -> str:
        """Why the process ended, in one line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSING_SECONDS)
        self.process.kill()  # it closed its output, and hung on its way out
        code = self.process.wait()
        if self.is_silent:
            return f"the worker said nothing for {SILENCE_SECONDS:.0f} seconds and was killed"
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"the worker died: {name}{hint}{'; ' + lines[-1][:300] if lines else ''}"

    def end(self) -> None:
        """Kills it if it lives, and closes what led to it."""
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


class Pool:
    """Worker processes of a device, and what they say."""

    def __init__(self, device: str) -> None:
        self.device, self.threads = device, 1 if device == "cpu" else 2
        self.workers: list[Worker] = []
        self._lines: queue.Queue[tuple[Worker, str]] = queue.Queue()
        self._listened = time.monotonic()  # when `end_silent` was last asked

    def resize(self, count: int) -> None:
        """Starts or ends workers, none of which holds anything, until so many live."""
        for worker in [worker for worker in self.workers if worker.process.poll() is not None]:
            self.discard(worker)
        for worker in self.workers[count:]:
            self.discard(worker)
        while len(self.workers) < count:
            self.workers.append(self._start())

    def discard(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.end()

    def replace(self, worker: Worker) -> Worker:
        """A new one instead."""
        self.discard(worker)
        self.workers.append(self._start())
        return self.workers[-1]

    def hear(self, seconds: float) -> tuple[Worker, dict[str, Any]] | None:
        """What comes next from any worker, within so many seconds; the death of one is a failure that may be tried
        again."""
        until = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while True:
                worker, line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
                if worker in self.workers:  # else the end of one that was discarded
                    worker.heard = time.monotonic()
                    return worker, json.loads(line) if line else {"failed": worker.death(), "again": True}
        return None

    def measure_cohort(self, spec: TrialSpec, most: int) -> int:
        """The size of cohort, up to `most`, that is fastest for all workers together, which measure at the same time.
        Raises Unmeasured where one of them fails, once it is replaced: it may be more than the memory holds."""
        request = {
            "measure": spec.model_dump(mode="json"),
            "most": most,
            "memory": _free_bytes() / len(self.workers),
            "workers": len(self.workers),
        }
        asked, rates, has_failed = list(self.workers), list[list[float]](), False
        for worker in asked:
            worker.ask(request)
        while asked:
            heard = self.hear(SILENCE_SECONDS)
            if heard is None:
                for silent in asked:
                    silent.process.kill()
                continue
            worker, message = heard
            if worker in asked:
                asked.remove(worker)
            if "rates" in message:
                rates.append(message["rates"])
            else:
                has_failed = True
                self.replace(worker)
        if has_failed:
            raise Unmeasured
        return best_cohort(rates)

    def room(self, spec: TrialSpec) -> int:
        """How many trials like this one each worker has the memory for now, at least one. On a GPU only its workers
        can tell, when they measure."""
        if self.device != "cpu":
            return MAX_COHORT
        info = datasets.describe(spec.data, image_size=spec.image_size)
        needed = training_bytes(spec, info.channels, info.image_size)
        return max(1, int(_free_bytes() / len(self.workers) / needed))

    def end_silent(self) -> None:
        """Kills workers that hold trials and have said nothing for too long; their end is heard of as any other. Only
        time counts in which this process listened: it may have been stopped, or waited for a disk."""
        now = time.monotonic()
        if now - self._listened > DEAF_SECONDS:
            for worker in self.workers:
                worker.heard = now
        self._listened = now
        for worker in self.workers:
            if worker.held and not worker.is_silent and time.monotonic() - worker.heard > SILENCE_SECONDS:
                worker.is_silent = True
                worker.process.kill()

    def end_busy(self) -> Generator[tuple[Worker, dict[str, Any]], None, None]:
        """Ends the workers that train, after a checkpoint; gives what they had still to say. Who hears it may take what
        a worker holds from it, which is then not waited for any more."""
        busy = [worker for worker in self.workers if worker.held]
        for worker in busy:
            with contextlib.suppress(OSError):
                worker.process.terminate()
        until, living = time.monotonic() + CLOSING_SECONDS, set(busy)
        try:
            while living and (heard := self.hear(until - time.monotonic())):
                yield heard
                if "failed" in heard[1] or not heard[0].held:  # or has nothing more to say
                    living.discard(heard[0])
        finally:
            for worker in busy:
                self.discard(worker)

    def _start(self) -> Worker:
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the worker
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, self.device, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))},
            start_new_session=True,  # Ctrl-C reaches the runner, which decides
        )
        worker = Worker(process=process, log=log)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in worker.process.stdout:
                if line.endswith("\n"):  # else the worker died over it
                    self._lines.put((worker, line))
        self._lines.put((worker, ""))  # the end: the process is gone


def default_workers(device: str) -> int:
    """As many worker processes as there are cores to use; on a GPU one."""
    return cores() if device == "cpu" else 1


def resolve_device(device: str) -> str:
    """`auto` is a CUDA device where there is one, else the CPU; torch is imported only where that is in question."""
    if device == "cpu" or (device == "auto" and shutil.which("nvidia-smi") is None):
        return "cpu"
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except RuntimeError:
        kind, index = "unknown", 0
    if kind == "mps":
        raise UsageError(f"device '{device}': training sums in float64, which MPS does not have; write --device cpu")
    if kind != "cuda":
        raise UsageError(f"device '{device}' is not known; allowed: auto, cpu, cuda, cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(f"device '{device}' is not available on this machine; write --device cpu")
    if index >= torch.cuda.device_count():
        raise UsageError(
            f"device '{device}': this machine has {torch.cuda.device_count()}; write --device cuda:0 or --device cpu"
        )
    return device


def _free_bytes() -> float:
    """Half of the memory that nobody uses now."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 512.0 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError):
        return 0.25 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 1e9
