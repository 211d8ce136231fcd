"""Several processes read what one would, and what becomes of them is nobody's loss."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from normlab import loading
from normlab.result import Result
from normlab.store import Store
from normlab.trial import TrialSpec, make_spec, trial_id

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

# Each program reads the store with two helpers, in a process without threads, and says what it found.
PROGRAM = """
import os, pathlib, sys
from normlab import loading
from normlab.store import Store
from tests.test_loading import SPECS

loading._num_helpers = lambda count: 2
store = Store(pathlib.Path({store!r}))
{change}
found = loading.load_all(store, SPECS, meanwhile=meanwhile)
for key, result in found.items():
    assert result == store.load(key)
print(*sorted(found, key=list(SPECS).index))
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no process is left")
"""
# Nothing is read here before both helpers have begun, so that each of the three has its part.
MEANWHILE = """
def meanwhile():
    import time
    time.sleep(0.3)
"""


def _specs() -> dict[str, TrialSpec]:
    settings = {"data": "digits", "network": "8K-2C2B-10D", "epochs": 1}
    made = [make_spec({**settings, "norm": norm, "seed": seed}) for norm in ("none", "batch") for seed in range(300)]
    return {trial_id(spec): spec for spec in made}


SPECS = _specs()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("loading") / "store")
    made.require_writable()
    source = {"device": "cpu", "seconds": 1.5, "notes": ["a", None, 1]}
    for key, spec in SPECS.items():
        diverged = spec.seed % 50 == 7
        metrics = {"num_test": 10} if diverged else {"num_test": 10, "test_accuracy": spec.seed / 1000}
        result = Result(
            id=key, spec=spec, status="diverged" if diverged else "finished", metrics=metrics, provenance=source,
            diverged_epoch=1 if diverged else None,
        )  # fmt: skip
        folder = made.root / "trials" / key
        folder.mkdir()
        (folder / "result.json").write_text(_text(result))
    return made


def _text(result: Result) -> str:
    from normlab.result import result_to_json

    return result_to_json(result, {"details.json": "0" * 64})


def read(store: Store, change: str = MEANWHILE) -> list[str]:
    program = PROGRAM.format(store=str(store.root), change=change)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found, left = done.stdout.splitlines()
    assert left == "no process is left"
    return found.split()


def test_results_that_several_processes_read_are_those_that_one_reads(store: Store) -> None:
    assert read(store) == list(SPECS)


def test_what_other_processes_read_counts(store: Store) -> None:
    others_alone = MEANWHILE + "loading._read = lambda store, ids, read=loading._read, me=os.getpid(): (\n"
    others_alone += "    read(store, ids) if os.getpid() != me else {})\n"
    assert len(read(store, others_alone)) > len(SPECS) / 2


@pytest.mark.parametrize("fate", ["os.kill(os.getpid(), 9)", "1 / 0", "content[:-9]", "b''", "None"])
def test_what_a_process_did_not_send_is_left_to_who_asked(store: Store, fate: str) -> None:
    change = (
        MEANWHILE
        + f"""
def packed(results, specs, pack=loading._packed):
    content = pack(results, specs)
    return {fate}
loading._packed = packed
"""
    )
    found = read(store, change)
    assert set(found) <= set(SPECS)
    assert len(found) < len(SPECS)


def test_where_no_process_can_be_forked_one_reads_all(store: Store) -> None:
    change = MEANWHILE + "def fork():\n    raise BlockingIOError(11, 'no process more')\nos.fork = fork\n"
    assert read(store, change) == list(SPECS)


def test_what_is_missing_damaged_or_anothers_is_left_out(store: Store, tmp_path: Path) -> None:
    keys = list(SPECS)
    other = Store(tmp_path / "store")
    (other.root).mkdir()
    (other.root / "trials").symlink_to(store.root / "trials")
    moved = {keys[0]: SPECS[keys[0]], "absent": SPECS[keys[1]]}
    assert list(loading.load_all(other, moved)) == [keys[0]]
    path = store.root / "trials" / keys[5] / "result.json"
    whole = path.read_text()
    for text in (
        whole.replace("0.005", "0.5"),
        whole[:100],
        (store.root / "trials" / keys[6] / "result.json").read_text(),
    ):
        path.write_text(text)
        assert read(store) == [key for key in keys if key != keys[5]]
    path.write_text(whole)


def test_an_error_while_others_read_leaves_no_process(store: Store) -> None:
    change = """
import atexit, contextlib
def meanwhile():
    raise KeyboardInterrupt
with contextlib.suppress(KeyboardInterrupt):
    loading.load_all(store, SPECS, meanwhile=meanwhile)
    raise SystemExit("it was not raised")
with contextlib.suppress(ChildProcessError):
    os.waitpid(-1, os.WNOHANG)
    raise SystemExit("a process is left")
meanwhile = lambda: None
"""
    assert read(store, change) == list(SPECS)


def test_a_process_with_threads_and_one_with_little_to_read_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cores", lambda: 64)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert loading._num_helpers(loading.FEW) == 0
    assert loading._num_helpers(loading.FEW + 1) == loading.MOST_PROCESSES - 1
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert loading._num_helpers(loading.FEW + 1) == 0
