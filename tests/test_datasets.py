"""Data sets: what is found, decoded, split and cached, and what is refused when a stranger made it."""

import gzip
import hashlib
import http.server
import io
import json
import os
import struct
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from normlab import datasets
from normlab.datasets import archive, cifar, decode, folder
from normlab.datasets.decode import decode_image
from normlab.datasets.download import Download, fetch
from normlab.datasets.image_set import DataInfo, ImageSet
from normlab.datasets.samples import draw_samples
from normlab.datasets.split import parse_split, split_images, split_sizes
from normlab.errors import UsageError
from tests.conftest import Run


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a data folder of the test's own."""
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))
    return tmp_path


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, kind, **options)
    return out.getvalue()


def picture(seed: int = 0, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def make_files(per_class: int = 4, test: int = 2, size: tuple[int, int] = (8, 8)) -> dict[str, bytes]:
    files = {}
    for label, name in enumerate(("cat", "dog")):
        for part, count in (("train", per_class), ("test", test)):
            for i in range(count):
                files[f"{part}/{name}/{i}.png"] = encoded(picture(1000 * label + 10 * i + len(part), size))
    return files


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


# What is found and decoded


def test_digits_are_there_without_a_network() -> None:
    images = datasets.load("digits")
    assert images.train_images.shape == (1797, 8, 8, 1)
    assert images.train_images.max() == 255
    info = datasets.describe("digits")
    assert info.num_train == 1797
    assert [int((images.train_labels == k).sum()) for k in range(10)] == list(info.train_counts)


def test_a_folder_and_its_zip_are_the_same_data(places: Path) -> None:
    files = make_files()
    write_folder(places / "pets", files)
    write_zip(places / "pets.zip", files)
    as_folder, as_zip = datasets.load("folder:pets"), datasets.load("folder:pets.zip")
    assert as_folder.fingerprint == as_zip.fingerprint == datasets.fingerprint("folder:pets")
    assert as_zip.classes == ("cat", "dog")
    assert as_zip.train_images.shape == (8, 8, 8, 3)
    assert as_zip.test_labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(as_folder.train_images, as_zip.train_images)
    expected = np.asarray(Image.open(io.BytesIO(files["train/cat/0.png"])))
    assert np.array_equal(as_zip.train_images[0], expected)


def test_the_fingerprint_follows_the_content_and_nothing_else(places: Path) -> None:
    files = make_files()
    write_folder(places / "pets", files)
    first = datasets.fingerprint("folder:pets")
    os.utime(places / "pets/train/cat/0.png", (0, 0))
    assert datasets.fingerprint("folder:pets") == first
    (places / "pets/train/cat/0.png").write_bytes(encoded(picture(99)))
    assert datasets.fingerprint("folder:pets") != first


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_what_is_known_of_a_data_set_follows_its_files(places: Path, write: Callable[..., None]) -> None:
    write(places / "pets", make_files())
    before = datasets.describe("folder:pets")
    assert datasets.describe("folder:pets") == before  # from memory
    write(places / "pets", make_files() | {"train/cat/new.png": encoded(picture())})
    assert datasets.describe("folder:pets").num_train == before.num_train + 1


def test_a_folder_without_a_split_level_has_training_images_alone(places: Path) -> None:
    files = {name.removeprefix("train/"): data for name, data in make_files().items() if name.startswith("train/")}
    write_zip(places / "pets.zip", {f"pets/{name}": data for name, data in files.items()})  # one folder around it
    images = datasets.load("folder:pets.zip")
    assert len(images.train_labels) == 8
    assert len(images.test_labels) == 0


def test_images_are_squashed_to_the_size_asked_for(places: Path) -> None:
    write_zip(places / "pets.zip", make_files(size=(12, 20)))
    images = datasets.load("folder:pets.zip", image_size=6)
    assert images.train_images.shape[1:] == (6, 6, 3)
    with pytest.raises(UsageError, match=r"not square.*image_size: 32"):
        datasets.load("folder:pets.zip")


def test_many_images_are_decoded_by_several_processes_in_order(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(places / "pets.zip", make_files(per_class=20))
    alone = datasets.load("folder:pets.zip").train_images.copy()
    monkeypatch.setenv("NORMLAB_HOME", str(places / "other-home"))
    monkeypatch.setattr(folder, "FEW", 0)
    assert np.array_equal(datasets.load("folder:pets.zip").train_images, alone)


def test_what_lies_in_the_current_folder_is_found_by_its_name_but_after_all_others(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "work").mkdir()
    monkeypatch.chdir(places / "work")
    write_zip(places / "work" / "pets.zip", make_files(per_class=3))
    assert len(datasets.load("folder:pets.zip").train_images) == 6
    write_zip(places / "pets.zip", make_files(per_class=4))
    assert len(datasets.load("folder:pets.zip").train_images) == 8


@pytest.mark.fault(20)
def test_a_damaged_cache_entry_is_made_again(places: Path) -> None:
    write_zip(places / "pets.zip", make_files())
    first = datasets.load("folder:pets.zip").train_images.copy()
    (entry,) = (places / "home" / "decoded").iterdir()
    for damage in ("images.npy", "meta.json"):
        (entry / damage).write_bytes(b"\x93NUMPY")
        assert np.array_equal(datasets.load("folder:pets.zip").train_images, first)


@pytest.mark.fault(34)
def test_an_array_of_objects_in_the_cache_is_never_unpickled(places: Path) -> None:
    write_zip(places / "pets.zip", make_files())
    datasets.load("folder:pets.zip")
    (entry,) = (places / "home" / "decoded").iterdir()
    size = (entry / "labels.npy").stat().st_size
    np.save(entry / "labels.npy", np.array([{}], object), allow_pickle=True)
    with (entry / "labels.npy").open("ab") as file:
        file.write(b"\0" * max(0, size - (entry / "labels.npy").stat().st_size))
    assert datasets.load("folder:pets.zip").train_labels.dtype == np.int64


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(np.full((4, 4), 7, np.uint8)), 7),
        (encoded(np.full((4, 4), 7 * 257, np.uint16)), 7),
        (encoded(np.full((4, 4), 250, np.uint16)), 1),  # of 65,535: nearly black, however dark the whole image is
        (encoded(np.full((4, 4, 3), 51, np.uint8), mode="P"), 51),
        (encoded(np.full((4, 4, 3), 7, np.uint8), "TIFF", mode="CMYK"), 7),
        (encoded(np.full((4, 4, 4), (7, 7, 7, 255), np.uint8)), 7),
        (encoded(np.full((4, 4, 4), (7, 7, 7, 0), np.uint8)), 255),
        (encoded(np.full((1, 1, 3), 7, np.uint8)), 7),
    ],
)
def test_every_mode_of_image_becomes_rgb(content: bytes, expected: int) -> None:
    pixels = decode_image(content, None)
    assert pixels.shape[2] == 3
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.fault(28)
def test_pixels_that_are_fractions_are_refused_and_not_made_black() -> None:
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        decode_image(encoded(np.full((4, 4), 0.5, np.float32), "TIFF"), None)


