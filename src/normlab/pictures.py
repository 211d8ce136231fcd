"""Figures as files: the style of all of them, and the bytes of an SVG, PDF or PNG, which are always the same."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from normlab.errors import UsageError, unknown

# Text stays text: smaller, searchable and readable aloud. A level such as $x$ is no formula. What `panels` counts with
# is as Matplotlib has it by default, whatever style its user has set.
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "normlab", "pdf.fonttype": 42, "text.parse_math": False, "font.size": 9,
    "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9,
    "legend.frameon": False, "text.hinting": "no_hinting", "pdf.compression": 1,
    "axes.grid": False, "axes.labelsize": "medium", "xtick.labelsize": "medium", "ytick.labelsize": "medium",
    "axes.titlepad": 6, "axes.labelpad": 4, "xtick.major.size": 3.5, "ytick.major.size": 3.5, "xtick.major.pad": 3.5,
    "ytick.major.pad": 3.5, "legend.borderpad": 0.4, "legend.labelspacing": 0.5, "legend.borderaxespad": 0.5,
    "figure.autolayout": False, "figure.constrained_layout.use": False,
}  # fmt: skip
METADATA: Any = {
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
LAYOUT = ["GDEF", "GPOS", "GSUB"]  # tables of a font that tell how to place its letters, which in a PDF are placed
RUNS = 3  # zlib's number for the compression of runs of equal bytes, the quickest that makes files as small


class ShownFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_svg_(self) -> str:
        svg = picture(self, ".svg").decode()
        return svg[svg.index("<svg") :]


def picture(figure: Figure, suffix: str) -> bytes:
    """The figure as a file of one of the kinds .svg, .png (200 dots an inch) and .pdf, without a date in it."""
    if suffix not in METADATA:
        raise UsageError(unknown("kind of picture", suffix, METADATA))
    content = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a level may be in any script
        if (engine := figure.get_layout_engine()) is not None:  # laid out once, not twice for each file
            engine.execute(figure)
            figure.set_layout_engine(None)
        quick: Any = {"pil_kwargs": {"compress_level": 1, "compress_type": RUNS}} if suffix == ".png" else {}
        with _letters_alone() if suffix == ".pdf" else contextlib.nullcontext():
            figure.savefig(content, format=suffix[1:], dpi=200, metadata=METADATA[suffix], **quick)
    return content.getvalue()


@contextlib.contextmanager
def _letters_alone() -> Iterator[None]:
    """Meanwhile fontTools, which takes a part of a font for Matplotlib, drops the tables `LAYOUT`: to read them is half
    of its work."""
    from fontTools.subset import Options

    dropped = getattr(Options, "_drop_tables_default", [])
    Options._drop_tables_default = [*dropped, *LAYOUT]
    try:
        yield
    finally:
        Options._drop_tables_default = dropped
