"""Files read within bounds, and written whole or not at all."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

WAITING = 16  # chosen: threads that wait for the disk at the same time


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
    write_folders({folder: content})


def write_folders(contents: Mapping[Path, Mapping[str, bytes]]) -> None:
    """Writes several new folders of one place, each as `write_folder` does. All are written before the first is waited
    for, and none appears before all are on the disk: it takes many in little more time than one."""
    temporaries: dict[Path, Path] = {}
    try:
        for folder, content in contents.items():
            temporaries[folder] = temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
            # Who may read the store may read its results.
            os.chmod(temporary, stat.S_IMODE(folder.parent.stat().st_mode))
            for name, data in content.items():
                (temporary / name).write_bytes(data)
        _sync_all(list(temporaries.values()))
        for folder, temporary in temporaries.items():
            os.replace(temporary, folder)
    finally:
        for place in {folder.parent for folder in temporaries}:
            _sync_folder(place)
        for temporary in temporaries.values():
            shutil.rmtree(temporary, ignore_errors=True)  # nothing is left where the rename did not happen


def write_file(path: Path, content: bytes) -> None:
    """Writes a file that can be made again: whole or not at all, and without waiting for the disk."""
    temporary = path.with_name(f".new-{os.getpid()}-{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_all(folders: Sequence[Path]) -> None:
    """Waits until folders and their files are on the disk: for all at once, which it writes together."""
    if len(folders) > 1:
        from concurrent.futures import ThreadPoolExecutor  # which most commands do without

        with contextlib.suppress(RuntimeError), ThreadPoolExecutor(WAITING) as pool:  # there may be no thread left
            list(pool.map(_sync_content, folders))
            return
    for folder in folders:
        _sync_content(folder)


def _sync_content(folder: Path) -> None:
    """Waits until a folder and its files are on the disk."""
    for path in folder.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(path: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # not on Windows, where a folder cannot be opened
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
