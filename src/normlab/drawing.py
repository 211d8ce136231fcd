"""How figures are drawn: matplotlib figures of what `figures` chose, and their files.

Colours are those of Okabe and Ito (2008), with a marker and a line style of its own for each series, so that print in
grey keeps them apart. `picture` writes a figure as SVG, PDF or PNG, always the same bytes.
"""

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation, Transform

from normlab.errors import UsageError, unknown
from normlab.figure_data import MAX_SERIES, ArmCurves, CurveFigure, CurvePanel, FactorFigure, Panel, Point, Series

# Okabe and Ito's, without the yellow that white paper swallows; markers and dashes in the same order.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "p")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 3)))
MAX_MARKERS = 2_000  # chosen: of more seeds the dots of a line are one path
COLUMN_POINTS = 1.5  # between the columns that seeds stand in
CHARACTER_POINTS = 5.6  # width of an average character at 9 points, on the wide side
GREY = "#555555"

# Text stays text: smaller, searchable and readable aloud. A level such as $x$ is no formula.
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "normlab", "pdf.fonttype": 42, "text.parse_math": False, "font.size": 9,
    "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9,
    "legend.frameon": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True,
}  # fmt: skip


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
        figure, panels = _panels(width, height, columns, rows, len(data.panels))
        for i, axes in enumerate(panels):
            _prepare_factor_axes(axes, data, panel_points)
            _set_title(axes, titles[i])
            _draw_panel(axes, data, data.panels[i], names, panel_points)
            x_label = _wrapped(data.x_label, panel_points + 20)
            _label_outer(axes, i, columns, len(data.panels), x_label, data.y_label)
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
        figure, panels = _panels(width, height, columns, rows, len(data.panels))
        for i, axes in enumerate(panels):
            _set_title(axes, titles[i])
            locator: Any = axes.xaxis.get_major_locator()
            locator.set_params(integer=True)
            for arm in data.panels[i].arms:
                _draw_arm_curves(axes, arm, data)
            _label_outer(axes, i, columns, len(data.panels), "epoch", "accuracy (%)")
        _share_limits(panels)
        _draw_legend(figure, legend, width)
    return figure


def _set_title(axes: Axes, title: str) -> None:
    """With its place said: where matplotlib has to find it, it lays all ticks out once more at every turn."""
    axes.set_title(title, loc="left", y=1.0)


def _panels(width: float, height: float, columns: int, rows: int, count: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its first `count` panels; the others stay empty."""
    figure = ShownFigure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


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
        quick: dict[str, Any] = {"pil_kwargs": {"compress_level": 2}} if suffix == ".png" else {}
        figure.savefig(content, format=suffix[1:], dpi=200, metadata=metadata[suffix], **quick)
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
        _draw_series(axes, data, series, i, (i - (len(names) - 1) / 2) * step, step, width_points)


def _draw_series(
    axes: Axes, data: FactorFigure, series: Series, i: int, centre: float, step: float, width_points: float
) -> None:
    """Draws one line: means at their place, seeds a little to the right; `centre` and `step` are in points."""
    means = _shifted(axes, centre - (0 if data.numeric else 0.18 * step))
    beside = centre + (4.5 if data.numeric else 0.24 * step)
    x = [data.positions[p.x] for p in series.points]
    y = [100 * p.mean for p in series.points]
    if data.numeric:
        axes.plot(x, y, color=COLOURS[i], linestyle=DASHES[i], linewidth=1.2, transform=means, zorder=2)
    bars = [(place, p.low, p.high) for p, place in zip(series.points, x, strict=True) if p.low is not None]
    if bars:  # in one line that is broken between them
        ends = np.array([(low, high, math.nan) for _, low, high in bars], dtype=float)
        where = np.repeat([place for place, _, _ in bars], 3)
        axes.plot(where, 100 * ends.ravel(), color=COLOURS[i], linewidth=1.3, marker="_", markersize=5, transform=means)
    many = sum(len(p.scores) for p in data.points()) > MAX_MARKERS
    if many and any(p.scores for p in series.points):
        axes.add_artist(_dots(data, series, width_points, transform=_shifted(axes, beside), color=COLOURS[i]))
    for j in range(3):  # each third run in a column of its own, one artist for all of them
        column = _shifted(axes, beside + COLUMN_POINTS * (j - 1))
        dots = [(at, 100 * score) for at, p in zip(x, series.points, strict=True) for score in p.scores[j::3]]
        crosses = {(at, 100 * score) for at, p in zip(x, series.points, strict=True) for score in p.diverged[j::3]}
        if dots and not many:
            axes.plot(*zip(*dots, strict=True), transform=column, **_seed_style(i))
        if crosses:
            axes.plot(*zip(*sorted(crosses), strict=True), transform=column, **_cross_style(i))
    axes.plot(x, y, color=COLOURS[i], transform=means, zorder=4, **_mean_style(i))


def _dots(data: FactorFigure, series: Series, width_points: float, **style: Any) -> PathPatch:
    """The dots of `_seed_style`, in their three columns, as one path of many strokes without a length worth mentioning:
    a marker each would take seconds and megabytes."""
    low, high = _x_limits(data)
    shifts = COLUMN_POINTS / width_points * (high - low) * np.array([-1.0, 0.0, 1.0])
    places = []
    for point in series.points:
        at, scores = data.positions[point.x], np.array(point.scores)
        columns = np.resize(at * 10**shifts if data.log else at + shifts, len(scores))
        places.append(np.stack([columns, 100 * scores], axis=1))
    ends = np.repeat(np.concatenate(places), 2, axis=0)
    ends[1::2, 1] += 1e-4  # nothing at all would not be drawn
    path = Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2))
    path.should_simplify = False  # strokes that end where they begin are all there is
    return PathPatch(path, fill=False, linewidth=3, capstyle="round", snap=False, alpha=0.75, zorder=3, **style)


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
    of two dozen panels that took half of the time."""
    box = Bbox.union([axes.dataLim for axes in panels])
    for axes in panels:
        if np.isfinite(box.get_points()).all():
            axes.dataLim.set(box)
        axes.autoscale_view()


def _titles(panels: Sequence[Panel] | Sequence[CurvePanel], width_points: float) -> list[str]:
    """The panels' titles, each in at most three lines of this width."""
    return [_wrapped(panel.title, width_points) for panel in panels]


def _wrapped(text: str, width_points: float) -> str:
    lines = textwrap.wrap(text, max(8, int(width_points / CHARACTER_POINTS)))
    return "\n".join([*lines[:2], *(["…"] if len(lines) > 3 else lines[2:])])


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
