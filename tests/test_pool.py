"""Worker processes: they hear what is sent ahead, answer in order, and their death is heard of."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from normlab import datasets
from normlab.grid import trials_by_arm
from normlab.pool import Pool, Worker
from normlab.study import parse_study

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
        "checkpoint": str(folder / str(seed)), "checkpoint_seconds": 60.0, "deadline": None,
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
    heard = pool.hear(0.0)
    assert heard is None or "progress" in heard[1]  # it still does
    first, second = next_answer(pool)[1]["outcomes"][0], next_answer(pool)[1]["outcomes"][0]
    assert first["images"] == second["images"] == 6000
    assert first["metrics"] != second["metrics"]

    worker.process.kill()
    assert next_answer(pool) == (worker, {"failed": "the worker died: SIGKILL (out of memory?)", "again": True})
    other = pool.replace(worker)
    assert pool.workers == [other]
    assert worker.process.returncode == -signal.SIGKILL
