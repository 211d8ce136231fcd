"""Checkpoints: training that was stopped goes on where it was, to the bit, and a run keeps to its time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from normlab.checkpoint import TrainingState, sealed
from normlab.plan import make_plan
from normlab.runner import RunStatus, RunSummary, run
from normlab.store import Store
from normlab.study import Study
from normlab.train import Outcome, train
from normlab.trial import TrialSpec, trial_id
from normlab.watch import Progress, Stopped
from tests.test_train import CPU, make_split, spec

STEPS = 7  # an epoch: 50 images in batches of 8


def undisturbed(specs: list[TrialSpec], folder: Path) -> list[Outcome]:
    """Trained in one go; a checkpoint after every step but the last is written on the way."""
    return train(specs, make_split(), device=CPU, checkpoint=folder, checkpoint_seconds=0)


def interrupted(specs: list[TrialSpec], folder: Path) -> tuple[list[Outcome], int]:
    """Stopped after every step, each time gone on with a new network; also how often it was stopped."""
    for stops in range(100):
        try:
            return train(specs, make_split(), device=CPU, checkpoint=folder, deadline=0.0), stops
        except Stopped:
            pass
    raise AssertionError("training made no progress")


def resumed(specs: list[TrialSpec], folder: Path, warnings: list[str] | None = None) -> tuple[list[Outcome], int]:
    """Trained to the end from what the folder holds; also the images that need not be trained again."""
    glances: list[Progress] = []
    warn = (warnings if warnings is not None else []).append
    outcomes = train(specs, make_split(), device=CPU, report=glances.append, checkpoint=folder, warn=warn)
    return outcomes, glances[0].resumed_images


def bits(outcome: Outcome) -> dict[str, Any]:
    """All of an outcome but the time it took, weights as bytes, in which NaN equals itself."""
    weights = {name: (tensor.dtype, tensor.numpy().tobytes()) for name, tensor in outcome.weights.items()}
    return vars(outcome) | {"weights": weights, "seconds": None}


@pytest.mark.fault(10)
@pytest.mark.fault(11)
@pytest.mark.parametrize("optimizer", ["adam_keras", "sgd"])
@pytest.mark.parametrize("norm", ["batch", "renorm", "none"])
@pytest.mark.parametrize("trials", [1, 3])
def test_training_stopped_after_every_step_ends_as_if_undisturbed_to_the_bit(
    trials: int, norm: str, optimizer: str, tmp_path: Path
) -> None:
    explosive = {"learning_rate": 100.0, "schedule": "step", "step_at": (1.0,), "step_factors": (1e5,)}
    free = [{"schedule": "cosine"}, explosive, {"learning_rate": 1e-2}][:trials]
    shared = {"norm": norm, "optimizer": optimizer, "augment": "on_the_fly", "epochs": 4, "evaluate_every": 2}
    network = "4K-1C2B-6D-6D-6D-6D-Dropout0.5-3D"  # deep enough to overflow
    specs = [spec(**shared, **settings, network=network, seed=seed) for seed, settings in enumerate(free)]
    expected = undisturbed(specs, tmp_path / "a")
    outcomes, stops = interrupted(specs, tmp_path / "b")
    assert stops == 4 * STEPS - 1  # within epochs and at their ends
    assert [outcome.diverged_epoch is not None for outcome in expected] == [False, True, False][:trials]
    assert [bits(outcome) for outcome in outcomes] == [bits(outcome) for outcome in expected]
    assert "gradient_spread_initial" in outcomes[0].metrics
    tensors = [(tmp_path / folder / f"{4 * STEPS - 1:010d}" / "state.safetensors").read_bytes() for folder in "ab"]
    assert tensors[0] == tensors[1]  # the moments of the optimizer too


@pytest.mark.fault(10)
@pytest.mark.fault(21)
@pytest.mark.parametrize("norm", ["batch", "renorm"])
def test_a_cohort_goes_on_without_the_half_that_diverged_and_so_does_its_checkpoint(norm: str, tmp_path: Path) -> None:
    explosive = {"learning_rate": 100.0, "schedule": "step", "step_at": (1.0,), "step_factors": (1e5,)}
    network = "4K-1C2B-6D-6D-6D-6D-Dropout0.5-3D"
    specs = [
        spec(norm=norm, epochs=5, network=network, seed=seed, **settings)
        for seed, settings in enumerate(({"schedule": "cosine"}, explosive, {"learning_rate": 1e-2}, explosive))
    ]
    expected = undisturbed(specs, tmp_path / "a")
    assert [outcome.diverged_epoch is None for outcome in expected] == [True, False, True, False]
    assert [bool(outcome.weights) for outcome in expected] == [True, False, True, False]
    outcomes, _ = interrupted(specs, tmp_path / "b")
    assert [bits(outcome) for outcome in outcomes] == [bits(outcome) for outcome in expected]
    last = tmp_path / "b" / f"{5 * STEPS - 1:010d}"
    assert TrainingState.model_validate_json((last / "progress.json").read_bytes()).members == [0, 2]
    for trial in (0, 2):
        (alone,) = train([specs[trial]], make_split(), device=CPU)
        assert alone.details is not None
        assert (details := expected[trial].details) is not None
        assert details.curves["train_loss"] == pytest.approx(alone.details.curves["train_loss"], rel=1e-2)
        assert set(expected[trial].metrics) == set(alone.metrics)


@pytest.mark.fault(3)
@pytest.mark.fault(6)
@pytest.mark.fault(7)
@pytest.mark.fault(8)
@pytest.mark.parametrize("damaged", ["state.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "absent"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(damaged: str, damage: str, tmp_path: Path) -> None:
    specs = [spec(epochs=4)]
    expected = undisturbed(specs, tmp_path)
    last = 4 * STEPS - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{last - 1:010d}", f"{last:010d}"]
    for steps, steps_left in ((last, last - 1), (last - 1, 0)):
        path = tmp_path / f"{steps:010d}" / damaged
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content[:-9] + b"?" + content[-8:])
        if damage == "absent":
            path.unlink()
        warnings: list[str] = []
        outcomes, resumed_images = resumed(specs, tmp_path, warnings)
        done, within = divmod(steps_left, STEPS)
        assert resumed_images == done * 50 + within * specs[0].batch_size
        assert any(str(path.parent) in warning for warning in warnings)
        assert bits(outcomes[0]) == bits(expected[0])


@pytest.mark.fault(7)
@pytest.mark.parametrize("old", ['"steps": ', '"seconds": ', '"test_accuracy": [\n    0.'])
def test_one_digit_of_a_checkpoints_record_is_noticed(old: str, tmp_path: Path) -> None:
    specs = [spec(epochs=4)]
    expected = undisturbed(specs, tmp_path)
    path = max(tmp_path.iterdir()) / "progress.json"
    start = path.read_text().index(old) + len(old)
    text = path.read_text()
    path.write_text(text[:start] + str((int(text[start]) + 1) % 10) + text[start + 1 :])
    warnings: list[str] = []
    outcomes, _ = resumed(specs, tmp_path, warnings)
    assert "progress.json does not have the SHA-256 that stands in it" in warnings[0]
    assert bits(outcomes[0]) == bits(expected[0])


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    "change",
    [{"steps": -5}, {"epoch": 2}, {"seen": 1}, {"images": 0}, {"curves": [{}]}, {"diverged_epochs": []},
     {"measured": {"gradient_spread_initial": []}}],
)  # fmt: skip
def test_a_checkpoint_of_no_step_of_this_training_is_passed_over(change: dict[str, Any], tmp_path: Path) -> None:
    specs = [spec(epochs=4)]
    expected = undisturbed(specs, tmp_path)
    path = max(tmp_path.iterdir()) / "progress.json"
    state = TrainingState.model_validate_json(path.read_bytes()).model_copy(update=change)
    path.write_text(sealed(state, path.with_name("state.safetensors").read_bytes()))
    warnings: list[str] = []
    outcomes, _ = resumed(specs, tmp_path, warnings)
    assert "it is of no step of this training" in warnings[0]
    assert bits(outcomes[0]) == bits(expected[0])


@pytest.mark.fault(9)
def test_a_checkpoint_of_other_versions_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [spec(epochs=4)]
    with monkeypatch.context() as patch:
        patch.setattr("normlab.checkpoint.made_by", lambda: "normlab 0.0.9, torch 1.0")
        undisturbed(specs, tmp_path)
    warnings: list[str] = []
    assert resumed(specs, tmp_path, warnings)[1] == 0
    assert "it was made by normlab 0.0.9, torch 1.0, and this is normlab" in warnings[0]


@pytest.mark.fault(2)
def test_a_checkpoint_written_after_a_damaged_one_replaces_it(tmp_path: Path) -> None:
    specs = [spec(epochs=5)]
    undisturbed(specs, tmp_path)
    (tmp_path / f"{5 * STEPS - 1:010d}" / "progress.json").write_text("{")
    (tmp_path / ".new-left-by-a-crash").mkdir()
    with pytest.raises(Stopped):
        train([spec(epochs=6)], make_split(), device=CPU, checkpoint=tmp_path, deadline=0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001"]  # of other specs, from the start


@pytest.mark.fault(9)
def test_a_checkpoint_of_other_specs_is_passed_over(tmp_path: Path) -> None:
    undisturbed([spec(epochs=3)], tmp_path / "a")
    undisturbed([spec(epochs=3), spec(epochs=3, seed=1)], tmp_path / "b")
    other = [spec(epochs=3, seed=1), spec(epochs=3)]
    assert resumed(other[:1], tmp_path / "a")[1] == 0
    assert resumed(other, tmp_path / "b")[1] == 0
    assert resumed(other[::-1], tmp_path / "b")[1] == 2 * (2 * 50 + (STEPS - 1) * spec().batch_size)


@pytest.mark.fault(9)
def test_a_checkpoint_that_does_not_fit_the_network_is_passed_over(tmp_path: Path) -> None:
    """As after a change of the code that left the spec's words alone."""
    undisturbed([spec(epochs=3)], tmp_path)
    larger = spec(epochs=3, network="4K-2C2B-7D-Dropout0.5-3D")
    for path in tmp_path.glob("*/progress.json"):
        state = TrainingState.model_validate_json(path.read_bytes()).model_copy(update={"ids": [trial_id(larger)]})
        path.write_text(sealed(state, path.with_name("state.safetensors").read_bytes()))
    expected = undisturbed([larger], tmp_path / "other")
    assert bits(train([larger], make_split(), device=CPU, checkpoint=tmp_path)[0]) == bits(expected[0])


