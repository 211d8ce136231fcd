"""Images of one's own: a folder or a zip with one folder a class, below `train/` and `test/` or without that level.

    pets.zip: train/cat/1.jpg … test/dog/9.jpg        or        pets/cat/1.jpg … pets/dog/9.jpg

A single folder around all that is looked through. Images become RGB squares of `image_size`, squashed as Keras's
`flow_from_directory` does. Files with other endings than those of images are left alone.
"""

import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from normlab.datasets import cache
from normlab.datasets.archive import Files, Member, is_junk, open_files
from normlab.datasets.decode import decode_image, decode_share
from normlab.datasets.image_set import DataInfo, Entry, Source
from normlab.datasets.places import find, not_found
from normlab.errors import UsageError
from normlab.processes import cores

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN, TEST = ("train", "training"), ("test", "val", "valid", "validation")
_DECODE = "from normlab.datasets.decode import main; main()"
_DESCRIBED = " ".join(field.name for field in fields(DataInfo))
MAX_SIZE = 1_024  # pixels, as of the setting image_size
FEW = 2_000  # images that are decoded faster here than by processes that have to start


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The image files of a source: the training part first, sorted by path within a part."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    num_train: int
    classes: tuple[str, ...]

    def info(self, image_size: int) -> DataInfo:
        train, test = Counter(self.labels[: self.num_train]), Counter(self.labels[self.num_train :])
        labels = range(len(self.classes))
        return DataInfo(
            classes=self.classes,
            train_counts=tuple(train[label] for label in labels),
            test_counts=tuple(test[label] for label in labels),
            channels=3,
            image_size=image_size,
        )


def _path(name: str) -> Path:
    path = find(name)
    if path is None:
        raise not_found(name)
    return path


def _fingerprint(name: str) -> str:
    """Of paths and contents, so that a folder and its zip agree; remembered for this state of the files."""
    path = _path(name)
    return _fingerprint_at(path, _state(path))


def _fingerprint_at(path: Path, state: str) -> str:
    def compute() -> str:
        digest = hashlib.sha256()
        with open_files(path) as files:
            for member in _images(files):
                digest.update(f"{member.path}\0{_content_hash(files, member.path)}\n".encode())
        return digest.hexdigest()[:16]

    return cache.remembered(f"{path.resolve()} {state}", compute)


def _content_hash(files: Files, path: str) -> str:
    """Of a file's bytes; one that cannot be read counts as such here, and decoding will name it."""
    try:
        return hashlib.sha256(files.read(path)).hexdigest()
    except OSError:
        return "unreadable"


def _state(path: Path) -> str:
    """Changes when the files do: size and time of an archive, those of every image of a folder."""
    if path.is_file():
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    with open_files(path) as files:
        listing = "\n".join(f"{member.path} {member.num_bytes} {member.stamp}" for member in _images(files))
    return hashlib.sha256(listing.encode()).hexdigest()


def _describe(name: str, image_size: int | None) -> DataInfo:
    """From the paths and one image, remembered for this state of the files; once it is decoded, without what had to be
    left out."""
    path = _path(name)
    state = _state(path)  # a walk through all files

    def compute() -> str:
        with open_files(path) as files:
            listing = _list(str(path), _images(files))
            return json.dumps(asdict(listing.info(image_size or _native_size(path, files, listing))))

    known = json.loads(cache.remembered(f"{_DESCRIBED} {image_size} {path.resolve()} {state}", compute))
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    decoded = cache.open_entry(cache.key(_fingerprint_at(path, state), image_size), name)
    if decoded is not None and decoded.skipped:
        for part, labels in (("train_counts", decoded.train_labels), ("test_counts", decoded.test_labels)):
            made[part] = tuple(np.bincount(labels, minlength=len(decoded.classes)).tolist())
    return DataInfo(**made)


def _decode(name: str, image_size: int | None, max_bad_images: int, folder: Path) -> None:
    path = _path(name)
    with open_files(path) as files:
        listing = _list(str(path), _images(files))
        size = image_size or _native_size(path, files, listing)
    count = len(listing.paths)
    cache.new_images(folder, count, size)
    bad = decode_all(path, listing.paths, size, image_size is not None, folder)
    if len(bad) > max_bad_images:
        few = "; ".join(f"{listing.paths[row]}: {why}" for row, why in bad[:3])
        given = f" --image-size {image_size}" if image_size else ""
        raise UsageError(
            f"{path}: {len(bad)} of {count:,} images cannot be used ({few}{'; …' if len(bad) > 3 else ''}); mend or "
            f"remove them, or leave them out with: normlab data fetch folder:{name}{given} --max-bad-images {len(bad)}"
        )
    kept = np.setdiff1d(np.arange(count), [row for row, _ in bad])
    labels = np.array(listing.labels, np.int64)[kept]
    for label, name_of_class in enumerate(listing.classes):
        if label not in labels[kept < listing.num_train]:
            raise UsageError(f"{path}: no training image of class '{name_of_class}' can be used; mend or remove them")
    if bad:
        _keep(folder / "images.npy", kept)
    np.save(folder / "labels.npy", labels)
    cache.write_meta(
        folder,
        classes=listing.classes,
        num_train=int((kept < listing.num_train).sum()),
        skipped=[listing.paths[row] for row, _ in bad],
    )


