"""Worker processes: they hear what is sent ahead, answer in order, and their death is heard of."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from normlab import datasets
from normlab.grid import trials_by_arm
from normlab.plan import training_bytes
from normlab.pool import CLOSING_SECONDS, SILENCE_SECONDS, Pool, Unmeasured, Worker
from normlab.study import parse_study
from normlab.trial import TrialSpec

STUDY = """question: x?
base: {data: digits, split: fraction, train_images: 100, network: 4K-1C1B-10D, epochs: 60}
seeds: 2
"""


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool("cpu")
    pool.resize(1)
    yield pool
    pool.resize(0)


def request(seed: int, folder: Path) -> dict[str, Any]:
    ((_, trials),) = trials_by_arm(parse_study(STUDY.encode(), name="s", path="s.yaml"), datasets.fingerprint)
    return {
        "specs": [trials[seed].spec.model_dump(mode="json")], "weights": None, "epochs": False,
        "checkpoint": str(folder / str(seed)), "checkpoint_seconds": 60.0, "deadline": None, "ahead": False,
    }  # fmt: skip


def next_answer(pool: Pool) -> tuple[Worker, dict[str, Any]]:
    """The next message that is no progress."""
    while True:
        heard = pool.hear(60.0)
        assert heard is not None
        if "progress" not in heard[1]:
            return heard


def test_a_request_sent_ahead_is_taken_at_once_however_long_and_answered_in_its_turn(
    pool: Pool, tmp_path: Path
) -> None:
    (worker,) = pool.workers
    worker.ask(request(0, tmp_path))
    heard = pool.hear(60.0)
    assert heard is not None
    assert "progress" in heard[1]  # it trains
    worker.ask({**request(1, tmp_path), "more than a pipe holds": "x" * (1 << 20)})
    while (heard := pool.hear(0.0)) is not None:
        assert "progress" in heard[1]  # it still does
    first, second = next_answer(pool)[1]["outcomes"][0], next_answer(pool)[1]["outcomes"][0]
    assert first["images"] == second["images"] == 6000
    assert first["metrics"] != second["metrics"]

    worker.process.kill()
    assert next_answer(pool) == (worker, {"failed": "the worker died: SIGKILL (out of memory?)", "again": True})
    other = pool.replace(worker)
    assert pool.workers == [other]
    assert worker.process.returncode == -signal.SIGKILL


def test_what_was_sent_ahead_is_not_begun_after_the_deadline(pool: Pool, tmp_path: Path) -> None:
    (worker,) = pool.workers
    worker.ask({**request(0, tmp_path), "deadline": time.time() - 1, "ahead": True})
    assert next_answer(pool) == (worker, {"stopped": True})
    assert list(tmp_path.iterdir()) == []
    worker.ask({**request(0, tmp_path), "deadline": time.time() - 1})  # one step, lest short runs never get on
    assert next_answer(pool) == (worker, {"stopped": True})
    assert (tmp_path / "0").exists()


def test_a_measurement_in_which_a_worker_fails_leaves_trials_alone_and_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that speak the protocol and train nothing; the first to start fails."""
    script = (
        "import os, sys, time\n"
        "try:\n"
        f"    os.close(os.open({str(tmp_path / 'first')!r}, os.O_CREAT | os.O_EXCL))\n"
        '    sys.stdin.readline(), print(\'{"failed": "no memory"}\', flush=True), sys.exit()\n'
        "except FileExistsError:\n"
        "    for line in sys.stdin:\n"
        "        time.sleep(0.5), print('{\"rates\": [1, 2, 3]}', flush=True)\n"
    )
    monkeypatch.setattr("normlab.pool.WORKER", script)
    pool, spec = Pool("cpu"), TrialSpec.model_validate(request(0, tmp_path)["specs"][0])
    pool.resize(3)
    before = list(pool.workers)
    with pytest.raises(Unmeasured):  # one had no memory for it
        pool.measure_cohort(spec, 32)
    assert pool.measure_cohort(spec, 32) == 4  # although the end of the first is heard only now
    assert len(set(before) & set(pool.workers)) == 2
    assert len(pool.workers) == 3
    pool.resize(0)


def test_who_has_said_all_there_was_to_hear_is_not_waited_for(pool: Pool, tmp_path: Path) -> None:
    (worker,) = pool.workers
    held = trials_by_arm(parse_study(STUDY.encode(), name="s", path="s.yaml"), datasets.fingerprint)[0][1][:1]
    asked = request(0, tmp_path)
    asked["specs"][0]["epochs"] = 1
    worker.begin(list(held))
    worker.ask(asked)
    while "outcomes" not in (answer := next_answer(pool))[1]:
        pass
    pool._lines.put((worker, json.dumps(answer[1])))  # as if it came just now
    started = time.monotonic()
    for teller, message in pool.end_busy():
        if "outcomes" in message:
            teller.begin([])
    assert time.monotonic() - started < CLOSING_SECONDS / 2
    assert pool.workers == []


def test_there_is_room_for_as_many_trials_as_the_memory_that_is_free_now_and_for_one_in_any_case(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrialSpec.model_validate(request(0, tmp_path)["specs"][0])
    monkeypatch.setattr("normlab.pool._free_bytes", lambda: 1e12)
    assert pool.room(spec) > 32
    monkeypatch.setattr("normlab.pool._free_bytes", lambda: 3.5 * training_bytes(spec, 1, 8) * len(pool.workers))
    assert pool.room(spec) == 3
    monkeypatch.setattr("normlab.pool._free_bytes", lambda: 1.0)
    assert pool.room(spec) == 1


@pytest.mark.fault(24)
def test_workers_are_not_blamed_for_what_was_not_heard_while_the_runner_itself_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, killed = [0.0], list[str]()
    monkeypatch.setattr("normlab.pool.time", SimpleNamespace(monotonic=lambda: clock[-1]))
    pool = Pool("cpu")
    process = SimpleNamespace(kill=lambda: killed.append("worker"))
    pool.workers = [SimpleNamespace(held=["trial"], heard=0.0, is_silent=False, process=process)]  # type: ignore[list-item]
    for now in (1.0, 5_000.0, 5_001.0):  # between the first two it was stopped
        clock.append(now)
        pool.end_silent()
    assert killed == []
    for _ in range(int(2 * SILENCE_SECONDS / 10)):
        clock.append(clock[-1] + 10)
        pool.end_silent()
    assert killed == ["worker"]


def test_a_worker_that_died_while_it_had_nothing_to_do_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normlab.pool.WORKER", "import sys; sys.stdin.read()")
    pool = Pool("cpu")
    pool.resize(2)
    dead, alive = pool.workers
    dead.process.kill()
    dead.process.wait()
    pool.resize(2)
    assert dead not in pool.workers
    assert alive in pool.workers
    assert len(pool.workers) == 2
    pool.resize(0)
