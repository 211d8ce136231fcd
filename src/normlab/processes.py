"""Which process is which, on this machine and others, the cores they may use, and a lock between them."""

import functools
import os
import socket
import sys
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Windows cannot fork, and on a Mac what NumPy's Accelerate began does not outlive it.
CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"


def cores() -> int:
    """Of the machine's cores, those that this process may use: a batch system or a container may grant a part."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def machine_identity() -> str:
    """One machine between two starts, and one namespace of process ids in it; a container is a machine of its own."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text().strip())
        except OSError:
            parts.append("")
    return " ".join(parts)


def process_identity() -> dict[str, Any]:
    """This process among all others: a process id alone is used again after a while."""
    return {"machine": machine_identity(), "pid": os.getpid(), "started": _own_start(os.getpid())}


@functools.cache
def _own_start(pid: int) -> str | None:
    return process_start(pid)


def process_start(pid: Any) -> str | None:
    """When a process of this machine started, in a word that only it has; None where it is gone.

    Where the system has no /proc, it can only be said that there is such a process.
    """
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a dead one that nobody has heard of is gone too
    except (OSError, ValueError, TypeError, IndexError):
        if Path("/proc/self/stat").exists() or not isinstance(pid, int) or os.name == "nt":
            return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "runs"


def lock(file: IO[str]) -> None:
    """Waits for an exclusive lock, which lasts as long as the file is open; where there are none, goes on without."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