@pytest.mark.fault(9)
def test_a_checkpoint_with_the_random_numbers_of_another_kind_of_device_is_passed_over(tmp_path: Path) -> None:
    specs = [spec(epochs=2, network="4K-1C1B-6D-Dropout0.5-3D")]
    undisturbed(specs, tmp_path)
    for path in tmp_path.glob("*/progress.json"):
        tensors = safetensors.torch.load_file(path.with_name("state.safetensors"))
        tensors["epoch.dropout.0.0"] = torch.zeros(16, dtype=torch.uint8)  # as long as that of a GPU
        content = safetensors.torch.save(tensors)
        path.with_name("state.safetensors").write_bytes(content)
        path.write_text(sealed(TrainingState.model_validate_json(path.read_bytes()), content))
    warnings: list[str] = []
    assert resumed(specs, tmp_path, warnings)[1] == 0
    assert "its random numbers are those of another kind of device" in warnings[0]


def test_the_time_that_training_took_is_that_of_all_processes_that_had_a_part_in_it(tmp_path: Path) -> None:
    specs = [spec(epochs=2)]
    undisturbed(specs, tmp_path)
    path = max(tmp_path.iterdir()) / "progress.json"
    state = TrainingState.model_validate_json(path.read_bytes()).model_copy(update={"seconds": 1000.0})
    path.write_text(sealed(state, path.with_name("state.safetensors").read_bytes()))
    outcomes, _ = resumed(specs, tmp_path)
    assert 1000 < outcomes[0].seconds < 1100


