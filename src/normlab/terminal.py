"""What a terminal shows: tables as columns, and numbers as a person says them."""

import io
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from normlab.errors import printable

PIPE_COLUMNS = 200  # of a table that no terminal bounds
NARROW = frozenset("−–…")  # what tables hold, beside ASCII, of the width of a letter


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows as columns; in a pipe, as wide as they are."""
    print(table_lines(rows))


def table_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as columns for where the standard output goes: a terminal, or a pipe."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else PIPE_COLUMNS
    is_styled = is_terminal and os.name != "nt" and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return _rendered(rows, width, styled=is_styled)


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as columns of plain text."""
    return _rendered(rows, PIPE_COLUMNS, styled=False)


def _rendered(rows: Sequence[Mapping[str, Any]], width: int, *, styled: bool) -> str:
    if not rows:
        return "(none)"
    names = [printable(name) for name in rows[0]]
    cells = [[word(row[name]) for name in rows[0]] for row in rows]
    numeric = [all(_is_numeric(row[name]) for row in rows) for name in rows[0]]
    plain = _plain([names, *cells], numeric, width, styled=styled)
    return _folded(names, cells, numeric, width, styled=styled) if plain is None else plain


def _plain(lines: Sequence[Sequence[str]], numeric: Sequence[bool], width: int, *, styled: bool) -> str | None:
    """What looks like `_folded`'s where nothing need be folded, without rich, which takes long, above all to import.
    None where something need be, or characters may be wider or narrower than others."""
    if not all(cell.isascii() or NARROW.issuperset(re.sub("[ -~]", "", cell)) for line in lines for cell in line):
        return None
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > width:
        return None
    columns = list(zip(numeric, widths, strict=True))
    head, *rest = (
        "  ".join(
            cell.rstrip().rjust(most) if right else cell.ljust(most)
            for cell, (right, most) in zip(line, columns, strict=True)
        )
        for line in lines
    )
    return "\n".join([f"\x1b[1m{head}\x1b[0m" if styled else head, *rest])


def _folded(
    names: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], width: int, *, styled: bool
) -> str:
    """Not printed by rich, which ends the process where nobody reads any more."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in zip(names, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    text = io.StringIO()
    console = Console(
        highlight=False, markup=False, emoji=False, width=width, file=text, force_terminal=styled, force_jupyter=False
    )
    console.print(table)
    return text.getvalue().rstrip("\n")


def _is_numeric(value: Any) -> bool:
    return isinstance(value, int | float) or str(value)[:1].isdigit()


def word(value: Any) -> str:
    """A cell of a table."""
    from normlab.study import label_of

    return "-" if value is None else printable(label_of(value))


def flops_words(flops: float) -> str:
    """Floating-point operations with their unit, such as `6.2 PFLOP`."""
    for limit, unit in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if flops >= limit:
            return f"{flops / limit:,.1f} {unit}"
    return f"{flops / 1e6:,.1f} MFLOP"


def duration_words(seconds: float) -> str:
    """A time as a person says it, such as `16 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"
