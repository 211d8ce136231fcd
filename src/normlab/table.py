"""The table of a study: its arms and contrasts joined with what the store holds, with intervals.

A study in, `StudyTable` out: every trial is finished, diverged, running, missing, failed or damaged, every arm has the
statistics of what is there, and every contrast its difference. Rows of plain numbers (fractions of 1) go to CSV and
JSON, rows of words to a terminal. Imports no torch.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from normlab import datasets
from normlab.errors import UsageError
from normlab.grid import Arm, Contrast, Trial, contrasts, trials_by_arm
from normlab.notation import num_classes, parse_notation
from normlab.result import Result
from normlab.stats import (
    LEVEL,
    Difference,
    Mean,
    SharedSeeds,
    binomial_error,
    divergence_p,
    holm,
    mean_interval,
    score,
    shared_seeds,
    verdict,
    welch_difference,
    welch_p,
)
from normlab.store import Store
from normlab.study import Study
from normlab.trial import TrialSpec

FORMAT_VERSION = 1  # of results.json

PROBES = ("dead_channels", "gradient_spread", "gradient_spread_initial")  # metrics without a chance level

State = Literal["finished", "diverged", "running", "missing", "failed", "damaged"]
STATES: tuple[State, ...] = ("finished", "diverged", "running", "missing", "failed", "damaged")

# Further columns of the rows; a factor of such a name has `factor: ` before it there.
CONTEXT = ("data", "data_fingerprint", "split", "train_images", "test_images", "precision", "scale")
_RESERVED = frozenset({*CONTEXT, *STATES, "id", "seed", "seeds", "metric", "n", "mean", "sd", "low", "high", "level",
                       "interval", "binomial_error", "state", "score", "reason", "scores"})  # fmt: skip


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

    @property
    def scores(self) -> dict[int, float]:
        """Scores by seed."""
        return {t.trial.spec.seed: t.score for t in self.trials if t.score is not None}

    @property
    def num_test(self) -> int | None:
        """Test images of the arm's results; None before there is one."""
        counts = [t.result.metrics["num_test"] for t in self.trials if t.result and "num_test" in t.result.metrics]
        return int(counts[0]) if counts else None

    @property
    def num_classes(self) -> int:
        return num_classes(parse_notation(self.spec.network))

    def count(self, state: State) -> int:
        return sum(t.state == state for t in self.trials)


@dataclass(frozen=True, kw_only=True)
class ContrastRecord:
    """Two arms, the first minus the second. `difference` is None while one of them has no score."""

    contrast: Contrast
    first: ArmRecord
    second: ArmRecord
    difference: Difference | None
    shared: SharedSeeds
    divergence_p: float | None  # None where no trial of either arm diverged
    p: float | None = None  # of Welch's test
    corrected_p: float | None = None  # after Holm, over the planned contrasts or over the exploratory ones

    @property
    def same_trials(self) -> bool:
        """Whether both arms are the same trials, their levels having no effect beside the other settings."""
        return [t.trial.id for t in self.first.trials] == [t.trial.id for t in self.second.trials]

    @property
    def verdict(self) -> str:
        """What may be said after correction for the number of comparisons."""
        if self.same_trials:
            return "same trials"
        return "too few runs" if self.difference is None else verdict(self.difference, self.corrected_p)


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    study: Study
    metric: str
    level: float
    arms: tuple[ArmRecord, ...]
    contrasts: tuple[ContrastRecord, ...]

    def records(self) -> dict[str, TrialRecord]:
        """Every trial once, by id: two arms may share one."""
        return {record.trial.id: record for arm in self.arms for record in arm.trials}

    def count(self, state: State) -> int:
        return sum(record.state == state for record in self.records().values())


def read_table(
    study: Study,
    store: Store,
    fingerprint: Callable[[str], str],
    *,
    details: bool = False,
    metric: str = "test_accuracy",
    level: float = LEVEL,
) -> StudyTable:
    """Looks every trial of a study up and computes what can be said of it so far.

    `fingerprint` tells the identity of a data set by its name; `details` also reads the curves. `metric` is one of a
    result's accuracies, or one of PROBES, of which a diverged trial has none. Damaged records are counted and named,
    and stop nothing.
    """
    if "accuracy" not in metric and metric not in PROBES:
        raise UsageError(f"metric '{metric}': write an accuracy, such as test_accuracy, or one of {', '.join(PROBES)}")
    by_arm = trials_by_arm(study, fingerprint)
    unique = {trial.id: trial for _, row in by_arm for trial in row}
    failures = store.failures(unique)
    records = {key: _read(trial, store, failures, details, metric) for key, trial in unique.items()}
    found = [_arm_record(arm, tuple(records[trial.id] for trial in row), level) for arm, row in by_arm]
    by_levels = {_key(record.arm): record for record in found}
    compared = tuple(
        _contrast_record(c, by_levels[_key(c.first)], by_levels[_key(c.second)], level) for c in contrasts(study)
    )
    return StudyTable(study=study, metric=metric, level=level, arms=tuple(found), contrasts=_corrected(compared))