def test_checkpoints_are_saved_no_more_often_than_asked_for(tmp_path: Path) -> None:
    train([spec(epochs=3)], make_split(), device=CPU, checkpoint=tmp_path / "c", checkpoint_seconds=1000)
    assert not (tmp_path / "c").exists()


# Whole runs, on the digits

STUDY = """\
question: Does it matter?
base:
  data: digits
  split: fraction
  train_images: 200
  network: 4K-1C2B-10D
  norm: batch
  epochs: 40
seeds: 2
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return Study.load(path)


def numbers(study: Study, store: Store) -> list[Any]:
    results = [store.load(trial.id, details=True) for trial in make_plan(study, store).trials]
    return [(result.metrics, result.details) for result in results if result]


def assert_in_order(store: Store) -> None:
    """Nothing is claimed, nothing half written."""
    assert list((store.root / "running").iterdir()) == []
    assert [path for path in (store.root / "trials").iterdir() if path.name.startswith(".")] == []


def counts(summary: RunSummary) -> tuple[int, int, int, int]:
    return summary.trained, summary.already_finished, summary.stopped, len(summary.failures)


def run_until_stopped(study: Study, store: Store, *, cohort: int = 1) -> RunSummary:
    """A run with a time limit that met its training; a limit too short for a busy machine's set-up does no harm."""
    for seconds in (1, 2, 4, 8, 16):
        summary = run(study, store=store, workers=1, device="cpu", hours=seconds / 3600, cohort=cohort)
        if summary.stopped:
            break
    return summary


