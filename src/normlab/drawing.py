"""How figures are drawn: what `figures` chose, in the panels that `panels` places.

Colours are those of Okabe and Ito (2008), with a marker and a line style of its own for each series, so that print in
grey keeps them apart.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.transforms import ScaledTranslation, Transform

from normlab.figure_data import MAX_SERIES, ArmCurves, CurveFigure, FactorFigure, Panel, Point, Series
from normlab.panels import (
    Axis,
    Entry,
    make_panels,
    number_axis,
    panel_height,
    panel_width,
    shortened,
    with_levels,
)  # fmt: skip
from normlab.pictures import STYLE

# Okabe and Ito's, without the yellow that white paper swallows; markers and dashes in the same order.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "p")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 3)))
MAX_MARKERS = 2_000  # chosen: of more seeds the dots of a line are one path
# Of series over a number, in points: from one to the next, where there is room for its seeds between; from the first to
# the last, lest any stands far from its number; from means to their seeds; between the columns that seeds stand in.
STEP, SPREAD, BESIDE, COLUMN = 9.0, 24.0, 4.5, 1.5
GREY = "#555555"


def draw_factor(data: FactorFigure) -> Figure:
    """Draws every seed as a dot, the mean of each arm with its interval, diverged trials as crosses at chance."""
    with mpl.rc_context(STYLE):
        count = len(data.panels)
        names = list(dict.fromkeys(series.name for panel in data.panels for series in panel.series))
        y = number_axis(data.y_label, panel_height(count), _y_limits(data), 18)
        x = _x_axis(data, len(names), count, panel_width(count, y))
        figure, panels = make_panels([panel.title for panel in data.panels], x, y, _factor_legend(data, names))
        for axes, panel in zip(panels, data.panels, strict=True):
            _draw_panel(axes, data, panel, names, x)
    return figure


def draw_curves(data: CurveFigure) -> Figure:
    """Draws accuracy over epochs, test thick and training thin, with a band from the lowest to the highest seed."""
    with mpl.rc_context(STYLE):
        count = len(data.panels)
        epochs, percents = _curve_limits(data)
        y = number_axis("accuracy (%)", panel_height(count), percents, 18)
        x = number_axis("epoch", panel_width(count, y), epochs, 27, whole=True)
        figure, panels = make_panels([panel.title for panel in data.panels], x, y, _curve_legend(data))
        for axes, panel in zip(panels, data.panels, strict=True):
            for arm in panel.arms:
                _draw_arm_curves(axes, arm, data)
    return figure


def _x_axis(data: FactorFigure, num_series: int, num_panels: int, length: float) -> Axis:
    """The levels' axis, on which nothing of the first and the last is cut off."""
    low, high = (math.log10(p) if data.log else p for p in (min(data.positions), max(data.positions)))
    reach = (num_series - 1) / 2 * _step(num_series) + BESIDE + 2 * COLUMN  # in points
    pad = max(0.07, reach / (length - 2 * reach)) * (high - low) if data.numeric and high > low else 0.5
    ends = (10 ** (low - pad), 10 ** (high + pad)) if data.log else (low - pad, high + pad)
    axis = Axis(words=data.x_label, length=length, ends=ends, grid=data.numeric, log=data.log)
    return with_levels(axis, data.positions, data.ticks, num_panels)


def _step(num_series: int) -> float:
    """Points from one series over a number to the next."""
    return min(STEP, SPREAD / max(1, num_series - 1))


def _y_limits(data: FactorFigure) -> tuple[float, float]:
    """Limits in per cent around all scores, and intervals as far as they leave the scores half of the axis, within 0 to
    100; chance is inside where it is near."""
    values = [v for p in data.points() for v in (*p.scores, *p.diverged, p.mean)]
    if not values:
        return 0.0, 100.0
    low, high = min(values), max(values)
    room = max((high - low) / 2, 0.02)
    ends = [v for p in data.points() for v in (p.low, p.high) if v is not None]
    low, high = (
        max(0.0, min([low, *(max(v, low - room) for v in ends)])),
        min(1.0, max([high, *(min(v, high + room) for v in ends)])),
    )
    if data.chance is not None and data.chance < low and low - data.chance <= max(0.15, high - low):
        low = data.chance
    pad = max(0.06 * (high - low), 0.002)
    return 100 * max(low - pad, -0.03), 100 * min(high + pad, 1.03)


def _curve_limits(data: CurveFigure) -> tuple[tuple[float, float], tuple[float, float]]:
    """Epochs, and per cent, around all curves and crosses."""
    arms = [arm for panel in data.panels for arm in panel.arms]
    epochs = [epoch for arm in arms for epoch in (*arm.test.epochs, *arm.train.epochs, *arm.diverged_at)]
    values = [value for arm in arms for value in (*arm.test.lowest, *arm.test.highest, *arm.train.mean)]
    values += [arm.chance for arm in arms if arm.diverged_at]
    if not epochs or not values:
        return (0.0, 1.0), (0.0, 100.0)
    found = []
    for low, high, least in ((min(epochs), max(epochs), 0.5), (100 * min(values), 100 * max(values), 0.2)):
        pad = 0.05 * (high - low) if high - low > 1e-6 else least  # means of equal values differ by rounding
        found.append((low - pad, high + pad))
    return found[0], found[1]


