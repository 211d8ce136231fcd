"""Thousands of results read by several processes: making sense of that many small files keeps one core busy for long.

A process forked from this one knows the trials already, reads some of them, and sends what it found. It is help and no
more: what it does not send, for whatever reason, is read by who asked.
"""

import contextlib
import io
import itertools
import marshal
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from normlab.processes import CAN_FORK, cores
from normlab.result import Result
from normlab.store import Store
from normlab.trial import TrialSpec

FEW = 2_000  # chosen: results that are read before another process had begun
MOST_PROCESSES = 4  # chosen: with more, this one would only take in what they found
SHARES = 200  # chosen: a process takes a two-hundredth at a time; at most 256, which a byte can number

Results = dict[str, Result]
Specs = Mapping[str, TrialSpec]


def load_all(store: Store, specs: Specs, *, meanwhile: Callable[[], object] = lambda: None) -> Results:
    """The results of these trials, by id; what is missing, or cannot be read, is left out. `meanwhile` is what this
    process does first while the others read."""
    ids = list(specs)
    size = -(-len(ids) // SHARES) or 1
    shares = [ids[i : i + size] for i in range(0, len(ids), size)]
    numbers: IO[bytes] = io.BytesIO(bytes(range(len(shares))))  # of shares, each of which one process takes

    def read() -> Iterator[Results]:
        while number := numbers.read(1):
            yield _read(store, shares[number[0]])

    with contextlib.ExitStack() as stack:
        helpers = []
        with contextlib.suppress(OSError):  # there is no memory left, or there are too many processes or open files
            num_helpers = _num_helpers(len(ids))
            numbers = stack.enter_context(_shared(numbers)) if num_helpers else numbers
            for _ in range(num_helpers):
                helpers.append(
                    stack.enter_context(_helper(lambda: marshal.dumps([_packed(part, specs) for part in read()])))
                )
        meanwhile()
        found: Results = {}
        for part in read():
            found |= part
        for answer in helpers:
            found |= _unpacked(answer.read(), specs)
    return found


@contextlib.contextmanager
def _shared(content: IO[bytes]) -> Iterator[IO[bytes]]:
    """The same bytes, of which processes that are forked from this one each read others."""
    source, target = os.pipe()
    with open(source, "rb", buffering=0) as shared:
        with open(target, "wb", buffering=0) as ours:
            ours.write(content.read())
        yield shared


def _num_helpers(count: int) -> int:
    """None where Python knows of threads: a fork of their process could wait for a lock that nobody holds any more."""
    return min(cores(), MOST_PROCESSES) - 1 if count > FEW and CAN_FORK and threading.active_count() == 1 else 0


def _read(store: Store, ids: list[str]) -> Results:
    found = {}
    for trial_id in ids:
        with contextlib.suppress(ValueError):
            result = store.load(trial_id)
            if result is not None:
                found[trial_id] = result
    return found


@contextlib.contextmanager
def _helper(work: Callable[[], bytes]) -> Iterator[IO[bytes]]:
    """Where another process writes what the work results in, or a part of that, or nothing."""
    source, target = os.pipe()
    me, pid = os.getpid(), None
    with open(source, "rb") as answer, open(target, "wb") as ours:
        try:
            with warnings.catch_warnings():  # of threads that Python does not know of, such as OpenBLAS's
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                answer.close()  # so that it ends when nobody else reads
                ours.write(work())
                ours.flush()
                os._exit(0)
            ours.close()
            yield answer
        finally:
            if os.getpid() != me:  # nothing of the other process's is left to do, and nothing to be said
                os._exit(0)
            if pid is not None:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def _packed(results: Results, specs: Specs) -> bytes:
    """Results as bytes, without the specs that both sides know: they take as long to send as to read."""
    return marshal.dumps(
        [
            (
                *(found.id, found.status, dict(found.metrics), found.diverged_epoch, found.provenance, found.files),
                None if found.spec == specs[found.id] else found.spec.model_dump_json(),
            )
            for found in results.values()
        ]
    )


def _unpacked(content: bytes, specs: Specs) -> Results:
    try:
        rows = list(itertools.chain.from_iterable(map(marshal.loads, marshal.loads(content))))
    except (EOFError, ValueError, TypeError):  # it ended before it was done
        return {}
    found = {}
    for trial_id, status, metrics, diverged_epoch, provenance, files, spec in rows:
        found[trial_id] = Result(
            id=trial_id, spec=specs[trial_id] if spec is None else TrialSpec.model_validate_json(spec), status=status,
            metrics=metrics, diverged_epoch=diverged_epoch, provenance=provenance, files=files,
        )  # fmt: skip
    return found
