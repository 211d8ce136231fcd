"""What strangers may send us, as functions of bytes: each reads them or refuses them in one line, and nothing else.

`python -m tests.fuzz TARGET --runs N` feeds them by coverage (Atheris, libFuzzer); the inputs that reached something
new are kept in `corpus/TARGET/`, and `tests/test_fuzz.py` replays them.
"""

import functools
import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from normlab.checkpoint import TrainingState, load, sealed
from normlab.datasets.archive import open_files
from normlab.datasets.decode import decode_image
from normlab.datasets.folder import _images, _list, _native_size
from normlab.errors import UsageError
from normlab.grid import arms
from normlab.inspection import class_rows
from normlab.network import build_network
from normlab.notation import layer_shapes, parse_notation
from normlab.optim import Optimizer
from normlab.result import details_from_json, details_to_json, result_from_json
from normlab.study import parse_study, read_overrides
from normlab.trial import make_spec, trial_id

CORPUS = Path(__file__).parent / "corpus"


def study(data: bytes) -> None:
    _one_line(lambda: arms(parse_study(data, name="s", path="s.yaml")))


def overrides(data: bytes) -> None:
    _one_line(lambda: read_overrides([part.decode(errors="replace") for part in data.split(b"\0")]))


def notation(data: bytes) -> None:
    _one_line(lambda: list(layer_shapes(parse_notation(data.decode(errors="replace")), 3, 32)))


def result(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    _one_line(lambda: result_from_json(text))

    def read() -> None:
        details = details_from_json(text)
        if details.confusion:  # what is accepted can be used
            class_rows(details)
        assert details_from_json(details_to_json(details)) == details

    _one_line(read)


def image(data: bytes) -> None:
    for size in (8, None):
        _one_line(functools.partial(decode_image, data, size))


def archive(data: bytes) -> None:
    def read() -> None:
        path = _scratch() / "archive.zip"
        path.write_bytes(data)
        with open_files(path) as files:
            for member in files.members():
                try:
                    assert len(files.read(member.path)) <= member.num_bytes
                except OSError as error:  # of that member alone
                    assert "\n" not in str(error)

    _one_line(read)


def folder(data: bytes) -> None:
    """Names of files, after a byte that says what they hold: a picture, part of one, or nothing."""

    def read() -> None:
        path = _scratch() / "folder.zip"
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as files:
            warnings.simplefilter("ignore")  # names twice, which is what some of the inputs are about
            for name in data.split(b"\0")[:40]:
                files.writestr(
                    name[1:].decode(errors="replace") or "x",
                    (_picture(), _picture()[:60], b"")[(name or b"0")[0] % 3],
                )
        with open_files(path) as files:
            listing = _list(str(path), _images(files))
            assert set(listing.labels) <= set(range(len(listing.classes)))
            listing.info(_native_size(path, files, listing))

    _one_line(read)


def checkpoint(data: bytes) -> None:
    """The first part is progress.json, the second the tensors, whatever their hash would say."""
    step, ids = _small_step()
    progress, _, tensors = data.partition(b"\0\0")
    folder = _scratch() / "checkpoint" / "0000000001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.safetensors").write_bytes(tensors)
    state = TrainingState(ids=ids, members=[0], steps=1, diverged_epochs=[None], curves=[{}], measured={})
    for text in (progress, sealed(state, tensors).encode()):
        (folder / "progress.json").write_bytes(text)
        said: list[str] = []
        load(folder.parent, ids, lambda members: step, said.append)
        assert all("\n" not in warning for warning in said)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "study": study, "overrides": overrides, "notation": notation, "result": result, "image": image, "archive": archive,
    "folder": folder, "checkpoint": checkpoint,
}  # fmt: skip


def _one_line(read: Callable[[], Any]) -> None:
    try:
        read()
    except (UsageError, ValueError) as error:
        if isinstance(error, UsageError):
            assert "\n" not in str(error)
            assert len(str(error)) < 5_000


@functools.cache
def _scratch() -> Path:
    place = tempfile.TemporaryDirectory(prefix="normlab-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    _KEPT.append(place)
    return Path(place.name)


_KEPT: list[Any] = []


@functools.cache
def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 200, 30)).save(file, "png")
    return file.getvalue()


@functools.cache
def _small_step() -> tuple[Any, list[str]]:
    spec = make_spec({"data": "x", "network": "2K-1C1B-3D", "epochs": 1, "image_size": 8})
    network = build_network(spec.network, image_size=8, norm="batch")
    return SimpleNamespace(network=network, optimizer=Optimizer(network, [spec])), [trial_id(spec)]