def load_results(
    study: Study | str, *, store: Store | str | Path | None = None, scale: str | None = None
) -> StudyTable:
    """The table of a study, with curves, for notebooks: `load_results("quickstart")`. `store` may be its folder."""
    loaded = study if isinstance(study, Study) else Study.load(study, scale=scale)
    place = store if isinstance(store, Store) else Store(Path(store)) if store else Store.default()
    return read_table(loaded, place, datasets.fingerprint, details=True)


# --- rows of numbers --------------------------------------------------------------------------------------------------


def arm_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row an arm, accuracies as fractions of 1, None where there is nothing to say."""
    rows = []
    for record in table.arms:
        mean = record.mean
        error = binomial_error(mean.mean, record.num_test) if mean and record.num_test else None
        rows.append(
            _levels(record.arm)
            | {"metric": table.metric, "seeds": len(record.trials)}
            | {"n": mean.n if mean else 0}
            | {name: getattr(mean, name, None) for name in ("mean", "sd", "low", "high")}
            | {"level": table.level, "interval": "Student t", "binomial_error": error}
            | {state: record.count(state) for state in STATES}
            | _context(table, record)
        )
    return rows


def contrast_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a contrast: the first arm minus the second, in fractions of 1."""
    rows = []
    for record in table.contrasts:
        contrast, difference = record.contrast, record.difference
        others = {f: level for f, level in contrast.first.levels.items() if f != contrast.factor}
        rows.append(
            {
                "contrast": contrast.label,
                "factor": contrast.factor,
                "first": contrast.first.levels[contrast.factor],
                "second": contrast.second.levels[contrast.factor],
                "at": ", ".join(f"{f} {level}" for f, level in others.items()),
                "planned": contrast.planned,
                "metric": table.metric,
                "n_first": len(record.first.scores),
                "n_second": len(record.second.scores),
                "difference": difference.difference if difference else None,
                "low": difference.low if difference else None,
                "high": difference.high if difference else None,
                "level": table.level,
                "interval": difference.method if difference else "Welch t",
                "p": record.p,
                "p_holm": record.corrected_p,
                "verdict": record.verdict,
                "shared_seeds": record.shared.n,
                "correlation": record.shared.correlation,
                "diverged_first": record.first.count("diverged"),
                "diverged_second": record.second.count("diverged"),
                "divergence_p": record.divergence_p,
            }
            | _contrast_context(table, record)
        )
    return rows


