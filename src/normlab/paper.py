"""The paper: its studies, its numbers beside ours, and its claims, each with the contrasts that decide it.

What the paper says stands in `paper.yaml`; here it meets the tables of the studies. Imports no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from normlab import datasets
from normlab.errors import UsageError
from normlab.stats import (
    LEVEL,
    Difference,
    equivalence_p,
    holm,
    prediction_interval,
    seeds_for_equivalence,
    seeds_needed,
    welch_difference,
)
from normlab.store import Store
from normlab.strict_yaml import read_yaml
from normlab.study import Study
from normlab.table import ArmRecord, ContrastRecord, StudyTable, read_table
from normlab.wording import context_words, seeds_words

ALPHA = 1 - LEVEL
SMALL_BATCH = "paper/small-batch"
EVALUATIONS = ("test_accuracy", "test_accuracy_recomputed", "test_accuracy_batch")

Outcome = Literal["as claimed", "against", "not resolved", "no results"]
Verdict = Literal["supported", "contradicted", "not resolved", "not tested"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Number(_Frozen):
    """An accuracy that the paper states in its text, and the levels of the arms it stands beside."""

    figure: str
    says: str
    study: str
    arm: dict[str, str]
    value: float


class Part(_Frozen):
    """What one contrast of a study, at some or all levels of its other factors, has to be for a claim to hold."""

    study: str
    contrast: dict[str, tuple[str, str]] = {}
    at: dict[str, tuple[str, ...]] = {}
    metric: str = "test_accuracy"
    expects: Literal["higher", "lower", "equivalent"] = "higher"
    where: Literal["everywhere", "somewhere"] = "everywhere"
    margin: float = 0.0  # of equivalence
    reaches: float | None = None  # instead of a contrast: what the mean of the study's one arm has to reach
    scales: tuple[str, ...] = ()

    def meant(self, record: ContrastRecord) -> bool:
        contrast = record.contrast
        ((factor, pair),) = self.contrast.items()
        levels = contrast.first.levels
        compared = (contrast.factor, levels[factor], contrast.second.levels[factor])
        return (
            compared == (factor, *pair)
            and contrast.best is None
            and all(levels[name] in labels for name, labels in self.at.items())
        )


class Claim(_Frozen):
    says: str
    parts: tuple[Part, ...] = ()
    untested: str = ""  # why nothing can be said yet
    beware: str = ""


class Paper(_Frozen):
    studies: tuple[str, ...]
    numbers: tuple[Number, ...]
    claims: dict[str, Claim]

    @staticmethod
    def load() -> "Paper":
        path = Path(__file__).with_name("paper.yaml")
        return Paper.model_validate(read_yaml(path.read_bytes(), path.name).value)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One test of a claim: a contrast with its interval and p-values. Differences are in the metric's own unit."""

    study: str
    contrast: str
    metric: str
    expects: str
    n: tuple[int, ...]
    difference: Difference | None
    p: float | None
    corrected: float | None  # after Holm
    outcome: Outcome
    seeds: int | None  # an arm that would settle it; None where nothing can be said
    unmeasured: frozenset[str] = frozenset()  # trials that ended without the metric


@dataclass(frozen=True, kw_only=True)
class Judgement:
    name: str
    claim: Claim
    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A number of the paper beside one arm of ours."""

    number: Number
    arm: ArmRecord
    context: str
    interval: tuple[float, float] | None  # of one further run: the paper's numbers are single runs

    @property
    def place(self) -> str:
        """Whether the paper's number lies inside what one further run of ours would give."""
        if self.interval is None:
            return "cannot be said"
        return "inside" if self.interval[0] <= self.number.value <= self.interval[1] else "outside"


class Tables:
    """The tables of the paper's studies at one scale, each read once. Raises UsageError where a study's data is not
    here, without which its trials have no identity."""

    def __init__(self, store: Store, scale: str | None) -> None:
        self.store, self.scale = store, scale
        self._studies: dict[str, Study] = {}
        self._read: dict[tuple[str, str], StudyTable] = {}

    def study(self, name: str) -> Study:
        if name not in self._studies:
            self._studies[name] = Study.load(name, scale=self.scale)
        return self._studies[name]

    def __call__(self, name: str, metric: str = "test_accuracy") -> StudyTable:
        key = name, metric
        if key not in self._read:
            self._read[key] = read_table(self.study(name), self.store, datasets.fingerprint, metric=metric)
        return self._read[key]


