"""Figures drawn by processes beside this one, as many as there are cores.

Matplotlib takes longer to start, and to draw, than all else that a report does: plotters start while the store is read,
and each then draws a figure of its own. They end with this process, however it ends.
"""

import contextlib
import functools
import os
import pickle
import pkgutil
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, cast

from normlab.errors import UsageError
from normlab.files import write_file
from normlab.processes import cores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".svg", ".pdf", ".png")
_PLOTTER = "from normlab.plotters import main; main()"

Task = tuple[Path, str, Any]  # the figure's path, the function that draws it, of what
Plotter = subprocess.Popen[bytes]


def start(figures: int) -> None:
    """Starts plotters for so many figures, to be ready when the first is asked for."""
    for _ in range(min(figures, cores())):
        _tasks().put((Future(), None))


def plot(path: Path, draw: str, data: Any) -> Future[bytes]:
    """Has a figure drawn, and written as PATH.svg, .pdf and .png; the result is the SVG.

    `draw` names the function of the data that returns the figure, as `module:function`. What that raises, the result
    raises, and OSError where a file cannot be written.
    """
    drawn: Future[bytes] = Future()
    _tasks().put((drawn, (path.absolute(), draw, data)))  # a plotter stays in the folder that it began in
    return drawn


def write_figure(path: Path, figure: "Figure") -> Future[bytes]:
    """The same of a figure that is drawn already, at once and in this process."""
    from normlab.drawing import picture

    content = {kind: picture(figure, kind) for kind in KINDS}
    for kind in KINDS:
        write_file(path.with_name(path.name + kind), content[kind])
    drawn: Future[bytes] = Future()
    drawn.set_result(content[".svg"])
    return drawn


@functools.cache
def _tasks() -> SimpleQueue[tuple[Future[bytes], Task | None]]:
    """What is to be drawn, served by a thread for each core, and each thread by a plotter once there is work for it."""
    tasks: SimpleQueue[tuple[Future[bytes], Task | None]] = SimpleQueue()
    for _ in range(cores()):
        threading.Thread(target=_serve, args=(tasks,), daemon=True).start()
    return tasks


def _serve(tasks: SimpleQueue[tuple[Future[bytes], Task | None]]) -> None:
    plotter = None
    while True:
        drawn, task = tasks.get()
        try:
            if plotter is None or plotter.poll() is not None:  # none yet, or it died
                plotter = _start()
            drawn.set_result(_ask(plotter, task) if task else b"")
        except BaseException as error:  # it is raised where the figure was asked for
            drawn.set_exception(error)


def _start() -> Plotter:
    """A plotter that is ready."""
    plotter = subprocess.Popen(
        [sys.executable, "-c", _PLOTTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches this process, with which the plotter ends
    )
    try:
        pickle.load(cast(IO[bytes], plotter.stdout))
    except (OSError, EOFError, pickle.UnpicklingError):
        code = _end(plotter)
        raise UsageError(f"figures: the process that draws them cannot start; it ended with {code}") from None
    return plotter


def _ask(plotter: Plotter, task: Task) -> bytes:
    try:
        _send(cast(IO[bytes], plotter.stdin), task)
        answer = pickle.load(cast(IO[bytes], plotter.stdout))
    except (OSError, EOFError, pickle.UnpicklingError):
        code = _end(plotter)
        raise UsageError(
            f"{task[0]}: the process that drew it ended with {code}; is there memory left? Run it again"
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    return cast(bytes, answer)


def _end(plotter: Plotter) -> int:
    """Ends one that does not answer; returns what it ended with."""
    for pipe in (plotter.stdin, plotter.stdout):
        with contextlib.suppress(OSError):
            cast(IO[bytes], pipe).close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return plotter.wait(1)
    plotter.kill()
    return plotter.wait()


# --- in a plotter -----------------------------------------------------------------------------------------------------


def main() -> None:
    """A plotter: draws what stdin asks for until it ends, and answers on stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    try:
        os.dup2(2, 1)  # what anybody prints is no answer
    except OSError:  # there is no standard error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import normlab.drawing  # noqa: F401 - what takes longest

    with contextlib.suppress(EOFError, BrokenPipeError):
        _send(answers, b"")
        while True:
            path, draw, data = pickle.load(sys.stdin.buffer)
            try:
                answer: Any = write_figure(path, pkgutil.resolve_name(draw)(data)).result()
            except Exception as error:  # it is raised where the figure was asked for
                answer = error
            _send(answers, answer)


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe)
    pipe.flush()
