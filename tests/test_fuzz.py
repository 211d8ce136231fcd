"""The inputs that fuzzing kept, replayed: what found a fault once, and what reaches each branch of the readers."""

import zipfile
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS


@pytest.mark.fault(34)
@pytest.mark.fault(38)
@pytest.mark.parametrize("target", TARGETS)
def test_what_fuzzing_kept_is_read_or_refused_in_one_line(target: str) -> None:
    folder = CORPUS / target
    inputs = [path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "found.zip"]
    with zipfile.ZipFile(folder / "found.zip") as found:
        inputs += [found.read(name) for name in found.namelist()]
    assert len(inputs) > 1
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.fault(34)
def test_a_header_that_claims_more_than_there_is_is_passed_over(tmp_path: Path) -> None:
    """Safetensors with a header of 2⁶² bytes, and one that claims tensors of 72 TiB."""
    huge = b'{"network.conv1.weight":{"dtype":"F32","shape":[4398046511104,4],"data_offsets":[0,70368744177664]}}'
    for tensors in ((1 << 62).to_bytes(8, "little") + b"{}", len(huge).to_bytes(8, "little") + huge, b"", b"\x80\x04."):
        TARGETS["checkpoint"](b"{}\0\0" + tensors)
