"""The table of a study: its arms and contrasts joined with what the store holds, with intervals.

A study in, `StudyTable` out: every trial is finished, diverged, running, missing, failed or damaged, every arm has the
statistics of what is there, and every contrast its difference. `rows` and `wording` arrange them. Imports no torch.
"""

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from normlab import special
from normlab.errors import UsageError
from normlab.grid import Arm, Contrast, Trial, contrasts, trials_by_arm
from normlab.loading import load_all
from normlab.notation import num_classes, parse_notation
from normlab.result import Details, Result
from normlab.sequential import Progress, Resolution, follow, nominal_levels
from normlab.stats import (
    LEVEL,
    Difference,
    Mean,
    SharedSeeds,
    Superiority,
    compare,
    divergence_p,
    equivalence_p,
    holm,
    mean_interval,
    score,
    seeds_for_equivalence,
    seeds_needed,
    shared_seeds,
    smallest_difference,
    superiority,
    t_test_p,
    verdict,
)
from normlab.store import Store
from normlab.study import Study
from normlab.trial import KEEPS_AVERAGES, TrialSpec

PROBES = ("dead_channels", "gradient_spread", "gradient_spread_initial")  # metrics without a chance level
OF_AVERAGES = ("test_accuracy_recomputed", "test_accuracy_batch")  # measured where a norm keeps any

MAX_NAMED = 3  # chosen: damaged files that are named one by one

State = Literal["finished", "diverged", "running", "missing", "failed", "damaged"]
STATES: tuple[State, ...] = ("finished", "diverged", "running", "missing", "failed", "damaged")


class DamagedWarning(UserWarning):
    """Something is left out, because what a result holds of it is damaged."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of an arm. `score` is its accuracy, or chance where it diverged; None where there is none yet."""

    trial: Trial
    state: State
    reason: str = ""  # of a failure, of damage, or why a result has no score
    result: Result | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class ArmRecord:
    """An arm, its trials by seed, and the statistics of those that have a score."""

    arm: Arm
    trials: tuple[TrialRecord, ...]
    mean: Mean | None

    @property
    def spec(self) -> TrialSpec:
        return self.trials[0].trial.spec

    @functools.cached_property
    def scores(self) -> dict[int, float]:
        """Scores by seed."""
        return {t.trial.spec.seed: t.score for t in self.trials if t.score is not None}

    @functools.cached_property
    def num_test(self) -> int | None:
        """Test images of the arm's results; None before there is one."""
        counts = [t.result.metrics["num_test"] for t in self.trials if t.result and "num_test" in t.result.metrics]
        return int(counts[0]) if counts else None

    @functools.cached_property
    def num_classes(self) -> int:
        return num_classes(parse_notation(self.spec.network))

    @functools.cached_property
    def _counts(self) -> Counter[State]:
        return Counter(t.state for t in self.trials)

    def count(self, state: State) -> int:
        return self._counts[state]


