"""A figure of panels with common axes: how large it is, and where its panels, ticks, grid, titles and legend stand.

Matplotlib would find all these places by laying everything out several times, with ticks in every panel. Here labels
stand at the outer panels alone, and their sizes are reckoned beforehand, so that places are sums. Of lengths the unit
is a point, a 72nd of an inch.
"""

import itertools
import math
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from normlab.pictures import ShownFigure

WIDTH, WIDTH_OF_ONE = 9.6 * 72, 7.2 * 72  # of a figure, and of one with a single column
HEIGHT, HEIGHT_OF_ONE = 112.0, 158.0  # of a panel, and of one in a single row
LINE, CHARACTER = 11.0, 5.6  # height of a line, and width of an average character, of 9 points
TICK = 8.0  # a tick, and the room between it and its label
GAP, MARGIN = 14.0, 6.0  # between columns, and around everything
ANGLE = 35  # degrees, of labels that are turned
GRID = "#dddddd"

Entry = tuple[Line2D, str]  # of a legend


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What all panels share along one direction: words, length in points, ends, ticks and their labels."""

    words: str
    length: float
    ends: tuple[float, float]
    ticks: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    turned: bool = False  # labels that would touch otherwise
    grid: bool = True
    log: bool = False

    def places(self, values: Sequence[float]) -> list[float]:
        """Where values lie, in points from the first end."""
        low, high, *at = (math.log10(value) if self.log else value for value in (*self.ends, *values))
        return [(value - low) / (high - low) * self.length for value in at]

    def moved(self, value: float, points: float) -> float:
        """The value that lies so many points behind this one."""
        low, high = (math.log10(end) if self.log else end for end in self.ends)
        step = points / self.length * (high - low)
        return value * 10**step if self.log else value + step


def number_axis(words: str, length: float, ends: tuple[float, float], spacing: float, *, whole: bool = False) -> Axis:
    """An axis with round numbers as ticks, that many points apart or more."""
    steps = min(max(int(length / spacing), 1), 9)
    locator = MaxNLocator(steps, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1 if whole else 2)
    found = locator.tick_values(*ends)
    ticks = tuple(float(tick) for tick in found if ends[0] <= tick <= ends[1])
    digits = next(d for d in range(16) if d == 15 or np.allclose(ticks, np.round(ticks, d), rtol=0, atol=1e-9))
    return Axis(
        words=words, length=length, ends=ends, ticks=ticks, labels=tuple(f"{tick:.{digits}f}" for tick in ticks)
    )


def with_levels(axis: Axis, values: Sequence[float], labels: Sequence[str], num_panels: int) -> Axis:
    """The axis, of so many panels, with a tick at each of these values that leaves room for its label."""
    around = axis.length + GAP if grid_shape(num_panels)[0] > 1 else math.inf
    keep, fitted, turned = fit_labels(labels, axis.places(values), around)
    return replace(axis, ticks=tuple(values[i] for i in keep), labels=tuple(fitted), turned=turned)


def grid_shape(count: int) -> tuple[int, int]:
    """Columns and rows for so many panels: as few empty places as possible, then as few rows."""
    if count <= 3:
        return max(count, 1), 1
    shapes = [(columns, math.ceil(count / columns)) for columns in ((2,) if count == 4 else (3, 4, 5))]
    return min(shapes, key=lambda shape: (shape[0] * shape[1] - count, shape[1]))


def panel_height(count: int) -> float:
    """Of each of so many panels."""
    return HEIGHT if grid_shape(count)[1] > 1 else HEIGHT_OF_ONE


def panel_width(count: int, y: Axis) -> float:
    """Of each of so many panels beside this axis."""
    columns, _ = grid_shape(count)
    return ((WIDTH if columns > 1 else WIDTH_OF_ONE) - _left(y) - GAP * (columns - 1) - MARGIN) / columns


def make_panels(titles: Sequence[str], x: Axis, y: Axis, legend: Sequence[Entry]) -> tuple[Figure, list[Axes]]:
    """A figure with an empty panel for each title."""
    columns, rows = grid_shape(len(titles))
    width, height = x.length, y.length
    texts = [wrapped(title, width + GAP) for title in titles]
    above = LINE * max(map(_num_lines, texts)) + MARGIN if any(texts) else MARGIN  # each row of panels
    below = _bottom(x) if x.turned and len(titles) % columns else 0.0  # the row before an unfilled one, which it labels
    overhang = [points + MARGIN for points in _overhang(x)]
    left = max(_left(y), overhang[0])
    whole_width = left + columns * (width + GAP) - GAP + overhang[1]
    top = _legend_height(legend, whole_width)
    whole_height = top + rows * (above + height) + below + _bottom(x)
    figure = ShownFigure(figsize=(whole_width / 72, whole_height / 72))
    panels = []
    for i, text in enumerate(texts):
        row, column = divmod(i, columns)
        edge = top + (row + 1) * (above + height) + (below if row == rows - 1 else 0.0)  # the lower, from the top
        corner = (left + column * (width + GAP)) / whole_width, 1 - edge / whole_height
        axes = figure.add_axes((*corner, width / whole_width, height / whole_height))
        axes.set_title(text, loc="left", y=1.0)  # or matplotlib would look at all ticks for its place
        _prepare(axes, x, y, wrapped(x.words, width + GAP) if i + columns >= len(texts) else None,
                 wrapped(y.words, height) if column == 0 else None)  # fmt: skip
        panels.append(axes)
    _draw_legend(figure, legend, whole_width)
    return figure, panels


def _prepare(axes: Axes, x: Axis, y: Axis, x_words: str | None, y_words: str | None) -> None:
    """Ends, grid, and ticks along each direction for which there are words."""
    axes.patch.set_visible(False)  # the figure is white already
    if x.log:
        axes.set_xscale("log")
    place_x, place_y = (0.5, -_below(x) / y.length), (-_beside(y) / x.length, 0.5)
    for axis, mine, words, place in ((axes.xaxis, x, x_words, place_x), (axes.yaxis, y, y_words, place_y)):
        axis.set_visible(words is not None)
        if words is not None:
            axis.set_minor_locator(NullLocator())
            axis.set_ticks(mine.ticks, labels=mine.labels)
            axis.set_label_text(words)
            axis.set_label_coords(*place)  # or matplotlib would measure all labels of ticks for it
    if x.turned and x_words is not None:
        for label in axes.get_xticklabels():
            label.set(rotation=ANGLE, ha="right", rotation_mode="anchor")
    axes.set(xlim=x.ends, ylim=y.ends)
    for mine, transform in ((x, axes.get_xaxis_transform()), (y, axes.get_yaxis_transform())):
        if mine.grid:  # one line that is broken between ticks
            across, along = np.tile([0, 1, math.nan], len(mine.ticks)), np.repeat(mine.ticks, 3)
            places = (along, across) if mine is x else (across, along)
            axes.add_line(Line2D(*places, color=GRID, linewidth=0.6, zorder=0.5, transform=transform))


def fit_labels(ticks: Sequence[str], places: Sequence[float], around: float) -> tuple[list[int], list[str], bool]:
    """Which ticks get a label at these places, the labels, and whether they must be turned to fit.

    The next panel's first place lies `around` behind this one's.
    """
    order = sorted(range(len(ticks)), key=lambda i: places[i])
    for wrap in (1000, 16):
        labels = ["\n".join(textwrap.wrap(tick, wrap)) or " " for tick in ticks]
        widths = [_width(label) + 6 for label in labels]
        gaps = [(a, b, places[b] - places[a]) for a, b in itertools.pairwise(order)]
        gaps.append((order[-1], order[0], places[order[0]] + around - places[order[-1]]))
        if all(gap >= (widths[a] + widths[b]) / 2 for a, b, gap in gaps):
            return list(range(len(ticks))), labels, False
    keep: list[int] = []
    for i in order:  # turned labels need little more than their height
        if not keep or places[i] - places[keep[-1]] >= 14:
            keep.append(i)
    return keep, [shortened(ticks[i], 36) for i in keep], True


def wrapped(text: str, width: float) -> str:
    """Text in at most three lines of this width, but of a few characters in any case; what stands between commas
    stays together where there is room."""
    words, width = text.split(), max(width, 8 * CHARACTER)
    phrases = [" ".join(phrase.split()) for phrase in re.split(r"(?<=,)\s", text)]
    lines = _filled(phrases, width) if all(_width(phrase) <= width for phrase in phrases) else []
    if not 0 < len(lines) <= 3:
        lines = _filled(words, width)
    return "\n".join([*lines[:2], *(["…"] if len(lines) > 3 else lines[2:])])


def _filled(pieces: Sequence[str], width: float) -> list[str]:
    """Lines of as many pieces as fit; one that is too long for a line is cut."""
    lines = [""]
    for piece in pieces:
        for part in [piece] if _width(piece) <= width else _parts(piece, width):
            longer = f"{lines[-1]} {part}".lstrip()
            lines[-1:] = [longer] if _width(longer) <= width else [lines[-1], part]
    return lines


def _parts(word: str, width: float) -> list[str]:
    """Of a word that is too long for a line, as those of scripts without blanks are, what fits."""
    parts = [""]
    for character in word:
        longer = parts[-1] + character
        parts[-1:] = [longer] if _width(longer) <= width else [parts[-1], character]
    return parts


def shortened(text: str, length: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


# --- what needs how much room -----------------------------------------------------------------------------------------


def _left(y: Axis) -> float:
    return MARGIN + LINE * _num_lines(wrapped(y.words, y.length)) + _beside(y)


def _beside(y: Axis) -> float:
    """From a panel to the axis's words."""
    return 4 + max(map(_width, y.labels), default=0) + TICK


