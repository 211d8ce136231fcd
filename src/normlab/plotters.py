"""Figures drawn by processes beside this one, as many as there are cores.

Matplotlib takes longer to import, and to draw, than all else that a report does. A fork server imports it once, while
the store is read, and forks plotters, each of which draws one figure at a time. All of them end with this process,
however it ends.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import os
import pickle
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, cast

from normlab.errors import UsageError
from normlab.files import write_file
from normlab.processes import CAN_FORK, cores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".svg", ".pdf", ".png")
_SERVER = "import gc, sys; gc.disable(); from normlab.plotters import serve; serve(int(sys.argv[1]))"

Task = tuple[Path, str, Any]  # the figure's path, the function that draws it, of what
Tasks = SimpleQueue[tuple[Future[bytes], Task]]


def start() -> None:
    """Imports what draws, in the fork server, before the first figure is asked for; starts no thread."""
    if CAN_FORK:
        with contextlib.suppress(OSError), _server.lock:  # the first figure would say so
            _server.start()


def plot(path: Path, draw: str, data: Any) -> Future[bytes]:
    """Has a figure drawn, and written as PATH.svg, .pdf and .png; the result is the SVG.

    `draw` names the function of the data that returns the figure, as `module:function`. What that raises, the result
    raises, and OSError where a file cannot be written.
    """
    if not CAN_FORK:
        return write_figure(path, pkgutil.resolve_name(draw)(data))
    drawn: Future[bytes] = Future()
    _tasks().put((drawn, (path.absolute(), draw, data)))  # a plotter stays in the folder that its server began in
    return drawn


def write_figure(path: Path, figure: "Figure") -> Future[bytes]:
    """The same of a figure that is drawn already, at once and in this process."""
    from normlab.pictures import picture

    content = {kind: picture(figure, kind) for kind in KINDS}
    for kind in KINDS:
        write_file(path.with_name(path.name + kind), content[kind])
    drawn: Future[bytes] = Future()
    drawn.set_result(content[".svg"])
    return drawn


@functools.cache
def _tasks() -> Tasks:
    """What is to be drawn, served by a thread for each core, and each thread by a plotter once there is work for it."""
    tasks: Tasks = SimpleQueue()
    for _ in range(cores()):
        threading.Thread(target=_pass_on, args=(tasks,), daemon=True).start()
    return tasks


def _pass_on(tasks: Tasks) -> None:
    plotter = None
    while True:
        drawn, task = tasks.get()
        try:
            if plotter is None or _has_ended(plotter):
                plotter = _server.fork()
            drawn.set_result(_ask(plotter, task))
        except BaseException as error:  # it is raised where the figure was asked for
            drawn.set_exception(error)


class _ForkServer:
    """The process that plotters are forked from; started when the first is asked for, and again should it be gone."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def fork(self) -> socket.socket:
        """The connection to a new plotter, which is ready."""
        ours, theirs = socket.socketpair()
        with self.lock:
            self.start()
            with theirs, contextlib.suppress(OSError):  # that it ended a moment ago shows below
                socket.send_fds(self.requests, [b"."], [theirs.fileno()])
        try:
            refused = _receive(ours)
        except (OSError, EOFError):
            refused = self._end()
        if refused:
            ours.close()
            raise UsageError(f"figures: the process that draws them cannot start ({refused})")
        return ours

    def _end(self) -> str:
        """Why there is no plotter, in words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process is not None:
                return f"it ended with {self.process.wait(1)}"
        return "it ended at once"

    def close(self) -> None:
        """Ends the server; plotters end by themselves when nobody holds their connections."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.requests.close()

    def start(self) -> None:
        """Starts the server, or a new one where it has ended."""
        if self.process is not None and self.process.poll() is None:
            return
        self.requests, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches this process, with which the others end
            )


_server = _ForkServer()
atexit.register(_server.close)


def _ask(plotter: socket.socket, task: Task) -> bytes:
    try:
        _send(plotter, task)
        answer = _receive(plotter)
    except (OSError, EOFError):
        plotter.close()
        raise UsageError(f"{task[0]}: the process that drew it has ended; is there memory left? Run it again") from None
    if isinstance(answer, BaseException):
        raise answer
    return cast(bytes, answer)


def _has_ended(plotter: socket.socket) -> bool:
    """Whether a plotter, which has nothing to say when it was not asked, has left its end of the connection."""
    try:
        return not plotter.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


# --- in the fork server, and in a plotter -----------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """The fork server: forks a plotter for each connection that comes through the socket, until that ends."""
    try:
        os.dup2(2, 1)  # the standard output is the report's
    except OSError:  # there is no standard error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
    for name in ("normlab.drawing", *(f"matplotlib.backends.backend_{kind}" for kind in ("svg", "pdf", "agg"))):
        importlib.import_module(name)
    gc.freeze()  # what was imported stays; nobody looks for garbage in it
    gc.set_threshold(100_000)
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the plotters
    requests = socket.socket(fileno=descriptor)
    while True:
        _, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
        if not descriptors:
            return
        with socket.socket(fileno=descriptors[0]) as tasks:
            try:
                is_plotter = os.fork() == 0
            except OSError as error:  # there is no memory left, or there are too many processes
                with contextlib.suppress(OSError):
                    _send(tasks, error.strerror)
                continue
            if is_plotter:
                requests.close()
                _draw(tasks)


def _draw(tasks: socket.socket) -> NoReturn:
    """A plotter: draws what it is asked for until the connection ends."""
    try:
        with contextlib.suppress(EOFError, OSError):
            _send(tasks, "")
            while True:
                path, draw, data = _receive(tasks)
                try:
                    answer: Any = write_figure(path, pkgutil.resolve_name(draw)(data)).result()
                except Exception as error:  # it is raised where the figure was asked for
                    answer = error
                _send(tasks, answer)
    except BaseException:
        traceback.print_exc()
    finally:  # nothing of the server's is left to do
        os._exit(0)


def _send(connection: socket.socket, message: Any) -> None:
    try:
        content = pickle.dumps(message)
    except Exception:  # an error that holds what does not travel
        content = pickle.dumps(RuntimeError(f"{type(message).__name__}: {message}"))
    connection.sendall(content)


def _receive(connection: socket.socket) -> Any:
    """A message; EOFError where the connection ended before, and OSError where it broke."""
    with connection.makefile("rb") as file:
        try:
            return pickle.load(file)
        except pickle.UnpicklingError:  # cut short
            raise EOFError from None
