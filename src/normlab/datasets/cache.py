"""The cache of decoded data sets, and of fingerprints.

    CACHE/decoded/KEY/images.npy    uint8 [N, H, W, C], the training part first
    CACHE/decoded/KEY/labels.npy    int64 [N]
    CACHE/decoded/KEY/meta.json     classes, size of the training part, skipped files, sizes of the two others

An entry appears by one rename; two processes that decode the same set make the same entry, and one of them wins. An
entry that is not what its meta.json says is made again.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from normlab.datasets.image_set import ImageSet
from normlab.datasets.places import cache_root
from normlab.errors import UsageError

DECODE_VERSION = 2  # part of every key: another way of decoding must not meet old pixels


def key(fingerprint: str, image_size: int | None) -> str:
    """Of the entry of a data set with this fingerprint, decoded at this size."""
    return f"{fingerprint}-{image_size or 'native'}"


def _folder(key: str) -> Path:
    return cache_root() / "decoded" / f"v{DECODE_VERSION}-{key}"


def open_entry(key: str, name: str) -> ImageSet | None:
    """The set of an entry, or None where there is none or it is damaged."""
    folder = _folder(key)
    try:
        meta = json.loads((folder / "meta.json").read_text())
        for file, size in meta["bytes"].items():
            if (folder / file).stat().st_size != size:
                return None
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        train = meta["num_train"]
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels) or len(labels) < train:
            return None
        if labels.dtype != np.int64 or labels.ndim != 1 or not set(labels.tolist()) <= set(range(len(meta["classes"]))):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ImageSet(
        name=name,
        fingerprint=key.rpartition("-")[0],
        classes=tuple(meta["classes"]),
        train_images=images[:train],
        train_labels=labels[:train],
        test_images=images[train:],
        test_labels=labels[train:],
        skipped=tuple(meta["skipped"]),
        duplicates=meta["duplicates"],
        copies=meta["copies"],
    )


@contextmanager
def new_entry(key: str) -> Iterator[Path]:
    """A folder to fill with images.npy and labels.npy and to close with `write_meta`; in the end it is the entry."""
    final = _folder(key)
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in final.parent.glob(".new-*"):  # by processes that were killed; a living one writes within a day
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
    try:
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if final.exists():  # damaged, or with fewer images than are wanted now
            final.rename(temporary.with_name(temporary.name + "-old"))
            shutil.rmtree(temporary.with_name(temporary.name + "-old"), ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was quicker
            temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def new_images(folder: Path, count: int, size: int) -> None:
    """Makes images.npy for so many RGB squares and takes its room on the disk: a full one, met while it is filled
    through the memory, would kill the process."""
    try:
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
        images.flush()
        if hasattr(os, "posix_fallocate"):
            with (folder / "images.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise UsageError(
            f"cache {cache_root()}: {count:,} images of {size}×{size} pixels need {count * size * size * 3:,} bytes "
            f"({error.strerror}); make room, write a smaller image_size, or point NORMLAB_HOME elsewhere"
        ) from None


def write_meta(folder: Path, *, classes: Sequence[str], num_train: int, skipped: Sequence[str] = ()) -> None:
    """Closes an entry: counts what stands in it twice and records the sizes of the arrays."""
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    meta = {
        "classes": list(classes),
        "num_train": num_train,
        "skipped": list(skipped),
        **_count_duplicates(images, num_train),
        "bytes": {file: (folder / file).stat().st_size for file in ("images.npy", "labels.npy")},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False))


def _count_duplicates(images: np.ndarray, num_train: int) -> dict[str, int]:
    """Test images that stand in the training part, and training images that stand there once more."""
    digest: Callable[[np.ndarray], bytes] = lambda image: hashlib.blake2b(image.tobytes(), digest_size=16).digest()  # noqa: E731
    seen = {digest(image) for image in images[:num_train]}
    return {
        "duplicates": sum(digest(image) in seen for image in images[num_train:]),
        "copies": num_train - len(seen),
    }


def remembered(key: str, compute: Callable[[], str]) -> str:
    """A small text computed once for a key, such as the fingerprint of a file of this size and time."""
    path = cache_root() / "fingerprints" / hashlib.sha256(key.encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, ValueError):
        digest, _, text = path.read_text().partition(" ")
        if digest == hashlib.sha256(text.encode()).hexdigest():  # else damaged, or of an older version
            return text
    text = compute()
    with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        temporary.write_text(f"{hashlib.sha256(text.encode()).hexdigest()} {text}")
        temporary.replace(path)
    return text
