"""Figures of a study: one a factor, with every seed, and the learning curves. First the data, then the drawing.

`factor_figure` and `curve_figure` choose what is drawn and are plain data; `draw_factor` and `draw_curves` make
matplotlib figures of them, in the colours of Okabe and Ito (2008), with a marker and a line style of its own for each
series, so that print in grey keeps them apart. `picture` writes a figure as SVG, PDF or PNG, always the same bytes.
"""

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation, Transform

from normlab.errors import UsageError, unknown
from normlab.grid import as_number
from normlab.notation import dropout_rates
from normlab.result import Result
from normlab.table import ArmRecord, StudyTable
from normlab.wording import UNITS, words

# Okabe and Ito's, without the yellow that white paper swallows; markers and dashes in the same order.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "p")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 3)))
MAX_SERIES = len(COLOURS)
MAX_PANELS, MAX_CURVE_PANELS = 12, 24  # chosen: what fits a page and still can be read
MAX_VECTOR_DOTS = 2_000  # chosen: more are an image within the SVG or PDF, which would take seconds and megabytes

# Text stays text: smaller, searchable and readable aloud. A level such as $x$ is no formula.
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "normlab", "pdf.fonttype": 42, "text.parse_math": False, "font.size": 9,
    "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9,
    "legend.frameon": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm in a figure, at the place `x` of its level."""

    x: int
    n: int
    scores: tuple[float, ...]  # of the trials that ended, by seed
    diverged: tuple[float, ...]  # chance, once for each trial that diverged
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Series:
    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True, kw_only=True)
class FactorFigure:
    """The data of a factor's figure. `positions` are the levels' places on the axis; it is logarithmic if `log`."""

    factor: str
    x_label: str
    y_label: str
    ticks: tuple[str, ...]
    positions: tuple[float, ...]
    numeric: bool
    log: bool
    chance: float | None  # None where the arms' numbers of classes differ
    panels: tuple[Panel, ...]
    level: float
    left_out: str  # in words; empty where all arms are drawn

    def points(self) -> list[Point]:
        return [point for panel in self.panels for series in panel.series for point in series.points]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy over epochs: mean, lowest and highest of the runs, those that diverged counted as chance."""

    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ArmCurves:
    name: str
    n: int
    train: Curve
    test: Curve
    diverged_at: tuple[int, ...]  # epochs


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    title: str
    arms: tuple[ArmCurves, ...]


@dataclass(frozen=True, kw_only=True)
class CurveFigure:
    panels: tuple[CurvePanel, ...]
    names: tuple[str, ...]  # of the series, in the order of their colours
    chance: float | None  # None where the arms' numbers of classes differ
    dropout: bool  # whether any network has it
    left_out: str


