"""Files: what is no file, or too large, is refused at once; a new folder has the rights of the one it lies in."""

import os
from pathlib import Path

import pytest

from normlab.files import read_bounded, write_folder


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
