"""Files read within bounds, and written whole or not at all."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path


def read_bounded(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file. OSError, with the reason in words, where it is none or has more than `most`: a pipe
    would wait for ever, and a file that was blown up would fill the memory."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes; at most {most:,} are allowed", str(path))
        parts, missing = [], status.st_size
        while missing and (part := os.read(descriptor, missing)):  # one call but for gigabytes
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def write_folder(folder: Path, content: Mapping[str, bytes]) -> None:
    """Writes the files of a new folder, which appears by one rename, complete or not at all, and outlives a crash."""
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        os.chmod(temporary, stat.S_IMODE(folder.parent.stat().st_mode))  # who may read the store may read its results
        for name, data in content.items():
            write_durably(temporary / name, data)
        _sync_folder(temporary)
        os.replace(temporary, folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # nothing is left where the rename did not happen


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # not on Windows, where a folder cannot be opened
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
