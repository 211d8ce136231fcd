"""The table of a study: its arms and contrasts joined with what the store holds, and the same as rows, CSV and JSON.

A study that is half done gives what it has and says what is missing. A diverged trial is a result: it is counted, and
scored at chance.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from normlab.grid import Arm, Contrast, Trial, arms, contrasts, trials
from normlab.notation import num_classes, parse_notation
from normlab.result import Result
from normlab.stats import CONFIDENCE, Difference, Summary, binomial_error, difference, summarize
from normlab.store import Store
from normlab.study import Study

METRIC = "test_accuracy"


@dataclass(frozen=True, kw_only=True)
class ArmResults:
    """One arm: its trials, their results by seed, and what is not there."""

    arm: Arm
    trials: tuple[Trial, ...]
    results: Mapping[int, Result]  # by seed
    failures: Mapping[int, str]  # reasons, damaged records included

    @property
    def spec(self) -> Any:
        return self.trials[0].spec

    @property
    def chance(self) -> float:
        return 1 / num_classes(parse_notation(self.spec.network))

    @property
    def scores(self) -> dict[int, float]:
        """Accuracy by seed, as a fraction; diverged trials at chance."""
        return {
            seed: self.chance if result.status == "diverged" else result.metrics[METRIC]
            for seed, result in self.results.items()
        }

    @property
    def summary(self) -> Summary:
        return summarize(list(self.scores.values()))

    @property
    def diverged(self) -> int:
        return sum(result.status == "diverged" for result in self.results.values())

    @property
    def missing(self) -> int:
        return len(self.trials) - len(self.results) - len(self.failures)

    @property
    def num_test(self) -> int | None:
        sizes = {int(result.metrics["num_test"]) for result in self.results.values()}
        return sizes.pop() if len(sizes) == 1 else None


@dataclass(frozen=True, kw_only=True)
class ContrastResult:
    contrast: Contrast
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    study: Study
    arms: tuple[ArmResults, ...]
    contrasts: tuple[ContrastResult, ...]

    @property
    def num_trials(self) -> int:
        return sum(len(arm.trials) for arm in self.arms)

    @property
    def num_finished(self) -> int:
        return sum(len(arm.results) for arm in self.arms)

    @property
    def failures(self) -> dict[str, str]:
        """Reasons by trial id."""
        by_seed = [(trial, arm.failures) for arm in self.arms for trial in arm.trials]
        return {trial.id: reasons[trial.spec.seed] for trial, reasons in by_seed if trial.spec.seed in reasons}


def read_table(study: Study, store: Store, fingerprint: Callable[[str], str], *, details: bool = False) -> StudyTable:
    """Joins a study with a store. `details` also loads curves, which a table does not need."""
    found = tuple(_read_arm(study, arm, store, fingerprint, details) for arm in arms(study))
    by_arm = {id_of(results.arm): results for results in found}
    compared = []
    for contrast in contrasts(study):
        first, second = by_arm[id_of(contrast.first)], by_arm[id_of(contrast.second)]
        compared.append(ContrastResult(contrast=contrast, difference=difference(first.scores, second.scores)))
    return StudyTable(study=study, arms=found, contrasts=tuple(compared))


def id_of(arm: Arm) -> tuple[tuple[str, str], ...]:
    return tuple(arm.levels.items())


def _read_arm(study: Study, arm: Arm, store: Store, fingerprint: Callable[[str], str], details: bool) -> ArmResults:
    wanted = trials(study, arm, fingerprint)
    reasons = store.failures(trial.id for trial in wanted)
    results, failures = {}, {}
    for trial in wanted:
        try:
            result = store.load(trial.id, details=details)
        except ValueError as error:
            failures[trial.spec.seed] = str(error)
            continue
        if result is not None:
            results[trial.spec.seed] = result
        elif trial.id in reasons:
            failures[trial.spec.seed] = reasons[trial.id]
    return ArmResults(arm=arm, trials=wanted, results=results, failures=failures)


def arm_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row an arm, with all that keeps results of different kinds apart. Accuracies are fractions."""
    rows = []
    for arm in table.arms:
        summary, spec = arm.summary, arm.spec
        binomial = None
        if summary.mean is not None and arm.num_test:
            binomial = binomial_error(summary.mean, arm.num_test)
        rows.append(
            {
                "study": table.study.name,
                "scale": table.study.scale,
                **_context(arm),
                **arm.arm.levels,
                **asdict(summary),
                "interval": f"{CONFIDENCE:.0%} t",
                "binomial_se": binomial,
                "diverged": arm.diverged,
                "failed": len(arm.failures),
                "missing": arm.missing,
                "seeds": " ".join(map(str, arm.scores)),
                "scores": " ".join(f"{score:.6g}" for score in arm.scores.values()),
                "data_fingerprint": spec.data_fingerprint,
            }
        )
    return rows


def contrast_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a contrast: first minus second, in fractions of 1."""
    by_arm = {id_of(arm.arm): arm for arm in table.arms}
    return [
        {
            "study": table.study.name,
            "scale": table.study.scale,
            **_context(by_arm[id_of(row.contrast.first)]),
            "contrast": row.contrast.label,
            "first": row.contrast.first.label,
            "second": row.contrast.second.label,
            "planned": row.contrast.planned,
            **asdict(row.difference),
            "interval": f"{CONFIDENCE:.0%} Welch t, not corrected for the number of contrasts",
        }
        for row in table.contrasts
    ]


def _context(arm: ArmResults) -> dict[str, Any]:
    """What must be equal before two numbers may be compared."""
    spec = arm.spec
    return {"data": spec.data, "split": spec.split, "num_test": arm.num_test, "precision": spec.precision}


def arm_summary(table: StudyTable) -> list[dict[str, Any]]:
    """The arms for people: percent, and only what differs."""
    return [
        {
            **(arm.arm.levels or {"arm": "base"}),
            "n": arm.summary.n,
            "accuracy %": _percent(arm.summary.mean),
            "sd": _percent(arm.summary.sd),
            "95 % t interval": _interval(arm.summary.low, arm.summary.high),
            "diverged": arm.diverged,
            **({"failed": len(arm.failures)} if table.failures else {}),
            **({"missing": arm.missing} if table.num_finished < table.num_trials else {}),
        }
        for arm in table.arms
    ]


def contrast_summary(table: StudyTable) -> list[dict[str, Any]]:
    """The contrasts for people, in percentage points."""
    return [
        {
            ("contrast" if row.contrast.planned else "contrast (exploratory)"): row.contrast.label,
            "points": _percent(row.difference.estimate, sign="+"),
            "95 % Welch interval": _interval(row.difference.low, row.difference.high, sign="+"),
            "n": f"{row.difference.n_first} and {row.difference.n_second}",
            "resolved": verdict(row.difference),
        }
        for row in table.contrasts
    ]


def verdict(found: Difference) -> str:
    """What an interval says; never that two arms are equal."""
    if found.low is None:
        return "n too small to say"
    if not found.resolved:
        return "not resolved"
    return "higher" if found.low > 0 else "lower"


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(table: StudyTable) -> str:
    """Arms and contrasts as JSON."""
    study = table.study
    tree = {
        "study": study.name,
        "question": study.question,
        "scale": study.scale,
        "overrides": study.overrides,
        "trials": table.num_trials,
        "finished": table.num_finished,
        "failures": table.failures,
        "arms": arm_rows(table),
        "contrasts": contrast_rows(table),
    }
    return json.dumps(tree, indent=1, allow_nan=False, ensure_ascii=False)


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.2f}"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "-" if low is None or high is None else f"[{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"