def judge(name: str, claim: Claim, tables: Tables) -> Judgement:
    """Decides a claim by the contrasts its parts name, in the words supported, contradicted, not resolved, not tested.

    A part that holds everywhere is contradicted by one contrast against it; one that holds somewhere needs one as
    claimed and none against. A claim is supported if all its parts are, contradicted if one is.
    """
    parts: list[tuple[Part, list[Finding]]] = []
    unread = ""
    for part in claim.parts:
        try:
            parts.append((part, _findings(part, tables)))
        except UsageError as error:  # such as data that is not here
            unread = unread or str(error)
    findings = tuple(finding for _, found in parts for finding in found)
    verdicts = [_part_verdict(part, found) for part, found in parts]
    verdict: Verdict
    if not parts or "not tested" in verdicts:
        verdict = "not tested"
    elif "contradicted" in verdicts:
        verdict = "contradicted"
    elif unread:
        verdict = "not tested"
    else:
        verdict = "supported" if set(verdicts) == {"supported"} else "not resolved"
    reason = claim.untested or (_reason(verdict, parts, tables.study(claim.parts[0].study)) if parts else "")
    reason = "; ".join(filter(None, [reason, unread]))
    return Judgement(name=name, claim=claim, verdict=verdict, reason=reason, findings=findings)


def _part_verdict(part: Part, found: Sequence[Finding]) -> Verdict:
    outcomes = [finding.outcome for finding in found]
    if not found or "no results" in outcomes:
        return "not tested"
    if "against" in outcomes:
        return "contradicted"
    enough = any if part.where == "somewhere" else all
    return "supported" if enough(outcome == "as claimed" for outcome in outcomes) else "not resolved"


def _reason(verdict: Verdict, parts: Sequence[tuple[Part, list[Finding]]], study: Study) -> str:
    findings = [finding for _, found in parts for finding in found]
    if not findings:
        return f"not decided at scale {study.scale}"
    missing = sum(finding.outcome == "no results" for finding in findings)
    if missing:
        return f"results are missing for {missing} of {len(findings)} contrasts"
    count = {word: sum(finding.outcome == word for finding in findings) for word in ("as claimed", "against")}
    text = f"{count['as claimed']} of {len(findings)} as claimed, {count['against'] or 'none'} against"
    if unmeasured := frozenset[str]().union(*(finding.unmeasured for finding in findings)):
        text += f"; {len(unmeasured)} trials ended without the measurement, so that contrasts with them are not decided"
    needs = [seeds for part, found in parts for seeds in _needs(part, found)]
    if verdict == "not resolved" and needs:
        known = [seeds for seeds in needs if seeds is not None]
        text += f"; needs {seeds_words(max(known))} seeds" if known and len(known) == len(needs) else ""
        if len(known) < len(needs):
            text += "; these runs give no estimate of the seeds it needs"
    return text


def _needs(part: Part, found: Sequence[Finding]) -> list[int | None]:
    """Seeds that would settle what is open of a part: of one that asks for a single contrast, those of the nearest."""
    needs = [finding.seeds for finding in found if finding.outcome == "not resolved" and not finding.unmeasured]
    if part.where == "somewhere":
        return [min((seeds for seeds in needs if seeds is not None), default=None)] if needs else []
    return needs


def _findings(part: Part, tables: Tables) -> list[Finding]:
    """The tests that a part asks for, each corrected for all of its family."""
    if part.scales and tables.study(part.study).scale not in part.scales:
        return []
    table = tables(part.study, part.metric)
    if part.reaches is not None:
        return [_reached(part, part.reaches, table)]
    family = [record for record in table.contrasts if record.contrast.planned and not record.same_trials]
    raw, tests = [r.p for r in family], [r.corrected_p for r in family]
    beyond: list[float | None] = [None for _ in family]  # p that the means differ by less than the margin
    if part.expects == "equivalent":
        raw = [equivalence_p(r.difference, part.margin) if r.difference else None for r in family]
        tests, beyond = holm(raw), holm([None if p is None else 1 - p for p in raw])
    alpha = ALPHA / max(sum(p is None or p >= ALPHA for p in tests), 1)
    found = zip(family, raw, tests, beyond, strict=True)
    return [
        _finding(part, record, p, corrected, is_beyond=far is not None and far < ALPHA / 2, alpha=alpha)
        for record, p, corrected, far in found
        if part.meant(record)
    ]


def _finding(
    part: Part, record: ContrastRecord, p: float | None, corrected: float | None, *, is_beyond: bool, alpha: float
) -> Finding:
    difference = record.difference
    outcome = _outcome(part, record, corrected, is_beyond=is_beyond)
    seeds, unmeasured = None, _unmeasured(record)
    if outcome == "not resolved" and difference is not None and not unmeasured:
        if part.expects == "equivalent":
            seeds = seeds_for_equivalence(difference, part.margin, alpha=alpha)
        else:
            seeds = seeds_needed(difference, alpha=alpha)
        more = 1 + max(difference.n_first, difference.n_second)  # these did not settle it, whatever the estimate says
        seeds = None if seeds is None else max(seeds, more)
    return Finding(
        study=part.study,
        contrast=record.contrast.label,
        metric=part.metric,
        expects=part.expects + (f" within ±{100 * part.margin:g} points" if part.expects == "equivalent" else ""),
        n=(len(record.first.scores), len(record.second.scores)),
        difference=difference,
        p=p,
        corrected=corrected,
        outcome=outcome,
        seeds=seeds,
        unmeasured=unmeasured,
    )


