"""CIFAR-10 from the official binary archive (Krizhevsky 2009): a local copy, or downloaded, checked by its MD5.

The archive's `.bin` files are records of one label byte and 3,072 pixel bytes, colour plane by plane; nothing in them
can run. The `python` version of the archive is made of pickles and is refused.
"""

import hashlib
import tarfile
from pathlib import Path

import numpy as np

from normlab.datasets import cache
from normlab.datasets.download import Download, fetch
from normlab.datasets.image_set import DataInfo, Entry, Source
from normlab.datasets.places import data_folders
from normlab.errors import UsageError

ARCHIVE = Download(
    file="cifar-10-binary.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    num_bytes=170_052_171,
    md5="c32a1d4ab5d03f1284b67883e8d87530",
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)] + [
    "cifar-10-batches-bin/test_batch.bin"
]
RECORD, RECORDS = 1 + 3 * 32 * 32, 10_000


def _fingerprint(name: str) -> str:
    """The archive's published MD5, checked before anything is decoded: it is known without the data."""
    return ARCHIVE.md5[:16]


def _describe(name: str, image_size: int | None) -> DataInfo:
    return DataInfo(classes=CLASSES, train_counts=(5_000,) * 10, test_counts=(1_000,) * 10, channels=3, image_size=32)


def _decode(name: str, image_size: int | None, max_bad_images: int, folder: Path) -> None:
    path = fetch(ARCHIVE, refuse={"cifar-10-python.tar.gz": "it is made of pickles, which can run code"})
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if digest != ARCHIVE.md5:
        raise UsageError(f"{path}: its MD5 is {digest}, the official one {ARCHIVE.md5}; remove it and fetch again")
    images, labels = read_archive(path)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    cache.write_meta(folder, classes=CLASSES, num_train=5 * RECORDS)


def read_archive(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [60000, 32, 32, 3] and labels int64 [60000] from the six known members; others are ignored."""
    images, labels = [], []
    try:
        with tarfile.open(path, "r:gz") as archive:
            parts = {member.name: member for member in archive if member.name in PARTS}
            for part in PARTS:
                if part not in parts or not parts[part].isfile():
                    raise UsageError(f"{path}: it holds no file {part}")
                if parts[part].size != RECORD * RECORDS:
                    raise UsageError(f"{path}: {part} has {parts[part].size:,} bytes, not {RECORD * RECORDS:,}")
                file = archive.extractfile(parts[part])
                assert file is not None
                records = np.frombuffer(file.read(RECORD * RECORDS), np.uint8).reshape(RECORDS, RECORD)
                if records[:, 0].max() >= len(CLASSES):
                    raise UsageError(f"{path}: {part} has the label {records[:, 0].max()}; 0 to 9 are allowed")
                labels.append(records[:, 0].astype(np.int64))
                images.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: not a readable .tar.gz archive ({' '.join(str(error).split())})") from None
    return np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels)


def entry() -> Entry:
    found = next((place / ARCHIVE.file for place in data_folders() if (place / ARCHIVE.file).exists()), None)
    where = str(found) if found else "to be downloaded: normlab data fetch cifar10"
    return Entry(data="cifar10", where=where, megabytes=170.1, about="60,000 images, 32×32 colour, 10 classes")


SOURCE = Source(fingerprint=_fingerprint, describe=_describe, decode=_decode)