@dataclass(frozen=True, kw_only=True)
class ContrastRecord:
    """Two arms, the first minus the second. `difference` is None while one of them has no score."""

    contrast: Contrast
    first: ArmRecord
    second: ArmRecord
    difference: Difference | None
    shared: SharedSeeds
    divergence_p: float | None  # None where no trial of either arm diverged
    superiority: Superiority | None = None
    p: float | None = None  # of the t test
    corrected_p: float | None = None  # after Holm, over the planned contrasts or over the exploratory ones
    corrected_equivalence_p: float | None = None  # of two one-sided tests, likewise; None without a margin
    alpha: float = 1 - LEVEL  # that a test among those still open must pass: Holm's first step, at the last look if any
    equivalence_alpha: float = 1 - LEVEL  # the same among the tests of equivalence
    sequential: Resolution | Literal["open", "ended"] | None = None  # in a study that adds seeds: it decides
    chosen_on: tuple[int, ...] = ()  # the seeds that chose each arm's best level; the other seeds are compared
    same_at_all: bool = False  # of a contrast with `best`: whether its arms are the same trials at every level of that

    @functools.cached_property
    def same_trials(self) -> bool:
        """Whether both arms are the same trials, their levels having no effect beside the other settings."""
        return self.same_at_all if self.contrast.best is not None else _are_same(self.first, self.second)

    @functools.cached_property
    def verdict(self) -> str:
        """What may be said after correction for the number of comparisons."""
        if self.same_trials:
            return "same trials"
        if self.difference is None:
            return "n too small to say"
        if isinstance(self.sequential, Resolution):
            return "better" if self.sequential.higher else "worse"
        if self.sequential is None:
            return verdict(self.difference, self.corrected_p, self.corrected_equivalence_p)
        # Equivalence is tested at one look, the last.
        return verdict(self.difference, 1.0, self.corrected_equivalence_p if self.sequential == "ended" else None)

    @property
    def best_levels(self) -> tuple[str, str] | tuple[None, None]:
        """The levels at which the arms of a contrast with `best` stand; None before they are chosen."""
        best = self.contrast.best
        if best is None or not self.chosen_on:
            return None, None
        return self.first.arm.levels[best], self.second.arm.levels[best]

    @functools.cached_property
    def smallest(self) -> float | None:
        """The difference that these runs would resolve with a power of 0.8, among so many comparisons."""
        return smallest_difference(self.difference, alpha=self.alpha) if self.difference else None

    @functools.cached_property
    def seeds(self) -> int | None:
        """Runs an arm that would settle what is not resolved, with a power of 0.8, more than there are; None where it
        is resolved, where the study adds seeds by itself, or nothing can be said."""
        if self.difference is None or self.verdict != "not resolved" or self.sequential == "open":
            return None
        estimates = [seeds_needed(self.difference, alpha=self.alpha)]
        if self.contrast.margin is not None:
            estimates.append(seeds_for_equivalence(self.difference, self.contrast.margin, alpha=self.equivalence_alpha))
        known = [estimate for estimate in estimates if estimate is not None]
        if not known:
            return None
        compared = max(min(known), 1 + max(self.difference.n_first, self.difference.n_second))
        return 2 * compared if self.contrast.best else compared  # half of them choose the levels


@dataclass(frozen=True, kw_only=True, eq=False)  # a table equals itself alone: what is computed of one is kept by it
class StudyTable:
    study: Study
    metric: str
    level: float
    arms: tuple[ArmRecord, ...]
    contrasts: tuple[ContrastRecord, ...]
    progress: Progress | None = None  # of a study that adds seeds until its contrasts are resolved
    read_details: Callable[[Result], Details | None] = lambda result: None

    def details(self, result: Result) -> Details | None:
        """What a result holds beyond its metrics, read anew at every call: those of all trials together would fill the
        memory. None where it holds no more, and, with a warning that names the file, where that is damaged."""
        try:
            return self.read_details(result)
        except ValueError as error:
            if result.id not in self._damaged:
                self._damaged.add(result.id)
                what = str(error) if len(self._damaged) <= MAX_NAMED else "details of further results"
                if len(self._damaged) <= MAX_NAMED + 1:
                    warnings.warn(f"left out: {what}; normlab store check finds all such", DamagedWarning, stacklevel=2)
            return None

    @functools.cached_property
    def _damaged(self) -> set[str]:
        return set()

    @functools.cached_property
    def _records(self) -> dict[str, TrialRecord]:
        return {record.trial.id: record for arm in self.arms for record in arm.trials}

    def records(self) -> Mapping[str, TrialRecord]:
        """Every trial once, by id: two arms may share one."""
        return self._records

    @functools.cached_property
    def _counts(self) -> Counter[State]:
        return Counter(record.state for record in self.records().values())

    def count(self, state: State) -> int:
        return self._counts[state]

    @property
    def num_compared(self) -> int:
        """Contrasts but those of the same trials."""
        return sum(not record.same_trials for record in self.contrasts)

    @property
    def num_settled(self) -> int:
        """Contrasts of which a verdict says something."""
        return sum(record.verdict in ("better", "worse", "equivalent") for record in self.contrasts)


