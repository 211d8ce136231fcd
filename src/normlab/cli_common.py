"""What verbs have in common: groups, options, stores; and of those that train the live line, summary and exit code."""

import contextlib
import functools
import json
import os
import select
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normlab.errors import UsageError, printable, unknown

if TYPE_CHECKING:
    from normlab.plan import Plan
    from normlab.runner import RunStatus
    from normlab.store import Store
    from normlab.study import Study

INTERRUPTED, TERMINATED = 130, 143


class Group(click.Group):
    """Commands with the nearest spelling of one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(unknown("command", args[0], self.commands))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            if _is_closed(sys.stdout):  # of which click would make exit code 1
                raise ReaderLeft from None
            raise


def _is_closed(stream: Any) -> bool:
    """Whether nobody reads any more what is written there."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it is no descriptor, or this is Windows
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


class ReaderLeft(Exception):  # noqa: N818 - no error: who reads the output, such as head, has seen enough
    pass


def warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """normlab's own as one line; of others, where they come from stands before them."""
    own = category.__module__.startswith("normlab.")
    return (
        f"normlab: {printable(str(message))}\n" if own else _FORMAT_WARNING(message, category, filename, lineno, line)
    )


_FORMAT_WARNING = warnings.formatwarning


def run_options(command: Any) -> Any:
    """Options of a verb that trains; they arrive as keywords for `train_missing`."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        click.option("--fail-fast", is_flag=True, help="Start no further trial once one has failed."),
        click.option("--save-weights", is_flag=True, help="Keep model.safetensors beside each result."),
        click.option("--checkpoint-seconds", type=click.FloatRange(0), default=60.0, show_default=True,
                     help="How much training a crash may cost."),
        click.option("--hours", type=click.FloatRange(0, min_open=True), help="Stop in order after this time."),
        click.option("--cohort", type=click.IntRange(1, 1024),
                     help="Trials trained together as one program; 1 turns it off. [as measured to be fastest]"),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("-j", "--workers", type=click.IntRange(1, 1024),
                     help="Worker processes. [one a core; on a GPU one]"),
    ):  # fmt: skip
        command = decorate(command)
    return command


def open_store(path: str | None, *, existing: bool = False) -> "Store":
    """The store of `--store`, or the default one. With `existing`, one that was named has to be there."""
    from normlab.store import Store

    named = f"--store {path}" if path is not None else f"NORMLAB_STORE={os.environ.get('NORMLAB_STORE', '')}"
    if path is not None and not path.strip():
        raise UsageError("--store: nothing was given; write a folder, such as --store normlab-store")
    store = Store.default() if path is None else Store(Path(path))
    if store.root.exists() and not store.root.is_dir():
        raise UsageError(f"{named}: {store.root} is a file; write a folder")
    if existing and not store.root.is_dir() and (path is not None or os.environ.get("NORMLAB_STORE")):
        raise UsageError(f"{named}: there is no such folder; `normlab run … --store {store.root}` would make it")
    if existing and path is not None and not (store.root / "trials").is_dir() and any(store.root.iterdir()):
        raise UsageError(f"{named}: this folder is no store, which has a folder 'trials'; write another")
    return store


def note(remark: str, *, err: bool = False) -> None:
    """What should be known before a number is believed; names of files in it may be anybody's."""
    click.echo(f"note: {printable(remark)}", err=err)


def train_missing(headline: str, study: "Study | Plan", store: "Store", *, as_json: bool, **options: Any) -> int:
    """Trains what is missing, with a live line on standard error, and returns the exit code.

    The headline comes with the first sign of life, so that an error stands alone.
    """
    from normlab.progress import show_progress
    from normlab.runner import run

    def leave(*_: object) -> None:  # in order, as after Ctrl-C
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, leave)
    so_far = ""
    try:
        with show_progress() as show:
            begin = functools.cache(lambda: click.echo(headline, err=True))

            def report(status: "RunStatus") -> None:
                nonlocal so_far
                so_far = f" at {status.finished} of {status.total} trials"
                begin()
                show(status)

            def say(remark: str) -> None:
                begin()
                note(remark, err=True)

            summary = run(study, store=store, report=report, on_remark=say, **options)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is in order; a second one would end Python on its way out
        text = f"interrupted{so_far}; finished trials are stored, and the same command goes on from here"
        click.echo(text, err=True)
        return INTERRUPTED
    if as_json:
        click.echo(json.dumps(vars(summary)))
    else:
        _print_summary(summary)
    return 1 if summary.failures else 0


def _print_summary(summary: Any) -> None:
    text = f"trained {summary.trained} trial{'s' * (summary.trained != 1)} in {summary.seconds:.1f} s"
    if summary.diverged:
        text += f", of which {summary.diverged} diverged"
    if summary.already_finished:
        text += f"; {summary.already_finished} were finished before"
    if summary.elsewhere:
        text += f"; {summary.elsewhere} are with another runner"
    if summary.left:
        text += f"; time is up with {summary.left} left, the same command goes on from here"
    click.echo(text, err=True)
    for trial_id, reason in summary.failures.items():
        click.echo(f"failed {trial_id}: {printable(reason)}", err=True)
