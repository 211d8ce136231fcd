"""Splits: which images train and which test, stratified by class, from the split's own seed alone.

`official` is the source's own; `holdout-N` takes N test images from the training part, equally many a class, and leaves
the official test part alone; `fraction` takes a share of each class of the training part.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normlab.datasets.image_set import DataInfo, ImageSet
from normlab.errors import UsageError, nearest

SPLITS = ("official", "fraction", "holdout-5000")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images uint8 [N, H, W, C] and labels int64 [N] to train and to test on; the indices say where they came from:
    into the training part, except that `test_index` is into the test part for the official split."""

    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    train_index: np.ndarray
    test_index: np.ndarray


def parse_split(text: str) -> tuple[str, int]:
    """(`official`, 0), (`fraction`, 0) or (`holdout`, N); else a UsageError."""
    if text in ("official", "fraction"):
        return text, 0
    if match := re.fullmatch(r"holdout-([1-9]\d{0,7})", text):
        return "holdout", int(match[1])
    raise UsageError(f"split: unknown '{text}'{nearest(text, SPLITS)}; allowed: official, fraction, holdout-N")


def split_sizes(
    info: DataInfo, *, split: str, test_fraction: float, train_images: int | None, test_images: int | None
) -> tuple[int, int]:
    """How many images a split trains and tests on. Raises UsageError where it cannot be made."""
    kept, held = _counts(info.train_counts, info.test_counts, split, test_fraction, info.classes)
    return _subset(kept, train_images, "train_images", info.classes), _subset(
        held, test_images, "test_images", info.classes
    )


def split_images(
    images: ImageSet,
    *,
    split: str,
    test_fraction: float = 0.2,
    train_images: int | None = None,
    test_images: int | None = None,
    seed: int = 0,
) -> Split:
    """Makes a split. Of classes of equal size a smaller subset is part of a larger one of the same seed."""
    classes = range(len(images.classes))
    train_by_class = [np.flatnonzero(images.train_labels == label) for label in classes]
    test_by_class = [np.flatnonzero(images.test_labels == label) for label in classes]
    official = [len(index) for index in train_by_class], [len(index) for index in test_by_class]
    _, held = _counts(*official, split, test_fraction, images.classes)
    kind, _ = parse_split(split)
    if kind != "official":
        shuffled = [_shuffle(index, seed, "split", label) for label, index in enumerate(train_by_class)]
        test_by_class = [index[:count] for index, count in zip(shuffled, held, strict=True)]
        train_by_class = [index[count:] for index, count in zip(shuffled, held, strict=True)]
    train_index = _take(train_by_class, train_images, seed, "train_images", images.classes)
    test_index = _take(test_by_class, test_images, seed, "test_images", images.classes)
    source = (
        (images.test_images, images.test_labels) if kind == "official" else (images.train_images, images.train_labels)
    )
    return Split(
        classes=images.classes,
        train_images=images.train_images[train_index],
        train_labels=images.train_labels[train_index],
        test_images=source[0][test_index],
        test_labels=source[1][test_index],
        train_index=train_index,
        test_index=test_index,
    )


def _counts(
    train: Sequence[int], test: Sequence[int], split: str, fraction: float, classes: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Images a class to train and to test on."""
    kind, number = parse_split(split)
    if kind == "official":
        if not sum(test):
            raise UsageError(
                "split: official, but the data has no test part; write split: fraction or split: holdout-500"
            )
        empty = [name for name, a, b in zip(classes, train, test, strict=True) if (a == 0) != (b == 0)]
        if empty:
            raise UsageError(
                f"split: official, but the class '{empty[0]}' stands in one part only; add images of it to both"
            )
        return list(train), list(test)
    held = _shares(train, number) if kind == "holdout" else [round(fraction * count) for count in train]
    where = split if kind == "holdout" else f"fraction with test_fraction {fraction:g}"
    for name, count, taken in zip(classes, train, held, strict=True):
        if not 0 < taken < count:
            raise UsageError(
                f"split: {where} would take {taken} of the {count} images of the class '{name}'; "
                "each class needs at least one image on both sides"
            )
    return [count - taken for count, taken in zip(train, held, strict=True)], held


def _shares(counts: Sequence[int], total: int) -> list[int]:
    """`total` in proportion to counts, by largest remainder; equal counts get equal shares as far as it divides."""
    whole = sum(counts)
    exact = [total * count / whole for count in counts]
    shares = [int(share) for share in exact]
    order = sorted(range(len(counts)), key=lambda i: (shares[i] - exact[i], i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _subset(counts: Sequence[int], wanted: int | None, key: str, classes: Sequence[str]) -> int:
    if wanted is not None:
        if wanted > sum(counts):
            raise UsageError(f"{key}: {wanted:,} are asked for, but the split has {sum(counts):,}")
        if wanted < len(classes):
            raise UsageError(f"{key}: {wanted} is less than one image for each of {len(classes)} classes")
        for name, count, share in zip(classes, counts, _shares(counts, wanted), strict=True):
            if count and not share:
                least = -(-sum(counts) // min(filter(None, counts)))
                raise UsageError(
                    f"{key}: {wanted:,} in proportion leave none of the {count} images of the class '{name}'; "
                    f"write {least:,} or more"
                )
        return wanted
    return sum(counts)


def _take(
    by_class: Sequence[np.ndarray], wanted: int | None, seed: int, key: str, classes: Sequence[str]
) -> np.ndarray:
    counts = [len(index) for index in by_class]
    _subset(counts, wanted, key, classes)
    if wanted is not None:
        shares = _shares(counts, wanted)
        by_class = [
            _shuffle(index, seed, key, label)[:n] for label, (index, n) in enumerate(zip(by_class, shares, strict=True))
        ]
    return np.sort(np.concatenate(by_class))


def _shuffle(index: np.ndarray, seed: int, purpose: str, label: int) -> np.ndarray:
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), label])
    return np.random.Generator(np.random.Philox(sequence)).permutation(index)
