"""The table of a study: its arms and contrasts joined with what the store holds, with intervals.

A study in, `StudyTable` out: every trial is finished, diverged, running, missing, failed or damaged, every arm has the
statistics of what is there, and every contrast its difference. Rows of plain numbers (fractions of 1) go to CSV and
JSON, rows of words to a terminal. Imports no torch.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from normlab import datasets
from normlab.errors import UsageError
from normlab.grid import Arm, Contrast, Trial, contrasts, trials_by_arm
from normlab.notation import num_classes, parse_notation
from normlab.result import Result
from normlab.sequential import Progress, Resolution, follow
from normlab.stats import (
    LEVEL,
    Difference,
    Mean,
    SharedSeeds,
    Superiority,
    binomial_error,
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
    superiority: Superiority | None = None
    p: float | None = None  # of the t test
    corrected_p: float | None = None  # after Holm, over the planned contrasts or over the exploratory ones
    corrected_equivalence_p: float | None = None  # of two one-sided tests, likewise; None without a margin
    alpha: float = 1 - LEVEL  # that a test among those still open must pass: Holm's first step
    sequential: Resolution | Literal["open", "ended"] | None = None  # in a study that adds seeds: it decides

    @property
    def same_trials(self) -> bool:
        """Whether both arms are the same trials, their levels having no effect beside the other settings."""
        return [t.trial.id for t in self.first.trials] == [t.trial.id for t in self.second.trials]

    @property
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
        if self.sequential == "ended":  # the one look at which equivalence is tested
            return verdict(self.difference, 1.0, self.corrected_equivalence_p)
        return "not resolved"

    @property
    def smallest(self) -> float | None:
        """The difference that these runs would resolve with a power of 0.8, among so many comparisons."""
        return smallest_difference(self.difference, alpha=self.alpha) if self.difference else None

    @property
    def seeds(self) -> int | None:
        """Runs an arm that would settle what is not resolved, with a power of 0.8, more than there are; None where it
        is resolved or nothing can be said."""
        if self.difference is None or self.verdict != "not resolved":
            return None
        estimates = [seeds_needed(self.difference, alpha=self.alpha)]
        if self.contrast.margin is not None:
            estimates.append(seeds_for_equivalence(self.difference, self.contrast.margin, alpha=self.alpha))
        known = [estimate for estimate in estimates if estimate is not None]
        return max(min(known), 1 + max(self.difference.n_first, self.difference.n_second)) if known else None


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    study: Study
    metric: str
    level: float
    arms: tuple[ArmRecord, ...]
    contrasts: tuple[ContrastRecord, ...]
    progress: Progress | None = None  # of a study that adds seeds until its contrasts are resolved

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
    rows = {arm.label: tuple(records[trial.id] for trial in row) for arm, row in by_arm}
    progress = _followed(study, rows, 1 - level) if study.looks else None
    if progress is not None:  # only what has been asked for so far
        rows = {label: row[: progress.runs[label]] for label, row in rows.items()}
    found = [_arm_record(arm, rows[arm.label], level) for arm, _ in by_arm]
    by_levels = {_key(record.arm): record for record in found}
    compared = tuple(
        _contrast_record(c, by_levels[_key(c.first)], by_levels[_key(c.second)], level) for c in contrasts(study)
    )
    if progress is not None:
        compared = tuple(replace(record, sequential=_state(record, progress)) for record in compared)
    return StudyTable(
        study=study,
        metric=metric,
        level=level,
        arms=tuple(found),
        contrasts=_corrected(compared, 1 - level),
        progress=progress,
    )


def _followed(study: Study, rows: Mapping[str, Sequence[TrialRecord]], alpha: float) -> Progress:
    """Where a study that adds seeds stands, by its planned contrasts, or by all where none was planned."""
    pairs = {c.label: (c.first.label, c.second.label) for c in contrasts(study)}
    scores = {label: [record.score for record in row] for label, row in rows.items()}
    return follow(study.looks, pairs, scores, alpha=alpha)


def _state(record: ContrastRecord, progress: Progress) -> Resolution | Literal["open", "ended"]:
    return progress.resolved.get(record.contrast.label, "ended" if progress.is_done else "open")


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
        error = _test_error(record)
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
                "margin": contrast.margin,
                "p_equivalence_holm": record.corrected_equivalence_p,
                "verdict": record.verdict,
                "probability_first_higher": record.superiority.probability if record.superiority else None,
                "probability_low": record.superiority.low if record.superiority else None,
                "probability_high": record.superiority.high if record.superiority else None,
                "smallest_resolvable": record.smallest,
                "seeds_to_settle": record.seeds,
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


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "−": "$-$", "±": r"$\pm$",
    "×": r"$\times$", "–": "--", "…": r"\dots{}", "\n": " ",
}  # fmt: skip


def to_latex(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """Rows as a LaTeX table for a paper (package booktabs), text to the left, numbers to the right."""
    names = list(rows[0]) if rows else []
    columns = "".join("r" if _are_numbers([row[name] for row in rows]) else "l" for name in names)

    def line(cells: Sequence[Any]) -> str:
        return " & ".join(_latex("–" if cell is None else str(cell)) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{_latex(caption)}}}", rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule", line(names), r"\midrule", *(line(list(row.values())) for row in rows), r"\bottomrule",
            r"\end{tabular}", r"\end{table}", "",
        ]
    )  # fmt: skip


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _are_numbers(cells: Sequence[Any]) -> bool:
    given = [str(cell) for cell in cells if cell is not None]
    return bool(given) and all(re.fullmatch(r"[<> ]*[-+]?[0-9.]+(e-?[0-9]+)?", cell) for cell in given)


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


def arm_summary(table: StudyTable, *, full: bool = False) -> list[dict[str, Any]]:
    """One short row an arm, in per cent, with the counts and context that are not the same in all; `full` adds the
    standard error that the number of test images leaves, beside the spread between runs."""
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
            | ({"test-set error": percent(error) if (error := _test_error(record)) else None} if full else {})
            | {state: record.count(state) for state in shown}
            | {name: context[name] for name in differing if name not in record.arm.levels}
        )
    return rows


def contrast_summary(table: StudyTable, *, full: bool = False) -> list[dict[str, Any]]:
    """One short row a contrast, in percentage points; `full` adds how the seeds were used, P(A > B), and the smallest
    difference that these runs could resolve, and Fisher's p where runs diverged."""
    rows = []
    diverged = any(record.divergence_p is not None for record in table.contrasts)
    for record in table.contrasts:
        difference = record.difference
        interval = interval_words(difference.low, difference.high, signed=True) if difference else None
        further = {
            "seeds": _method_words(record),
            "P(A > B)": _superiority_words(record),
            "could resolve": f"{100 * record.smallest:.2f}" if record.smallest else None,
        }
        if diverged:
            further["diverged"] = f"{record.first.count('diverged')} and {record.second.count('diverged')}"
            further["Fisher's p of divergence"] = p_words(record.divergence_p)
        rows.append(
            {
                "contrast": record.contrast.label,
                "n": f"{len(record.first.scores)} and {len(record.second.scores)}",
                "points": f"{100 * difference.difference:+.2f}" if difference else None,
                f"{table.level:.0%} t interval": interval,
                **(further if full else {}),
                "Holm's p": p_words(record.corrected_p),
                "verdict": verdict_words(record),
                "": "planned" if record.contrast.planned else "exploratory",
            }
        )
    return rows