def trial_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a trial of an arm: its state and score, so that every number above can be computed again."""
    return [
        _levels(arm.arm)
        | {"seed": record.trial.spec.seed, "id": record.trial.id, "state": record.state, "score": record.score}
        | {"metric": table.metric, "reason": record.reason}
        | _context(table, arm)
        for arm in table.arms
        for record in arm.trials
    ]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; an absent number is an empty field. Without rows, nothing."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def to_json(table: StudyTable) -> str:
    """Everything the table holds as JSON, without NaN or infinity."""
    study = table.study
    tree = {
        "format": FORMAT_VERSION,
        "study": study.name,
        "question": study.question,
        "scale": study.scale,
        "overrides": list(study.overrides),
        "metric": table.metric,
        "level": table.level,
        "trials_by_state": {state: table.count(state) for state in STATES},
        "arms": arm_rows(table),
        "contrasts": contrast_rows(table),
        "trials": trial_rows(table),
    }
    return json.dumps(tree, indent=1, allow_nan=False, ensure_ascii=False)


# --- rows of words ----------------------------------------------------------------------------------------------------


def arm_summary(table: StudyTable) -> list[dict[str, Any]]:
    """One short row an arm for a terminal, in per cent, with the counts and context that are not the same in all."""
    shown = [state for state in STATES[1:] if state == "diverged" or table.count(state)]
    contexts = [_context(table, record) for record in table.arms]
    differing = [name for name in CONTEXT if len({str(context[name]) for context in contexts}) > 1]
    rows = []
    for record, context in zip(table.arms, contexts, strict=True):
        mean = record.mean
        rows.append(
            (_levels(record.arm, _RESERVED - {*CONTEXT}) or {"arm": "base"})
            | {"n": mean.n if mean else 0}
            | {f"{words(table.metric)} (%)": percent(mean.mean) if mean else None}
            | {"sd": percent(mean.sd) if mean and mean.sd is not None else None}
            | {f"{table.level:.0%} t interval": interval_words(mean.low, mean.high) if mean else None}
            | {state: record.count(state) for state in shown}
            | {name: context[name] for name in differing if name not in record.arm.levels}
        )
    return rows


def contrast_summary(table: StudyTable) -> list[dict[str, Any]]:
    """One short row a contrast for a terminal, in percentage points."""
    rows = []
    for record in table.contrasts:
        difference = record.difference
        rows.append(
            {
                "contrast": record.contrast.label,
                "n": f"{len(record.first.scores)} and {len(record.second.scores)}",
                "points": f"{100 * difference.difference:+.2f}" if difference else None,
                f"{table.level:.0%} Welch t interval": (
                    interval_words(difference.low, difference.high, signed=True) if difference else None
                ),
                "Holm's p": p_words(record.corrected_p),
                "verdict": record.verdict,
                "": "planned" if record.contrast.planned else "exploratory",
            }
        )
    return rows


def context_words(table: StudyTable) -> str:
    """What all arms share of data, split, test images, precision and scale, as one line."""
    contexts = [_context(table, record) for record in table.arms]
    shared = {n: contexts[0][n] for n in CONTEXT if len({str(c[n]) for c in contexts}) == 1}
    phrases = {
        "data": "{}",
        "data_fingerprint": "({})",
        "split": "split {}",
        "train_images": "{:,} training images",
        "test_images": "{:,} test images",
        "precision": "{}",
        "scale": "scale {}",
    }
    phrased = [phrases[name].format(value) for name, value in shared.items() if value is not None]
    return ", ".join(phrased).replace(", (", " (")  # the fingerprint stands by its data


def status_words(table: StudyTable) -> str:
    """How far the study is, as one line."""
    done = table.count("finished") + table.count("diverged")
    parts = [f"{done} of {len(table.records())} trials are done"]
    if diverged := table.count("diverged"):
        parts[0] += f", {diverged} of which diverged and count as chance"
    rest: tuple[State, ...] = ("running", "missing", "failed", "damaged")
    parts += [f"{table.count(state)} {state}" for state in rest if table.count(state)]
    return "; ".join(parts)


def words(name: str) -> str:
    """A name as it stands in a sentence or on an axis: `test_accuracy` is test accuracy."""
    return name.replace("_", " ")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def p_words(p: float | None) -> str | None:
    """A p-value with two digits that count; None where there is none."""
    return None if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def interval_words(low: float | None, high: float | None, *, signed: bool = False) -> str | None:
    """An interval in per cent, such as `[93.10, 95.20]`; None where there is none."""
    if low is None or high is None:
        return None
    sign = "+" if signed else ""
    return f"[{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"


# --- details ----------------------------------------------------------------------------------------------------------


def _read(trial: Trial, store: Store, failures: Mapping[str, str], details: bool, metric: str) -> TrialRecord:
    try:
        result = store.load(trial.id, details=details)
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
    if value is None and (not diverged or metric in PROBES):
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
    """Compares two arms. Every comparison is unpaired: a rule for pairing has to be fixed before the data, here."""
    a, b = first.scores, second.scores
    diverged = first.count("diverged"), second.count("diverged")
    counts = [arm.count("finished") + arm.count("diverged") for arm in (first, second)]
    return ContrastRecord(
        contrast=contrast,
        first=first,
        second=second,
        difference=welch_difference(list(a.values()), list(b.values()), level=level) if a and b else None,
        shared=shared_seeds(a, b),
        divergence_p=divergence_p(diverged[0], counts[0], diverged[1], counts[1]) if any(diverged) else None,
    )


def _corrected(records: tuple[ContrastRecord, ...]) -> tuple[ContrastRecord, ...]:
    """With p-values, corrected within the planned contrasts and, apart from them, within the exploratory ones. Arms of
    the same trials are no comparison, and count for nothing."""
    by_record: dict[int, tuple[float | None, float | None]] = {}
    for planned in (True, False):
        family = [record for record in records if record.contrast.planned == planned]
        raw = [None if r.difference is None or r.same_trials else welch_p(r.difference) for r in family]
        by_record |= {id(r): pair for r, pair in zip(family, zip(raw, holm(raw), strict=True), strict=True)}
    return tuple(replace(r, p=by_record[id(r)][0], corrected_p=by_record[id(r)][1]) for r in records)


def _key(arm: Arm) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(arm.levels.items()))


def _levels(arm: Arm, reserved: frozenset[str] = _RESERVED) -> dict[str, Any]:
    return {(f"factor: {name}" if name in reserved else name): level for name, level in arm.levels.items()}


def _context(table: StudyTable, record: ArmRecord) -> dict[str, Any]:
    """What a number must never be read without. `train_images` is None where all of them are used."""
    spec = record.spec
    split = f"fraction {spec.test_fraction:g}" if spec.split == "fraction" else spec.split
    return {
        "data": spec.data,
        "data_fingerprint": spec.data_fingerprint,
        "split": split if not spec.split_seed else f"{split} (split seed {spec.split_seed})",
        "train_images": spec.train_images,
        "test_images": record.num_test,
        "precision": spec.precision,
        "scale": table.study.scale,
    }


def _contrast_context(table: StudyTable, record: ContrastRecord) -> dict[str, Any]:
    """The context of both arms; where they differ, both values, the first arm's first."""
    first, second = _context(table, record.first), _context(table, record.second)
    return {k: first[k] if first[k] == second[k] else f"{first[k]} − {second[k]}" for k in CONTEXT}