def _draw_panel(axes: Axes, data: FactorFigure, panel: Panel, names: Sequence[str], x: Axis) -> None:
    if data.chance is not None:
        axes.axhline(100 * data.chance, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    places = sorted(set(x.places(data.positions)))
    room = 0.85 * min((b - a for a, b in itertools.pairwise(places)), default=x.length) / len(names)
    step = min(room, _step(len(names)) if data.numeric else 16.0)
    for series in panel.series:
        i = names.index(series.name)
        _draw_series(axes, data, series, i, (i - (len(names) - 1) / 2) * step, step, x)


def _draw_series(axes: Axes, data: FactorFigure, series: Series, i: int, centre: float, step: float, x: Axis) -> None:
    """Draws one line: means at their place, seeds a little to the right; `centre` and `step` are in points."""
    means = _shifted(axes, centre - (0 if data.numeric else 0.18 * step))
    beside = centre + (BESIDE if data.numeric else 0.24 * step)
    at = [data.positions[p.x] for p in series.points]
    mean = [100 * p.mean for p in series.points]
    bars = [(place, p.low, p.high) for p, place in zip(series.points, at, strict=True) if p.low is not None]
    if bars:  # in one line that is broken between them
        ends = np.array([(low, high, math.nan) for _, low, high in bars], dtype=float)
        where = np.repeat([place for place, _, _ in bars], 3)
        axes.plot(where, 100 * ends.ravel(), color=COLOURS[i], linewidth=1.3, marker="_", markersize=5, transform=means)
    many = sum(len(p.scores) for p in data.points()) > MAX_MARKERS
    if many and any(p.scores for p in series.points):
        axes.add_artist(_dots(data, series, x, transform=_shifted(axes, beside), color=COLOURS[i]))
    for j in range(3):  # each third run in a column of its own, one artist for all of them
        column = _shifted(axes, beside + COLUMN * (j - 1))
        points = list(zip(at, series.points, strict=True))
        dots = [(place, 100 * score) for place, p in points if not many for score in p.scores[j::3]]
        crosses = {(place, 100 * score) for place, p in points for score in p.diverged[j::3]}
        if dots:
            axes.plot(*zip(*dots, strict=True), transform=column, **_seed_style(i))
        if crosses:
            axes.plot(*zip(*sorted(crosses), strict=True), transform=column, **_cross_style(i))
    axes.plot(at, mean, transform=means, zorder=4, **_mean_style(i, data))


def _dots(data: FactorFigure, series: Series, x: Axis, **style: Any) -> PathPatch:
    """The dots of `_seed_style`, in their three columns, as one path of many strokes without a length worth mentioning:
    a marker each would take seconds and megabytes."""
    places = []
    for point in series.points:
        columns = [x.moved(data.positions[point.x], COLUMN * (j - 1)) for j in range(3)]
        scores = np.array(point.scores)
        places.append(np.stack([np.resize(columns, len(scores)), 100 * scores], axis=1))
    ends = np.repeat(np.concatenate(places), 2, axis=0)
    ends[1::2, 1] += 1e-4  # nothing at all would not be drawn
    path = Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2))
    path.should_simplify = False  # strokes that end where they begin are all there is
    return PathPatch(path, fill=False, linewidth=3, capstyle="round", snap=False, alpha=0.75, zorder=3, **style)


def _shifted(axes: Axes, points: float) -> Transform:
    scale = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    return axes.transData + ScaledTranslation(points / 72, 0, scale)


def _mean_style(i: int, data: FactorFigure) -> dict[str, Any]:
    return {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 5.5, "markeredgecolor": "white",
            "markeredgewidth": 0.6, "linestyle": DASHES[i] if data.numeric else "none", "linewidth": 1.2}  # fmt: skip


def _seed_style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "marker": ".", "markersize": 4, "alpha": 0.75, "linestyle": "none", "zorder": 3}


def _cross_style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "marker": "x", "markersize": 5, "markeredgewidth": 1.3, "linestyle": "none",
            "zorder": 5, "clip_on": False}  # fmt: skip


def _draw_arm_curves(axes: Axes, arm: ArmCurves, data: CurveFigure) -> None:
    i = data.names.index(arm.name) % MAX_SERIES
    colour, test, train = COLOURS[i], arm.test, arm.train
    percents = 100 * np.array([test.mean, test.lowest, test.highest])
    band = np.array([(*test.epochs, *test.epochs[::-1]), (*percents[1], *percents[2][::-1])]).T
    axes.add_patch(Polygon(band, color=colour, alpha=0.18, linewidth=0))
    every = max(1, len(test.epochs) // 6)
    axes.plot(test.epochs, percents[0], color=colour, linestyle=DASHES[i], linewidth=1.5, marker=MARKERS[i],
              markersize=3.5, markevery=every)  # fmt: skip
    axes.plot(train.epochs, 100 * np.array(train.mean), color=colour, linestyle=DASHES[i], linewidth=0.6)
    for epoch in arm.diverged_at:
        axes.plot([epoch], [100 * arm.chance], **_cross_style(i))


# --- legends ----------------------------------------------------------------------------------------------------------


def _factor_legend(data: FactorFigure, names: Sequence[str]) -> list[Entry]:
    entries = []
    for i, name in enumerate(names):
        points = [p for panel in data.panels for s in panel.series if s.name == name for p in s.points]
        handle = Line2D([], [], **_mean_style(i, data))
        entries.append((handle, f"{shortened(name, 60)}{', ' if name else ''}{_counts(points)}"))
    some = any(p.low is not None for p in data.points())
    interval = Line2D([], [], color=GREY, linestyle="none", marker="|" if some else "none", markersize=10,
                      markeredgewidth=1.3)  # fmt: skip
    entries.append((interval, f"mean with {data.level:.0%} t interval" if some else "mean (without intervals)"))
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
            entries.append((Line2D([], [], color=COLOURS[i], **style), shortened(name, 60)))
    first = GREY if entries else COLOURS[0]
    entries.append((Line2D([], [], color=first, linewidth=1.5), "test, mean of the seeds"))
    if any(arm.n > 1 for panel in data.panels for arm in panel.arms):
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
