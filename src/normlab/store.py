"""The store: a folder of results, one folder a trial, and nothing beside it that could not be rebuilt from it.

    STORE/trials/TRIAL_ID/result.json, details.json     finished or diverged; never edited
    STORE/trials/TRIAL_ID/model.safetensors             when weights were asked for
    STORE/.lock                                         held while a claim is made
    STORE/running/TRIAL_ID.json                         a claim: whose, and by its time the last heartbeat
    STORE/failed/TRIAL_ID.json                          the reason of the last failure; removed by a success
    STORE/checkpoints/COHORT/cohort.json                the trials of a cohort under way, in their order
    STORE/checkpoints/COHORT/STEPS/                     how far it is (checkpoint.py); both removed when it is done

What has `.new-` in its name is not yet whole, or was left by a crash. A result appears by one rename, complete or not
at all. Stores merge by copying.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from normlab.errors import UsageError
from normlab.files import read_bounded, write_durably, write_folder, write_folders
from normlab.processes import lock, machine_identity, process_identity, process_start
from normlab.result import Details, Result, details_from_json, details_to_json, result_from_json, result_to_json, sha256

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # chosen: a runner that is silent for twelve heartbeats is gone

# What a result may consist of, and the bytes each file may have: far above any, far below a machine's memory.
FILES = {"result.json": 4 << 20, "details.json": 256 << 20, "model.safetensors": 2 << 30}

State = Literal["missing", "running", "finished", "diverged", "failed"]
Content = TypeVar("Content")


class Unreadable(ValueError):  # noqa: N818 - not an error of the result: of the disk, or of somebody's rights
    """A result that cannot be read, and may be whole."""


@dataclass(frozen=True)
class Store:
    root: Path

    @staticmethod
    def default() -> "Store":
        """`$NORMLAB_STORE`, or `normlab-store` in the current folder."""
        return Store(Path(os.environ.get("NORMLAB_STORE") or "normlab-store"))

    def require_writable(self) -> None:
        """Fails before any work is done where results could not be written."""
        try:
            for name in ("trials", "running", "failed"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root / "trials"):
                pass
        except OSError as error:
            raise UsageError(
                f"store {self.root}: cannot be written ({error.strerror}); choose another with --store FOLDER"
            ) from None

    # Results

    def save(self, result: Result, files: Mapping[str, bytes] | None = None) -> None:
        """Writes a result; `files` are further ones to keep beside it, such as weights. An existing result stays."""
        self.save_all([(result, files or {})])

    def save_all(self, results: Sequence[tuple[Result, Mapping[str, bytes]]]) -> None:
        """Writes results, each with its further files, as `save` does, but together."""
        contents = {self._folder(result.id): _content(result, files) for result, files in results}
        contents = {folder: content for folder, content in contents.items() if not _has_result(folder)}
        for folder in contents:
            if folder.exists() and not _has_result(folder):  # a copy that was cut short before the result itself
                self.set_aside(folder.name)
        try:
            write_folders(contents)
        except OSError:  # another runner was quicker with one of them, or the disk is full: what fits is kept
            failures = [error for one in contents.items() if (error := _write_result(*one))]
            if failures:
                raise failures[0] from None
        for result, _ in results:
            with contextlib.suppress(OSError):
                (self.root / "failed" / f"{result.id}.json").unlink(missing_ok=True)

    def load(self, trial_id: str, *, details: bool = False) -> Result | None:
        """A result, or None where there is none. Raises ValueError, naming the file, where it is damaged."""
        path = f"{self.root}/trials/{trial_id}/result.json"  # a Path takes a tenth of the whole time
        try:
            content = read_bounded(path, FILES["result.json"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(f"{path} cannot be read: {error.strerror}") from None
        try:
            result = result_from_json(content.decode())
            if result.id != trial_id:
                raise ValueError(f"it is the result of {result.id}")
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        return replace(result, details=self.details(result)) if details else result

    def details(self, result: Result) -> Details | None:
        """What a result of this store holds beyond its metrics, or None where it holds no more. Raises ValueError,
        naming the file, where it is damaged."""
        return self._file(result, "details.json", lambda content: details_from_json(content.decode()))

    def weights(self, result: Result) -> bytes | None:
        """What `model.safetensors` of a result of this store holds, or None where it was not kept; as `details`."""
        return self._file(result, "model.safetensors", bytes)

    def _file(self, result: Result, name: str, read: Callable[[bytes], Content]) -> Content | None:
        if name not in result.files:
            return None
        path = f"{self.root}/trials/{result.id}/{name}"
        try:
            content = read_bounded(path, FILES[name])
            if sha256(content) != result.files[name]:
                raise ValueError("its SHA-256 is not the one in result.json")
            return read(content)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is damaged: {getattr(error, 'strerror', None) or error}") from None

    def has_weights(self, trial_id: str) -> bool:
        """Whether the weights of a result were kept, as far as this user may see."""
        return os.path.exists(self._folder(trial_id) / "model.safetensors")

    def set_aside_damaged(self, trial_id: str) -> str | None:
        """Moves a result out of the way if it is damaged now: another runner may have trained it again since that was
        seen. What this user may not read is not damaged, and stays; returns why it cannot be read."""
        with self._locked():
            try:
                self.load(trial_id)
            except Unreadable as error:
                return str(error)
            except ValueError:
                self.set_aside(trial_id)
        return None

    def set_aside(self, trial_id: str) -> None:
        """Moves the folder of a damaged result out of the way, as `.damaged-…`; nothing is deleted."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._folder(trial_id), self.root / "trials" / f".damaged-{trial_id}-{time.time_ns()}")

    def ids(self) -> list[str]:
        """The ids of all results, sorted."""
        try:
            names = os.listdir(self.root / "trials")
        except FileNotFoundError:
            return []
        return sorted(name for name in names if not name.startswith("."))

    def failures(self, trial_ids: Iterable[str]) -> dict[str, str]:
        """The reasons of trials that failed at their last try."""
        found = {}
        there = {path.stem for path in (self.root / "failed").glob("*.json")}
        for trial_id in there.intersection(trial_ids):
            try:
                content = (self.root / "failed" / f"{trial_id}.json").read_text()
                found[trial_id] = str(json.loads(content)["reason"])
            except (ValueError, KeyError, TypeError, OSError):
                found[trial_id] = "unknown: the record of the failure is unreadable"
        return found

    def record_failure(self, trial_id: str, reason: str) -> None:
        content = json.dumps({"id": trial_id, "reason": reason, "time": time.time()}, indent=1)
        path = self.root / "failed" / f"{trial_id}.json"
        temporary = path.with_suffix(f".new-{os.getpid()}")
        write_durably(temporary, content.encode())
        os.replace(temporary, path)

    # Claims

    def claim(self, trial_ids: Sequence[str], *, all_or_none: bool = False) -> list[str]:
        """Takes trials for this runner, and returns those it got: not what another holds who lives, nor what has a
        result by now; with `all_or_none` nothing where that would not be all.

        A claim of another machine that looks left behind is watched for two heartbeats first: a clock may have jumped.
        """
        moving = {trial_id for trial_id in trial_ids if self._looks_left(trial_id) and self._moves(trial_id)}
        with self._locked():
            free = [
                trial_id
                for trial_id in trial_ids
                if trial_id not in moving and not self.is_claimed(trial_id) and not _has_result(self._folder(trial_id))
            ]
            if all_or_none and len(free) < len(trial_ids):
                return []
            self._write_claims(free)
        return free

    def _write_claims(self, trial_ids: Sequence[str]) -> None:
        """One file under the names of all, where the disk has such links: each whole at once, for half a claim, of a
        runner that was killed, would be nobody's for a minute. What is linked is this runner's own file, and not a
        claim, which another may replace where the system locks no files."""
        own = self.root / "running" / f"claims.new-{os.getpid()}"
        own.unlink(missing_ok=True)  # left by a crash, it may be a name of claims that stand; so may be those below
        own.write_text(json.dumps(process_identity()))
        try:
            for path in map(self._claim, trial_ids):
                whole = path.with_suffix(f".new-{os.getpid()}")
                if not _link(own, whole):
                    whole.unlink(missing_ok=True)
                    whole.write_text(json.dumps(process_identity()))
                os.replace(whole, path)
        finally:
            own.unlink(missing_ok=True)

    def is_claimed(self, trial_id: str) -> bool:
        """Whether a runner holds a trial and lives: one of this machine if its process does, whatever the clock says;
        one of another machine if its heart beat less than a minute ago, or will by its clock within one."""
        try:
            age = time.time() - self._claim(trial_id).stat().st_mtime
        except FileNotFoundError:
            return False
        holder = self._holder(trial_id)
        if _is_here(holder):
            return bool(holder["started"] == process_start(holder["pid"]))
        return abs(age) < STALE_SECONDS and json.dumps(holder) not in _GONE

    def _holder(self, trial_id: str) -> dict[str, Any]:
        """Who holds a claim; empty where that cannot be read."""
        try:
            holder = json.loads(self._claim(trial_id).read_text())
        except (OSError, ValueError):
            return {}
        return holder if isinstance(holder, dict) else {}

    def _looks_left(self, trial_id: str) -> bool:
        """Whether a runner of another machine holds a claim, and seems to be gone."""
        holder = self._holder(trial_id)
        return bool(holder) and not _is_here(holder) and not self.is_claimed(trial_id)

    def _moves(self, trial_id: str) -> bool:
        """Whether a claim's time moves within two heartbeats; if not, all that its runner held is free."""
        holder = self._holder(trial_id)
        until, path = time.monotonic() + 2.2 * HEARTBEAT_SECONDS, self._claim(trial_id)
        with contextlib.suppress(FileNotFoundError):
            before = path.stat().st_mtime
            while json.dumps(holder) not in _GONE and path.stat().st_mtime == before:
                if time.monotonic() > until:
                    _GONE.add(json.dumps(holder))
                time.sleep(0.05)
            return json.dumps(holder) not in _GONE
        return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the claims, so that two runners never both take over what a third left behind."""
        with (self.root / ".lock").open("a") as file:
            lock(file)
            yield

    def beat(self, trial_ids: Iterable[str]) -> None:
        for trial_id in trial_ids:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._claim(trial_id))

    def release(self, trial_id: str) -> None:
        """Gives up a claim of this process; another's stays."""
        with contextlib.suppress(OSError, ValueError):
            if json.loads(self._claim(trial_id).read_text()) == process_identity():
                self._claim(trial_id).unlink()

    # Checkpoints

    def checkpoint_folder(self, ids: Sequence[str]) -> Path:
        """Where the cohort of these trials, in this order, keeps its checkpoints."""
        others = f"+{sha256(json.dumps(list(ids)).encode())[:12]}" if len(ids) > 1 else ""
        return self.root / "checkpoints" / (ids[0] + others)

    def begin_cohort(self, ids: Sequence[str]) -> None:
        """Writes down which trials are trained together, so that they are again should this be cut short: in other
        company, rounding would be another."""
        folder = self.checkpoint_folder(ids)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "cohort.json").exists():
            write_durably(folder / f".new-{os.getpid()}", json.dumps({"ids": list(ids)}).encode())
            os.replace(folder / f".new-{os.getpid()}", folder / "cohort.json")

    def cohorts_begun(self) -> list[list[str]]:
        """The trials, in order, of each cohort that was begun and is not done, or has a checkpoint that can be read."""
        found = []
        for folder in sorted((self.root / "checkpoints").glob("*")):
            for path in [folder / "cohort.json", *sorted(folder.glob("[0-9]*/progress.json"), reverse=True)]:
                with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                    ids = json.loads(path.read_bytes())["ids"]
                    if self.checkpoint_folder(ids) == folder:
                        found.append(ids)
                        break
        return found

    def has_checkpoint(self, ids: Sequence[str]) -> bool:
        return any(self.checkpoint_folder(ids).glob("[0-9]*"))

    def remove_checkpoint(self, ids: Sequence[str]) -> None:
        shutil.rmtree(self.checkpoint_folder(ids), ignore_errors=True)

    def _folder(self, trial_id: str) -> Path:
        return self.root / "trials" / trial_id

    def _claim(self, trial_id: str) -> Path:
        return self.root / "running" / f"{trial_id}.json"


