"""The files of a folder or a zip, listed and read without trusting either: nothing is ever extracted to disk.

Paths that lead out, links, encrypted or nested archives, and sizes, counts or compression beyond reason are refused.
"""

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from normlab.errors import UsageError
from normlab.files import read_bounded

MAX_FILES, MAX_TOTAL_BYTES = 5_000_000, 256 << 30
JUNK = ("__MACOSX", ".", "Thumbs.db", "desktop.ini")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True, kw_only=True)
class Member:
    path: str  # relative, with forward slashes
    num_bytes: int
    stamp: str  # changes when what can be read does: a CRC, or a time and who may read it


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one file: far above any that is meant, far below what would fill the memory."""

    file_bytes: int
    ratio: int | None  # of an entry of more than a megabyte to what it takes in the archive


IMAGES = Limits(file_bytes=256 << 20, ratio=200)
RESULTS = Limits(file_bytes=2 << 30, ratio=None)  # zeros of a confusion matrix pack to nothing; see store.FILES


class Files(Protocol):
    """Where the bytes of members come from."""

    def members(self) -> list[Member]: ...

    def read(self, path: str) -> bytes: ...


@contextmanager
def open_files(path: Path, limits: Limits = IMAGES) -> Iterator[Files]:
    """A folder or a zip as `Files`."""
    if path.is_dir():
        yield _Folder(path, limits)
        return
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: neither a folder nor a file; a pipe or a device is not read")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"{path}: neither a folder nor a readable zip archive ({' '.join(str(error).split())})"
        ) from None
    with archive:
        yield _Zip(path, archive, limits)


def is_junk(path: str) -> bool:
    """Files that systems leave lying about and nobody means as data."""
    return any(part.startswith(JUNK) for part in PurePosixPath(path).parts)


@dataclass(frozen=True)
class _Folder:
    root: Path
    limits: Limits

    def members(self) -> list[Member]:
        found: list[Member] = []
        root = self.root.resolve()
        for folder, folders, files in os.walk(self.root, followlinks=False, onerror=_refuse_unreadable):
            folders.sort()
            for name in folders:
                if (Path(folder) / name).is_symlink() and not is_junk(name):
                    raise UsageError(f"{self.root}: '{name}' is a link to a folder; put the folder itself there")
            for name in sorted(files):
                full = Path(folder) / name
                path = full.relative_to(self.root).as_posix()
                if is_junk(path):
                    continue
                try:
                    if not full.resolve().is_relative_to(root):
                        raise UsageError(
                            f"{self.root}: '{path}' is a link that leads out of the folder; copy the file in"
                        )
                    status = full.stat()
                except (OSError, RuntimeError):  # of links that lead nowhere, or in a circle
                    raise UsageError(f"{self.root}: '{path}' is a link that leads nowhere; remove it") from None
                if not stat.S_ISREG(status.st_mode):
                    raise UsageError(f"{self.root}: '{path}' is neither a file nor a folder; remove it")
                _require_bounds(str(self.root), path, status.st_size, len(found), self.limits)
                found.append(
                    Member(path=path, num_bytes=status.st_size, stamp=f"{status.st_mtime_ns} {status.st_mode:o}")
                )
        return found

    def read(self, path: str) -> bytes:
        return read_bounded(self.root / path, self.limits.file_bytes)


def _refuse_unreadable(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot be read ({error.strerror})")


@dataclass(frozen=True)
class _Zip:
    path: Path
    archive: zipfile.ZipFile
    limits: Limits

    def members(self) -> list[Member]:
        found: list[Member] = []
        total = 0
        seen: set[str] = set()
        for info in self.archive.infolist():
            name = info.filename
            parts = PurePosixPath(name).parts
            if not parts:
                raise UsageError(f"{self.path}: an entry has no name; the archive is damaged")
            if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or ":" in name.split("/")[0]:
                raise UsageError(
                    f"{self.path}: the entry '{name[:80]}' leads out of the archive; it is refused as a whole"
                )
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UsageError(f"{self.path}: the entry '{name[:80]}' is a link; archives of plain files are allowed")
            if info.is_dir() or is_junk(name):
                continue
            if info.flag_bits & 1:
                raise UsageError(f"{self.path}: the entry '{name[:80]}' is encrypted; unpack it first")
            if name in seen:
                raise UsageError(f"{self.path}: the entry '{name[:80]}' stands twice")
            seen.add(name)
            _require_bounds(str(self.path), name, info.file_size, len(found), self.limits)
            ratio = self.limits.ratio
            if ratio and info.file_size > 1 << 20 and info.file_size > ratio * max(info.compress_size, 1):
                raise UsageError(
                    f"{self.path}: the entry '{name[:80]}' unpacks to {info.file_size:,} bytes, a zip bomb"
                )
            total += info.file_size
            if total > MAX_TOTAL_BYTES:
                raise UsageError(f"{self.path}: its entries unpack to more than {MAX_TOTAL_BYTES >> 30} GiB")
            found.append(Member(path=name, num_bytes=info.file_size, stamp=f"{info.CRC:08x}"))
        return sorted(found, key=lambda member: member.path)

    def read(self, path: str) -> bytes:
        """The bytes of an entry, never more than it declares: a header that lies ends here."""
        info = self.archive.getinfo(path)
        try:
            with self.archive.open(info) as file:
                return file.read(min(info.file_size, self.limits.file_bytes))
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise OSError(f"unreadable in the archive: {' '.join(str(error).split())}") from None
        except Exception as error:  # zlib.error has no common base with the others
            raise OSError(f"unreadable in the archive: {error}") from None


def _require_bounds(where: str, path: str, num_bytes: int, count: int, limits: Limits) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where}: the name '{path[:80]}' is not UTF-8; rename it") from None
    if count >= MAX_FILES:
        raise UsageError(f"{where}: more than {MAX_FILES:,} files")
    if num_bytes > limits.file_bytes:
        raise UsageError(
            f"{where}: '{path[:80]}' has {num_bytes:,} bytes; at most {limits.file_bytes >> 20:,} MiB are allowed"
        )
    if path.lower().endswith(ARCHIVES):
        raise UsageError(f"{where}: '{path[:80]}' is an archive inside; unpack it first")