def _outcome(part: Part, record: ContrastRecord, corrected: float | None, *, is_beyond: bool) -> Outcome:
    difference = record.difference
    trials = [trial for arm in (record.first, record.second) for trial in arm.trials]
    waiting = any(trial.state not in ("finished", "diverged") for trial in trials)
    if waiting and (difference is None or min(difference.n_first, difference.n_second) < 2):
        return "no results"
    if difference is None or difference.low is None or difference.high is None or _unmeasured(record):
        return "not resolved"
    resolved = corrected is not None and corrected < ALPHA
    if part.expects == "equivalent":
        return "as claimed" if resolved else "against" if is_beyond else "not resolved"
    if not resolved:
        return "not resolved"
    return "as claimed" if (difference.difference > 0) == (part.expects == "higher") else "against"


def _unmeasured(record: ContrastRecord) -> frozenset[str]:
    """Trials of both arms that ended without this metric, as one that diverged has no probes. What they would say is
    not in the others: nothing is decided without them."""
    trials = [trial for arm in (record.first, record.second) for trial in arm.trials]
    return frozenset(t.trial.id for t in trials if t.state in ("finished", "diverged") and t.score is None)


def _reached(part: Part, value: float, table: StudyTable) -> Finding:
    """The mean of a study's one arm against a number."""
    (arm,) = table.arms
    mean, outcome = arm.mean, "no results"
    if mean is not None:
        outcome = "not resolved"
        if mean.low is not None and mean.high is not None:
            outcome = "as claimed" if mean.low >= value else "against" if mean.high < value else outcome
    return Finding(
        study=part.study,
        contrast=f"mean − {value:g}",
        metric=part.metric,
        expects="0 or higher",
        n=(mean.n,) if mean else (0,),
        difference=None
        if mean is None
        else Difference(
            n_first=mean.n,
            n_second=mean.n,
            difference=mean.mean - value,
            standard_error=None,
            degrees_of_freedom=None,
            low=None if mean.low is None else mean.low - value,
            high=None if mean.high is None else mean.high - value,
            level=mean.level,
            method="Student t",
        ),
        p=None,
        corrected=None,
        outcome=outcome,  # type: ignore[arg-type]
        seeds=None,
    )


def compare_numbers(paper: Paper, tables: Tables) -> list[Comparison]:
    """Every number of the paper beside each of our arms that has its levels; none where a study's data is not here."""
    found = []
    for number in paper.numbers:
        try:
            table = tables(number.study)
        except UsageError:
            continue
        for arm in table.arms:
            if number.arm.items() <= arm.arm.levels.items():
                interval = prediction_interval(arm.mean) if arm.mean else None
                found.append(Comparison(number=number, arm=arm, context=context_words(table), interval=interval))
    return found


def three_evaluations(tables: Tables, name: str = SMALL_BATCH) -> list[dict[str, Any]]:
    """Where the loss against no norm lies: of each arm with a norm, the difference to the arm without one in accuracy
    by each kind of statistics. A loss that recomputed statistics do not show is one of inference, not of training."""
    by_metric = {metric: _by_levels(tables(name, metric)) for metric in EVALUATIONS}
    rows = []
    for levels, arm in by_metric["test_accuracy"].items():
        plain = by_metric["test_accuracy"].get(_with(levels, "norm", "none"))
        if dict(levels)["norm"] == "none" or plain is None:
            continue
        row: dict[str, Any] = dict(levels) | {"n": len(arm.scores), "n without norm": len(plain.scores)}
        for metric in EVALUATIONS:
            scores = by_metric[metric][levels].scores
            both = scores and plain.scores
            row[metric] = by_metric[metric][levels].mean
            row[f"{metric} - none"] = (
                welch_difference(list(scores.values()), list(plain.scores.values())) if both else None
            )
        rows.append(row)
    return rows


Levels = tuple[tuple[str, str], ...]


def _by_levels(table: StudyTable) -> Mapping[Levels, ArmRecord]:
    return {tuple(arm.arm.levels.items()): arm for arm in table.arms}


def _with(levels: Levels, factor: str, label: str) -> Levels:
    return tuple((name, label if name == factor else value) for name, value in levels)


def scales_of(paper: Paper, load: Callable[[str], Study] = Study.load) -> list[str]:
    """The scales that all the paper's studies have, in the order of the first."""
    every = [load(name).scales for name in paper.studies]
    return [scale for scale in every[0] if all(scale in scales for scales in every)]