def verdict_words(record: ContrastRecord) -> str:
    """The verdict, with the margin of an equivalence, or the seeds that would settle what is open."""
    match record.verdict:
        case "equivalent":
            return f"equivalent within ±{100 * (record.contrast.margin or 0):g}"
        case "better" | "worse" as direction if isinstance(record.sequential, Resolution):
            return f"{direction} (resolved at n = {record.sequential.runs}, p {p_words(record.sequential.p)})"
        case "not resolved" if record.seeds is not None:
            return f"not resolved: {seeds_words(record.seeds)} seeds would settle it"
    return record.verdict


def seeds_words(seeds: int) -> str:
    """An estimate of seeds with no more digits than it deserves."""
    if seeds >= 1_000:
        return "more than 1,000"
    return f"about {seeds if seeds < 20 else round(seeds, -1)}"


def _method_words(record: ContrastRecord) -> str | None:
    """How the seeds entered the interval, and the correlation that decided it."""
    if record.difference is None:
        return None
    correlation = record.shared.correlation
    measured = "" if correlation is None else f", r = {correlation:.2f}"
    return ("paired" if record.difference.method == "paired t" else "independent") + measured


def _superiority_words(record: ContrastRecord) -> str | None:
    found = record.superiority
    return None if found is None else f"{found.probability:.2f} [{found.low:.2f}, {found.high:.2f}]"


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
    if table.progress is not None:
        settled, total = len(table.progress.resolved), len(table.contrasts)
        parts.append(f"{settled} of {total} contrasts are resolved, looking at {_some_looks(table.study.looks)} seeds")
    return "; ".join(parts)


def _some_looks(looks: Sequence[int]) -> str:
    return f"{', '.join(map(str, looks[:-1]))} and {looks[-1]}"


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


def _corrected(records: tuple[ContrastRecord, ...], alpha: float) -> tuple[ContrastRecord, ...]:
    """With p-values, corrected within the planned contrasts and, apart from them, within the exploratory ones. Arms of
    the same trials are no comparison, and count for nothing."""
    corrected: dict[int, ContrastRecord] = {}
    for planned in (True, False):
        family = [record for record in records if record.contrast.planned == planned]
        tests = [None if r.difference is None or r.same_trials else r.difference for r in family]
        raw = [t_test_p(test) if test else None for test in tests]
        margins = [r.contrast.margin for r in family]
        alike = [equivalence_p(t, m) if t and m else None for t, m in zip(tests, margins, strict=True)]
        still_open = sum(p is not None and p >= alpha for p in holm(raw))
        for r, p, q, e in zip(family, raw, holm(raw), holm(alike), strict=True):
            share = alpha / max(still_open, 1)
            corrected[id(r)] = replace(r, p=p, corrected_p=q, corrected_equivalence_p=e, alpha=share)
    return tuple(corrected[id(r)] for r in records)


def _test_error(record: ArmRecord) -> float | None:
    """Binomial standard error of the mean accuracy; None where the metric is none, or there is none yet."""
    if record.mean is None or not record.num_test or not 0 <= record.mean.mean <= 1:
        return None
    return binomial_error(record.mean.mean, record.num_test)


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
