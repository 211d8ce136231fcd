"""Exports read back with the real packages: every trial once, with its settings, curves and final metrics."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from normlab.export import export, runs
from normlab.table import StudyTable, read_table
from tests.conftest import Run
from tests.test_table import STUDY, fill, fingerprint, make_store, make_study, noisy


@pytest.fixture
def table(tmp_path: Path) -> StudyTable:
    """Twelve trials of four arms, three of which diverged."""
    study, store = make_study(), make_store(tmp_path)
    fill(store, study, noisy)
    return read_table(study, store, fingerprint)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # of MLflow's own, with SQLAlchemy 2.1
def test_mlflow_has_every_trial_once_with_its_curves(table: StudyTable, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    assert export(table, "mlflow", tmp_path / "ml") == 12
    assert export(table, "mlflow", tmp_path / "ml") == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("example")
    found = {run.data.tags["normlab.trial"]: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == table.records().keys()
    assert experiment.tags["mlflow.note.content"] == "Does batch normalization help?"
    for one in runs(table):
        run = found[one.result.id]
        assert run.info.run_name == one.name
        assert run.data.params["learning_rate"] == str(one.result.spec.learning_rate)
        assert run.data.params["norm"] == one.result.spec.norm
        assert run.data.tags["normlab.status"] == one.result.status
        assert run.data.tags["normlab.processor"] == "a processor"
        losses = client.get_metric_history(run.info.run_id, "train_loss")
        assert [(m.step, m.value) for m in losses] == [(row["epoch"], row["train_loss"]) for row in one.epochs]
        assert run.data.metrics.get("final_test_accuracy") == one.result.metrics.get("test_accuracy")


@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
def test_what_an_export_to_mlflow_left_half_done_is_done_again(
    table: StudyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export(table, "mlflow", tmp_path / "ml")
    assert export(table, "mlflow", tmp_path / "ml") == 12
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("example")
    found = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["normlab.trial"] for run in found) == sorted(table.records())
    assert all("final_num_test" in run.data.metrics for run in found)


def test_a_trial_that_two_arms_share_is_exported_once(tmp_path: Path) -> None:
    text = STUDY.replace("norm: [none, batch]", "activation: [relu, leaky_relu]")
    text = text.replace("learning_rate: [1e-3, 0.1]", "slope: [0.1, 0.2]").partition("contrasts")[0]
    study, store = make_study(text), make_store(tmp_path)
    fill(store, study, lambda spec: 0.9 + 0.01 * spec.seed)
    table = read_table(study, store, fingerprint)
    assert [run.result.id for run in runs(table)] == list(table.records())
    assert export(table, "tensorboard", tmp_path / "tb") == 9


def test_tensorboard_shows_every_trials_curves(table: StudyTable, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert export(table, "tensorboard", tmp_path / "tb") == 12
    assert export(table, "tensorboard", tmp_path / "tb") == 0
    for one in runs(table):
        seed = f"seed_{one.result.spec.seed}-{one.result.id[-12:]}"
        place = tmp_path / "tb" / "example" / one.group.replace(" ", "_") / seed
        events = EventAccumulator(str(place))
        events.Reload()
        assert set(events.Tags()["scalars"]) == set(one.epochs[0]) - {"epoch"}
        seen = [(event.step, event.value) for event in events.Scalars("test_accuracy")]
        assert seen == [(row["epoch"], pytest.approx(row["test_accuracy"])) for row in one.epochs]


def test_wandb_has_an_offline_run_for_every_trial(table: StudyTable, tmp_path: Path) -> None:
    assert export(table, "wandb", tmp_path / "wb") == 12
    assert export(table, "wandb", tmp_path / "wb") == 0
    import wandb

    wandb.teardown()  # its service writes on by itself; the end of a process waits for it, too
    by_name = {}
    for path in (tmp_path / "wb").glob("wandb/offline-run-*/run-*.wandb"):
        records = list(wandb_records(path))
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        by_name[run.display_name] = run, records
    assert len(by_name) == 12
    for one in runs(table):
        run, records = by_name[one.name]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config["learning_rate"] == one.result.spec.learning_rate
        assert (run.project, run.run_group) == ("example", one.group)
        rows = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for record in records
            if record.WhichOneof("record_type") == "history"
        ]
        assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in one.epochs]


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32_768 - place % 32_768
        if left < 7:  # what is left of a block holds no record's head
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_curves_are_written_live_and_the_command_line_exports(normlab: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = ["quickstart", "seeds=2", "learning_rate=1e-3", "epochs=3", "train_images=200"]
    trained = normlab("run", *settings, "--tensorboard")
    assert trained.returncode == 0, trained.stderr
    assert "curves: tensorboard --logdir normlab-store/tensorboard/quickstart" in trained.stderr
    places = sorted({path.parent for path in tmp_path.glob("normlab-store/tensorboard/**/events.*")})
    assert len(places) == 4
    for place in places:
        events = EventAccumulator(str(place))
        events.Reload()
        assert [event.step for event in events.Scalars("test_accuracy")] == [1, 2, 3]
    exported = normlab("export", *settings, "--to", "tensorboard")
    assert exported.stdout.startswith("exported 4 trials that were not there yet; tensorboard --logdir")
    assert normlab("export", *settings, "--to", "tensorboard").stdout.startswith("nothing new to export; tensorboard")
    refused = normlab("export", *settings, "--to", "wandb", "--uri", "http://127.0.0.1:1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_a_tool_that_is_not_installed_is_named_with_what_to_write(normlab: Run, tmp_path: Path) -> None:
    (tmp_path / "tensorboard.py").write_text("raise ImportError(name='tensorboard')\n")
    refused = normlab("run", "quickstart", "--tensorboard", PYTHONPATH=str(tmp_path))
    assert refused.returncode == 2
    assert (
        refused.stderr
        == "normlab: --tensorboard: tensorboard is not installed; write pip install 'normlab[tensorboard]'\n"
    )


def test_a_trial_whose_curves_are_damaged_is_exported_when_they_are_whole_again(
    table: StudyTable, tmp_path: Path
) -> None:
    path = next((tmp_path / "store" / "trials").glob("*/details.json"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1", b"2"))
    with pytest.warns(UserWarning, match="details.json is damaged"):
        assert export(table, "tensorboard", tmp_path / "tb") == 11
    path.write_bytes(content)
    assert export(table, "tensorboard", tmp_path / "tb") == 1
