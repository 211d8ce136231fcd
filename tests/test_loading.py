"""Several processes read what one would, and what becomes of them is nobody's loss."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from normlab import loading
from normlab.grid import trials_by_arm
from normlab.processes import CAN_FORK
from normlab.result import Result, result_to_json
from normlab.store import Store
from normlab.study import parse_study

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system cannot fork")

STUDY = parse_study(
    b"question: Which?\nbase: {data: digits, split: fraction, network: 8K-2C2B-10D, epochs: 1}\n"
    b"factors: {norm: [none, batch]}\nseeds: 300\n",
    name="example", path="example.yaml",
)  # fmt: skip
SPECS = {trial.id: trial.spec for _, row in trials_by_arm(STUDY, str) for trial in row}

# Programs read with two helpers, in a process without threads, which takes its time, so that each has its part.
PROGRAM = """
import os, pathlib, time
from normlab import loading
from normlab.store import Store
from normlab.table import read_table
from tests.test_loading import SPECS, STUDY

loading._num_helpers = lambda count: 2
store, me, counts = Store(pathlib.Path({store!r})), os.getpid(), {{}}

def slowly(store, ids, read=loading._read):
    if os.getpid() == me:
        time.sleep(0.02)
        counts["own"] = counts.get("own", 0) + len(ids)
    return read(store, ids)

loading._read = slowly
meanwhile = lambda: None
{change}
found = loading.load_all(store, SPECS, meanwhile=meanwhile)
assert 0 < counts["own"] < len(SPECS) / 2, counts
for key, result in found.items():
    assert result == store.load(key)
print(*sorted(found, key=list(SPECS).index))
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no process is left")
table = read_table(STUDY, store, str)
print(table.count("finished") + table.count("diverged"))
"""


def text_of(key: str) -> str:
    spec = SPECS[key]
    diverged = spec.seed % 50 == 7
    return result_to_json(
        Result(
            id=key, spec=spec, status="diverged" if diverged else "finished", diverged_epoch=1 if diverged else None,
            metrics={"num_test": 10} if diverged else {"num_test": 10, "test_accuracy": spec.seed / 1000},
            provenance={"device": "cpu", "seconds": 1.5, "notes": [f"{key} {i}" for i in range(50)], "none": None},
        ),
        {"details.json": "0" * 64},
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.require_writable()
    for key in SPECS:
        (made.root / "trials" / key).mkdir()
        path_of(made, key).write_text(text_of(key))
    return made


def path_of(store: Store, key: str) -> Path:
    return store.root / "trials" / key / "result.json"


def read(store: Store, change: str = "") -> tuple[list[str], int]:
    """What was found, and how many trials a table then counts as ended."""
    program = PROGRAM.format(store=str(store.root), change=change)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found, left, ended = done.stdout.splitlines()
    assert left == "no process is left"
    return found.split(), int(ended)


def test_results_that_several_processes_read_are_those_that_one_reads(store: Store) -> None:
    assert read(store) == (list(SPECS), len(SPECS))


def test_a_result_whose_spec_differs_where_that_has_no_effect_is_sent_as_it_is(store: Store) -> None:
    change = 'SPECS = {key: spec.model_copy(update={"momentum": 0.7}) for key, spec in SPECS.items()}'
    assert read(store, change) == (list(SPECS), len(SPECS))


@pytest.mark.parametrize("fate", ["os.kill(os.getpid(), 9)", "1 / 0", "content[:-9]", "b''", "None"])
def test_what_a_process_did_not_send_is_read_by_who_asked(store: Store, fate: str) -> None:
    change = f"""
shares = []
def packed(results, specs, pack=loading._packed):
    content = pack(results, specs)
    shares.append(content)
    return {fate} if len(shares) == 60 else content
loading._packed = packed
"""
    found, ended = read(store, change)
    assert set(found) < set(SPECS)
    assert ended == len(SPECS)


@pytest.mark.parametrize("missing", ["fork", "pipe"])
def test_where_there_can_be_no_process_or_open_file_more_one_reads_all(store: Store, missing: str) -> None:
    change = f"def refuse():\n    raise OSError(11, 'no more')\nos.{missing} = refuse\ncounts = {{'own': 1}}\n"
    change += "loading._read = lambda store, ids, read=loading._read.__defaults__[0]: read(store, ids)\n"
    assert read(store, change) == (list(SPECS), len(SPECS))


def test_what_is_missing_or_damaged_is_left_out(store: Store) -> None:
    keys = list(SPECS)
    path_of(store, keys[3]).unlink()
    path_of(store, keys[5]).write_text(text_of(keys[5]).replace("0.005", "0.5"))
    path_of(store, keys[50]).write_text(text_of(keys[50])[:100])
    path_of(store, keys[500]).write_text(text_of(keys[501]))
    left = [key for i, key in enumerate(keys) if i not in (3, 5, 50, 500)]
    assert read(store) == (left, len(left))


def test_an_error_while_others_read_leaves_no_process(store: Store) -> None:
    change = """
import contextlib
def interrupted():
    raise KeyboardInterrupt
with contextlib.suppress(KeyboardInterrupt):
    loading.load_all(store, SPECS, meanwhile=interrupted)
    raise SystemExit("it was not raised")
with contextlib.suppress(ChildProcessError):
    os.waitpid(-1, os.WNOHANG)
    raise SystemExit("a process is left")
"""
    assert read(store, change) == (list(SPECS), len(SPECS))


def test_helpers_end_when_their_process_is_killed(store: Store) -> None:
    program = PROGRAM.format(store=str(store.root), change="meanwhile = lambda: (time.sleep(0.3), os.kill(me, 9))")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.communicate(timeout=20) == ("", "")  # the end comes when no helper holds stderr any more
        assert process.returncode == -9


def test_a_process_with_threads_and_one_with_little_to_read_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cores", lambda: 64)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert loading._num_helpers(loading.FEW) == 0
    assert loading._num_helpers(loading.FEW + 1) == loading.MOST_PROCESSES - 1
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert loading._num_helpers(loading.FEW + 1) == 0
