"""Rates: how many trials of a kind are trained together, and that a run goes by it."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from normlab import rates
from normlab.datasets import cache
from normlab.plan import make_plan, training_flops
from normlab.provenance import processor
from normlab.rates import best_cohort, cohort_rates, measure_rate
from normlab.result import Result
from normlab.runner import RunStatus, run
from normlab.store import Store
from normlab.study import parse_study
from normlab.trial import TrialSpec, make_spec


def spec(**given: object) -> TrialSpec:
    return make_spec({"data": "digits", "split": "fraction", "network": "4K-1C1B-10D", "epochs": 1, **given})


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 1.2, 4: 1.5, 8: 3.0, 16: 6.0, 32: 12.0}, 4),  # four together take little longer than one
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),  # nothing gained
        ({1: 1.0, 2: 2.1, 4: 2.0, 8: 4.4, 16: 9.0}, 4),  # a size that gains nothing may hide one that does
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0, 32: 1.0}, 32),
    ],
)
def test_the_size_with_most_images_a_second_is_chosen(
    seconds: dict[int, float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "step_seconds", lambda spec, trials, device, limit: [seconds[trials], 99.0])
    assert best_cohort([cohort_rates(spec(), "cpu", 32, 1e12)]) == expected


def test_a_cohort_is_never_larger_than_asked_for_nor_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "step_seconds", lambda *_: [1.0])
    assert best_cohort([cohort_rates(spec(), "cpu", 3, 1e12)]) == 2
    assert best_cohort([cohort_rates(spec(), "cpu", 32, 0.0)]) == 1


def test_the_size_is_chosen_that_is_fastest_for_all_workers_together() -> None:
    slowed_at_4, undisturbed = [100.0, 180.0, 170.0], [100.0, 180.0, 260.0, 300.0]
    assert best_cohort([slowed_at_4]) == 2
    assert best_cohort([slowed_at_4, undisturbed]) == 4  # a size that not all have measured is none to compare
    assert best_cohort([]) == 1


def test_a_measurement_is_of_real_steps() -> None:
    assert len(cohort_rates(spec(), "cpu", 2, 1e12)) == 2
    assert min(cohort_rates(spec(), "cpu", 2, 1e12)) > 0
    assert measure_rate(spec(), "cpu") > 0


def test_a_step_that_is_timed_augments_as_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    warped: list[int] = []

    def warp(x: torch.Tensor, warps_TB4: torch.Tensor) -> torch.Tensor:
        warped.append(len(warps_TB4))
        return x

    monkeypatch.setattr("normlab.batches._warp_trials", warp)
    for augment, trials in (("none", []), ("on_the_fly", [2]), ("copies", [2])):
        warped.clear()
        rates.step_seconds(spec(augment=augment), 2, "cpu", 0.0)
        assert sorted(set(warped)) == trials


def test_a_run_trains_as_many_together_as_were_measured_to_be_fastest_and_gives_each_worker_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "{data: digits, split: fraction, network: 4K-1C1B-10D, epochs: 1, train_images: 100}"
    text = f"question: x?\nbase: {base}\nseeds: 7"
    study, store = parse_study(text.encode(), name="s", path="s.yaml"), Store(tmp_path)
    asked: list[str] = []

    def remembered(key: str, compute: object) -> str:
        asked.append(key)
        return "4"

    monkeypatch.setattr("normlab.runner.WORTH_MEASURING", 0.0)
    monkeypatch.setattr(cache, "remembered", remembered)
    assert run(study, store=store, workers=2, device="cpu").trained == 7
    sizes = Counter(store.load(t.id).provenance["cohort_size"] for t in make_plan(study, store).trials)
    assert sizes == {4: 4, 3: 3}
    assert len(asked) == 1
    assert asked[0].startswith("cohort ")


def test_the_time_left_is_estimated_from_the_first_step_on_and_not_from_the_start_of_workers(tmp_path: Path) -> None:
    base = "{data: digits, split: fraction, network: 4K-1C1B-10D, epochs: 10, train_images: 400}"
    study = parse_study(f"question: x?\nbase: {base}\nseeds: 2".encode(), name="s", path="s.yaml")
    glances: list[tuple[float, RunStatus]] = []
    began = time.monotonic()
    run(study, store=Store(tmp_path), workers=1, device="cpu", cohort=1,
        report=lambda status: glances.append((time.monotonic(), status)))  # fmt: skip
    ended, last = glances[-1]
    assert last.images_per_second > 1.2 * 2 * 10 * 400 / (ended - began)
    assert glances[0][1].seconds_left is None
    assert last.seconds_left == 0


def test_a_trial_that_diverged_early_does_not_tell_how_fast_its_kind_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(rates, "measure_rate", lambda spec, device: 1e9)
    study = parse_study(
        b"question: x?\nbase: {data: digits, split: fraction, network: 4K-1C1B-10D, epochs: 60}\nseeds: 2",
        name="s", path="s.yaml",
    )  # fmt: skip
    store = Store(tmp_path / "store")
    store.require_writable()
    first, second = make_plan(study, store).trials
    source = {"processor": processor(), "device": "cpu", "images_per_second": 1000.0}
    diverged = Result(
        id=first.id, spec=first.spec, status="diverged", metrics={}, diverged_epoch=1, provenance=source
    )  # fmt: skip
    store.save(diverged)
    assert rates.worker_rates(store, (first, second), "cpu")(first.spec) == 1e9
    store.save(replace(diverged, id=second.id, spec=second.spec, status="finished", diverged_epoch=None))
    assert (
        rates.worker_rates(store, (first, second), "cpu")(first.spec) == 1000 * training_flops(first.spec, 1, 1, 8) / 60
    )


def test_a_rate_is_measured_once_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[TrialSpec] = []

    def measure(spec: TrialSpec, device: str) -> float:
        measured.append(spec)
        return 1e9

    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(rates, "measure_rate", measure)
    base = "{data: digits, split: fraction, network: 4K-1C1B-10D, epochs: 1}"
    text = f"question: x?\nbase: {base}\nfactors: {{norm: [none, batch]}}\nseeds: 2"
    trials = make_plan(parse_study(text.encode(), name="s", path="s.yaml"), Store(tmp_path)).trials
    for _ in range(2):
        rate = rates.worker_rates(Store(tmp_path), trials, "cpu")
        assert [rate(trial.spec) for trial in trials] == [1e9] * 4
    assert len(measured) == 2  # one of each norm
