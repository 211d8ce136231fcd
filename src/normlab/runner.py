"""The runner: trains what is missing of a study on worker processes, stores each result, and shows how far it is.

Workers are processes of `normlab.worker` that speak JSON lines; they train and return, and only the runner
writes the store, checkpoints apart. What is finished is never lost, and what was under way goes on in the next run from
its last checkpoint. A cohort whose worker died or fell silent gets a second try; one that fails is halved until the
trial at fault stands alone, which is failed with its reason, and the rest goes on.
"""

import contextlib
import functools
import json
import math
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from normlab import datasets
from normlab.datasets import cache
from normlab.errors import UsageError
from normlab.grid import Trial
from normlab.plan import Plan, cohort_groups, cohort_key, cohorts, make_plan, refreshed, speed_class
from normlab.processes import cores
from normlab.provenance import EnergyMeter, environment
from normlab.rates import known_as
from normlab.result import Result, details_from_tree
from normlab.store import HEARTBEAT_SECONDS, Store
from normlab.study import Study
from normlab.trial import TrialSpec

TICK_SECONDS = 0.5
MAX_COHORT = 32
WORTH_MEASURING = 1e10  # FLOPs a worker: a second of work, at the pace of small networks
MANY = 16  # trials a worker: of however small ones, alone each costs a tenth of a second or more
GRACE_SECONDS = 30.0  # after the deadline, to end what a step or an evaluation takes
CLOSING_SECONDS = 5.0  # for workers that are interrupted, to save where they stand
SILENCE_SECONDS = 900.0  # chosen: a worker sends a line with every batch that takes longer than half a second
# normlab.worker, imported without the garbage collector, which is a third of its start-up and never looks at it again.
WORKER = "import gc, sys; gc.disable(); from normlab.worker import main; gc.freeze(); gc.enable(); main(*sys.argv[1:])"
MAX_TRIES = 2  # where a worker died or fell silent; an error of the trial's own would only come again


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run is; `seconds_left` is None before there is anything to go by."""

    total: int
    finished: int  # in this run and before
    diverged: int
    failed: int
    running: tuple[str, ...]
    loss: float | None
    accuracy: float | None
    images_per_second: float
    seconds_left: float | None


@dataclass(kw_only=True)
class RunSummary:
    trained: int = 0
    diverged: int = 0
    already_finished: int = 0
    elsewhere: int = 0  # with another runner in the end
    stopped: int = 0  # by the time limit, in their training; they stay missing
    left: int = 0  # by the time limit, those stopped and those never begun
    failures: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(
    study: Study | Plan,
    *,
    store: Store | None = None,
    workers: int | None = None,
    device: str = "auto",
    cohort: int | None = None,
    save_weights: bool = False,
    fail_fast: bool = False,
    hours: float | None = None,
    checkpoint_seconds: float = 60.0,
    report: Callable[[RunStatus], None] = lambda status: None,
    on_look: Callable[[], None] = lambda: None,
    on_epoch: Callable[[str, Mapping[str, float | None]], None] | None = None,
) -> RunSummary:
    """Trains the missing trials of a study, or of a plan made of several, and stores their results.

    Where a study adds seeds until its contrasts are resolved, it is trained look by look; `on_look` hears of each that
    leaves something open. `on_epoch` hears of each trial's id and what its curves gained, as every epoch ends. What
    another runner of the store left because it died is taken over.

    `workers` processes (default: one a core, on a GPU one) take cohorts of up to `cohort` trials, or of as many as a
    quick measurement shows to be fastest; what it found is remembered for this machine. KeyboardInterrupt
    leaves the store in order: finished trials stay, running ones are given up. After `hours` training stops between two
    steps. Training is saved every `checkpoint_seconds`, and cohorts that have a checkpoint come first.
    """
    deadline = None if hours is None else time.time() + hours * 3600
    store = store or Store.default()
    device = resolve_device(device)
    count = workers or default_workers(device)
    train = functools.partial(
        _train, store=store, workers=count, cohort=cohort, device=device, save_weights=save_weights,
        fail_fast=fail_fast, deadline=deadline, checkpoint_seconds=checkpoint_seconds, report=report, on_epoch=on_epoch,
    )  # fmt: skip
    plan = study if isinstance(study, Plan) else make_plan(study, store)
    summary = train(plan)
    while True:  # the next look, and what a runner beside this one began and left when it died
        plan = refreshed(plan, store) if isinstance(study, Plan) else make_plan(study, store)
        if summary.failures or summary.left or not plan.missing():
            break
        on_look()
        further = train(plan)
        summary = replace(
            further,
            trained=summary.trained + further.trained,
            diverged=summary.diverged + further.diverged,
            already_finished=summary.already_finished,
            warnings=summary.warnings + further.warnings,
            seconds=summary.seconds + further.seconds,
        )
        if not further.trained:  # others were quicker
            break
    summary.elsewhere = plan.count("running")
    return summary


def _train(
    plan: Plan,
    *,
    store: Store,
    workers: int,
    cohort: int | None,
    device: str,
    save_weights: bool,
    fail_fast: bool,
    deadline: float | None,
    checkpoint_seconds: float,
    report: Callable[[RunStatus], None],
    on_epoch: Callable[[str, Mapping[str, float | None]], None] | None,
) -> RunSummary:
    for data in sorted({(t.spec.data, t.spec.image_size or 0) for t in plan.missing()}):
        datasets.load(data[0], image_size=data[1] or None)  # decoded once, before any worker needs it
    store.require_writable()
    for trial in plan.missing():
        if plan.states[trial.id] == "failed":
            store.set_aside_damaged(trial.id)
    runner = _Run(
        plan,
        store,
        workers=min(workers, len(plan.missing())),
        cohort=cohort,
        device=device,
        save_weights=save_weights,
        fail_fast=fail_fast,
        deadline=deadline,
        checkpoint_seconds=checkpoint_seconds,
        report=report,
        on_epoch=on_epoch,
    )
    started = time.monotonic()
    try:
        runner.go()
        runner.summary.left = runner.summary.stopped + sum(map(len, runner.waiting))
    finally:
        with _undisturbed():
            runner.close()
        runner.summary.seconds = time.monotonic() - started
    return runner.summary


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Lets no second Ctrl-C or SIGTERM come between a first and an orderly end, which takes seconds at most."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {which: signal.signal(which, signal.SIG_IGN) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler if handler is not None else signal.SIG_DFL)


def _resumable(plan: Plan, store: Store) -> list[list[Trial]]:
    """The cohorts that were begun and are of this plan, in its order; some of their trials may be finished already,
    where a runner was killed while it saved the results."""
    missing = {trial.id for trial in plan.missing()}
    position = {trial.id: i for i, trial in enumerate(plan.trials)}
    found: list[list[str]] = []
    for ids in store.cohorts_begun():
        if all(plan.states.get(trial_id) in {"finished", "diverged"} for trial_id in ids):
            store.remove_checkpoint(ids)
        elif (
            all(trial_id in position for trial_id in ids)
            and all(trial_id in missing or _is_of(trial_id, ids, store) for trial_id in ids)
            and not any(set(ids) & set(other) for other in found)
        ):
            found.append(ids)
    found.sort(key=lambda ids: position[ids[0]])
    return [[plan.trials[position[trial_id]] for trial_id in ids] for ids in found]


def _is_of(trial_id: str, ids: Sequence[str], store: Store) -> bool:
    """Whether a finished trial was trained in this very cohort."""
    with contextlib.suppress(ValueError):
        result = store.load(trial_id)
        return result is not None and result.provenance.get("cohort") == store.checkpoint_folder(ids).name
    return False


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
        kind = torch.device(device).type
    except RuntimeError:
        kind = "unknown"
    if kind not in {"cuda", "mps"}:
        raise UsageError(f"device '{device}' is not known; allowed: auto, cpu, cuda, cuda:N, mps")
    if not (torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()):
        raise UsageError(f"device '{device}' is not available on this machine; write --device cpu")
    return device


@dataclass
class _Worker:
    """A process and the cohort it holds."""

    process: subprocess.Popen[str]
    log: Any
    held: list[Trial] = field(default_factory=list)
    started: str = ""
    joules: float | None = 0.0  # since then; None where it cannot be read
    heard: float = 0.0  # on the clock of time.monotonic, when it last said anything
    is_silent: bool = False
    progress: dict[str, Any] = field(default_factory=dict)


class _Run:
    """The state of one run: workers, what waits, what was done."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        workers: int,
        cohort: int | None,
        device: str,
        save_weights: bool,
        fail_fast: bool,
        deadline: float | None,
        checkpoint_seconds: float,
        report: Callable[[RunStatus], None],
        on_epoch: Callable[[str, Mapping[str, float | None]], None] | None,
    ) -> None:
        self.plan, self.store, self.num_workers, self.cohort = plan, store, workers, cohort
        self.waiting: list[list[Trial]] = []
        self.device, self.fail_fast, self.deadline, self.report = device, fail_fast, deadline, report
        self.checkpoint_seconds, self.on_epoch = checkpoint_seconds, on_epoch
        self.weights_folder = tempfile.mkdtemp(prefix=".weights-", dir=store.root) if save_weights else None
        self.workers: list[_Worker] = []
        self.messages: queue.Queue[tuple[_Worker, str]] = queue.Queue()
        already = plan.count("finished") + plan.count("diverged")
        self.summary = RunSummary(already_finished=already)
        self.diverged_before = plan.count("diverged")
        self.total_flops = sum(plan.flops[trial.id] for trial in plan.missing())
        self.done_flops, self.done_images = 0.0, 0
        self.claims: set[str] = set()
        self.tries: Counter[tuple[str, ...]] = Counter()  # of a cohort, by its trials
        self.resumed_flops, self.resumed_images = 0.0, 0  # of those done, what earlier runs did
        self.meter = EnergyMeter()
        self.environment = environment()  # now, before anyone edits the code while it runs
        self.began = time.monotonic()

    def go(self) -> None:
        """Starts workers and serves them until nothing waits and nothing runs."""
        for _ in range(self.num_workers):
            self.workers.append(self._start_worker())
        self.waiting = _resumable(self.plan, self.store)
        resumed = {trial.id for chunk in self.waiting for trial in chunk}
        self._form_cohorts([trial for trial in self.plan.missing() if trial.id not in resumed])
        for worker in list(self.workers):
            self._assign(worker)
        beat = time.monotonic()
        while any(worker.held for worker in self.workers):
            if self._is_over(GRACE_SECONDS):
                self.summary.stopped += sum(len(worker.held) for worker in self.workers)
                break  # and `close` ends them
            with contextlib.suppress(queue.Empty):
                worker, line = self.messages.get(timeout=TICK_SECONDS)
                self._share_energy()
                self._handle(worker, line)
            self._end_silent()
            if time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                self.store.beat(trial.id for worker in self.workers for trial in worker.held)
            self.report(self.status())
        self.report(self.status())

    def _end_silent(self) -> None:
        """Kills workers that hold trials and have said nothing for too long; their end is heard of as any other."""
        for worker in self.workers:
            if worker.held and not worker.is_silent and time.monotonic() - worker.heard > SILENCE_SECONDS:
                worker.is_silent = True
                worker.process.kill()

    def _share_energy(self) -> None:
        """What the machine used since the last time, in equal shares for the workers that hold trials."""
        joules = self.meter.joules()
        busy = [worker for worker in self.workers if worker.held]
        for worker in busy:
            worker.joules = None if joules is None or worker.joules is None else worker.joules + joules / len(busy)

    def close(self) -> None:
        """Ends all workers, those that train after a checkpoint, and gives up what they still hold."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.process.terminate() if worker.held else worker.process.kill()
        until = time.monotonic() + CLOSING_SECONDS
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, until - time.monotonic()))
            _end(worker)
        for trial_id in list(self.claims):  # also of a trial that an interrupt caught between two hands
            self._release(trial_id)
        if self.weights_folder:
            shutil.rmtree(self.weights_folder, ignore_errors=True)

    def status(self) -> RunStatus:
        elapsed = time.monotonic() - self.began
        busy = [worker for worker in self.workers if worker.held and worker.progress]
        images = self.done_images + sum(w.progress["done_images"] for w in busy)
        flops = self.done_flops
        for worker in busy:
            share = worker.progress["done_images"] / worker.progress["total_images"]
            flops += share * sum(self.plan.flops[trial.id] for trial in worker.held)
        speed = (flops - self.resumed_flops) / elapsed if elapsed else 0.0
        losses = [w.progress["loss"] for w in busy if w.progress["loss"] is not None]
        accuracies = [w.progress["accuracy"] for w in busy if w.progress["accuracy"] is not None]
        summary = self.summary
        return RunStatus(
            total=len(self.plan.trials),
            finished=summary.already_finished + summary.trained,
            diverged=self.diverged_before + summary.diverged,
            failed=len(summary.failures),
            running=tuple(trial.id for worker in self.workers for trial in worker.held),
            loss=sum(losses) / len(losses) if losses else None,
            accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
            images_per_second=(images - self.resumed_images) / elapsed if elapsed else 0.0,
            seconds_left=(self.total_flops - flops) / speed if speed > 0 else None,
        )

    def _start_worker(self) -> _Worker:
        threads = 1 if self.device == "cpu" else 2
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the worker
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, self.device, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C reaches the runner, which decides
        )
        worker = _Worker(process=process, log=log)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in worker.process.stdout:
                if line.endswith("\n"):  # else the worker died over it
                    self.messages.put((worker, line))
        self.messages.put((worker, ""))  # the end: the process is gone

    def _assign(self, worker: _Worker) -> None:
        """Gives a worker the next cohort whose trials can all be claimed."""
        for chunk in self._next_chunks():
            claimed = self._claim(chunk)
            if not claimed:
                continue
            if len(claimed) > 1:
                self.store.begin_cohort([trial.id for trial in claimed])
            worker.held, worker.progress, worker.joules, worker.heard = claimed, {}, 0.0, time.monotonic()
            worker.started = datetime.now(UTC).isoformat(timespec="seconds")
            specs = [trial.spec.model_dump(mode="json") for trial in claimed]
            checkpoint = str(self.store.checkpoint_folder([trial.id for trial in claimed]).absolute())
            request: dict[str, Any] = {
                "specs": specs,
                "weights": self.weights_folder,
                "epochs": self.on_epoch is not None,
            }
            request |= {"checkpoint": checkpoint, "checkpoint_seconds": self.checkpoint_seconds}
            _ask(worker, request | {"deadline": self.deadline})
            return

    def _claim(self, chunk: list[Trial]) -> list[Trial]:
        """What can be claimed of a cohort; all or none of one that was begun before, with what it has finished."""
        is_begun = self.store.checkpoint_folder([trial.id for trial in chunk]).exists()
        open_ids = [trial.id for trial in chunk if self.plan.states[trial.id] not in {"finished", "diverged"}]
        taken = set(self.store.claim(open_ids, all_or_none=is_begun))
        self.claims |= taken
        return [trial for trial in chunk if trial.id in taken or (taken and trial.id not in open_ids)]

    def _release(self, trial_id: str) -> None:
        self.store.release(trial_id)
        self.claims.discard(trial_id)

    def _next_chunks(self) -> Iterator[list[Trial]]:
        while self.waiting and not self._is_over():
            yield self.waiting.pop(0)

    def _form_cohorts(self, missing: Sequence[Trial]) -> None:
        """Groups what is missing. Without a size from the user, each kind of trial that will take its time is tried
        out on all workers at once, as they will run; every worker then gets its share of the kind."""
        sizes: dict[tuple[object, ...], int] = {}
        for group in cohort_groups(missing):
            spec, most = group[0].spec, math.ceil(len(group) / self.num_workers)
            best = self.cohort or 1
            if (
                self.cohort is None
                and most > 1
                and (
                    most >= MANY
                    or sum(self.plan.flops[trial.id] for trial in group) > WORTH_MEASURING * self.num_workers
                )
            ):
                known = known_as("cohort", self.device, self.num_workers, speed_class(spec))
                best = int(cache.remembered(known, lambda spec=spec: str(self._measure(spec))))  # type: ignore[misc]
            sizes[cohort_key(spec)] = best if self.cohort is not None else min(best, most)
        formed = cohorts(missing, lambda spec: sizes[cohort_key(spec)])
        for chunk in formed:
            if len(chunk) > 1:
                self.store.begin_cohort([trial.id for trial in chunk])
        self.waiting += formed

    def _measure(self, spec: TrialSpec) -> int:
        """The size of cohort that most workers, measuring at the same time, find fastest."""
        request = {
            "measure": spec.model_dump(mode="json"),
            "most": MAX_COHORT,
            "memory": _free_bytes() / self.num_workers,
        }
        for worker in self.workers:
            _ask(worker, request)
        asked = list(self.workers)
        answers: list[int] = []
        while asked:
            try:
                worker, line = self.messages.get(timeout=SILENCE_SECONDS)
            except queue.Empty:
                for silent in asked:
                    silent.process.kill()
                continue
            if worker in asked:
                asked.remove(worker)
                message = json.loads(line) if line else {}
                answers.append(message.get("cohort", 1))  # what failed or died is left alone
                if "cohort" not in message:
                    _end(worker)
                    self.workers[self.workers.index(worker)] = self._start_worker()
        return statistics.median_low(answers)

    def _is_over(self, grace_seconds: float = 0.0) -> bool:
        return self.deadline is not None and time.time() > self.deadline + grace_seconds

    def _handle(self, worker: _Worker, line: str) -> None:
        if worker not in self.workers:
            return
        worker.heard = time.monotonic()
        message: dict[str, Any] = json.loads(line) if line else {"failed": _death(worker), "again": True}
        if "progress" in message:
            if not worker.progress:
                self._count_resumed(worker.held, message["progress"])
            worker.progress = message["progress"]
            return
        if "warning" in message:
            self.summary.warnings.append(message["warning"])
            return
        if "epoch" in message:
            if self.on_epoch is not None and worker.held:
                self.on_epoch(worker.held[message["trial"]].id, message["epoch"])
            return
        held, worker.held = worker.held, []
        if "outcomes" in message:
            ids, joules = [trial.id for trial in held], worker.joules
            made = {
                "cohort_size": len(held), "cohort": self.store.checkpoint_folder(ids).name, "started": worker.started,
            }  # fmt: skip
            if joules is not None:  # of the processor, as far as this machine tells
                made["joules"] = round(joules / len(held), 3)
            self._assign(worker)  # first, so that it trains while these are written
            pairs = zip(held, message["outcomes"], strict=True)
            new = [(t, outcome) for t, outcome in pairs if self.plan.states[t.id] not in {"finished", "diverged"}]
            # Together, as the disk likes them; with weights one by one, as memory does.
            for some in [[pair] for pair in new] if self.weights_folder else [new]:
                self._save(some, made)
            self.store.remove_checkpoint(ids)
            return
        if "stopped" in message:
            for trial in held:
                self._release(trial.id)
            self.summary.stopped += len(held)
        elif held:
            self._fail(held, message["failed"], again="again" in message)
        if "failed" in message:  # it is gone, or ends itself
            self.workers.remove(worker)
            _end(worker)
            if not (self.waiting and held):  # a worker that dies before it was given work would die for ever
                return
            worker = self._start_worker()
            self.workers.append(worker)
        self._assign(worker)

    def _count_resumed(self, held: list[Trial], progress: dict[str, Any]) -> None:
        share = progress["resumed_images"] / progress["total_images"]
        self.resumed_images += progress["resumed_images"]
        self.resumed_flops += share * sum(self.plan.flops[trial.id] for trial in held)

    def _save(self, some: Sequence[tuple[Trial, dict[str, Any]]], made: dict[str, Any]) -> None:
        """Stores the results of trials of one cohort, and gives them up."""
        results = [self._result(trial, outcome, made) for trial, outcome in some]
        weights = [outcome.get("weights_file") for _, outcome in some]
        files = [{"model.safetensors": Path(path).read_bytes()} if path else {} for path in weights]
        self.store.save_all(list(zip(results, files, strict=True)))
        for path in filter(None, weights):
            os.unlink(path)
        for (trial, outcome), result in zip(some, results, strict=True):
            self._release(trial.id)
            self.summary.trained += 1
            self.summary.diverged += result.status == "diverged"
            self.done_flops += self.plan.flops[trial.id]
            self.done_images += outcome["images"]

    def _result(self, trial: Trial, outcome: dict[str, Any], made: dict[str, Any]) -> Result:
        provenance = self.environment | {
            "device": self.device,
            "threads": 1 if self.device == "cpu" else 2,
            "workers": len(self.workers),
            **made,
            "seconds": round(outcome["seconds"], 3),
            "images_per_second": round(outcome["images"] * made["cohort_size"] / outcome["seconds"], 1),
            "flops": self.plan.flops[trial.id],
        }
        return Result(
            id=trial.id,
            spec=trial.spec,
            status="finished" if outcome["diverged_epoch"] is None else "diverged",
            metrics=outcome["metrics"],
            diverged_epoch=outcome["diverged_epoch"],
            provenance=provenance,
            details=details_from_tree(outcome["details"]),
        )

    def _fail(self, held: list[Trial], reason: str, *, again: bool) -> None:
        """Where it may, tries `again` from the last checkpoint. Else halves a cohort, so that the fault of one is not
        that of all, and fails a trial that stands alone."""
        ids = [trial.id for trial in held]
        for trial_id in ids:
            self._release(trial_id)
        tries = self.tries[tuple(ids)] = self.tries[tuple(ids)] + 1
        if again and tries < MAX_TRIES:
            self.waiting.insert(0, held)
            return
        self.store.remove_checkpoint(ids)
        if len(held) > 1:
            rest = [trial for trial in held if self.plan.states[trial.id] not in {"finished", "diverged"}]
            self.waiting[:0] = [half for half in (rest[: len(rest) // 2], rest[len(rest) // 2 :]) if half]
            return
        (trial,) = held
        self.summary.failures[trial.id] = reason = f"{reason} ({tries} tries)" if tries > 1 else reason
        self.store.record_failure(trial.id, reason)
        self.done_flops += self.plan.flops[trial.id]
        if self.fail_fast:
            self.waiting.clear()


def _ask(worker: _Worker, request: dict[str, Any]) -> None:
    assert worker.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # a dead worker is heard of by its listener
        worker.process.stdin.write(json.dumps(request) + "\n")
        worker.process.stdin.flush()


def _end(worker: _Worker) -> None:
    """Kills a worker if it lives, and closes what led to it."""
    with contextlib.suppress(OSError):
        worker.process.kill()
    worker.process.wait()
    for pipe in (worker.process.stdin, worker.process.stdout, worker.log):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


def _free_bytes() -> float:
    """Half of the memory that nobody uses now."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 512.0 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError):
        return 0.25 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 1e9


def _death(worker: _Worker) -> str:
    """Why a worker process ended, in one line."""
    code = worker.process.wait()
    if worker.is_silent:
        return f"the worker said nothing for {SILENCE_SECONDS:.0f} seconds and was killed"
    worker.log.seek(0)
    lines = [line.strip() for line in worker.log.read().splitlines() if line.strip()]
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"the worker died: {name}{hint}{'; ' + lines[-1][:300] if lines else ''}"
