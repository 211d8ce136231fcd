"""The runner: trains what is missing of a study on worker processes, stores each result, and shows how far it is.

Workers are processes of `normlab.worker` that speak JSON lines; they train and return, and only the runner
writes the store, checkpoints apart. What is finished is never lost, and what was under way goes on in the next run from
its last checkpoint. A cohort whose worker died or fell silent gets a second try; one that fails is halved until the
trial at fault stands alone, which is failed with its reason, and the rest goes on.
"""

import contextlib
import functools
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from normlab import datasets
from normlab.datasets import cache
from normlab.grid import Trial
from normlab.plan import Plan, cohort_groups, cohort_key, cohorts, make_plan, refreshed, speed_class
from normlab.pool import MAX_COHORT, Pool, Unmeasured, Worker, default_workers, resolve_device
from normlab.provenance import EnergyMeter, accelerator, environment
from normlab.rates import known_as
from normlab.result import Result
from normlab.signals import delayed, undisturbed
from normlab.store import HEARTBEAT_SECONDS, Store, as_store
from normlab.study import Study

TICK_SECONDS = 0.5
WORTH_MEASURING = 1e10  # FLOPs a worker: a second of work, at the pace of small networks
MANY = 16  # trials a worker: of however small ones, alone each costs a tenth of a second or more
GRACE_SECONDS = 30.0  # after the deadline, to end what a step or an evaluation takes
SHORT = 1e11  # FLOPs of a cohort that is sent ahead: some ten seconds, for which no idle worker has to wait
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


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What `run` was asked for, beside what is trained where."""

    cohort: int | None
    save_weights: bool
    fail_fast: bool
    deadline: float | None  # on the clock of time.time
    checkpoint_seconds: float
    report: Callable[[RunStatus], None]
    on_epoch: Callable[[str, Mapping[str, float | None]], None] | None
    remark: Callable[[str], None]


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

    def then(self, further: "RunSummary") -> "RunSummary":
        """This and what was trained after it; what is left, and what failed, is what that left."""
        return replace(
            further,
            trained=self.trained + further.trained,
            diverged=self.diverged + further.diverged,
            already_finished=self.already_finished,
            warnings=self.warnings + further.warnings,
            seconds=self.seconds + further.seconds,
        )


def run(
    study: Study | Plan | str | Path,
    *,
    store: Store | str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    cohort: int | None = None,
    save_weights: bool = False,
    fail_fast: bool = False,
    hours: float | None = None,
    checkpoint_seconds: float = 60.0,
    report: Callable[[RunStatus], None] = lambda status: None,
    on_look: Callable[[], None] = lambda: None,
    on_remark: Callable[[str], None] = lambda remark: None,
    on_epoch: Callable[[str, Mapping[str, float | None]], None] | None = None,
) -> RunSummary:
    """Trains the missing trials of a study, by itself, its file or its name, or of a plan made of several, and stores
    their results. `store` may be its folder.

    Where a study adds seeds until its contrasts are resolved, it is trained look by look; `on_look` hears of each that
    leaves something open, `on_remark` of what should be known before a number is believed, `on_epoch` of each trial's
    id and what its curves gained, as every epoch ends. What another runner of the store left because it died is taken
    over.

    `workers` processes (default: one a core, on a GPU one) take cohorts of up to `cohort` trials, or of as many as a
    quick measurement shows to be fastest; what it found is remembered for this machine. KeyboardInterrupt
    leaves the store in order: finished trials stay, running ones are given up. After `hours` training stops between two
    steps. Training is saved every `checkpoint_seconds`, and cohorts that have a checkpoint come first.
    """
    options = _Options(
        cohort=cohort,
        save_weights=save_weights,
        fail_fast=fail_fast,
        deadline=None if hours is None else time.time() + hours * 3600,
        checkpoint_seconds=checkpoint_seconds,
        report=report,
        on_epoch=on_epoch,
        remark=functools.cache(on_remark),  # each once, however many looks there are
    )
    study = Study.load(study) if isinstance(study, str | Path) else study
    store = as_store(store)
    device = resolve_device(device)
    pool = Pool(device)
    workers = workers or default_workers(device)
    try:
        plan = study if isinstance(study, Plan) else make_plan(study, store)
        summary = _train(plan, store, pool, workers, options)
        looks = study.looks if isinstance(study, Study) else ()
        while True:  # the next look, and what a runner beside this one began and left when it died
            plan = make_plan(study, store) if isinstance(study, Study) and looks else refreshed(plan, store)
            if summary.failures or summary.left or not plan.missing():
                break
            on_look()
            further = _train(plan, store, pool, workers, options)
            summary = summary.then(further)
            if not further.trained:  # others were quicker
                plan = refreshed(plan, store)
                break
    finally:
        with undisturbed():
            pool.resize(0)
    summary.elsewhere = plan.count("running")
    if looks:  # the last has all trials, also those that were finished before they were asked for
        summary.already_finished = plan.count("finished") + plan.count("diverged") - summary.trained
    return summary


def _train(plan: Plan, store: Store, pool: Pool, workers: int, options: _Options) -> RunSummary:
    remark = options.remark
    for said in plan.said():
        remark(said)
    finished = [trial_id for trial_id, state in plan.states.items() if state == "finished"]
    if options.save_weights and (bare := sum(not store.has_weights(trial_id) for trial_id in finished)):
        remark(
            f"weights: {bare} finished trial{'s have' if bare > 1 else ' has'} none, trained without --save-weights; "
            "train in another store (--store) to have them"
        )
    wanted = {trial.id: (trial.spec.data, trial.spec.image_size or 0, trial.spec.split) for trial in plan.missing()}
    of_data: dict[tuple[str, int, str], list[str]] = {}
    for name, size, split in sorted(set(wanted.values())):  # decoded before a worker needs it
        of_data[name, size, split] = datasets.load(name, image_size=size or None).remarks(split)
        for said in of_data[name, size, split]:
            remark(said)
    remarks = {trial_id: (*plan.remarks[trial_id], *of_data[key]) for trial_id, key in wanted.items()}
    plan = replace(plan, remarks={**plan.remarks, **remarks})
    store.require_writable()
    failed = [trial.id for trial in plan.missing() if plan.states[trial.id] == "failed"]
    unreadable = {trial_id: why for trial_id in failed if (why := store.set_aside_damaged(trial_id))}
    plan = replace(plan, trials=tuple(trial for trial in plan.trials if trial.id not in unreadable))
    runner = _Run(plan, store, pool, options)
    runner.summary.failures |= unreadable
    started = time.monotonic()
    try:
        pool.resize(min(workers, len(plan.missing())))
        runner.go()
    finally:
        with undisturbed():
            runner.close()
    runner.summary.left = runner.summary.stopped + sum(map(len, runner.waiting))
    runner.summary.seconds = time.monotonic() - started
    return runner.summary


def _resumable(plan: Plan, store: Store, largest: int | None) -> list[list[Trial]]:
    """The cohorts that were begun and are of this plan, in its order; some of their trials may be finished already,
    where a runner was killed while it saved the results. Those larger than the user now allows are formed anew where
    nothing of their training is lost."""
    missing = {trial.id for trial in plan.missing()}
    position = {trial.id: i for i, trial in enumerate(plan.trials)}
    found: list[list[str]] = []
    for ids in store.cohorts_begun():
        is_untouched = all(trial_id in missing for trial_id in ids) and not store.has_checkpoint(ids)
        is_too_large = largest is not None and len(ids) > largest
        if all(plan.states.get(trial_id) in {"finished", "diverged"} for trial_id in ids) or (
            is_untouched and is_too_large
        ):
            store.remove_checkpoint(ids)
        elif (
            all(trial_id in position for trial_id in ids)
            and all(trial_id in missing or _is_of(trial_id, ids, store) for trial_id in ids)
            and not any(set(ids) & set(other) for other in found)
        ):
            found.append(ids)
    found.sort(key=lambda ids: position[ids[0]])
    return [[plan.trials[position[trial_id]] for trial_id in ids] for ids in found]


def _trained_share(result: Result) -> float:
    """Of its training, what a trial did: one that diverged ends there."""
    return 1.0 if result.diverged_epoch is None else result.diverged_epoch / result.spec.epochs


def _is_of(trial_id: str, ids: Sequence[str], store: Store) -> bool:
    """Whether a finished trial was trained in this very cohort."""
    with contextlib.suppress(ValueError):
        result = store.load(trial_id)
        return result is not None and result.provenance.get("cohort") == store.checkpoint_folder(ids).name
    return False


class _Run:
    """The state of one run: workers, what waits, what was done."""

    def __init__(self, plan: Plan, store: Store, pool: Pool, options: _Options) -> None:
        self.plan, self.store, self.pool, self.options = plan, store, pool, options
        self.waiting: list[list[Trial]] = []
        self.is_closing = False
        self.weights_folder = tempfile.mkdtemp(prefix=".weights-", dir=store.root) if options.save_weights else None
        already = plan.count("finished") + plan.count("diverged")
        self.summary = RunSummary(already_finished=already)
        self.diverged_before = plan.count("diverged")
        self.total_flops = sum(plan.flops[trial.id] for trial in plan.missing())
        self.done_flops, self.done_images = 0.0, 0
        self.claims: set[str] = set()
        self.tries: Counter[tuple[str, ...]] = Counter()  # of a cohort, by its trials
        self.resumed: dict[str, tuple[float, float]] = {}  # by trial, FLOPs and images that earlier processes did of it
        self.meter = EnergyMeter()
        self.environment = environment()  # now, before anyone edits the code while it runs
        self.first: tuple[float, float, float] | None = None  # time, images and FLOPs when a first step was known

    def go(self) -> None:
        """Serves the workers until nothing waits and nothing runs."""
        self.waiting = _resumable(self.plan, self.store, self.options.cohort)
        resumed = {trial.id for chunk in self.waiting for trial in chunk}
        self._form_cohorts([trial for trial in self.plan.missing() if trial.id not in resumed])
        for worker in list(self.pool.workers):
            self._assign(worker)
        beat = time.monotonic()
        self.meter.joules()  # what measuring took is no trial's
        while any(worker.held for worker in self.pool.workers):
            if self._is_over(GRACE_SECONDS):
                break  # and `close` ends them
            with delayed():  # what was heard is stored first, and counted
                if heard := self.pool.hear(TICK_SECONDS):
                    self._share_energy()
                    self._handle(*heard)
                self.options.report(self.status())
            self.pool.end_silent()
            if time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                self.store.beat(trial.id for worker in self.pool.workers for trial in worker.held + worker.ahead)
        self.options.report(self.status())

    def _share_energy(self) -> None:
        """What the machine used since the last time, in equal shares for the workers that hold trials."""
        joules = self.meter.joules()
        busy = [worker for worker in self.pool.workers if worker.held]
        for worker in busy:
            worker.joules = None if joules is None or worker.joules is None else worker.joules + joules / len(busy)

    def close(self) -> None:
        """Ends the workers that train, after a checkpoint, stores what they have finished, and gives up the rest."""
        self.is_closing = True
        busy = [worker for worker in self.pool.workers if worker.held]
        with contextlib.suppress(OSError), contextlib.closing(self.pool.end_busy()) as said:  # the disk may be full
            for worker, message in said:
                if "outcomes" in message:
                    self._handle(worker, message)
                    self.options.report(self.status())
        for worker in busy:
            self.summary.stopped += len(worker.held)
            self.waiting.append(worker.ahead)
        for trial_id in list(self.claims):  # also of a trial that an interrupt caught between two hands
            self._release(trial_id)
        if self.weights_folder:
            shutil.rmtree(self.weights_folder, ignore_errors=True)

    def status(self) -> RunStatus:
        busy = [worker for worker in self.pool.workers if worker.held and worker.progress]
        images, flops = self.done_images, self.done_flops
        for worker in busy:
            share = worker.progress["done_images"] / worker.progress["total_images"]
            unsaved = self._unsaved(worker.held)
            images += worker.progress["done_images"] * len(unsaved) // len(worker.held)
            flops += share * self._flops(unsaved)
        now = time.monotonic()
        own_flops = flops - sum(resumed for resumed, _ in self.resumed.values())
        own_images = images - sum(resumed for _, resumed in self.resumed.values())
        if self.first is None and own_images > 0:
            self.first = now, own_images, own_flops
        began, images_before, flops_before = self.first or (now, 0, 0.0)  # before, workers start and compile
        elapsed = now - began
        speed = (own_flops - flops_before) / elapsed if elapsed else 0.0
        losses = [w.progress["loss"] for w in busy if w.progress["loss"] is not None]
        accuracies = [w.progress["accuracy"] for w in busy if w.progress["accuracy"] is not None]
        summary = self.summary
        return RunStatus(
            total=len(self.plan.trials),
            finished=summary.already_finished + summary.trained,
            diverged=self.diverged_before + summary.diverged,
            failed=len(summary.failures),
            running=tuple(trial.id for worker in self.pool.workers for trial in worker.held),
            loss=sum(losses) / len(losses) if losses else None,
            accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
            images_per_second=(own_images - images_before) / elapsed if elapsed else 0.0,
            seconds_left=(self.total_flops - flops) / speed if speed > 0 else None,
        )

    def _assign(self, worker: Worker) -> None:
        """Gives a worker that has nothing the next cohort whose trials can all be claimed, and while it trains a short
        one another, so that it goes on without a pause."""
        while self.waiting and not self._is_over() and (not worker.held or self._may_send_ahead(worker)):
            claimed = self._claim(self.waiting.pop(0))
            if not claimed:
                continue
            ids = [trial.id for trial in claimed]
            if len(ids) > 1:
                self.store.begin_cohort(ids)
            request = {
                "specs": [trial.spec.model_dump(mode="json") for trial in claimed],
                "weights": self.weights_folder,
                "epochs": self.options.on_epoch is not None,
                "checkpoint": str(self.store.checkpoint_folder(ids).absolute()),
                "checkpoint_seconds": self.options.checkpoint_seconds,
                "deadline": self.options.deadline,
                "ahead": bool(worker.held),
            }
            if worker.held:
                worker.ahead = claimed
            else:
                worker.begin(claimed)
            worker.ask(request)

    def _may_send_ahead(self, worker: Worker) -> bool:
        """Whether a worker trains something short and has nothing ahead, and what comes next is short and leaves
        something for every other worker."""
        is_short = all(self._flops(cohort) < SHORT for cohort in (worker.held, self.waiting[0]))
        trains = bool(worker.progress) and not worker.ahead  # one that still starts does not read yet
        return trains and is_short and len(self.waiting) >= len(self.pool.workers) and not self.options.fail_fast

    def _claim(self, chunk: list[Trial]) -> list[Trial]:
        """What can be claimed of a cohort; all or none of one that was begun before, with what it has finished."""
        is_begun = self.store.checkpoint_folder([trial.id for trial in chunk]).exists()
        open_ids = [trial.id for trial in chunk if self.plan.states[trial.id] not in {"finished", "diverged"}]
        self.claims |= set(open_ids)  # before they are, so that no interrupt leaves one; what is another's stays his
        taken = set(self.store.claim(open_ids, all_or_none=is_begun))
        self.claims -= set(open_ids) - taken
        return [trial for trial in chunk if trial.id in taken or (taken and trial.id not in open_ids)]

    def _release(self, trial_id: str) -> None:
        self.store.release(trial_id)
        self.claims.discard(trial_id)

    def _take_back(self, worker: Worker) -> None:
        """Lets what a worker was sent ahead wait for another."""
        if worker.ahead:
            for trial in worker.ahead:
                self._release(trial.id)
            self.waiting.insert(0, worker.ahead)
            worker.ahead = []

    def _form_cohorts(self, missing: Sequence[Trial]) -> None:
        """Groups what is missing. Without a size from the user, each kind of trial that will take its time is tried
        out on all workers at once, as they will run; every worker then gets its share of the kind."""
        sizes: dict[tuple[object, ...], int] = {}
        for group in cohort_groups(missing):
            spec, most = group[0].spec, math.ceil(len(group) / len(self.pool.workers))
            best = self.options.cohort or 1
            if (
                self.options.cohort is None
                and most > 1
                and (most >= MANY or self._flops(group) > WORTH_MEASURING * len(self.pool.workers))
            ):
                largest = min(1 << (most - 1).bit_length(), MAX_COHORT)  # sizes are doubled
                measure = functools.partial(self.pool.measure_cohort, spec, largest)
                known = known_as("cohort", self.pool.device, len(self.pool.workers), largest, speed_class(spec))
                with contextlib.suppress(Unmeasured):  # one each then, and in the next run it is tried again
                    best = int(cache.remembered(known, lambda measure=measure: str(measure())))  # type: ignore[misc]
                best = min(best, self.pool.room(spec))  # it may be remembered of a day with more memory
            sizes[cohort_key(spec)] = best if self.options.cohort is not None else min(best, most)
        formed = cohorts(missing, lambda spec: sizes[cohort_key(spec)])
        for chunk in formed:
            if len(chunk) > 1:
                self.store.begin_cohort([trial.id for trial in chunk])
        self.waiting += formed

    def _flops(self, trials: Sequence[Trial]) -> float:
        return sum(self.plan.flops[trial.id] for trial in trials)

    def _unsaved(self, held: Sequence[Trial]) -> list[Trial]:
        """Those of a cohort that have no result yet: a runner may have been killed while it saved them."""
        return [trial for trial in held if self.plan.states[trial.id] not in {"finished", "diverged"}]

    def _is_over(self, grace_seconds: float = 0.0) -> bool:
        """Whether this run ends, or its time is up, by so much: nothing is begun any more."""
        deadline = self.options.deadline
        return self.is_closing or (deadline is not None and time.time() > deadline + grace_seconds)

    def _handle(self, worker: Worker, message: dict[str, Any]) -> None:
        if "progress" in message:
            is_first, worker.progress = not worker.progress, message["progress"]
            if is_first:
                self._count_resumed(worker.held, worker.progress)
                self._assign(worker)
            return
        if "warning" in message:  # said at once: a run that is interrupted has no summary
            self.options.remark(message["warning"])
            if message["warning"] not in self.summary.warnings:
                self.summary.warnings.append(message["warning"])
            return
        if "epoch" in message:
            if self.options.on_epoch is not None and worker.held:
                self.options.on_epoch(worker.held[message["trial"]].id, message["epoch"])
            return
        held, joules, started = worker.held, worker.joules, worker.started
        if "stopped" in message and not self._is_over():  # it was told to end, and not by this run: no fault of its own
            message = {"failed": "the worker was told to end", "again": True}
            self.tries.pop(tuple(trial.id for trial in held), None)
        if "failed" in message:
            self._take_back(worker)
        worker.begin(worker.ahead)
        if "outcomes" in message:
            ids = [trial.id for trial in held]
            outcomes = message["outcomes"]
            made = {
                "cohort_size": len(held), "cohort": self.store.checkpoint_folder(ids).name, "started": started,
                "images_per_second": round(sum(one["images"] for one in outcomes) / outcomes[0]["seconds"], 1),
            }  # fmt: skip
            if joules is not None:  # of the processor, as far as this machine tells
                made["joules"] = round(joules / len(held), 3)
            self._assign(worker)  # first, so that it trains while these are written
            pairs = zip(held, outcomes, strict=True)
            unsaved = {trial.id for trial in self._unsaved(held)}
            new = [(trial, outcome) for trial, outcome in pairs if trial.id in unsaved]
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
            if not (self.waiting and held):  # a worker that dies before it was given work would die for ever
                self.pool.discard(worker)
                return
            worker = self.pool.replace(worker)
        self._assign(worker)
        for idle in [other for other in self.pool.workers if not other.held]:
            self._assign(idle)  # what was given back may be more than one can take

    def _count_resumed(self, held: list[Trial], progress: dict[str, Any]) -> None:
        if resumed := progress["resumed_images"]:
            for trial in self._unsaved(held):
                flops = resumed / progress["total_images"] * self.plan.flops[trial.id]
                self.resumed[trial.id] = flops, resumed / len(held)

    def _save(self, some: Sequence[tuple[Trial, dict[str, Any]]], made: dict[str, Any]) -> None:
        """Stores the results of trials of one cohort, and gives them up."""
        results = [self._result(trial, outcome, made) for trial, outcome in some]
        weights = [outcome.get("weights_file") for _, outcome in some]
        files = [{"details.json": outcome["details"].encode()} for _, outcome in some]  # as the worker laid them out
        for path, beside in zip(weights, files, strict=True):
            if path:
                beside["model.safetensors"] = Path(path).read_bytes()
        self.store.save_all(list(zip(results, files, strict=True)))
        for path in filter(None, weights):
            os.unlink(path)
        for (trial, outcome), result in zip(some, results, strict=True):
            self._release(trial.id)
            self.summary.trained += 1
            self.summary.diverged += result.status == "diverged"
            flops = self.plan.flops[trial.id]
            self.done_flops += flops * _trained_share(result)
            self.total_flops -= flops * (1 - _trained_share(result))
            self.done_images += outcome["images"]

    def _result(self, trial: Trial, outcome: dict[str, Any], made: dict[str, Any]) -> Result:
        provenance = self.environment | {
            "device": self.pool.device,
            **({"gpu": gpu} if (gpu := accelerator(self.pool.device)) else {}),
            "threads": self.pool.threads,
            "workers": len(self.pool.workers),
            **made,
            "seconds": round(outcome["seconds"], 3),
            "flops": self.plan.flops[trial.id],
            **({"remarks": list(remarks)} if (remarks := self.plan.remarks[trial.id]) else {}),
        }
        return Result(
            id=trial.id,
            spec=trial.spec,
            status="finished" if outcome["diverged_epoch"] is None else "diverged",
            metrics=outcome["metrics"],
            diverged_epoch=outcome["diverged_epoch"],
            provenance=provenance,
        )

    def _fail(self, held: list[Trial], reason: str, *, again: bool) -> None:
        """Where it may, tries `again` from the last checkpoint. Else halves a cohort, so that the fault of one is not
        that of all, and fails a trial that stands alone."""
        ids = [trial.id for trial in held]
        for trial_id in ids:
            self._release(trial_id)
            self.resumed.pop(trial_id, None)  # until it goes on, if it does, nothing of it is done
        tries = self.tries[tuple(ids)] = self.tries[tuple(ids)] + 1
        if again and tries < MAX_TRIES:
            self.waiting.insert(0, held)
            return
        if not again or len(held) > 1:  # of one whose process only died, hours may be in it
            self.store.remove_checkpoint(ids)
        if len(held) > 1:
            rest = self._unsaved(held)
            self.waiting[:0] = [half for half in (rest[: len(rest) // 2], rest[len(rest) // 2 :]) if half]
            return
        (trial,) = held
        self.summary.failures[trial.id] = reason = f"{reason} ({tries} tries)" if tries > 1 else reason
        self.store.record_failure(trial.id, reason)
        self.total_flops -= self.plan.flops[trial.id]
        if self.options.fail_fast:
            self.waiting.clear()