@pytest.mark.fault(28)
def test_the_exif_orientation_is_applied_and_an_animation_gives_its_first_frame() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = decode_image(encoded(pixels, "PNG", exif=exif), None)
    assert turned[-1].min() == 255
    assert turned[0].max() == 0
    frames = [Image.new("RGB", (4, 4), color) for color in ("white", "black")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(out.getvalue(), None).min() == 255


UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[0x0112] = 3


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 30}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 1}, {"comment": b"hi"},
     {"exif": UPSIDE_DOWN}, {"keep_rgb": True}],
)  # fmt: skip
def test_a_jpeg_is_decoded_to_the_pixels_of_pillow(mode: str, options: dict[str, Any]) -> None:
    content = encoded(picture(0, (24, 24)), "JPEG", mode, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    for size in (None, 24):
        assert np.array_equal(decode_image(content, size), np.asarray(expected))


def test_a_damaged_jpeg_is_refused_or_decoded_as_pillow_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(content: bytes) -> object:
        try:
            return decode_image(content, None).tolist()
        except ValueError as error:
            return str(error)

    whole, generator = encoded(picture(0, (16, 16)), "JPEG"), np.random.default_rng(0)
    assert decode._size_of_plain_jpeg(whole) == (16, 16)
    damaged = [whole[:stop] for stop in range(2, len(whole), 7)]
    for place, value in zip(generator.integers(2, len(whole), 300), generator.integers(0, 256, 300), strict=True):
        damaged.append(whole[:place] + bytes([value]) + whole[place + 1 :])
    ours = [outcome(content) for content in damaged]
    monkeypatch.setattr(decode, "_size_of_plain_jpeg", lambda content: None)
    for content, found in zip(damaged, ours, strict=True):
        assert found == outcome(content)
    assert {type(found) for found in ours} == {str, list}


# Bad images


TRUNCATED = encoded(picture(0, (64, 64)), "JPEG")[:400]
BAD_IMAGES = {"truncated": TRUNCATED, "empty": b"", "text": b"this is not an image", "half": encoded(picture())[:60]}


@pytest.mark.fault(28)
@pytest.mark.parametrize("kind", sorted(BAD_IMAGES))
def test_a_bad_image_is_an_error_that_names_it_or_is_left_out_on_request(places: Path, kind: str) -> None:
    files = make_files() | {"train/cat/bad.jpg": BAD_IMAGES[kind]}
    write_zip(places / "pets.zip", files)
    with pytest.raises(UsageError, match=r"1 of 13 images.*train/cat/bad\.jpg.*--max-bad-images 1"):
        datasets.load("folder:pets.zip", image_size=8)
    images = datasets.load("folder:pets.zip", image_size=8, max_bad_images=1)
    assert images.skipped == ("train/cat/bad.jpg",)
    assert len(images.train_labels) == 8
    assert datasets.load("folder:pets.zip", image_size=8).skipped == images.skipped  # it was accepted once
    info = datasets.describe("folder:pets.zip", image_size=8)
    assert (info.train_counts, info.test_counts) == ((4, 4), (2, 2))


def test_a_class_of_bad_images_alone_is_refused_whatever_is_allowed(places: Path) -> None:
    files = {path: (b"" if path.startswith("train/cat/") else content) for path, content in make_files().items()}
    write_zip(places / "pets.zip", files)
    with pytest.raises(UsageError, match="no training image of class 'cat' can be used"):
        datasets.load("folder:pets.zip", image_size=8, max_bad_images=100)


@pytest.mark.fault(29)
def test_an_image_of_too_many_pixels_is_refused_by_its_header(places: Path) -> None:
    def png(width: int, height: int) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

    for width in (50_000, 12_000):
        with pytest.raises(ValueError, match="pixels"):
            decode_image(png(width, width), 32)


@pytest.mark.fault(28)
def test_junk_that_systems_leave_is_no_data(places: Path) -> None:
    junk = {"__MACOSX/train/cat/._0.png": b"x", "train/cat/.DS_Store": b"x", "train/Thumbs.db": b"x", "notes.txt": b"x"}
    write_zip(places / "pets.zip", make_files() | junk)
    assert len(datasets.load("folder:pets.zip").train_labels) == 8


def test_entries_of_a_zip_may_begin_in_the_folder_it_was_made_in(places: Path) -> None:
    write_zip(places / "pets.zip", {f"./{path}": content for path, content in make_files().items()})
    assert len(datasets.load("folder:pets.zip").train_labels) == 8


LAYOUTS = [
    ({"train/cat/0.png", "train/dog/0.png", "test/cat/0.png"}, "'dog'.*no test images"),
    (
        {"train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png", "test/emu/0.png"},
        "'emu'.*no training",
    ),
    ({"train/cat/0.png", "test/cat/0.png"}, "only the class 'cat'"),
    ({"train/cat/0.png", "train/dog/0.png", "train/1.png"}, "lies in no class"),
    ({"readme.txt"}, "holds no images"),
    (
        {f"{part}/{pet}/0.png" for part in ("train", "val", "test") for pet in ("cat", "dog")},
        "'test' and 'val' are one",
    ),
    ({f"{part}/{pet}/0.png" for part in ("train", "more", "test") for pet in ("cat", "dog")}, "'more' stands beside"),
]


@pytest.mark.fault(30)
@pytest.mark.parametrize(("paths", "message"), LAYOUTS)
def test_a_layout_that_makes_no_sense_is_explained(places: Path, paths: set[str], message: str) -> None:
    write_zip(places / "pets.zip", dict.fromkeys(paths, encoded(picture())))
    with pytest.raises(UsageError, match=message):
        datasets.describe("folder:pets.zip")


@pytest.mark.fault(30)
def test_test_images_that_are_also_training_images_are_counted(places: Path) -> None:
    files = make_files()
    write_zip(places / "pets.zip", files | {"test/cat/copy.png": files["train/cat/0.png"]})
    images = datasets.load("folder:pets.zip")
    assert images.duplicates == 1
    assert images.remarks("official") == ["data folder:pets.zip: 1 test images are training images too"]
    assert images.remarks("fraction") == []


@pytest.mark.fault(30)
def test_training_images_that_stand_there_twice_are_said_where_a_split_may_part_them(
    places: Path, normlab: Run, tmp_path: Path
) -> None:
    files = make_files()
    write_zip(places / "pets.zip", files | {"train/cat/copy.png": files["train/cat/0.png"]})
    images = datasets.load("folder:pets.zip")
    assert images.copies == 1
    assert images.remarks("official") == []
    (remark,) = images.remarks("fraction")
    assert "1 training images are copies of others" in remark
    for verb in ("fetch", "show"):
        assert f"note: {remark}" in normlab("data", verb, "folder:pets.zip").stdout
    settings = ["data=folder:pets.zip", "split=fraction", "test_fraction=0.5", "network=4K-1C1B-2D", "epochs=1"]
    done = normlab("train", *settings, "batch_size=2", "--store", tmp_path / "store")
    assert (done.returncode, done.stderr.count(f"note: {remark}")) == (0, 1), done.stderr
    (result,) = (tmp_path / "store" / "trials").glob("*/result.json")
    assert remark in json.loads(result.read_text())["provenance"]["remarks"]


@pytest.mark.fault(28)
def test_a_file_that_can_be_read_again_is_another_state_of_the_data(places: Path) -> None:
    pets = write_folder(places / "pets", make_files())
    states = []
    for mode in (0o000, 0o644):
        (pets / "train" / "cat" / "0.png").chmod(mode)
        with archive.open_files(pets) as files:
            states.append([member.stamp for member in files.members()])
    assert states[0] != states[1]


def test_a_folder_that_may_not_be_listed_does_not_hide_the_others(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(places / "pets.zip", make_files())
    (places / "lost+found").mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "lost+found":  # root may list anything
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert "folder:pets.zip" in [entry.data for entry in datasets.catalogue()]


# Hostile archives


EVIL = ["../evil.png", "/evil.png", "train/../../evil.png", "C:/evil.png", "train\\..\\evil.png"]


@pytest.mark.fault(32)
@pytest.mark.parametrize("name", EVIL)
def test_an_entry_that_leads_out_of_the_archive_is_refused(places: Path, name: str) -> None:
    path = write_zip(places / "pets.zip", make_files())
    with zipfile.ZipFile(path, "a") as made:
        info = zipfile.ZipInfo("x.png")
        info.filename = name
        made.writestr(info, b"x")
    with pytest.raises(UsageError, match="leads out of the archive"):
        datasets.load("folder:pets.zip")
    assert not (places.parent / "evil.png").exists()


@pytest.mark.fault(32)
@pytest.mark.fault(33)
def test_links_encryption_nesting_and_repeats_in_an_archive_are_refused(places: Path) -> None:
    link = zipfile.ZipInfo("train/cat/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(write_zip(places / "link.zip", make_files()), "a") as made:
        made.writestr(link, b"/etc/passwd")
    with pytest.raises(UsageError, match="is a link"):
        datasets.load("folder:link.zip")
    write_zip(places / "nested.zip", make_files() | {"train/more.zip": b"PK"})
    with pytest.raises(UsageError, match="archive inside"):
        datasets.load("folder:nested.zip")
    raw = write_zip(places / "locked.zip", make_files()).read_bytes()
    (places / "locked.zip").write_bytes(
        raw.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    )
    with pytest.raises(UsageError, match="is encrypted"):
        datasets.load("folder:locked.zip")
    twice = write_zip(places / "twice.zip", make_files())
    twice.write_bytes(twice.read_bytes().replace(b"train/cat/1.png", b"train/cat/0.png"))
    with pytest.raises(UsageError, match="stands twice"):
        datasets.load("folder:twice.zip")


@pytest.mark.fault(33)
def test_folders_in_folders_cost_no_more_than_their_names(places: Path) -> None:
    write_zip(places / "deep.zip", {"a/" * 15_000 + f"{i % 2}/{i}.png": encoded(picture(i)) for i in range(20)})
    started = time.perf_counter()
    assert datasets.describe("folder:deep.zip", image_size=8).classes == ("0", "1")
    assert time.perf_counter() - started < 5  # comparing all leading parts at every depth took half a second a file


@pytest.mark.fault(33)
def test_a_zip_bomb_is_refused_before_it_unpacks(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(places / "bomb.zip", make_files() | {"train/cat/big.png": b"\0" * (40 << 20)})
    with pytest.raises(UsageError, match="zip bomb"):
        datasets.load("folder:bomb.zip")
    write_zip(places / "many.zip", make_files())
    monkeypatch.setattr(archive, "MAX_FILES", 5)
    with pytest.raises(UsageError, match="more than 5 files"):
        datasets.load("folder:many.zip")
    monkeypatch.undo()


@pytest.mark.fault(33)
def test_an_entry_that_unpacks_to_more_than_it_declares_is_a_bad_image(places: Path) -> None:
    path = write_zip(places / "pets.zip", make_files())
    raw = path.read_bytes()
    honest = make_files()["train/cat/0.png"]
    size = struct.pack("<I", len(honest))
    path.write_bytes(raw.replace(size, struct.pack("<I", 10)))
    with pytest.raises(UsageError, match="cannot be used"):
        datasets.load("folder:pets.zip", image_size=8)


@pytest.mark.fault(32)
def test_a_link_that_leads_out_of_a_folder_is_refused(places: Path) -> None:
    write_folder(places / "pets", make_files())
    (places / "secret.png").write_bytes(encoded(picture()))
    (places / "pets/train/cat/link.png").symlink_to(places / "secret.png")
    with pytest.raises(UsageError, match="leads out of the folder"):
        datasets.load("folder:pets")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: os.symlink("loop.png", root / "train/cat/loop.png"), "leads nowhere"),
        (lambda root: os.symlink("cat", root / "train/bird"), "'bird' is a link to a folder"),
        (lambda root: os.mkfifo(root / "train/cat/pipe.png"), "neither a file nor a folder"),
        (lambda root: Path(os.fsdecode(bytes(root / "train/cat") + b"/\xff.png")).write_bytes(b"x"), "not UTF-8"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="links and pipes as Unix has them")
@pytest.mark.fault(28)
def test_what_is_no_plain_file_in_a_folder_is_explained(
    places: Path, make: Callable[[Path], None], message: str
) -> None:
    make(write_folder(places / "pets", make_files()))
    with pytest.raises(UsageError, match=message):
        datasets.load("folder:pets")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_archive(places: Path) -> None:
    os.mkfifo(places / "pets.zip")
    with pytest.raises(UsageError, match="a pipe or a device is not read"):
        datasets.load("folder:pets.zip")


@pytest.mark.fault(28)
def test_no_image_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 moveto showpage\n%%EOF\n"
    with pytest.raises(ValueError, match="not an image"):
        decode_image(header, 8)
    assert not (tmp_path / "started").exists()


def test_images_too_large_to_train_on_ask_for_a_size(places: Path) -> None:
    write_folder(places / "pets", make_files(per_class=1, test=0, size=(1100, 1100)))
    with pytest.raises(UsageError, match=r"1100×1100; write image_size: 224, at most 1024"):
        datasets.load("folder:pets")


@pytest.mark.fault(20)
@pytest.mark.parametrize("garbage", [b"x", b"{", b"\xff\xfe", b"\n", b""])
def test_a_damaged_memory_of_the_files_is_computed_again(places: Path, garbage: bytes) -> None:
    write_folder(places / "pets", make_files())
    known = datasets.fingerprint("folder:pets"), datasets.describe("folder:pets", image_size=None)
    for path in (places / "home" / "fingerprints").iterdir():
        path.write_bytes(garbage)
    assert (datasets.fingerprint("folder:pets"), datasets.describe("folder:pets", image_size=None)) == known


@pytest.mark.fault(20)
def test_labels_in_the_cache_that_are_of_no_class_are_made_again(places: Path) -> None:
    write_folder(places / "pets", make_files())
    expected = datasets.load("folder:pets").train_labels.tolist()
    (path,) = (places / "home" / "decoded").glob("*/labels.npy")
    np.save(path, np.full(12, 77))
    assert datasets.load("folder:pets").train_labels.tolist() == expected
    meta = path.with_name("meta.json")
    meta.write_text('{"bytes": []}')
    assert datasets.load("folder:pets").train_labels.tolist() == expected


def test_what_is_no_zip_is_said_to_be_none(places: Path) -> None:
    (places / "pets.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UsageError, match="neither a folder nor a readable zip"):
        datasets.load("folder:pets.zip")


def test_a_name_that_is_not_there_says_where_it_was_looked_for_and_what_is_near(places: Path) -> None:
    write_zip(places / "pets.zip", make_files())
    with pytest.raises(UsageError, match=r"folder:pest\.zip.*did you mean 'pets\.zip'"):
        datasets.load("folder:pest.zip")
    with pytest.raises(UsageError, match=r"write folder:pets\.zip"):
        datasets.load("pets.zip")
    with pytest.raises(UsageError, match="there is no such file or folder"):
        datasets.load("folder:~nobody-of-that-name/pets")


# CIFAR-10


def small_cifar(path: Path, *, label: int = 3, records: int = 10, extra: tarfile.TarInfo | None = None) -> Path:
    record = bytes([label]) + bytes(range(256)) * 12
    with tarfile.open(path, "w:gz") as made:
        for part in cifar.PARTS:
            info = tarfile.TarInfo(part)
            info.size = len(record) * records
            made.addfile(info, io.BytesIO(record * records))
        if extra:
            made.addfile(extra)
    return path


@pytest.fixture
def ten_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "RECORDS", 10)


def test_cifar_records_are_read_plane_by_plane(places: Path, ten_records: None) -> None:
    images, labels = cifar.read_archive(small_cifar(places / "c.tar.gz"))
    assert images.shape == (60, 32, 32, 3)
    assert set(labels) == {3}
    assert images[0, 0, :3].tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert images[0, 8, 0].tolist() == [0, 0, 0]


@pytest.mark.fault(31)
def test_a_cifar_archive_that_is_not_the_official_one_is_refused(places: Path, ten_records: None) -> None:
    small_cifar(places / "cifar-10-binary.tar.gz")
    with pytest.raises(UsageError, match=r"its MD5 is .*c32a1d4ab5d03f1284b67883e8d87530"):
        datasets.load("cifar10")
    for wrong, message in (
        (small_cifar(places / "short.tar.gz", records=9), "bytes, not"),
        (small_cifar(places / "label.tar.gz", label=10), "label 10"),
    ):
        with pytest.raises(UsageError, match=message):
            cifar.read_archive(wrong)
    (places / "cut.tar.gz").write_bytes((places / "short.tar.gz").read_bytes()[:200])
    (places / "text.tar.gz").write_bytes(b"hello")
    (places / "empty.tar.gz").write_bytes(gzip.compress(b""))
    for name in ("cut", "text", "empty"):
        with pytest.raises(UsageError, match=r"\.tar\.gz"):
            cifar.read_archive(places / f"{name}.tar.gz")


@pytest.mark.fault(32)
def test_members_that_lead_out_of_a_tar_are_never_touched(places: Path, ten_records: None) -> None:
    evil = tarfile.TarInfo("../evil")
    evil.type, evil.linkname = tarfile.SYMTYPE, "/etc/passwd"
    images, _ = cifar.read_archive(small_cifar(places / "c.tar.gz", extra=evil))
    assert len(images) == 60
    assert not (places.parent / "evil").exists()


@pytest.mark.fault(31)
def test_the_archive_of_pickles_is_refused_in_favour_of_the_binary_one(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_OFFLINE", "1")
    (places / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cifar-10-binary\.tar\.gz is not here.*cifar-10-python\.tar\.gz is not used"):
        datasets.load("cifar10")


# Downloads


@pytest.fixture
def server() -> Iterator[Callable[[bytes, int], str]]:
    """Serves bytes on the loopback, with ranges; the first answers may be cut short."""
    state: dict[str, Any] = {"content": b"", "cuts": 0, "ranges": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content, asked = state["content"], self.headers.get("Range")
            state["ranges"].append(asked)
            start = int(asked.split("=")[1].rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = len(content)
            if state["cuts"]:
                state["cuts"] -= 1
                stop = start + (len(content) - start) // 2
            self.wfile.write(content[start:stop])

        def log_message(self, *_: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()

    def serve(content: bytes, cuts: int = 0) -> str:
        state.update(content=content, cuts=cuts)
        return f"http://127.0.0.1:{made.server_address[1]}/file"

    serve.state = state  # type: ignore[attr-defined]
    yield serve
    made.shutdown()
    made.server_close()


CONTENT = bytes(range(256)) * 1000
WANTED = Download(file="file.bin", url="", num_bytes=len(CONTENT), md5=hashlib.md5(CONTENT).hexdigest())


def test_two_that_want_the_same_file_download_it_once(places: Path, server: Callable[..., str]) -> None:
    wanted = replace(WANTED, url=server(CONTENT))
    with ThreadPoolExecutor() as pool:
        paths = list(pool.map(lambda _: fetch(wanted), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert server.state["ranges"] == [None]  # type: ignore[attr-defined]


def test_an_interrupted_download_goes_on_where_it_stopped(places: Path, server: Callable[..., str]) -> None:
    path = fetch(replace(WANTED, url=server(CONTENT, 2)))
    assert path.read_bytes() == CONTENT
    assert path == places / "home" / "data" / "file.bin"
    asked = server.state["ranges"]  # type: ignore[attr-defined]
    assert asked[0] is None
    assert asked[1] == f"bytes={len(CONTENT) // 2}-"
    assert not path.with_name("file.bin.part").exists()


def test_a_download_with_the_wrong_checksum_is_thrown_away(places: Path, server: Callable[..., str]) -> None:
    with pytest.raises(UsageError, match=r"has the MD5 .* put it into"):
        fetch(replace(WANTED, url=server(CONTENT[::-1])))
    assert list((places / "home" / "data").iterdir()) == []


def test_a_download_that_fails_says_which_file_to_put_where(places: Path, server: Callable[..., str]) -> None:
    with pytest.raises(UsageError, match=r"file\.bin.*failed.*put it into"):
        fetch(replace(WANTED, url=server(CONTENT, 99)))
    assert (places / "home" / "data" / "file.bin.part").exists()


def test_a_local_copy_is_used_before_the_network(places: Path) -> None:
    (places / "file.bin").write_bytes(b"mine")
    assert fetch(replace(WANTED, url="http://127.0.0.1:9/")).read_bytes() == b"mine"


# Splits


def make_set(train: int = 100, test: int = 20, classes: int = 4) -> ImageSet:
    labels = np.arange(train + test) % classes
    images = np.arange(train + test, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return ImageSet(
        name="x", fingerprint="f", classes=tuple("abcdefgh"[:classes]), train_images=images[:train],
        train_labels=labels[:train], test_images=images[train:], test_labels=labels[train:],
    )  # fmt: skip


@pytest.mark.fault(30)
@pytest.mark.parametrize(("split", "sizes"), [("official", (100, 20)), ("holdout-8", (92, 8)), ("fraction", (80, 20))])
def test_a_split_is_stratified_disjoint_and_of_the_size_it_announces(split: str, sizes: tuple[int, int]) -> None:
    images = make_set()
    made = split_images(images, split=split)
    assert (len(made.train_labels), len(made.test_labels)) == sizes
    assert set(np.bincount(made.train_labels)) == {sizes[0] // 4}
    assert set(np.bincount(made.test_labels)) == {sizes[1] // 4}
    assert not set(made.train_images[:, 0, 0, 0]) & set(made.test_images[:, 0, 0, 0])
    info = datasets.DataInfo(
        classes=images.classes, train_counts=(25,) * 4, test_counts=(5,) * 4, channels=1, image_size=2
    )
    assert split_sizes(info, split=split, test_fraction=0.2, train_images=None, test_images=None) == sizes


def test_a_split_depends_on_its_own_seed_alone() -> None:
    images = make_set()
    first, again, other = (split_images(images, split="holdout-8", seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.test_index, again.test_index)
    assert not np.array_equal(first.test_index, other.test_index)


def test_a_smaller_subset_is_part_of_a_larger_one_and_stratified() -> None:
    images = make_set()
    small, large = (split_images(images, split="fraction", train_images=n, test_images=4) for n in (8, 40))
    assert set(small.train_index) < set(large.train_index)
    assert np.bincount(small.train_labels).tolist() == [2, 2, 2, 2]
    assert np.array_equal(small.test_index, large.test_index)


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "holdout-100"}, "at least one image on both sides"),
        ({"split": "holdout-3"}, "at least one image on both sides"),
        ({"split": "fraction", "test_fraction": 0.001}, "at least one image on both sides"),
        ({"split": "official", "train_images": 101}, "train_images: 101"),
        ({"split": "official", "test_images": 3}, "less than one image"),
        ({"split": "holdout-0"}, "unknown 'holdout-0'"),
    ],
)
def test_a_split_that_cannot_be_made_is_explained(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_images(make_set(), **settings)


@pytest.mark.fault(30)
def test_a_subset_that_would_leave_out_a_class_is_refused_with_the_least_that_does_not() -> None:
    info = DataInfo(
        classes=("a", "b", "c"), train_counts=(500, 500, 2), test_counts=(5, 5, 5), channels=3, image_size=8
    )
    with pytest.raises(UsageError, match=r"none of the 2 images of the class 'c'; write 501 or more"):
        split_sizes(info, split="official", test_fraction=0.2, train_images=100, test_images=None)
    assert split_sizes(info, split="official", test_fraction=0.2, train_images=501, test_images=None) == (501, 15)


def test_official_needs_a_test_part() -> None:
    with pytest.raises(UsageError, match="write split: fraction or split: holdout-500"):
        split_images(make_set(test=0), split="official")


def test_a_misspelt_split_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'official'"):
        parse_split("offical")


def test_samples_of_each_class_are_drawn_in_a_row_of_their_own() -> None:
    figure = draw_samples(datasets.load("digits"), per_class=3)
    rows = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(rows) == 10
    assert all(row.shape == (8, 3 * 9) for row in rows)  # three images and a blank column after each
