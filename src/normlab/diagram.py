"""A network as a diagram, from its notation: the paper's figure 2.

Each layer is an upright bar with its name; the repeated layers of a block are drawn once, stacked, with how often they
stand; under the bars are the output shapes. `layout` places the bars, and `draw_network` draws them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from normlab.notation import LayerShape, layer_shapes, parse_notation
from normlab.pictures import STYLE

# Inches. Chosen by eye: a row fits across a page, and the longest name into a bar at 8 points.
BAR_WIDTH, GAP, GROUP_GAP, ROW_WIDTH, ROW_HEIGHT = 0.27, 0.05, 0.26, 8.6, 3.0
MAX_HEIGHT, MIN_HEIGHT = 2.05, 1.5
LABEL_LINE, CHARACTER_WIDTH = 0.17, 0.068
STACK_SHIFT, MARGIN = 0.035, 0.42

# Pale tones of Okabe and Ito's colours, so that black text stands on them, in print too.
COLOURS = {
    "input": "#ececec", "convolution": "#a9d3ee", "norm": "#f6cf94", "activation": "#b5e0c8", "pool": "#e9bcd3",
    "flatten": "#ececec", "dense": "#8fb8da", "dropout": "#f3b48f", "softmax": "#b5e0c8",
}  # fmt: skip

NORM_NAMES = {
    "batch": "batch norm", "batch_no_gamma": "batch norm, no γ", "mean_only": "mean-only norm",
    "renorm": "batch renorm", "renorm_unclipped": "renorm, unclipped",
}  # fmt: skip
ACTIVATION_NAMES = {
    "relu": "ReLU", "leaky_relu": "leaky ReLU", "prelu": "PReLU", "prelu_elementwise": "PReLU, per element",
    "sigmoid": "sigmoid", "tanh": "tanh", "elu": "ELU", "gelu": "GELU", "silu": "SiLU",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A layer as it is drawn, in inches: `x` is its left edge in its row. Bars of one `group` touch."""

    text: str
    kind: str
    group: int
    height: float
    repeats: int = 1  # of the whole group
    shape: str = ""  # the group's output, at its last bar
    title: str = ""  # above the group, at its first bar
    row: int = 0
    x: float = 0.0


def draw_network(
    notation: str, *, in_channels: int, image_size: int, norm: str, norm_position: str, activation: str
) -> Figure:
    """The diagram of a network. Raises UsageError where the notation is bad or the network does not fit the images."""
    bars = layout(notation, in_channels, image_size, norm, norm_position, activation)
    rows = 1 + max(bar.row for bar in bars)
    width = max(bar.x for bar in bars) + BAR_WIDTH + 2 * MARGIN
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, rows * ROW_HEIGHT))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(0, rows * ROW_HEIGHT))
        axes.set_axis_off()
        for row in range(rows):
            middle = (rows - 1 - row + 0.5) * ROW_HEIGHT
            end = _draw_row(axes, [bar for bar in bars if bar.row == row], middle)
            if row < rows - 1:
                _draw_arrow(axes, end, end + GROUP_GAP, middle)
                _draw_arrow(axes, -GROUP_GAP, 0, middle - ROW_HEIGHT)
    return figure


def layout(
    notation: str, in_channels: int, image_size: int, norm: str, norm_position: str, activation: str
) -> tuple[Bar, ...]:
    """The bars of a network in their places, groups broken into rows that fit across a page."""
    shapes = list(layer_shapes(parse_notation(notation), in_channels, image_size))
    steps = _steps(norm, norm_position, activation)
    source = Bar(
        text="input", kind="input", group=0, height=MAX_HEIGHT, shape=f"{in_channels}×{image_size}×{image_size}"
    )
    bars = [source, *_bars(shapes, steps, image_size)]
    placed: list[Bar] = []
    x, row = 0.0, 0
    for group in range(bars[-1].group + 1):
        members = [bar for bar in bars if bar.group == group]
        width = len(members) * (BAR_WIDTH + GAP) - GAP + (0.12 if members[0].repeats > 1 else 0)
        needed = max(width, CHARACTER_WIDTH * max(len(bar.shape) for bar in members) * 0.5)
        if x + needed > ROW_WIDTH:
            x, row = 0.0, row + 1
        placed += [replace(bar, x=x + i * (BAR_WIDTH + GAP), row=row) for i, bar in enumerate(members)]
        x += width + GROUP_GAP
    return tuple(placed)


def _steps(norm: str, norm_position: str, activation: str) -> list[tuple[str, str]]:
    """What follows a convolution: kinds and names, in the order of computation."""
    steps = [("activation", ACTIVATION_NAMES.get(activation, activation.replace("_", " ")))]
    if norm != "none":
        normalize = ("norm", NORM_NAMES.get(norm, norm.replace("_", " ")))
        steps.insert(0 if norm_position == "before_activation" else 1, normalize)
    return steps


