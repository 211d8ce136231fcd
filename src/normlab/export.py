"""Results for other tools: TensorBoard events, also while training goes on, MLflow and Weights & Biases offline runs.

Each trial becomes one run: its curves by epoch and, but in TensorBoard, its settings, its final metrics, and where it
came from. What has been exported before is not exported again. The tools are extras (`pip install normlab[mlflow]`);
none of them is let call home.
"""

import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from normlab.errors import UsageError
from normlab.result import Result
from normlab.rows import levels_of
from normlab.study import Study
from normlab.table import StudyTable
from normlab.trial import SETTINGS, is_active

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "WANDB_ERROR_REPORTING": "false",
         "WANDB_SILENT": "true"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trial as other tools see it. `epochs` has a row an epoch, without what was not measured."""

    name: str
    group: str
    result: Result
    settings: Mapping[str, Any]
    epochs: Sequence[Mapping[str, float]]

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(str(self.result.provenance.get("started"))).timestamp()
        return 0.0

    @property
    def ended(self) -> float:
        return self.started + float(self.result.provenance.get("seconds", 0.0))


def export(table: StudyTable, tool: str, folder: Path, uri: str | None = None) -> int:
    """Exports every finished or diverged trial of a table; returns how many were new.

    Raises UsageError where the tool is not installed. `uri` is an MLflow tracking server instead of the folder.
    """
    os.environ |= QUIET
    try:
        return EXPORTERS[tool](table, folder, uri)
    except ImportError as error:
        raise UsageError(
            f"--to {tool}: {error.name or tool} is not installed; write pip install 'normlab[{tool}]'"
        ) from None


def runs(table: StudyTable) -> Iterator[Run]:
    """Every trial of the table that has a result, once: one that two arms share as the first's."""
    known: set[str] = set()
    for arm in table.arms:
        for record in arm.trials:
            result = record.result
            if result is None or result.id in known:
                continue
            known.add(result.id)
            details = table.details(result)
            if details is None and result.has_details:  # damaged: to be exported when it is whole again
                continue
            curves = details.curves if details else {}
            rows = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
            yield Run(
                name=run_name(arm.arm.label, result.spec.seed),
                group=arm.arm.label,
                result=result,
                settings={name: getattr(result.spec, name) for name in SETTINGS if is_active(result.spec, name)}
                | {f"factor {name}": level for name, level in levels_of(arm.arm).items() if name not in SETTINGS},
                epochs=[{name: value for name, value in row.items() if value is not None} for row in rows],
            )


def run_name(label: str, seed: int) -> str:
    """The name of a trial in other tools, such as `norm batch, learning_rate 0.01/seed 3`."""
    return f"{label}/seed {seed}"


# --- TensorBoard ------------------------------------------------------------------------------------------------------


class Events:
    """Writes scalars for TensorBoard, a folder for each trial: live, as epochs end, or afterwards."""

    def __init__(self, folder: Path, names: Mapping[str, str]) -> None:
        """`names` maps a trial's id to its run's name, to which the end of the id is added: other trials may have the
        same name, once a study was changed."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary, self._open_writer = Event, Summary, EventFileWriter
        self.folder, self.names = folder, names
        self._writers: dict[str, Any] = {}

    def place(self, trial_id: str) -> Path:
        name = f"{self.names[trial_id]}-{trial_id.rpartition('-')[2]}"
        return self.folder.joinpath(*(re.sub(r"[^\w.,=+-]+", "_", part) for part in name.split("/")))

    def write(self, trial_id: str, row: Mapping[str, float | None], wall_time: float | None = None) -> None:
        """One epoch of a trial: `epoch` and its curves."""
        if trial_id not in self._writers:
            self._writers[trial_id] = self._open_writer(str(self.place(trial_id)))
        values = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "epoch" and value is not None
        ]
        step = int(row["epoch"] or 0)
        event = self._event(wall_time=wall_time or time.time(), step=step, summary=self._summary(value=values))
        self._writers[trial_id].add_event(event)
        self._writers[trial_id].flush()

    def close(self, trial_id: str | None = None) -> None:
        """Ends the files of a trial, or of all."""
        for one in [trial_id] if trial_id else list(self._writers):
            if writer := self._writers.pop(one, None):
                writer.close()


@contextlib.contextmanager
def live_events(study: Study, fingerprint: Callable[[str], str], folder: Path) -> Iterator[Callable[..., None]]:
    """A function that takes a trial's id and each of its epochs as it ends, and writes them for TensorBoard."""
    from normlab.grid import trials_by_arm

    names = {
        trial.id: run_name(arm.label, trial.spec.seed)
        for arm, row in trials_by_arm(study, fingerprint)
        for trial in row
    }
    epochs = {trial.id: trial.spec.epochs for _, row in trials_by_arm(study, fingerprint) for trial in row}
    try:
        events = Events(folder, names)
    except ImportError:
        raise UsageError(
            "--tensorboard: tensorboard is not installed; write pip install 'normlab[tensorboard]'"
        ) from None

    def heard(trial_id: str, row: Mapping[str, float | None]) -> None:
        events.write(trial_id, row)
        if row["epoch"] == epochs[trial_id]:
            events.close(trial_id)

    try:
        yield heard
    finally:
        events.close()


