"""What the figures of a study show: one figure a factor, with every seed, and the learning curves.

`factor_figure` and `curve_figure` choose, `figure_data` holds what they chose, `drawing` draws it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from normlab.figure_data import (
    MAX_PANELS,
    MAX_SERIES,
    ArmCurves,
    Curve,
    CurveFigure,
    CurvePanel,
    FactorFigure,
    Panel,
    Point,
    Series,
)
from normlab.grid import as_number
from normlab.notation import dropout_rates
from normlab.result import Result
from normlab.sensitivity import is_log
from normlab.table import ArmRecord, StudyTable
from normlab.wording import UNITS, words


def factor_figure(table: StudyTable, factor: str) -> FactorFigure:
    """The data of one factor's figure: the factor along x, one other factor as series, the rest as panels.

    The series are the categorical factor of at most 7 levels with the fewest levels, else such a numeric one. Of more
    than 12 panels the first 12 are drawn, and the figure says so. Arms that share no line with another level of the
    factor (those of the other factors in a one-at-a-time study) are left to those factors' figures.
    """
    levels = [level.label for level in next(f for f in table.study.factors if f.name == factor).levels]
    if None not in map(as_number, levels):
        levels.sort(key=float)
    numbers = [as_number(label) for label in levels]
    numeric = len(levels) > 1 and None not in numbers
    values = [n for n in numbers if n is not None] if numeric else []
    log = numeric and is_log(values)
    panels = _split(_lines(table, factor))
    drawn = dict(list(panels.items())[:MAX_PANELS])
    return FactorFigure(
        factor=factor,
        x_label=_axis_label(factor, log),
        y_label=f"{words(table.metric)} (%)",
        ticks=tuple(levels),
        positions=tuple(values) if numeric else tuple(float(i) for i in range(len(levels))),
        numeric=numeric,
        log=log,
        chance=_chance(table),
        panels=tuple(
            Panel(title=title, series=tuple(_series(s, arms, factor, levels) for s, arms in lines))
            for title, lines in drawn.items()
        ),
        level=table.level,
        left_out=_left_out(panels, MAX_PANELS),
    )


def metric_figure(tables: Mapping[str, StudyTable], factor: str, y_label: str) -> FactorFigure:
    """One study in several metrics: a factor along x, a series for each metric by its name, the rest as panels.

    All tables are of one study; an arm without a metric has no point in its series.
    """
    whole = {name: factor_figure(table, factor) for name, table in tables.items()}
    first = next(iter(whole.values()))
    panels: dict[str, list[Series]] = {}
    for name, table in tables.items():
        for others, arms in list(_lines(table, factor).items())[:MAX_PANELS]:
            title = ", ".join(f"{words(f)} {v}" for f, v in others)
            panels.setdefault(title, []).append(_series(name, arms, factor, first.ticks))
    found = tuple(Panel(title=title, series=tuple(series)) for title, series in panels.items())
    return replace(first, panels=found, y_label=y_label)


def curve_figure(table: StudyTable) -> CurveFigure:
    """The learning curves of every arm: one categorical factor as series, a panel for each combination of the rest.

    Of more than 12 panels the first 12 are drawn, and the figure says so.
    """
    groups = {tuple(arm.arm.levels.items()): [arm] for arm in table.arms}
    panels = _split(groups)
    drawn = dict(list(panels.items())[:MAX_PANELS])
    found = []
    for title, lines in drawn.items():
        arms = tuple(_arm_curves(table, name, arms[0]) for name, arms in lines)
        found.append(CurvePanel(title=title, arms=arms))
    names = tuple(dict.fromkeys(arm.name for panel in found for arm in panel.arms))
    return CurveFigure(
        panels=tuple(found),
        names=names,
        dropout=any(any(dropout_rates(arm.spec.network)) for arm in table.arms),
        damaged=len({trial for panel in found for arm in panel.arms for trial in arm.damaged}),
        left_out=_left_out(panels, MAX_PANELS),
    )


Levels = tuple[tuple[str, str], ...]
Curves = Mapping[str, list[float | None]]  # of one run, as `Details` has them


def _lines(table: StudyTable, factor: str) -> dict[Levels, list[ArmRecord]]:
    """Arms that differ in the factor alone, by their other levels."""
    groups: dict[Levels, list[ArmRecord]] = {}
    for arm in table.arms:
        others = tuple((f, level) for f, level in arm.arm.levels.items() if f != factor)
        groups.setdefault(others, []).append(arm)
    longest = max(map(len, groups.values()))
    return {others: arms for others, arms in groups.items() if len(arms) > 1 or longest == 1}


def _split(groups: Mapping[Levels, list[ArmRecord]]) -> dict[str, list[tuple[str, list[ArmRecord]]]]:
    """Chooses the factor that makes the series; returns, by each panel's title, its lines with their names."""
    used: dict[str, list[str]] = {}
    for others in groups:
        for name, label in others:
            if label not in used.setdefault(name, []):
                used[name].append(label)
    candidates = [name for name, labels in used.items() if 1 < len(labels) <= MAX_SERIES]
    # Of the categorical ones first, the one with the fewest levels.
    chosen = min(candidates, key=lambda f: (all(as_number(v) is not None for v in used[f]), len(used[f])), default=None)
    panels: dict[str, list[tuple[str, list[ArmRecord]]]] = {}
    for others, arms in groups.items():
        title = ", ".join(f"{words(f)} {v}" for f, v in others if f != chosen and len(used[f]) > 1)
        name = f"{words(chosen)} {dict(others)[chosen]}" if chosen else ""
        panels.setdefault(title, []).append((name, arms))
    return panels


