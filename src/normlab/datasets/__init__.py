"""Data sets by name: found or fetched, decoded once, and opened as memory-mapped uint8 arrays.

`digits` comes with scikit-learn, `cifar10` is the official binary archive, `folder:NAME` a folder or zip with one
folder a class. `places` says where names are looked up; CIFAR-10 alone is downloaded. Imports no torch.
"""

from pathlib import Path

from normlab.datasets import cache, cifar, digits, folder
from normlab.datasets.image_set import DataInfo, Entry, ImageSet, Source
from normlab.datasets.places import cache_root, data_folders
from normlab.errors import UsageError, unknown

__all__ = ["DATASETS", "DataInfo", "Entry", "ImageSet", "catalogue", "describe", "fingerprint", "load"]

DATASETS: dict[str, Source] = {
    "digits": digits.SOURCE,
    "cifar10": cifar.SOURCE,
    "folder": folder.SOURCE,
}


def fingerprint(name: str) -> str:
    """Identifies the content of a data set, 16 hex digits; fast, and without decoding an image."""
    return _source(name).fingerprint(_rest(name))


def describe(name: str, *, image_size: int | None = None) -> DataInfo:
    """Classes, counts and shape of a data set, without decoding it; once it is, without what had to be left out."""
    return _source(name).describe(_rest(name), _checked_size(name, image_size))


def load(name: str, *, image_size: int | None = None, max_bad_images: int = 0) -> ImageSet:
    """Opens a data set from the cache; the first time it is found or fetched, checked, decoded and stored there.

    Up to `max_bad_images` unreadable images are then left out, and named in `skipped`; more are an error.
    """
    source, rest = _source(name), _rest(name)
    size = _checked_size(name, image_size)
    key = cache.key(source.fingerprint(rest), size)
    found = cache.open_entry(key, name)
    if found is None:
        with cache.new_entry(key) as entry:
            source.decode(rest, size, max_bad_images, entry)
        found = cache.open_entry(key, name)
        assert found is not None
    return found


def catalogue() -> list[Entry]:
    """Every data set there is: the built-in ones, and what lies in `$NORMLAB_DATA` and the cache."""
    entries = [digits.entry(), cifar.entry()]
    seen: set[str] = set()
    for place in data_folders():
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            if path.name not in seen and folder.is_candidate(path):
                seen.add(path.name)
                entries.append(folder.entry(path))
    return entries


def _source(name: str) -> Source:
    kind, _, rest = name.partition(":")
    if kind not in DATASETS:
        hint = f"; write folder:{name} for a folder or zip of your own" if _exists(name) else ""
        raise UsageError(f"{unknown('data', name, ['digits', 'cifar10', 'folder:NAME'])}{hint}")
    if (kind == "folder") != bool(rest):
        spelling = "folder:NAME" if kind == "folder" else kind
        raise UsageError(f"data '{name}': write {spelling}")
    return DATASETS[kind]


def _rest(name: str) -> str:
    return name.partition(":")[2]


def _checked_size(name: str, image_size: int | None) -> int | None:
    if image_size is not None and not name.startswith("folder:"):
        info = describe(name)
        if image_size != info.image_size:
            raise UsageError(f"image_size {image_size}: {name} has images of {info.image_size} pixels; leave it out")
        return None
    return image_size


def _exists(name: str) -> bool:
    return any((place / name).exists() for place in [*data_folders(), cache_root(), Path()])