def _to_tensorboard(table: StudyTable, folder: Path, uri: str | None) -> int:
    found = list(runs(table))
    events = Events(folder / _experiment(table), {run.result.id: run.name for run in found})
    new = [run for run in found if not events.place(run.result.id).exists()]
    for run in new:
        for row in run.epochs:
            events.write(run.result.id, row, _time_of(run, row))
        events.close(run.result.id)
    return len(new)


# --- MLflow -----------------------------------------------------------------------------------------------------------


def _to_mlflow(table: StudyTable, folder: Path, uri: str | None) -> int:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = None if uri else (folder / "artifacts").resolve().as_uri()
    try:
        client = MlflowClient(tracking_uri=uri or f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        name = _experiment(table)
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name, artifact_location=artifacts)
        client.set_experiment_tag(experiment, "mlflow.note.content", table.study.question)
        there: set[str] = set()
        for seen in list(_all_mlflow_runs(client, experiment)):
            if seen.info.status == "FINISHED":
                there.add(seen.data.tags.get("normlab.trial", ""))
            elif "normlab.trial" in seen.data.tags:  # of an export that was cut short
                client.delete_run(seen.info.run_id)
        new = [run for run in runs(table) if run.result.id not in there]
        for run in new:
            tags = {"normlab.trial": run.result.id, "normlab.arm": run.group, "normlab.status": run.result.status}
            tags |= {f"normlab.{key}": str(value) for key, value in run.result.provenance.items()}
            made = client.create_run(
                experiment,
                run_name=run.name,
                start_time=int(1000 * run.started),
                tags={k: v[:5000] for k, v in tags.items()},
            )
            metrics = [
                Metric(key, value, int(1000 * _time_of(run, row)), int(row["epoch"]))
                for row in run.epochs
                for key, value in row.items()
                if key != "epoch"
            ]
            last = max((int(row["epoch"]) for row in run.epochs), default=0)
            metrics += [
                Metric(f"final_{key}", value, int(1000 * run.ended), last) for key, value in run.result.metrics.items()
            ]
            params = [Param(key, str(value)[:6000]) for key, value in run.settings.items()]
            client.log_batch(
                made.info.run_id, metrics=metrics[:1000], params=params[:100], tags=[RunTag("normlab", "1")]
            )
            for i in range(1000, len(metrics), 1000):  # what a request may hold
                client.log_batch(made.info.run_id, metrics=metrics[i : i + 1000])
            client.set_terminated(made.info.run_id, end_time=int(1000 * run.ended))
    except MlflowException as error:
        raise UsageError(f"--to mlflow: {' '.join(str(error).split())[:300]}") from None
    return len(new)


def _all_mlflow_runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


# --- Weights & Biases -------------------------------------------------------------------------------------------------


def _to_wandb(table: StudyTable, folder: Path, uri: str | None) -> int:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}
    new = [run for run in runs(table) if _wandb_id(run) not in there]
    for run in new:
        opened = wandb.init(
            mode="offline", dir=str(folder), project=table.study.name, id=_wandb_id(run), name=run.name,
            group=run.group, config=dict(run.settings), tags=["normlab", run.result.status],
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
                x_disable_meta=True,
            ),
        )  # fmt: skip
        for row in run.epochs:
            opened.log(dict(row), step=int(row["epoch"]))
        opened.summary.update(
            {f"final_{key}": value for key, value in run.result.metrics.items()}
            | {f"provenance/{key}": value for key, value in run.result.provenance.items()}
            | {"trial": run.result.id}
        )
        opened.finish()
    return len(new)


def _wandb_id(run: Run) -> str:
    return re.sub(r"[^a-z0-9]", "", run.result.id.lower())[-32:]


def _experiment(table: StudyTable) -> str:
    return "-".join(filter(None, [table.study.name, table.study.scale]))


def _time_of(run: Run, row: Mapping[str, float]) -> float:
    """When an epoch ended, in seconds since 1970, had all taken equally long."""
    share = row["epoch"] / run.result.spec.epochs
    return run.started + (run.ended - run.started) * share if math.isfinite(share) else run.started


EXPORTERS: Mapping[str, Callable[[StudyTable, Path, str | None], int]] = {
    "tensorboard": _to_tensorboard,
    "mlflow": _to_mlflow,
    "wandb": _to_wandb,
}