def as_store(given: Store | str | Path | None) -> Store:
    """A store, the one of this folder, or the default."""
    found = Store(Path(given)) if isinstance(given, str | Path) else given or Store.default()
    if found.root.exists() and not found.root.is_dir():
        raise UsageError(f"store {found.root}: it is no folder; write one, or a name for a new one")
    return found


def _content(result: Result, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a result, by name."""
    content = dict(files)
    if result.details is not None:
        content["details.json"] = details_to_json(result.details).encode()
    digests = {name: sha256(data) for name, data in content.items()}
    return content | {"result.json": result_to_json(result, digests).encode()}


def _has_result(folder: Path) -> bool:
    """Whether there is one, or may be, in a folder that is closed to this user."""
    try:
        (folder / "result.json").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _write_result(folder: Path, content: Mapping[str, bytes]) -> OSError | None:
    """Returns why it could not be written, where there is no result in the end."""
    try:
        if not _has_result(folder):
            write_folder(folder, content)
    except OSError as error:
        if not _has_result(folder):  # otherwise another runner was quicker: the same numbers
            return error
    return None


def _link(source: Path, target: Path) -> bool:
    """Whether a file could be given a second name: not every disk has such."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


_GONE: set[str] = set()  # runners of other machines that were seen to be silent


def _is_here(holder: Mapping[str, Any]) -> bool:
    return bool(holder.get("machine") == machine_identity() and holder.get("started") and "pid" in holder)
