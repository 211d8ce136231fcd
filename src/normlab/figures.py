"""Figures: data first, drawing second. Every seed is drawn, every interval is named, every n is stated.

Colours are Okabe and Ito's, safe for colour-blind readers; markers and line styles tell series apart in grey.
"""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normlab.stats import Summary, summarize
from normlab.table import ArmResults, StudyTable

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7500")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
_SEED_GAP = 0.03  # from the mean to the first seed's dot, in distances between levels
MAX_SERIES = 12  # more cannot be told apart

STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm in a figure; scores are fractions by seed, diverged seeds at chance."""

    level: str
    scores: Mapping[int, float]
    diverged: frozenset[int]
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class Series:
    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class FactorFigure:
    """Accuracy against the levels of one factor, a series for each combination of the others."""

    factor: str
    positions: Mapping[str, float]  # of the levels on the x axis: their values, or 0, 1, 2, …
    scale: str  # log, linear or categorical
    series: tuple[Series, ...]
    held: Mapping[str, str]  # factors kept at their first level, where all combinations would be too many
    chance: float
    num_seeds: tuple[int, int]  # smallest and largest n of a point


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Test accuracy against epochs: panels of the first factor's levels, a line for each arm."""

    panels: tuple[tuple[str, tuple["Line", ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Mean, lowest and highest over the seeds that were measured at each epoch, as fractions."""

    label: str
    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def factor_figure(table: StudyTable, factor: str) -> FactorFigure:
    """The numbers of a factor's figure."""
    names = [other.name for other in table.study.factors if other.name != factor]
    labels = {other.name: [level.label for level in other.levels] for other in table.study.factors}
    held: dict[str, str] = {}
    while math.prod(len(labels[name]) for name in names if name not in held) > MAX_SERIES:
        widest = max((name for name in names if name not in held), key=lambda name: len(labels[name]))
        held[widest] = labels[widest][0]
    arms = [arm for arm in table.arms if all(arm.arm.levels[name] == level for name, level in held.items())]
    groups: dict[str, list[Point]] = {}
    for arm in arms:
        words = [f"{name} {arm.arm.levels[name]}" for name in names if name not in held]
        groups.setdefault(", ".join(words), []).append(_point(arm, factor))
    sizes = [arm.summary.n for arm in arms]
    scale, positions = _axis(labels[factor])
    return FactorFigure(
        factor=factor,
        positions=positions,
        scale=scale,
        series=tuple(Series(label=label, points=tuple(points)) for label, points in groups.items()),
        held=held,
        chance=arms[0].chance,
        num_seeds=(min(sizes), max(sizes)),
    )


def curves_figure(table: StudyTable) -> Curves:
    """The numbers of the learning curves; needs a table that was read with details."""
    panels: dict[str, list[Line]] = {}
    first = table.study.factors[0].name if table.study.factors else None
    for arm in table.arms:
        panel = f"{first} {arm.arm.levels[first]}" if first else "base"
        rest = ", ".join(f"{name} {level}" for name, level in arm.arm.levels.items() if name != first)
        if line := _line(rest or arm.arm.label, arm):
            panels.setdefault(panel, []).append(line)
    return Curves(panels=tuple((name, tuple(lines)) for name, lines in panels.items()))


def draw_factor(data: FactorFigure) -> Figure:
    """Mean and t interval of every arm, every seed as a dot, diverged seeds as crosses at chance."""
    with mpl.rc_context(STYLE):
        wide = data.scale == "categorical" and len(data.positions) * max(map(len, data.positions)) > 60
        figure = Figure(figsize=(8.0 if wide else 6.6, 4.4), layout="constrained")
        axes: Axes = figure.subplots()
        for number, series in enumerate(data.series):
            _draw_series(axes, data, series, number)
        axes.axhline(100 * data.chance, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(
            f"chance, {100 * data.chance:.3g} %", (1, 100 * data.chance), xycoords=("axes fraction", "data"),
            xytext=(0, 2), textcoords="offset points", ha="right", fontsize=7, color="0.35",
        )  # fmt: skip
        _label_x(axes, data)
        axes.set_ylabel("test accuracy (%)")
        scores = [100 * score for s in data.series for p in s.points for score in p.scores.values()] or [0, 100]
        margin = max(0.06 * (max(scores) - min(scores)), 0.5)
        axes.set_ylim(max(0, min(*scores, 100 * data.chance) - margin), min(100.5, max(scores) + margin))
        low, high = data.num_seeds
        seeds = f"n = {high}" if low == high else f"n = {low} to {high}"
        note = f"mean and 95 % t interval, {seeds} seeds an arm; dots: trials; crosses: diverged, scored at chance"
        held = "".join(f"; {name} = {level}" for name, level in data.held.items())
        figure.suptitle(note + held, fontsize=7.5, color="0.25", x=0.01, ha="left")
        if len(data.series) > 1:
            figure.legend(loc="outside right upper" if len(data.series) > 4 else "outside lower center",
                          ncols=1 if len(data.series) > 4 else 2, frameon=False, fontsize=8)  # fmt: skip
        return figure


def draw_curves(data: Curves) -> Figure:
    """Learning curves: the mean over seeds, a band from the lowest to the highest."""
    with mpl.rc_context(STYLE):
        count = max(len(data.panels), 1)
        columns = min(count, 3)
        rows = math.ceil(count / columns)
        figure = Figure(figsize=(max(3.1 * columns + 1.4, 5.5), 2.7 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        seen: dict[str, Any] = {}
        for axes, (name, lines) in zip(grid, data.panels, strict=False):
            colors = _colors(len(lines))
            for number, line in enumerate(lines):
                (drawn,) = axes.plot(
                    line.epochs, [100 * v for v in line.mean], color=colors[number], linewidth=1.3,
                    linestyle=LINES[number % 4], marker="." if len(line.epochs) < 15 else None, label=line.label,
                )  # fmt: skip
                axes.fill_between(line.epochs, [100 * v for v in line.low], [100 * v for v in line.high],
                                  color=colors[number], alpha=0.18, linewidth=0)  # fmt: skip
                seen.setdefault(line.label, drawn)
            axes.set_title(name, fontsize=9)
        for axes in grid[count:]:
            axes.set_visible(False)
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("test accuracy (%)", fontsize=9)
        if 1 < len(seen) <= MAX_SERIES:
            figure.legend(list(seen.values()), list(seen), loc="outside right upper", frameon=False, fontsize=7.5)
        return figure


def to_svg(figure: Figure, salt: str) -> str:
    """The figure as an `<svg>` element; `salt` keeps the ids of several in one page apart, and the text stable."""
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as its suffix says: .svg, .png (200 dpi) or .pdf."""
    if path.suffix == ".svg":
        path.write_text('<?xml version="1.0" encoding="utf-8"?>\n' + to_svg(figure, path.stem), encoding="utf-8")
    else:
        figure.savefig(path, dpi=200)


def _point(arm: ArmResults, factor: str) -> Point:
    diverged = frozenset(seed for seed, result in arm.results.items() if result.status == "diverged")
    return Point(level=arm.arm.levels[factor], scores=arm.scores, diverged=diverged, summary=arm.summary)


def _axis(labels: Sequence[str]) -> tuple[str, dict[str, float]]:
    """Numbers stand at their value, on a logarithmic axis where they span a decade; words stand side by side."""
    try:
        values = {label: float(label) for label in labels}
    except ValueError:
        return "categorical", {label: float(i) for i, label in enumerate(labels)}
    if len(values) < 3 or not all(math.isfinite(value) for value in values.values()):
        return "categorical", {label: float(i) for i, label in enumerate(labels)}
    spans_decade = min(values.values()) > 0 and max(values.values()) >= 10 * min(values.values())
    return ("log" if spans_decade else "linear"), values


def _colors(count: int) -> list[Any]:
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    return [mpl.colormaps["viridis"](0.92 * i / (count - 1)) for i in range(count)]


def _draw_series(axes: Axes, data: FactorFigure, series: Series, number: int) -> None:
    color, marker = _colors(len(data.series))[number], MARKERS[number % len(MARKERS)]
    points = [point for point in series.points if point.summary.n]
    x = [_dodged(data, data.positions[point.level], number) for point in points]
    means = [100 * (point.summary.mean or 0) for point in points]
    line = "none" if data.scale == "categorical" else LINES[number % len(LINES)]
    axes.plot(
        x, means, color=color, linewidth=1.2, linestyle=line, marker=marker, markersize=5, label=series.label or None
    )
    for at, point in zip(x, points, strict=True):
        if point.summary.low is not None and point.summary.high is not None:
            interval = [100 * point.summary.low, 100 * point.summary.high]
            axes.plot([at, at], interval, color=color, linewidth=1.4, solid_capstyle="butt")
        for place, (seed, score) in enumerate(point.scores.items()):
            look: dict[str, Any] = (
                {"marker": "x", "markersize": 6} if seed in point.diverged else {"marker": ".", "markersize": 5}
            )
            beside = _shifted(data, at, _SEED_GAP * (1 + place / max(len(point.scores) - 1, 1)))
            axes.plot([beside], [100 * score], color=color, linestyle="none", alpha=0.75, **look)


def _dodged(data: FactorFigure, x: float, number: int) -> float:
    """Series stand a little apart, so that their intervals do not hide each other."""
    count = len(data.series)
    return _shifted(data, x, (number - (count - 1) / 2) * min(0.12, 0.7 / max(count, 1)))


def _shifted(data: FactorFigure, x: float, share: float) -> float:
    """Moves a position by a share of the distance between levels."""
    places = sorted(data.positions.values())
    if data.scale == "log":
        return float(x * (places[-1] / places[0]) ** (share / max(len(places) - 1, 1)))
    gap = min((b - a for a, b in itertools.pairwise(places)), default=1.0)
    return x + share * gap


def _label_x(axes: Axes, data: FactorFigure) -> None:
    axes.set_xlabel(data.factor.replace("_", " "))
    if data.scale == "log":
        axes.set_xscale("log")
    places, labels = list(data.positions.values()), list(data.positions)
    if data.scale == "categorical":
        axes.set_xlim(min(places) - 0.5, max(places) + 0.5)
    crowded = sum(map(len, labels)) > 55
    axes.set_xticks(places, labels, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xticks([], minor=True)


def _line(label: str, arm: ArmResults) -> Line | None:
    by_epoch: dict[float, list[float]] = {}
    for result in arm.results.values():
        if result.details is None:
            continue
        curves = result.details.curves
        for epoch, accuracy in zip(curves["epoch"], curves["test_accuracy"], strict=True):
            if epoch is not None and accuracy is not None:
                by_epoch.setdefault(epoch, []).append(accuracy)
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    return Line(
        label=label,
        epochs=tuple(epochs),
        mean=tuple(summarize(by_epoch[epoch]).mean or 0.0 for epoch in epochs),
        low=tuple(min(by_epoch[epoch]) for epoch in epochs),
        high=tuple(max(by_epoch[epoch]) for epoch in epochs),
    )