def _bars(shapes: Sequence[LayerShape], steps: Sequence[tuple[str, str]], image_size: int) -> Iterator[Bar]:
    """The bars of all layers; of a block's convolutions the first stands for all."""
    group, last_dense = 0, [shape.name for shape in shapes if shape.kind == "dense"][-1]
    for layer in shapes:
        height = _height(layer.shape, image_size)
        size = "×".join(map(str, layer.shape))
        match layer.kind:
            case "convolution" if layer.name.endswith("_convolution1"):
                group += 1
                block = layer.name.partition("_")[0]
                repeats = sum(shape.name.startswith(f"{block}_conv") for shape in shapes)
                first = Bar(text=f"3×3 convolution, {layer.shape[0]}", kind="convolution", group=group, height=height,
                            repeats=repeats, title=block.replace("block", "block "))  # fmt: skip
                yield first
                for i, (kind, name) in enumerate(steps):
                    shape = size if i == len(steps) - 1 else ""
                    yield replace(first, text=name, kind=kind, shape=shape, title="")
            case "pool":
                group += 1
                yield Bar(text="2×2 max-pool", kind="pool", group=group, height=height, shape=size)
            case "flatten":
                group += 1
                yield Bar(text="flatten", kind="flatten", group=group, height=MIN_HEIGHT, shape=size)
            case "dropout":
                group += 1
                yield Bar(text=f"dropout {layer.rate:g}", kind="dropout", group=group, height=height, shape=size)
            case "dense":
                group += 1
                dense = Bar(text=f"dense, {layer.shape[0]}", kind="dense", group=group, height=MIN_HEIGHT)
                yield dense
                kind, name = (
                    ("softmax", "softmax") if layer.name == last_dense else ("activation", dict(steps)["activation"])
                )
                yield replace(dense, text=name, kind=kind, shape=size)


def _height(shape: tuple[int, ...], image_size: int) -> float:
    """Larger maps stand taller."""
    share = shape[-1] / image_size if len(shape) == 3 else 0.0
    return MIN_HEIGHT + (MAX_HEIGHT - MIN_HEIGHT) * share


def _draw_row(axes: Axes, bars: Sequence[Bar], middle: float) -> float:
    """Draws the groups of a row around the height `middle`; returns where the last one ends."""
    groups = list(dict.fromkeys(bar.group for bar in bars))
    occupied: list[float] = []  # right ends of the labels in each line under the bars
    previous = 0.0
    for group in groups:
        members = [bar for bar in bars if bar.group == group]
        left, right = members[0].x, members[-1].x + BAR_WIDTH
        stack = STACK_SHIFT * min(members[0].repeats - 1, 3)
        if group != groups[0]:
            _draw_arrow(axes, previous, left, middle)
        for copy in range(min(members[0].repeats - 1, 3), 0, -1):
            for bar in members:
                _draw_box(axes, replace(bar, x=bar.x + copy * STACK_SHIFT), middle + copy * STACK_SHIFT, "")
        for bar in members:
            _draw_box(axes, bar, middle, bar.text)
        _draw_heading(axes, members[0], (left + right) / 2, middle + members[0].height / 2 + stack)
        _draw_shape(axes, members[-1].shape, (left + right) / 2, middle, members[0].height, occupied)
        previous = right + stack
    return previous


def _draw_box(axes: Axes, bar: Bar, middle: float, text: str) -> None:
    style = "round,pad=0,rounding_size=0.04"
    corner = (bar.x, middle - bar.height / 2)
    colours: dict[str, Any] = {"facecolor": COLOURS[bar.kind], "edgecolor": "#404040", "linewidth": 0.7}
    axes.add_patch(FancyBboxPatch(corner, BAR_WIDTH, bar.height, boxstyle=style, **colours))
    axes.text(bar.x + BAR_WIDTH / 2, middle, text, rotation=90, ha="center", va="center", fontsize=8)


def _draw_arrow(axes: Axes, start: float, end: float, y: float) -> None:
    style = {"arrowstyle": "-|>,head_width=0.18,head_length=0.3", "color": "#404040", "linewidth": 0.8}
    axes.annotate("", (end, y), (start, y), arrowprops={**style, "shrinkA": 1, "shrinkB": 1})


def _draw_heading(axes: Axes, first: Bar, x: float, top: float) -> None:
    """The block's name, and how often its layers stand."""
    if first.title:
        repeats = f" (×{first.repeats})" if first.repeats > 1 else ""
        axes.text(x, top + 0.09, first.title + repeats, ha="center", va="bottom", fontsize=8.5, fontweight="bold")


def _draw_shape(axes: Axes, shape: str, x: float, middle: float, height: float, occupied: list[float]) -> None:
    """The output shape under a group, on the first line where it does not touch another, with a thin line to it."""
    half = CHARACTER_WIDTH * len(shape) / 2 + 0.04
    line = next((i for i, end in enumerate(occupied) if x - half >= end), len(occupied))
    occupied[line : line + 1] = [x + half]
    y = middle - MAX_HEIGHT / 2 - 0.1 - LABEL_LINE * line
    axes.plot([x, x], [middle - height / 2, y + 0.01], color="#909090", linewidth=0.5, zorder=0)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.text(x, y, shape, ha="center", va="top", fontsize=8, bbox=box)
