"""The shapes that data sets are spoken of in: what one is, what it holds, and what a source can do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A decoded data set. Images are uint8 [N, H, W, C], memory-mapped; labels int64 [N], indices into `classes`.

    The test part has length 0 where the source has none.
    """

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    skipped: tuple[str, ...] = ()  # unreadable files that were left out
    duplicates: int = 0  # test images whose pixels also stand in the training part
    copies: int = 0  # training images whose pixels stand in it once more

    def remarks(self, split: str | None = None) -> list[str]:
        """What should be known of the data before a number is believed: with this split, or with any."""
        found = []
        if self.skipped:
            files = ", ".join(self.skipped[:3]) + (", …" if len(self.skipped) > 3 else "")
            found.append(f"data {self.name}: {len(self.skipped):,} unreadable files were left out ({files})")
        if self.duplicates and split in (None, "official"):
            found.append(f"data {self.name}: {self.duplicates:,} test images are training images too")
        if self.copies and split != "official":
            found.append(
                f"data {self.name}: {self.copies:,} training images are copies of others; a split of this part may "
                "train on one and test on the other"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What can be known of a data set without decoding it."""

    classes: tuple[str, ...]
    train_counts: tuple[int, ...]  # images a class
    test_counts: tuple[int, ...]
    channels: int
    image_size: int

    @property
    def num_train(self) -> int:
        return sum(self.train_counts)

    @property
    def num_test(self) -> int:
        return sum(self.test_counts)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the catalogue."""

    data: str
    where: str
    megabytes: float | None
    about: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A family of data sets: three functions of the name (what follows `folder:`).

    `decode(name, image_size, max_bad_images, folder)` writes `images.npy`, `labels.npy` and `meta.json` (see `cache`).
    """

    fingerprint: Callable[[str], str]
    describe: Callable[[str, int | None], DataInfo]
    decode: Callable[[str, int | None, int, Path], None]