def read_table(
    study: Study,
    store: Store,
    fingerprint: Callable[[str], str],
    *,
    metric: str = "test_accuracy",
    level: float = LEVEL,
) -> StudyTable:
    """Looks every trial of a study up and computes what can be said of it so far.

    `fingerprint` tells the identity of a data set by its name; `metric` is one of a result's accuracies, or one of
    PROBES, of which a diverged trial has none. Damaged records are counted and named, and stop nothing.
    """
    if "accuracy" not in metric and metric not in PROBES:
        raise UsageError(f"metric '{metric}': write an accuracy, such as test_accuracy, or one of {', '.join(PROBES)}")
    by_arm = trials_by_arm(study, fingerprint)
    unique = {trial.id: trial for _, row in by_arm for trial in row}
    failures = store.failures(unique)
    found = load_all(store, {key: trial.spec for key, trial in unique.items()}, meanwhile=special.load)
    records = {key: _read(trial, found.get(key), store, failures, metric) for key, trial in unique.items()}
    rows = {arm.label: tuple(records[trial.id] for trial in row) for arm, row in by_arm}
    progress = _followed(study, rows, 1 - level) if study.looks else None
    if progress is not None:  # only what has been asked for so far
        rows = {label: row[: progress.runs[label]] for label, row in rows.items()}
    arms = [_arm_record(arm, rows[arm.label], level) for arm, _ in by_arm]
    by_levels = {_key(record.arm): record for record in arms}
    compared = tuple(
        _at_best_levels(c, arms, study.seeds, level)
        if c.best is not None
        else _contrast_record(c, by_levels[_key(c.first)], by_levels[_key(c.second)], level)
        for c in contrasts(study)
    )
    if progress is not None:
        compared = tuple(_judged(record, progress, level) for record in compared)
    compared = _corrected(compared, 1 - level)
    if progress is not None and progress.open:  # what is open was tested at the level of a look
        last = nominal_levels(study.looks, (1 - level) / len(progress.open))[-1]
        compared = tuple(r if isinstance(r.sequential, Resolution) else replace(r, alpha=last) for r in compared)
    return StudyTable(
        study=study,
        metric=metric,
        level=level,
        arms=tuple(arms),
        contrasts=compared,
        progress=progress,
        read_details=store.details,
    )


def _followed(study: Study, rows: Mapping[str, Sequence[TrialRecord]], alpha: float) -> Progress:
    """Where a study that adds seeds stands, by its planned contrasts, or by all where none was planned; not by those of
    the same trials."""
    ids = {label: [record.trial.id for record in row] for label, row in rows.items()}
    pairs = {c.label: (c.first.label, c.second.label) for c in contrasts(study)}
    pairs = {label: (first, second) for label, (first, second) in pairs.items() if ids[first] != ids[second]}
    scores = {label: [record.score for record in row] for label, row in rows.items()}
    return follow(study.looks, pairs, scores, alpha=alpha)


def _judged(record: ContrastRecord, progress: Progress, level: float) -> ContrastRecord:
    """A contrast as its looks left it: where it is resolved, over the runs that resolved it. An arm that it shares with
    an open contrast may have more by now."""
    state = progress.resolved.get(record.contrast.label)
    if state is None:
        return replace(record, sequential="ended" if progress.is_done else "open")
    first, second = (_arm_record(arm.arm, arm.trials[: state.runs], level) for arm in (record.first, record.second))
    return replace(_contrast_record(record.contrast, first, second, level), sequential=state)


# --- records ----------------------------------------------------------------------------------------------------------


def _read(trial: Trial, found: Result | None, store: Store, failures: Mapping[str, str], metric: str) -> TrialRecord:
    try:
        result = found or store.load(trial.id)  # which says why it cannot be read
        if result is None:
            return _unfinished(trial, store, failures)
        return _scored(trial, result, metric)
    except (ValueError, TypeError, AttributeError) as error:  # whatever a damaged file holds
        reason = " ".join(str(error).split())
        where = "" if trial.id in reason else f"the result of {trial.id} is damaged: "
        return TrialRecord(trial=trial, state="damaged", reason=where + reason)


def _unfinished(trial: Trial, store: Store, failures: Mapping[str, str]) -> TrialRecord:
    if store.is_claimed(trial.id):
        return TrialRecord(trial=trial, state="running")
    if trial.id in failures:
        return TrialRecord(trial=trial, state="failed", reason=failures[trial.id])
    return TrialRecord(trial=trial, state="missing")


def _scored(trial: Trial, result: Result, metric: str) -> TrialRecord:
    value = result.metrics.get(metric)
    diverged = result.status == "diverged"
    has_none = metric in PROBES or (metric in OF_AVERAGES and trial.spec.norm not in KEEPS_AVERAGES)
    if value is None and (not diverged or has_none):
        return TrialRecord(trial=trial, state=result.status, result=result, reason=f"{metric} was not measured")
    if not diverged and not (isinstance(value, int | float) and math.isfinite(value)):
        raise ValueError(f"the result of {trial.id} is damaged: its {metric} is {value!r}")
    classes = num_classes(parse_notation(trial.spec.network))
    counted = score(math.nan if value is None else float(value), diverged=diverged, num_classes=classes)
    return TrialRecord(trial=trial, state=result.status, result=result, score=counted)


