"""What a terminal shows: tables as columns, and numbers as a person says them."""

import sys
from collections.abc import Sequence
from typing import Any

import click


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows as columns; in a pipe, as wide as they are."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        click.echo("(none)")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) or str(row[name])[:1].isdigit() for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(word(row[name]) for name in rows[0]))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)


def word(value: Any) -> str:
    """A cell of a table."""
    from normlab.study import label_of

    return "-" if value is None else label_of(value)


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
