"""Files read within bounds, and written whole or not at all."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

WAITING = 4  # chosen: threads that wait for the disk at the same time


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
    """Writes several new folders of one place, each as `write_folder` does. Their files are written and waited for in
    threads, and none appears before all are on the disk: many take a fraction of the time of one after another."""
    temporaries: dict[Path, Path] = {}
    places = {folder.parent: stat.S_IMODE(folder.parent.stat().st_mode) for folder in contents}
    try:
        for folder in contents:
            temporaries[folder] = temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
            os.chmod(temporary, places[folder.parent])  # who may read the store may read its results
        _fill_all([(temporaries[folder], content) for folder, content in contents.items()])
        for folder in list(temporaries):
            os.replace(temporaries[folder], folder)
            del temporaries[folder]
    finally:
        for place in places:
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


def _fill_all(folders: Sequence[tuple[Path, Mapping[str, bytes]]]) -> None:
    """Writes files into folders and waits until all are on the disk, which writes them together."""
    if len(folders) > 1:
        from concurrent.futures import ThreadPoolExecutor  # which most commands do without

        with contextlib.suppress(RuntimeError), ThreadPoolExecutor(WAITING) as pool:  # there may be no thread left
            list(pool.map(_fill, [folders[i::WAITING] for i in range(min(WAITING, len(folders)))]))
            return
    _fill(folders)


def _fill(folders: Sequence[tuple[Path, Mapping[str, bytes]]]) -> None:
    for folder, content in folders:
        for name, data in content.items():
            write_durably(folder / name, data)
        _sync_folder(folder)


def _sync_folder(path: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # not on Windows, where a folder cannot be opened
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