def _bottom(x: Axis) -> float:
    return _below(x) + LINE * _num_lines(wrapped(x.words, x.length + GAP)) + MARGIN


def _below(x: Axis) -> float:
    """From a panel to the axis's words."""
    labels = max((LINE * _num_lines(label) for label in x.labels), default=LINE)
    if x.turned:
        labels = math.sin(math.radians(ANGLE)) * max(map(_width, x.labels)) + LINE
    return TICK + labels + 4


def _overhang(x: Axis) -> tuple[float, float]:
    """How far labels reach beyond the panel's left and right end."""
    before, after = 0.0, 0.0
    for place, label in zip(x.places(x.ticks), x.labels, strict=True):
        reach = math.cos(math.radians(ANGLE)) * _width(label) if x.turned else _width(label) / 2
        before = max(before, reach - place)
        after = max(after, place + (LINE / 2 if x.turned else reach) - x.length)
    return before, after


def _width(label: str) -> float:
    return CHARACTER * max(sum(map(_share, line)) for line in label.split("\n"))


def _share(character: str) -> float:
    """Of the width of an average character."""
    if unicodedata.east_asian_width(character) in "WF":
        return 1.65
    return 1.25 if character.isupper() or character in "mw%" else 1.0


def _num_lines(text: str) -> int:
    return text.count("\n") + 1


# --- legends ----------------------------------------------------------------------------------------------------------


def _legend_columns(entries: Sequence[Entry], width: float) -> int:
    """As many as fit, up to four; Matplotlib makes each as wide as its longest entry."""
    widths = [0.9 * _width(text) + 46 for _, text in entries]  # its letters are smaller; so much is around a text
    for count in range(min(4, len(entries)), 1, -1):
        if sum(map(max, np.array_split(widths, count))) <= width:
            return count
    return 1


def _legend_height(entries: Sequence[Entry], width: float) -> float:
    return 10 + 14 * math.ceil(len(entries) / _legend_columns(entries, width))


def _draw_legend(figure: Figure, entries: Sequence[Entry], width: float) -> None:
    handles, labels = [h for h, _ in entries], [text for _, text in entries]
    columns = _legend_columns(entries, width)
    figure.legend(handles, labels, loc="upper left", ncols=columns, fontsize=8.5, handlelength=2.6)
