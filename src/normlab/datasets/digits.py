"""scikit-learn's digits: 1,797 images of 8×8 grey pixels, ten classes, embedded in the library, no test part."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from normlab.datasets import cache
from normlab.datasets.image_set import DataInfo, Entry, Source

_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


def _fingerprint(name: str) -> str:
    """Of the file inside scikit-learn, which is not imported for it."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    return hashlib.sha256((Path(spec.origin).parent / "datasets/data/digits.csv.gz").read_bytes()).hexdigest()[:16]


def _describe(name: str, image_size: int | None) -> DataInfo:
    classes = tuple(str(digit) for digit in range(10))
    return DataInfo(classes=classes, train_counts=_COUNTS, test_counts=(0,) * 10, channels=1, image_size=8)


def _decode(name: str, image_size: int | None, max_bad_images: int, folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0 … 16 becomes 0 … 255
    np.save(folder / "images.npy", pixels[..., None])
    np.save(folder / "labels.npy", digits.target.astype(np.int64))
    cache.write_meta(folder, classes=[str(digit) for digit in range(10)], num_train=len(pixels))


def entry() -> Entry:
    return Entry(data="digits", where="scikit-learn", megabytes=0.1, about="1,797 images, 8×8 grey, 10 classes")


SOURCE = Source(fingerprint=_fingerprint, describe=_describe, decode=_decode)