def _keep(path: Path, rows: np.ndarray) -> None:
    """An array with these rows alone, never in memory as a whole."""
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    shorter = np.lib.format.open_memmap(path.with_name("kept.npy"), "w+", np.uint8, (len(rows), *images.shape[1:]))
    for start in range(0, len(rows), FEW):
        shorter[start : start + FEW] = images[rows[start : start + FEW]]
    shorter.flush()
    path.with_name("kept.npy").replace(path)


def decode_all(path: Path, paths: Sequence[str], size: int, resize: bool, folder: Path) -> list[tuple[int, str]]:
    """Fills the array, on every core where that pays; returns what could not be read."""
    job = {
        "source": str(path),
        "paths": list(paths),
        "image_size": size,
        "resize": resize,
        "array": str(folder / "images.npy"),
    }
    if len(paths) <= FEW:
        return decode_share(job, 0, len(paths))
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    count = cores()
    bounds = [len(paths) * share // count for share in range(count + 1)]
    # Processes, not threads: for small images Python's own work is most of it, and threads were slower than one.
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _DECODE, str(file), str(start), str(stop)],
            stdout=subprocess.PIPE, text=True,
        )
        for start, stop in itertools.pairwise(bounds)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in processes]
    file.unlink()
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{path}: a decoding process ended with {[process.returncode for process in processes]}")
    return [(row, why) for output in outputs for row, why in json.loads(output)]


def _images(files: Files) -> list[Member]:
    return [member for member in files.members() if member.path.lower().endswith(ENDINGS)]


def _list(where: str, members: Sequence[Member]) -> _Listing:
    """Parts, classes and labels, from the paths alone."""
    if not members:
        raise UsageError(f"{where}: it holds no images; expected CLASS/IMAGE.jpg, or train/CLASS/IMAGE.jpg")
    parts = [PurePosixPath(member.path).parts for member in members]
    depth, least = 0, min(map(len, parts))
    for one, other in zip(min(parts), max(parts), strict=False):  # single folders around everything
        if one != other or depth + 2 >= least or one.lower() in TRAIN:
            break
        depth += 1
    tops = {p[depth].lower() for p in parts}
    split_level = tops <= {*TRAIN, *TEST} and bool(tops & set(TRAIN))
    for names in (TRAIN, TEST) if split_level else ():
        if len(both := sorted(tops & set(names))) > 1:
            raise UsageError(f"{where}: '{both[0]}' and '{both[1]}' are one part here; move one of them elsewhere")
    if tops & set(TRAIN) and tops & set(TEST) and not split_level:
        other = min(tops - {*TRAIN, *TEST})
        raise UsageError(f"{where}: '{other}' stands beside train and test; move it elsewhere")
    class_at = depth + 1 if split_level else depth
    rows = []
    for member, part in zip(members, parts, strict=True):
        if len(part) < class_at + 2:
            raise UsageError(
                f"{where}: '{member.path}' lies in no class; expected {'train/' if split_level else ''}CLASS/IMAGE.jpg"
            )
        rows.append((split_level and part[depth].lower() in TEST, part[class_at], member.path))
    classes = tuple(sorted({name for in_test, name, _ in rows if not in_test}))
    strangers = sorted({name for in_test, name, _ in rows if in_test} - set(classes))
    if strangers:
        raise UsageError(f"{where}: the class '{strangers[0]}' has test images but no training images")
    absent = sorted(set(classes) - {name for in_test, name, _ in rows if in_test})
    if absent and any(in_test for in_test, _, _ in rows):
        raise UsageError(f"{where}: the class '{absent[0]}' has training images but no test images")
    if len(classes) < 2:
        raise UsageError(f"{where}: only the class '{classes[0]}' was found; a classifier needs two folders of images")
    rows.sort(key=lambda row: (row[0], row[2]))
    number = {name: label for label, name in enumerate(classes)}
    return _Listing(
        paths=tuple(path for _, _, path in rows),
        labels=tuple(number[name] for _, name, _ in rows),
        num_train=sum(not in_test for in_test, _, _ in rows),
        classes=classes,
    )


def _native_size(path: Path, files: Files, listing: _Listing) -> int:
    """The size of the first readable image; decoding sees to it that the others agree."""
    reason = ""
    for member in listing.paths[:20]:
        try:
            size = int(decode_image(files.read(member), None).shape[0])
            if size > MAX_SIZE:
                raise UsageError(f"{path}: its images are {size}×{size}; write image_size: 224, at most {MAX_SIZE}")
            return size
        except UsageError:
            raise
        except (ValueError, OSError) as error:
            reason = reason or f"{member}: {error}"
    raise UsageError(f"{path}: {reason}")


def is_candidate(path: Path) -> bool:
    """Whether a file or folder looks as if it held images of one's own."""
    if is_junk(path.name) or path.name.startswith("cifar-10-"):
        return False
    with contextlib.suppress(OSError):  # such as lost+found
        return path.suffix == ".zip" or (path.is_dir() and any(child.is_dir() for child in path.iterdir()))
    return False


def entry(path: Path) -> Entry:
    megabytes = round(path.stat().st_size / 1e6, 1) if path.is_file() else None
    return Entry(data=f"folder:{path.name}", where=str(path), megabytes=megabytes, about="a folder a class")


SOURCE = Source(fingerprint=_fingerprint, describe=_describe, decode=_decode)
