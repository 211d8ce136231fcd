"""A diagram of a network, the paper's figure 2: convolutions, pools and dense layers, with their output shapes."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from normlab.figures import STYLE
from normlab.notation import ConvBlocks, Dense, Dropout, LayerShape, layer_shapes, parse_notation

COLORS = {
    "input": "#E8E8EC", "convolution": "#BFDDF2", "pool": "#F7D9B8", "flatten": "#E8E8EC", "dense": "#BFE5D6",
    "dropout": "#EFD3E2", "output": "#FBE9A9",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Box:
    """A column of the diagram: a kind of layer, lines of text, its output shape, and how often it stands in a row."""

    kind: str
    lines: tuple[str, ...]
    shape: str
    repeat: int = 1


def boxes(
    notation: str, *, in_channels: int, image_size: int, norm: str, norm_position: str, activation: str
) -> list[Box]:
    """The columns from left to right."""
    layers = parse_notation(notation)
    shapes = {row.name: row for row in layer_shapes(layers, in_channels, image_size)}
    after = [_words(activation)]
    if norm != "none":
        after.insert(0 if norm_position == "before_activation" else 1, f"norm: {_words(norm)}")
    found = [Box(kind="input", lines=("image",), shape=f"{in_channels}×{image_size}×{image_size}")]
    dense = 0
    for position, layer in enumerate(layers):
        match layer:
            case ConvBlocks():
                for block in range(1, layer.blocks + 1):
                    row = shapes[f"block{block}_convolution1"]
                    lines = ("convolution 3×3", f"{row.shape[0]} kernels", *after)
                    found.append(Box(kind="convolution", lines=lines, shape=_shape(row), repeat=layer.convolutions))
                    pool = shapes[f"block{block}_pool"]
                    found.append(Box(kind="pool", lines=("max-pool", "2×2"), shape=_shape(pool)))
            case Dense():
                if not dense and "flatten" in shapes:
                    found.append(Box(kind="flatten", lines=("flatten",), shape=_shape(shapes["flatten"])))
                dense += 1
                last = position == len(layers) - 1
                lines = (f"dense {layer.units}", "softmax" if last else _words(activation))
                found.append(Box(kind="output" if last else "dense", lines=lines, shape=str(layer.units)))
            case Dropout():
                found.append(Box(kind="dropout", lines=("dropout", f"{layer.rate:g}"), shape=found[-1].shape))
    return found


def draw_network(
    notation: str,
    path: Path,
    *,
    in_channels: int = 3,
    image_size: int = 32,
    norm: str = "none",
    norm_position: str = "before_activation",
    activation: str = "leaky_relu",
) -> None:
    """Draws a network from left to right, as .svg, .pdf or .png by the suffix of the path."""
    columns = boxes(
        notation, in_channels=in_channels, image_size=image_size, norm=norm, norm_position=norm_position,
        activation=activation,
    )  # fmt: skip
    with mpl.rc_context({**STYLE, "svg.hashsalt": "network"}):
        widths = [_width(box) for box in columns]
        gap, height = 0.28, 2.8
        total = sum(widths) + gap * (len(columns) - 1) + 0.3
        figure = Figure(figsize=(total, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, total)
        axes.set_ylim(0, height)
        axes.axis("off")
        axes.text(0.15, height - 0.2, notation, fontsize=10, weight="bold", va="center")
        left = 0.15
        for number, (box, width) in enumerate(zip(columns, widths, strict=True)):
            _draw_box(axes, box, left, width)
            if number:
                axes.annotate(
                    "", (left - 0.02, 1.25), (left - gap + 0.02, 1.25), arrowprops={"arrowstyle": "->", "lw": 0.9}
                )
            left += width + gap
        figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_box(axes: Axes, box: Box, left: float, width: float) -> None:
    tall = 1.25 if box.kind == "convolution" else 0.8
    for sheet in reversed(range(min(box.repeat, 4))):  # repeated convolutions as a stack
        corner = (left + 0.05 * sheet, 1.25 - tall / 2 + 0.05 * sheet)
        axes.add_patch(
            FancyBboxPatch(
                corner,
                width - 0.15 * (box.repeat > 1),
                tall,
                boxstyle="round,pad=0,rounding_size=0.05",
                facecolor=COLORS[box.kind],
                edgecolor="#333333",
                linewidth=0.8,
            )
        )
    middle = left + (width - 0.15 * (box.repeat > 1)) / 2
    axes.text(middle, 1.25, "\n".join(box.lines), ha="center", va="center", fontsize=7.5, linespacing=1.35)
    if box.repeat > 1:
        axes.text(
            middle, 1.25 + tall / 2 + 0.28, f"× {box.repeat}", ha="center", va="center", fontsize=9, weight="bold"
        )
    axes.text(middle, 1.25 - tall / 2 - 0.14, box.shape, ha="center", va="center", fontsize=7.5, color="#333333")


def _width(box: Box) -> float:
    longest = max(len(line) for line in (*box.lines, box.shape))
    return 0.068 * longest + 0.22 + 0.15 * (box.repeat > 1)


def _shape(row: LayerShape) -> str:
    return "×".join(map(str, row.shape))


def _words(name: str) -> str:
    return name.replace("_", " ")
