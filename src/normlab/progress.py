"""Live progress on standard error: a bar on a terminal, a line every so often elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from normlab.runner import RunStatus

LINE_SECONDS = 10.0  # between lines where there is no terminal


@contextmanager
def show_progress() -> Iterator[Callable[[RunStatus], None]]:
    """Yields the function to call with each new status."""
    if sys.stderr.isatty():
        with Progress(
            TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            console=Console(stderr=True), transient=True,
        ) as bar:  # fmt: skip
            task = bar.add_task("starting", total=None)
            yield lambda status: bar.update(
                task, total=status.total, completed=status.finished, description=describe(status)
            )
        return
    last = time.monotonic()

    def line(status: RunStatus) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            print(f"{status.finished}/{status.total} trials, {describe(status)}", file=sys.stderr, flush=True)

    yield line


def describe(status: RunStatus) -> str:
    """Loss, accuracy, speed and time left, as far as they are known."""
    words = []
    if status.failed:
        words.append(f"{status.failed} failed")
    if status.diverged:
        words.append(f"{status.diverged} diverged")
    if status.loss is not None:
        words.append(f"loss {status.loss:.4g}")
    if status.accuracy is not None:
        words.append(f"accuracy {status.accuracy:.1%}")
    if status.images_per_second:
        words.append(f"{status.images_per_second:,.0f} images/s")
    if status.seconds_left is not None:
        minutes, seconds = divmod(round(status.seconds_left), 60)
        words.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(words) or "starting"
