"""Files: what is no file, or too large, is refused at once; a new folder has the rights of the one it lies in."""

import os
from pathlib import Path

import pytest

from normlab.files import read_bounded, write_folder, write_folders


def test_a_file_is_read_up_to_its_bound_and_refused_beyond(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes; at most 4 are allowed"):
        read_bounded(tmp_path / "file", 4)
    os.truncate(tmp_path / "file", 1 << 40)  # a sparse one: no disk, but more than the memory
    with pytest.raises(OSError, match="at most"):
        read_bounded(tmp_path / "file", 1 << 20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_bounded(tmp_path / "pipe", 10)


def test_a_folder_can_be_read_by_whom_the_place_it_lies_in_can_be_read(tmp_path: Path) -> None:
    for rights in (0o755, 0o700, 0o775):
        place = tmp_path / f"{rights:o}"
        place.mkdir()
        place.chmod(rights)
        write_folder(place / "new", {"file": b"content"})
        assert (place / "new").stat().st_mode & 0o777 == rights
        assert [path.name for path in place.iterdir()] == ["new"]


def test_of_several_folders_none_appears_before_all_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync, replace = [], os.fsync, os.replace

    def watched_sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        inodes = [path.stat().st_ino for path in tmp_path.rglob("*")]
        assert set(inodes) <= set(synced)
        replace(source, target)

    monkeypatch.setattr("os.fsync", watched_sync)
    monkeypatch.setattr("os.replace", watched_replace)
    write_folders({tmp_path / name: {"a": name.encode(), "b": b""} for name in ("one", "two")})
    assert synced[-1] == tmp_path.stat().st_ino
    assert [(tmp_path / name / "a").read_text() for name in ("one", "two")] == ["one", "two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_folders({tmp_path / "one": {"a": b""}, tmp_path / "two": {"absent/b": b""}})
    assert list(tmp_path.iterdir()) == []


def test_where_no_thread_can_be_started_folders_are_written_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    write_folders({tmp_path / name: {"file": b"content"} for name in ("one", "two")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