# --- what is drawn ----------------------------------------------------------------------------------------------------


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
    log = numeric and min(values) > 0 and max(values) / min(values) > 10
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

    Needs a table read with its details. Of more than 24 panels the first 24 are kept, and the figure says so.
    """
    groups = {tuple(arm.arm.levels.items()): [arm] for arm in table.arms}
    panels = _split(groups)
    drawn = dict(list(panels.items())[:MAX_CURVE_PANELS])
    found = []
    for title, lines in drawn.items():
        arms = tuple(_arm_curves(table, name, arms[0]) for name, arms in lines)
        found.append(CurvePanel(title=title, arms=arms))
    names = tuple(dict.fromkeys(arm.name for panel in found for arm in panel.arms))
    left_out = _left_out(panels, MAX_CURVE_PANELS)
    dropout = any(any(dropout_rates(arm.spec.network)) for arm in table.arms)
    return CurveFigure(panels=tuple(found), names=names, chance=_chance(table), dropout=dropout, left_out=left_out)


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
    found = [(record.result, table.details(record)) for record in arm.trials]
    runs = [(result, details.curves) for result, details in found if result is not None and details is not None]
    chance = 1 / arm.num_classes
    return ArmCurves(
        name=name,
        n=len(runs),
        train=_mean_curve(runs, "train_accuracy", chance),
        test=_mean_curve(runs, "test_accuracy", chance),
        diverged_at=tuple(run.diverged_epoch for run, _ in runs if run.diverged_epoch is not None),
    )


def _mean_curve(runs: Sequence[tuple[Result, Curves]], name: str, chance: float) -> Curve:
    """Over the runs; one that diverged counts as chance from then on, as it does in the end."""
    measured = [_measured(curves, name) for _, curves in runs]
    epochs = sorted(set().union(*measured))
    values = []
    for epoch in epochs:
        ended = [run.diverged_epoch is not None and epoch >= run.diverged_epoch for run, _ in runs]
        values.append([m.get(epoch, chance) for m, end in zip(measured, ended, strict=True) if end or epoch in m])
    return Curve(
        epochs=tuple(epochs),
        mean=tuple(float(np.mean(v)) for v in values),
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


# --- how it is drawn --------------------------------------------------------------------------------------------------

CHARACTER_POINTS = 5.6  # width of an average character at 9 points, on the wide side
GREY = "#555555"


class ShownFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_svg_(self) -> str:
        svg = picture(self, ".svg").decode()
        return svg[svg.index("<svg") :]


def draw_factor(data: FactorFigure) -> Figure:
    """Draws every seed as a dot, the mean of each arm with its interval, diverged trials as crosses at chance."""
    with mpl.rc_context(STYLE):
        columns, rows = _grid_shape(len(data.panels))
        width = 7.2 if columns == 1 else 9.6
        panel_points = (width / columns - 0.7) * 72
        names = list(dict.fromkeys(series.name for panel in data.panels for series in panel.series))
        legend = _factor_legend(data, names)
        titles = _titles(data.panels, panel_points + 20)
        height = (2.9 if rows == 1 else 2.0 * rows) + _legend_height(legend, width) + _tick_height(data, panel_points)
        figure = ShownFigure(figsize=(width, height), layout="constrained")
        axes_grid = figure.subplots(rows, columns, squeeze=False)
        for i, axes in enumerate(axes_grid.flat):
            if i >= len(data.panels):
                axes.set_visible(False)
                continue
            _prepare_factor_axes(axes, data, panel_points)
            axes.set_title(titles[i], loc="left")
            _draw_panel(axes, data, data.panels[i], names, panel_points)
            _label_outer(axes, i, columns, len(data.panels), data.x_label, data.y_label)
        _draw_legend(figure, legend, width)
    return figure


def draw_curves(data: CurveFigure) -> Figure:
    """Draws accuracy over epochs, test thick and training thin, with a band from the lowest to the highest seed."""
    with mpl.rc_context(STYLE):
        columns, rows = _grid_shape(len(data.panels))
        width = 7.2 if columns == 1 else 9.6
        legend = _curve_legend(data)
        titles = _titles(data.panels, (width / columns - 0.4) * 72)
        lines = 0.15 * rows * max((title.count("\n") for title in titles), default=0)
        height = (3.0 if columns == 1 else 1.8 * rows + 0.3) + _legend_height(legend, width) + lines
        figure = ShownFigure(figsize=(width, height), layout="constrained")
        axes_grid = figure.subplots(rows, columns, squeeze=False)
        for i, axes in enumerate(axes_grid.flat):
            if i >= len(data.panels):
                axes.set_visible(False)
                continue
            axes.set_title(titles[i], loc="left")
            axes.xaxis.get_major_locator().set_params(integer=True)
            for arm in data.panels[i].arms:
                _draw_arm_curves(axes, arm, data)
            _label_outer(axes, i, columns, len(data.panels), "epoch", "accuracy (%)")
        _share_limits(list(axes_grid.flat)[: len(data.panels)])
        _draw_legend(figure, legend, width)
    return figure


def picture(figure: Figure, suffix: str) -> bytes:
    """The figure as a file of one of the kinds .svg, .png (200 dots an inch) and .pdf, without a date in it."""
    metadata: dict[str, dict[str, Any]] = {
        ".svg": {"Date": None, "Creator": None},
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    if suffix not in metadata:
        raise UsageError(unknown("kind of picture", suffix, metadata))
    content = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a level may be in any script
        if (engine := figure.get_layout_engine()) is not None:  # laid out once, not twice for each file
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(content, format=suffix[1:], dpi=200, metadata=metadata[suffix])
    return content.getvalue()


def _prepare_factor_axes(axes: Axes, data: FactorFigure, width_points: float) -> None:
    if data.log:
        axes.set_xscale("log")
    low, high = _x_limits(data)
    axes.set_xlim(10**low if data.log else low, 10**high if data.log else high)
    axes.set_ylim(*_y_limits(data))
    keep, labels, rotated = _tick_labels(data.ticks, _places(data, width_points))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([data.positions[i] for i in keep], labels=labels)
    if rotated:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    if not data.numeric:
        axes.grid(visible=False, axis="x")


def _x_limits(data: FactorFigure) -> tuple[float, float]:
    """Of the axis, in powers of ten where it is logarithmic."""
    ends = [math.log10(p) if data.log else p for p in (min(data.positions), max(data.positions))]
    pad = 0.07 * (ends[1] - ends[0]) if data.numeric else 0.5
    return ends[0] - pad, ends[1] + pad


def _places(data: FactorFigure, width_points: float) -> list[float]:
    """Where the levels lie on an axis of this width, in points from its left end."""
    low, high = _x_limits(data)
    return [((math.log10(p) if data.log else p) - low) / (high - low) * width_points for p in data.positions]


def _tick_height(data: FactorFigure, width_points: float) -> float:
    """Inches that the tick labels need beyond one line."""
    _, labels, rotated = _tick_labels(data.ticks, _places(data, width_points))
    if rotated:
        return 0.6 * CHARACTER_POINTS * max(map(len, labels)) / 72
    return 0.15 * max(label.count("\n") for label in labels)


def _tick_labels(ticks: Sequence[str], places: Sequence[float]) -> tuple[list[int], list[str], bool]:
    """Which ticks get a label at these places (in points), the labels, and whether they must be turned to fit."""
    order = sorted(range(len(ticks)), key=lambda i: places[i])
    for wrap in (1000, 16):
        labels = ["\n".join(textwrap.wrap(tick, wrap)) or " " for tick in ticks]
        widths = [CHARACTER_POINTS * max(map(len, label.split("\n"))) + 6 for label in labels]
        pairs = itertools.pairwise(order)
        if all(places[b] - places[a] >= (widths[a] + widths[b]) / 2 for a, b in pairs):
            return list(range(len(ticks))), labels, False
    keep: list[int] = []
    for i in order:  # turned labels need little more than their height
        if not keep or places[i] - places[keep[-1]] >= 14:
            keep.append(i)
    return keep, [_short(ticks[i], 36) for i in keep], True


def _y_limits(data: FactorFigure) -> tuple[float, float]:
    """Limits in per cent around all scores and intervals, within 0 to 100; chance is inside where it is near."""
    values = [v for p in data.points() for v in (*p.scores, *p.diverged, p.mean)]
    ends = [min(max(v, 0.0), 1.0) for p in data.points() for v in (p.low, p.high) if v is not None]
    if not values:
        return 0.0, 100.0
    low, high = min(values + ends), max(values + ends)
    if data.chance is not None and data.chance < low and low - data.chance <= max(0.15, high - low):
        low = data.chance
    pad = max(0.06 * (high - low), 0.002)
    return 100 * max(low - pad, -0.03), 100 * min(high + pad, 1.03)


def _draw_panel(axes: Axes, data: FactorFigure, panel: Panel, names: Sequence[str], width_points: float) -> None:
    if data.chance is not None:
        axes.axhline(100 * data.chance, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    places = sorted(_places(data, width_points))
    room = 0.85 * min((b - a for a, b in itertools.pairwise(places)), default=width_points) / len(names)
    step = min(room, 5.0 if data.numeric else 16.0)  # a number keeps close to its place
    for series in panel.series:
        i = names.index(series.name)
        _draw_series(axes, data, series, i, (i - (len(names) - 1) / 2) * step, step)


def _draw_series(axes: Axes, data: FactorFigure, series: Series, i: int, centre: float, step: float) -> None:
    """Draws one line: means at their place, seeds a little to the right; `centre` and `step` are in points."""
    means = _shifted(axes, centre - (0 if data.numeric else 0.18 * step))
    seeds = [_shifted(axes, centre + (4.5 if data.numeric else 0.24 * step) + 1.5 * j) for j in (-1, 0, 1)]
    as_image = sum(len(p.scores) + len(p.diverged) for p in data.points()) > MAX_VECTOR_DOTS
    x = [data.positions[p.x] for p in series.points]
    y = [100 * p.mean for p in series.points]
    if data.numeric:
        axes.plot(x, y, color=COLOURS[i], linestyle=DASHES[i], linewidth=1.2, transform=means, zorder=2)
    for p, place in zip(series.points, x, strict=True):
        if p.low is not None and p.high is not None:
            ends = [100 * p.low, 100 * p.high]
            axes.plot([place, place], ends, color=COLOURS[i], linewidth=1.3, marker="_", markersize=5, transform=means)
    for style, runs in ((_seed_style(i), [p.scores for p in series.points]),
                        (_cross_style(i), [p.diverged for p in series.points])):  # fmt: skip
        for j in range(3):  # each third run in a column of its own, one artist for all of them
            dots = [(place, 100 * score) for place, scores in zip(x, runs, strict=True) for score in scores[j::3]]
            if dots:
                axes.plot(*zip(*dots, strict=True), transform=seeds[j], rasterized=as_image, **style)
    axes.plot(x, y, color=COLOURS[i], transform=means, zorder=4, **_mean_style(i))


def _shifted(axes: Axes, points: float) -> Transform:
    scale = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    return axes.transData + ScaledTranslation(points / 72, 0, scale)


def _mean_style(i: int) -> dict[str, Any]:
    return {"marker": MARKERS[i], "markersize": 5.5, "linestyle": "none", "markeredgecolor": "white",
            "markeredgewidth": 0.6}  # fmt: skip


def _seed_style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "marker": ".", "markersize": 4, "alpha": 0.75, "linestyle": "none", "zorder": 3}


def _cross_style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "marker": "x", "markersize": 5, "markeredgewidth": 1.3, "linestyle": "none",
            "zorder": 5, "clip_on": False}  # fmt: skip


def _draw_arm_curves(axes: Axes, arm: ArmCurves, data: CurveFigure) -> None:
    i = data.names.index(arm.name) % MAX_SERIES
    colour, test, train = COLOURS[i], arm.test, arm.train
    percents = 100 * np.array([test.mean, test.lowest, test.highest])
    axes.fill_between(test.epochs, percents[1], percents[2], color=colour, alpha=0.18, linewidth=0)
    every = max(1, len(test.epochs) // 6)
    axes.plot(test.epochs, percents[0], color=colour, linestyle=DASHES[i], linewidth=1.5, marker=MARKERS[i],
              markersize=3.5, markevery=every)  # fmt: skip
    axes.plot(train.epochs, 100 * np.array(train.mean), color=colour, linestyle=DASHES[i], linewidth=0.6)
    for epoch in arm.diverged_at:
        axes.plot([epoch], [100 * (data.chance or 0)], **_cross_style(i))


# --- legends, labels, panels ------------------------------------------------------------------------------------------

Entry = tuple[Line2D, str]


def _factor_legend(data: FactorFigure, names: Sequence[str]) -> list[Entry]:
    entries = []
    for i, name in enumerate(names):
        points = [p for panel in data.panels for s in panel.series if s.name == name for p in s.points]
        dash = DASHES[i] if data.numeric else "none"
        handle = Line2D([], [], color=COLOURS[i], **{**_mean_style(i), "linestyle": dash})
        entries.append((handle, f"{_short(name, 60)}{', ' if name else ''}{_counts(points)}"))
    interval = Line2D([], [], color=GREY, linestyle="none", marker="|", markersize=10, markeredgewidth=1.3)
    some = any(p.low is not None for p in data.points())
    entries.append((interval, f"mean with {data.level:.0%} t interval" if some else "mean (no interval: too few runs)"))
    entries.append((Line2D([], [], **{**_seed_style(0), "color": GREY, "markersize": 5}), "one seed"))
    if any(p.diverged for p in data.points()):
        entries.append((Line2D([], [], **{**_cross_style(0), "color": GREY}), "diverged, counted as chance"))
    if data.chance is not None:
        seen = 100 * data.chance >= _y_limits(data)[0]
        style: Any = (0, (1, 2)) if seen else "none"
        text = f"chance, {100 * data.chance:.3g} %" + ("" if seen else " (below the axis)")
        entries.append((Line2D([], [], color=GREY, linewidth=0.9, linestyle=style), text))
    return entries


def _curve_legend(data: CurveFigure) -> list[Entry]:
    entries = []
    for i, name in enumerate(data.names):
        if name:
            style: dict[str, Any] = {"linestyle": DASHES[i], "marker": MARKERS[i], "markersize": 3.5}
            entries.append((Line2D([], [], color=COLOURS[i], **style), _short(name, 60)))
    first = GREY if entries else COLOURS[0]
    entries.append((Line2D([], [], color=first, linewidth=1.5), "test, mean of the seeds"))
    entries.append((Line2D([], [], color=first, linewidth=5, alpha=0.25), "test, lowest to highest seed"))
    entries.append((Line2D([], [], color=first, linewidth=0.6), f"training{', with dropout' * data.dropout}, mean"))
    if any(arm.diverged_at for panel in data.panels for arm in panel.arms):
        entries.append((Line2D([], [], **{**_cross_style(0), "color": GREY}), "a run diverged here"))
    return entries


def _counts(points: Sequence[Point]) -> str:
    counts = sorted({p.n for p in points})
    if not counts:
        return "nothing yet"
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _legend_columns(entries: Sequence[Entry], width: float) -> int:
    longest = max(len(text) for _, text in entries)
    return max(1, min(4, int(width * 72 / (longest * CHARACTER_POINTS * 0.9 + 34))))


def _legend_height(entries: Sequence[Entry], width: float) -> float:
    return 0.3 + 0.19 * math.ceil(len(entries) / _legend_columns(entries, width))


def _draw_legend(figure: Figure, entries: Sequence[Entry], width: float) -> None:
    handles, labels = [h for h, _ in entries], [text for _, text in entries]
    columns = _legend_columns(entries, width)
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8.5, handlelength=2.6)


def _grid_shape(count: int) -> tuple[int, int]:
    """Columns and rows for so many panels: as few empty places as possible, then as few rows."""
    if count <= 3:
        return max(count, 1), 1
    shapes = [(columns, math.ceil(count / columns)) for columns in ((2,) if count == 4 else (3, 4, 5))]
    return min(shapes, key=lambda shape: (shape[0] * shape[1] - count, shape[1]))


def _label_outer(axes: Axes, i: int, columns: int, count: int, x_label: str, y_label: str) -> None:
    """Labels only where there is no panel below, or to the left."""
    is_lowest, is_first = i + columns >= count, i % columns == 0
    axes.tick_params(labelbottom=is_lowest, labelleft=is_first)
    if is_lowest:
        axes.set_xlabel(x_label)
    if is_first:
        axes.set_ylabel(y_label)


def _share_limits(panels: Sequence[Axes]) -> None:
    """Gives panels one range of each axis. Axes that matplotlib shares ask each other for their limits at every turn:
    of 24 panels that took half of the time."""
    box = Bbox.union([axes.dataLim for axes in panels])
    for axes in panels:
        if np.isfinite(box.get_points()).all():
            axes.dataLim.set(box)
        axes.autoscale_view()


def _titles(panels: Sequence[Panel] | Sequence[CurvePanel], width_points: float) -> list[str]:
    """The panels' titles, each in at most three lines of this width."""
    wrapped = [textwrap.wrap(panel.title, max(8, int(width_points / CHARACTER_POINTS))) for panel in panels]
    return ["\n".join([*lines[:2], *(["…"] if len(lines) > 3 else lines[2:])]) for lines in wrapped]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