@pytest.mark.fault(10)
def test_a_run_stops_at_its_time_limit_and_the_next_ends_with_the_numbers_of_an_undisturbed_one(
    study: Study, tmp_path: Path
) -> None:
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    assert counts(run(study, store=whole, workers=1, device="cpu", cohort=2)) == (2, 0, 0, 0)
    assert whole.cohorts_begun() == []

    assert counts(run_until_stopped(study, parts, cohort=2)) == (0, 0, 2, 0)
    assert_in_order(parts)
    plan = make_plan(study, parts)
    assert plan.missing() == plan.trials
    assert parts.cohorts_begun() == [[trial.id for trial in plan.trials]]

    second = run(study, store=parts, workers=1, device="cpu", cohort=1)  # its cohort is that of the checkpoint
    assert counts(second) == (2, 0, 0, 0)
    assert numbers(study, parts) == numbers(study, whole)
    assert parts.cohorts_begun() == []
    assert_in_order(parts)


def test_no_trial_begins_after_the_time_limit(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert counts(run(study, store=store, workers=1, device="cpu", hours=0)) == (0, 0, 0, 0)
    assert len(make_plan(study, store).missing()) == 2


def test_a_worker_that_does_not_stop_in_time_is_ended_and_its_trials_stay_missing(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normlab.runner.GRACE_SECONDS", 0.0)
    study = Study.load(study.path, overrides=["train_images=1400", "network=64K-4C2B-10D"])  # an epoch takes seconds
    store = Store(tmp_path / "store")
    assert counts(run_until_stopped(study, store)) == (0, 0, 1, 0)
    assert_in_order(store)
    assert len(make_plan(study, store).missing()) == 2


@pytest.mark.slow
@pytest.mark.fault(1)
def test_training_that_is_killed_goes_on_from_its_last_checkpoint(study: Study, tmp_path: Path) -> None:
    study = Study.load(study.path, overrides=["seeds=1", "epochs=12"])
    whole, killed = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    run(study, store=whole, workers=1, device="cpu", cohort=1)
    first = make_plan(study, killed).trials[0]
    script = (
        "import sys, pathlib, torch; from normlab.train import train; from normlab.worker import *\n"
        "prepare_process(1, 'cpu'); spec = TrialSpec.model_validate_json(sys.argv[1])\n"
        "train([spec], load_split(spec), device=torch.device('cpu'), checkpoint=pathlib.Path(sys.argv[2]),\n"
        "      checkpoint_seconds=0)"
    )
    folder = killed.checkpoint_folder([first.id])
    arguments = [sys.executable, "-c", script, first.spec.model_dump_json(), str(folder)]
    with subprocess.Popen(arguments) as process:
        while process.poll() is None and not list(folder.glob("000000005?")):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert killed.cohorts_begun() == [[first.id]]
    assert counts(run(study, store=killed, workers=1, device="cpu")) == (1, 0, 0, 0)
    assert numbers(study, killed) == numbers(study, whole)
    assert killed.cohorts_begun() == []


def test_a_cohort_that_fails_loses_its_checkpoint(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    folder = store.checkpoint_folder([make_plan(study, store).trials[0].id]) / "000001"
    folder.mkdir(parents=True)
    monkeypatch.setenv("NORMLAB_HOME", str(tmp_path / "a file"))
    (tmp_path / "a file").write_text("")
    nothing_to_say = SimpleNamespace(remarks=lambda split: [])
    monkeypatch.setattr("normlab.runner.datasets.load", lambda *_, **__: nothing_to_say)
    assert len(run(study, store=store, workers=1, device="cpu", fail_fast=True).failures) == 1
    assert not folder.exists()


def test_a_cohort_that_never_began_is_formed_anew_where_it_is_larger_than_the_user_wants(
    study: Study, tmp_path: Path
) -> None:
    for name, saved in (("untouched", False), ("begun", True)):
        store = Store(tmp_path / name)
        store.require_writable()
        ids = [trial.id for trial in make_plan(study, store).trials]
        store.begin_cohort(ids)
        if saved:
            (store.checkpoint_folder(ids) / "0000000001").mkdir()
        summary = run(study, store=store, workers=1, device="cpu", cohort=1)
        assert summary.trained == len(ids)
        sizes = {result.provenance["cohort_size"] for id_ in ids if (result := store.load(id_)) is not None}
        assert sizes == ({len(ids)} if saved else {1})


def test_the_time_left_of_a_cohort_that_was_killed_while_it_was_saved_is_that_of_the_trials_without_a_result(
    study: Study, tmp_path: Path
) -> None:
    whole, killed = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    ids = [trial.id for trial in make_plan(study, whole).trials]
    run(study, store=whole, workers=1, device="cpu", cohort=len(ids))
    killed.require_writable()
    killed.begin_cohort(ids)
    for done in ids[1:]:
        shutil.copytree(whole.root / "trials" / done, killed.root / "trials" / done)
    seen: list[RunStatus] = []
    assert run(study, store=killed, workers=1, device="cpu", report=seen.append).trained == 1
    assert len(ids) > 1
    assert any(status.seconds_left for status in seen)
    assert all((status.seconds_left or 0) >= 0 and status.images_per_second >= 0 for status in seen)


def test_a_checkpoint_is_found_by_the_trials_of_its_cohort_in_their_order(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    ids = [trial.id for trial in make_plan(study, store).trials]
    assert store.checkpoint_folder(ids[:1]).name == ids[0]
    assert store.checkpoint_folder(ids).name.startswith(f"{ids[0]}+")
    assert store.checkpoint_folder(ids) != store.checkpoint_folder(ids[::-1])
    for epoch, content in enumerate(("[", '{"ids": 3}', '{"ids": []}', '{"ids": ["other"]}', "\x00"), start=1):
        path = store.checkpoint_folder(ids) / f"{epoch:06d}" / "progress.json"
        path.parent.mkdir(parents=True)
        path.write_text(content)
    assert store.cohorts_begun() == []
    path.write_text(json.dumps({"ids": ids}))
    assert store.cohorts_begun() == [ids]