def _series(name: str, arms: Sequence[ArmRecord], factor: str, levels: Sequence[str]) -> Series:
    points = []
    for arm in arms:
        if arm.mean is None:
            continue
        ended = sorted((t for t in arm.trials if t.score is not None), key=lambda t: t.trial.spec.seed)
        points.append(
            Point(
                x=levels.index(arm.arm.levels[factor]),
                n=arm.mean.n,
                scores=tuple(t.score for t in ended if t.score is not None and t.state == "finished"),
                diverged=tuple(t.score for t in ended if t.score is not None and t.state == "diverged"),
                mean=arm.mean.mean,
                low=arm.mean.low,
                high=arm.mean.high,
            )
        )
    return Series(name=name, points=tuple(sorted(points, key=lambda p: p.x)))


def _arm_curves(table: StudyTable, name: str, arm: ArmRecord) -> ArmCurves:
    results = [record.result for record in arm.trials if record.result is not None and record.result.has_details]
    found = [(result, table.details(result)) for result in results]
    runs = [(result, details.curves) for result, details in found if details is not None]
    chance = 1 / arm.num_classes
    return ArmCurves(
        name=name,
        n=len(runs),
        train=_mean_curve(runs, "train_accuracy", chance),
        test=_mean_curve(runs, "test_accuracy", chance),
        chance=chance,
        diverged_at=tuple(run.diverged_epoch for run, _ in runs if run.diverged_epoch is not None),
        damaged=tuple(result.id for result, details in found if details is None),
    )


def _mean_curve(runs: Sequence[tuple[Result, Curves]], name: str, chance: float) -> Curve:
    """Over the runs; one that diverged counts as chance from then on, as it does in the end."""
    measured = [_measured(curves, name) for _, curves in runs]
    epochs = sorted(set().union(*measured))
    values = [[m[epoch] for m in measured if epoch in m] for epoch in epochs]
    for (run, _), m in zip(runs, measured, strict=True):
        if run.diverged_epoch is not None:
            for epoch, found in zip(epochs, values, strict=True):
                if epoch >= run.diverged_epoch and epoch not in m:
                    found.append(chance)
    return Curve(
        epochs=tuple(epochs),
        mean=tuple(map(fmean, values)),
        lowest=tuple(min(v) for v in values),
        highest=tuple(max(v) for v in values),
    )


def _measured(curves: Curves, name: str) -> dict[float, float]:
    """A run's finite values by epoch."""
    pairs = zip(curves.get("epoch", []), curves.get(name, []), strict=False)
    return {e: v for e, v in pairs if e is not None and v is not None and math.isfinite(v)}


def _axis_label(factor: str, log: bool) -> str:
    notes = [note for note in (UNITS.get(factor), "log scale" if log else None) if note]
    return words(factor) + (f" ({', '.join(notes)})" if notes else "")


def _chance(table: StudyTable) -> float | None:
    classes = {arm.num_classes for arm in table.arms}
    return 1 / classes.pop() if len(classes) == 1 else None


def _left_out(panels: Mapping[str, object], limit: int) -> str:
    return f"the first {limit} of {len(panels)} panels; the table has all arms" if len(panels) > limit else ""