def _arm_record(arm: Arm, records: tuple[TrialRecord, ...], level: float) -> ArmRecord:
    values = [record.score for record in records if record.score is not None]
    return ArmRecord(arm=arm, trials=records, mean=mean_interval(values, level=level) if values else None)


def _contrast_record(contrast: Contrast, first: ArmRecord, second: ArmRecord, level: float) -> ContrastRecord:
    a, b = first.scores, second.scores
    diverged = first.count("diverged"), second.count("diverged")
    counts = [arm.count("finished") + arm.count("diverged") for arm in (first, second)]
    return ContrastRecord(
        contrast=contrast,
        first=first,
        second=second,
        difference=compare(a, b, level=level) if a and b else None,
        shared=shared_seeds(a, b),
        superiority=superiority(a, b, level=level),
        divergence_p=divergence_p(diverged[0], counts[0], diverged[1], counts[1]) if any(diverged) else None,
    )


def _at_best_levels(
    contrast: Contrast, arms: Sequence[ArmRecord], seeds: Sequence[int], level: float
) -> ContrastRecord:
    """Each arm at the level of `contrast.best` that has the highest mean over the first half of the seeds; the arms are
    compared over the others, so that no arm gains by the choice itself. Nothing is compared before all have a score."""
    choosing = tuple(seeds[: len(seeds) // 2])
    candidates = []
    for arm in (contrast.first, contrast.second):
        rest = {f: label for f, label in arm.levels.items() if f != contrast.best}
        candidates.append([one for one in arms if rest.items() <= one.arm.levels.items()])
    is_chosen = bool(choosing) and all(set(choosing) <= one.scores.keys() for levels in candidates for one in levels)
    first, second = (
        _held_out(max(levels, key=lambda one: sum(one.scores[seed] for seed in choosing)), choosing, level)
        if is_chosen
        else _held_back(levels[0])
        for levels in candidates
    )
    found = _contrast_record(replace(contrast, first=first.arm, second=second.arm), first, second, level)
    return replace(found, chosen_on=choosing if is_chosen else (), same_at_all=all(map(_are_same, *candidates)))


def _are_same(first: ArmRecord, second: ArmRecord) -> bool:
    """Whether arms are the same trials; in a study that adds seeds one of them may have got more."""
    return all(a.trial.id == b.trial.id for a, b in zip(first.trials, second.trials, strict=False))


def _held_out(arm: ArmRecord, seeds: Sequence[int], level: float) -> ArmRecord:
    """An arm without its trials of these seeds."""
    return _arm_record(arm.arm, tuple(t for t in arm.trials if t.trial.spec.seed not in seeds), level)


def _held_back(arm: ArmRecord) -> ArmRecord:
    """An arm of which nothing is known yet."""
    trials = tuple(TrialRecord(trial=record.trial, state="missing") for record in arm.trials)
    return ArmRecord(arm=arm.arm, trials=trials, mean=None)


def _corrected(records: tuple[ContrastRecord, ...], alpha: float) -> tuple[ContrastRecord, ...]:
    """With p-values, corrected within the planned contrasts and, apart from them, within the exploratory ones: for all
    of a family, also those that have no results yet. Arms of the same trials are no comparison, and count for nothing.
    """
    corrected: dict[int, ContrastRecord] = {}
    for planned in (True, False):
        family = [record for record in records if record.contrast.planned == planned and not record.same_trials]
        raw = [t_test_p(r.difference) if r.difference else None for r in family]
        tested = holm(raw)
        share = _share(alpha, tested)
        for r, p, q in zip(family, raw, tested, strict=True):
            corrected[id(r)] = replace(r, p=p, corrected_p=q, alpha=share)
        bounded = [(r, r.contrast.margin) for r in family if r.contrast.margin]
        alike = holm([equivalence_p(r.difference, margin) if r.difference else None for r, margin in bounded])
        share = _share(alpha, alike)
        for (r, _), e in zip(bounded, alike, strict=True):
            corrected[id(r)] = replace(corrected[id(r)], corrected_equivalence_p=e, equivalence_alpha=share)
    return tuple(corrected.get(id(r), r) for r in records)


def _share(alpha: float, tested: Sequence[float | None]) -> float:
    """What Holm leaves to each of the tests that are still open."""
    return alpha / max(sum(p is None or p >= alpha for p in tested), 1)


def _key(arm: Arm) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(arm.levels.items()))
