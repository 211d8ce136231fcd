"""What a terminal shows: tables as columns, and numbers as a person says them."""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from normlab.errors import printable

if TYPE_CHECKING:
    from rich.table import Table


PIPE_COLUMNS = 200  # of a table that no terminal bounds


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows as columns; in a pipe, as wide as they are."""
    print(table_lines(rows))


def table_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as columns for where the standard output goes: a terminal, or a pipe."""
    is_terminal = sys.stdout.isatty()
    return _rendered(rows, width=None if is_terminal else PIPE_COLUMNS, styled=is_terminal and os.name != "nt")


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as columns of plain text."""
    return _rendered(rows, width=PIPE_COLUMNS, styled=False)


def _rendered(rows: Sequence[Mapping[str, Any]], *, width: int | None, styled: bool) -> str:
    """Not printed by rich, which ends the process where nobody reads any more."""
    from rich.console import Console

    if not rows:
        return "(none)"
    text = io.StringIO()
    console = Console(highlight=False, markup=False, width=width, file=text, force_terminal=styled)
    console.print(_columns(rows))
    return text.getvalue().rstrip("\n")


def _columns(rows: Sequence[Mapping[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) or str(row[name])[:1].isdigit() for row in rows)
        table.add_column(printable(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(word(row[name]) for name in rows[0]))
    return table


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
