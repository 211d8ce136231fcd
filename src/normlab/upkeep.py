"""Looking after a store: checking every byte of it, merging others into it, and packing it for somebody else."""

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from normlab.datasets.archive import RESULTS, Files, open_files
from normlab.errors import UsageError, printable
from normlab.files import read_bounded, write_folder
from normlab.result import Result, details_from_json, result_from_json, sha256
from normlab.store import FILES, Store
from normlab.trial import trial_id

EPOCH = (1980, 1, 1, 0, 0, 0)  # of a zip: no time of its own, so that the same results give the same bytes


@dataclass(kw_only=True)
class Check:
    """What a check found: results that are whole, what is wrong with others by path, those that this user may not read,
    and what was left lying about."""

    whole: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Merge:
    added: int = 0
    there: int = 0  # the same result stood in the store
    conflicts: dict[str, str] = field(default_factory=dict)  # another result of the same trial did; it was kept
    damaged: dict[str, str] = field(default_factory=dict)


def check(store: Store, *, repair: bool = False) -> Check:
    """Reads every file of every result and compares its hash; `repair` sets damaged results aside, to be trained again,
    and removes what runs that were killed left behind."""
    found = Check()
    for name in store.ids():
        folder = store.root / "trials" / name
        try:
            _require_whole(name, _reader(folder))
            found.whole += 1
        except PermissionError as error:  # it may be whole
            found.unreadable[str(folder)] = _line(error)
        except (ValueError, OSError) as error:
            found.damaged[str(folder)] = _line(error)
            if repair:
                store.set_aside(name)
    finished = set(store.ids())
    places = [
        *store.root.glob("trials/.new-*"),
        *store.root.glob(".weights-*"),
        *store.root.glob("checkpoints/*/.new-*"),
        *store.root.glob("running/*.new-*"),
        *store.root.glob("failed/*.new-*"),
    ]
    places += [
        store.checkpoint_folder(ids) for ids in store.cohorts_begun() if all(trial_id in finished for trial_id in ids)
    ]
    running = any(store.is_claimed(path.stem) for path in store.root.glob("running/*.json"))
    for place in [] if running else places:  # a runner's own are no leftovers
        found.leftovers.append(str(place))
        if repair and place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        elif repair:
            with contextlib.suppress(OSError):
                place.unlink()
    return found


def merge(sources: Iterable[Path], store: Store) -> Merge:
    """Copies the results of other stores, folders or zips that `export` made, into this one: every result once, each
    read and checked before. What stands in the store already stays; a different result of the same trial is named."""
    store.require_writable()
    done = Merge()
    for source in sources:
        if source.is_dir():
            names = Store(source).ids()
            if not (source / "trials").is_dir():
                raise _no_store(source)
            for name in names:
                _take(store, name, _reader(source / "trials" / name), done, source)
        elif source.is_file():
            with open_files(source, RESULTS) as files:
                sizes = {member.path: member.num_bytes for member in files.members()}
                paths = [path.split("/") for path in sizes]
                for name in sorted({path[1] for path in paths if len(path) == 3 and path[0] == "trials"}):
                    _take(store, name, _zip_reader(files, sizes, name), done, source)
        else:
            raise _no_store(source)
    return done


def export(store: Store, ids: Iterable[str], path: Path) -> int:
    """Packs results into a zip that `merge` reads; returns how many. Damaged ones raise UsageError."""
    count = 0
    temporary = path.with_name(f".new-{os.getpid()}-{path.name}")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ids:
                folder = store.root / "trials" / name
                try:
                    content = _require_whole(name, _reader(folder))
                except (ValueError, OSError) as error:
                    advice = (
                        "" if isinstance(error, PermissionError) else "; normlab store check --repair sets it aside"
                    )
                    raise UsageError(f"{folder}: {_line(error)}{advice}") from None
                for file, data in sorted(content.items()):
                    info = zipfile.ZipInfo(f"trials/{name}/{file}", EPOCH)
                    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                    archive.writestr(info, data)
                count += 1
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _no_store(source: Path) -> UsageError:
    return UsageError(f"{source}: there is no store; write its folder, or a zip that `normlab store export` made")


def _take(store: Store, name: str, read: Callable[[str], bytes], done: Merge, source: Path) -> None:
    """Adds a result of another store, or says what is wrong with it."""
    try:
        content = _require_whole(name, read)
    except (ValueError, OSError, KeyError) as error:
        done.damaged[f"{source}: trials/{name}"] = _line(error)
        return
    _add(store, name, content, done)


def _reader(folder: Path) -> Callable[[str], bytes]:
    return lambda file: read_bounded(folder / file, FILES[file])


def _zip_reader(files: Files, sizes: Mapping[str, int], name: str) -> Callable[[str], bytes]:
    def read(file: str) -> bytes:
        path = f"trials/{name}/{file}"
        if sizes.get(path, 0) > FILES[file]:
            raise ValueError(f"{file} has {sizes[path]:,} bytes; at most {FILES[file]:,} are allowed")
        return files.read(path)

    return read


def _add(store: Store, name: str, content: dict[str, bytes], done: Merge) -> None:
    folder = store.root / "trials" / name
    try:
        present = _require_whole(name, _reader(folder))
    except PermissionError as error:  # it may be whole
        done.damaged[str(folder)] = _line(error)
        return
    except (ValueError, OSError):
        store.set_aside(name)  # nothing, or one that is damaged
        write_folder(folder, content)
        done.added += 1
        return
    if _numbers(content) == _numbers(present):
        done.there += 1
    else:
        here, there = (json.loads(one["result.json"])["metrics"].get("test_accuracy") for one in (present, content))
        done.conflicts[name] = f"test_accuracy {here} here, {there} there"


def _numbers(content: dict[str, bytes]) -> tuple[object, ...]:
    """What two runs of one trial have in common: not when, where and how fast."""
    tree = json.loads(content["result.json"])
    return tree["status"], tree["metrics"], tree["diverged_epoch"], content.get("details.json")


def _require_whole(name: str, read: Callable[[str], bytes]) -> dict[str, bytes]:
    """The files of a result, each as its hash says; raises ValueError or OSError where they are not."""
    content = {"result.json": read("result.json")}
    result = result_from_json(content["result.json"].decode())
    _require_own_id(name, result)
    for file, digest in result.files.items():
        if file not in FILES or file == "result.json":
            raise ValueError(f"it names a file {file!r}; allowed: {', '.join(list(FILES)[1:])}")
        content[file] = read(file)
        if sha256(content[file]) != digest:
            raise ValueError(f"the SHA-256 of {file} is not the one in result.json")
    if "details.json" in content:
        details_from_json(content["details.json"].decode())
    return content


def _require_own_id(name: str, result: Result) -> None:
    if result.id != name:
        raise ValueError(f"it is the result of {result.id}")
    if trial_id(result.spec) != name:
        raise ValueError(f"its spec is that of {trial_id(result.spec)}")


def _line(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__)[:300]
