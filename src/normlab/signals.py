"""How Ctrl-C and SIGTERM are answered where something must not be cut short."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait until an orderly end is done, which takes seconds at most. Where that comes of an
    error or of a first of them, no second one is heard."""
    heard: list[int] = []
    with _answered(lambda number, _: heard.append(number)):
        yield
    if heard and sys.exc_info()[1] is None:
        signal.raise_signal(heard[0])


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait until this is done; a second one does not wait."""
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        if len(heard) > 1:
            restore()
            signal.raise_signal(number)

    with _answered(hear) as restore:
        yield
    if heard:
        signal.raise_signal(heard[0])


@contextlib.contextmanager
def _answered(answer: Callable[[int, Any], None]) -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM, where this process hears them, are answered so; gives what ends that sooner."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
        before = {which: handler for which, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for which, handler in before.items():
            signal.signal(which, handler)

    for which in before:
        signal.signal(which, answer)
    try:
        yield restore
    finally:
        restore()
