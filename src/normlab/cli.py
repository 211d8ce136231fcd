"""The command line: verbs only. Results go to standard output, progress and messages to standard error.

Exit codes: 0; 1 some trial failed after the rest were done; 2 usage or a bad study file; 130 interrupted and 143
terminated, state saved.
Modules that are slow to import are imported by the verb that needs them.
"""

import contextlib
import gc
import io
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normlab.cli_common import (
    INTERRUPTED,
    Group,
    ReaderLeft,
    note,
    open_store,
    run_options,
    train_missing,
    warning_line,
)
from normlab.cli_paper import paper
from normlab.cli_show import data, settings, show, studies
from normlab.cli_store import store as store_verbs
from normlab.errors import UsageError, printable
from normlab.terminal import duration_words, flops_words, print_table, table_lines

if TYPE_CHECKING:
    from normlab.store import Store
    from normlab.study import Study


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: runs a command and turns what a user got wrong into one line and exit code 2."""
    gc.set_threshold(
        100_000, 100
    )  # what is read from a store stays: looking for garbage in it took a third of the time
    _prepare_streams()
    warnings.formatwarning = warning_line
    try:
        _require_text(sys.argv[1:] if arguments is None else arguments)
        sys.exit(commands.main(arguments, prog_name="normlab", standalone_mode=False) or 0)
    except UsageError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        _fail(" ".join(error.format_message().split()))
    except (click.Abort, KeyboardInterrupt):
        click.echo("normlab: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except ReaderLeft:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        sys.exit(0)
    except OSError as error:  # a place that cannot be read or written
        _fail(f"{error.filename or 'output'}: {error.strerror}")


def _prepare_streams() -> None:
    """Whatever the terminal's encoding, no letter is a traceback; a stream that was closed swallows what it is told."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _require_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"the argument '{argument}' is not text in UTF-8; write it anew") from None


def _fail(message: str) -> None:
    click.echo(f"normlab: {message}", err=True)
    sys.exit(2)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="normlab", message="normlab %(version)s")
def commands() -> None:
    """Does this training choice matter, and by how much?

    A study is one question in one YAML file; normlab trains what is missing and answers with intervals.
    """


for verb in (studies, settings, show, data, paper, store_verbs):
    commands.add_command(verb)


def _study_arguments(command: Any) -> Any:
    """STUDY [key=value]... --scale --store: what every verb about a study takes."""
    for decorate in (
        click.option("--store", "store_path", metavar="FOLDER", help="Where results are kept. [normlab-store]"),
        click.option("--scale", metavar="NAME", help="A set of overrides named in the study; its first by default."),
        click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
        click.argument("study_name", metavar="STUDY"),
    ):
        command = decorate(command)
    return command


def _open(
    study_name: str, scale: str | None, overrides: Sequence[str], store_path: str | None, *, existing: bool = False
) -> "tuple[Study, Store]":
    from normlab.study import Study

    return Study.load(study_name, scale=scale, overrides=overrides), open_store(store_path, existing=existing)


def _headline(study: "Study") -> str:
    scale = f", scale {study.scale} (of {', '.join(study.scales)})" if study.scale else ""
    return f"{study.name}{scale}: {study.question}"


@commands.command()
@_study_arguments
@click.option("--until-resolved", is_flag=True, help="Add seeds where contrasts are open; the same as seeds=N..MAX.")
@click.option("--max-seeds", type=click.IntRange(3, 1000), help="With --until-resolved. [20]")
@click.option("--tensorboard", is_flag=True, help="Write live curves below STORE/tensorboard/STUDY.")
@run_options
def run(
    study_name: str, overrides: tuple[str, ...], scale: str | None, store_path: str | None, until_resolved: bool,
    max_seeds: int | None, tensorboard: bool, **options: Any,
) -> int:  # fmt: skip
    """Train what is missing of a study. Run it again to go on where it stopped."""
    study, store = _open(study_name, scale, overrides, store_path)
    if max_seeds is not None and (study.looks or not until_resolved):
        first = study.looks[0] if study.looks else len(study.seeds)
        raise UsageError(
            f"--max-seeds: it goes with --until-resolved where the study does not say 'N..MAX' itself; write "
            f"seeds={first}..{max_seeds}"
        )
    if until_resolved and not study.looks:
        most = max_seeds or 20
        first = max(len(study.seeds), 2)
        if study.seeds != tuple(range(len(study.seeds))):
            raise UsageError(
                "--until-resolved: it goes on from seeds 0, 1, …, and this study names others; write seeds: 3"
            )
        if first >= most:
            raise UsageError(
                f"--until-resolved: the study has {first} seeds; write more, as in --max-seeds {2 * first}"
            )
        others = [text for text in overrides if text.partition("=")[0].strip() != "seeds"]
        overrides = (*others, f"seeds={first}..{most}")
        study, store = _open(study_name, scale, overrides, store_path)
    with contextlib.ExitStack() as stack:
        if tensorboard:
            from normlab import datasets
            from normlab.export import live_events
            from normlab.report import report_folder

            place = store.root / "tensorboard" / report_folder(study)
            options["on_epoch"] = stack.enter_context(live_events(study, datasets.fingerprint, place))
            click.echo(f"curves: tensorboard --logdir {place}", err=True)
        return _train_study(study, store, " ".join([study_name, *overrides]), **options)


def _train_study(study: "Study", store: "Store", arguments: str, **options: Any) -> int:
    if not study.looks:
        return train_missing(_headline(study), study, store, **options)
    from normlab.adaptive import look_words
    from normlab.study import require_contrasts

    require_contrasts(study)

    def say() -> None:
        words = look_words(study, store, workers=options["workers"], device=options["device"])
        click.echo(words, err=True)

    code = train_missing(_headline(study), study, store, on_look=say, **options)
    say()
    click.echo(f"normlab report {arguments} shows it", err=True)
    return code


@commands.command()
@_study_arguments
@click.option("--device", default="auto", show_default=True, help="The device to estimate the time for.")
@click.option("-j", "--workers", type=click.IntRange(1, 1024), help="Worker processes. [one a core; on a GPU one]")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(
    study_name: str, overrides: tuple[str, ...], scale: str | None, store_path: str | None, device: str,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Show a study's arms and trials, and what the missing ones cost. Trains nothing."""
    from normlab.plan import START_SECONDS, estimate_seconds, make_plan
    from normlab.pool import default_workers, resolve_device
    from normlab.rates import worker_rates

    study, store = _open(study_name, scale, overrides, store_path)
    made = make_plan(study, store)
    missing = made.missing()
    device = resolve_device(device)
    count = workers or default_workers(device)
    seconds = 0.0
    if missing:
        rate = worker_rates(store, made.trials, device)
        seconds = START_SECONDS + estimate_seconds(missing, made.flops, rate, count)
    total = sum(made.flops[trial.id] for trial in missing)
    rows = []
    for arm, row in made.arms:
        states = [made.states[trial.id] for trial in row]
        rows.append({**arm.levels, **{state: states.count(state) for state in ("missing", "finished", "diverged")},
                     "failed": states.count("failed"), "running": states.count("running")})  # fmt: skip
    if as_json:
        ids = {trial.id: made.states[trial.id] for trial in made.trials}
        tree = {"arms": rows, "trials": ids, "missing_flops": total, "estimated_seconds": seconds, "workers": count,
                "remarks": made.said()}  # fmt: skip
        click.echo(json.dumps(tree))
        return
    click.echo(_headline(study))
    print_table(rows)
    click.echo(
        f"{len(made.trials)} trials: {made.count('finished')} finished, {made.count('diverged')} diverged, "
        f"{made.count('running')} running, {len(missing)} to train"
    )
    if missing:
        hands = f"{count} worker{'s' if count > 1 else ''} ({device})"
        click.echo(f"{flops_words(total)}, about {duration_words(seconds)} on {hands}")
    for remark in made.said():
        note(remark)


@commands.command()
@_study_arguments
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(
    study_name: str, overrides: tuple[str, ...], scale: str | None, store_path: str | None, as_json: bool
) -> None:
    """Show how far a study is."""
    from normlab.plan import look_up, wanted_trials

    study, store = _open(study_name, scale, overrides, store_path, existing=True)
    unique = {trial.id: trial for _, row in wanted_trials(study, store) for trial in row}
    states, reasons = look_up(store, unique)
    counts = {
        state: list(states.values()).count(state) for state in ("finished", "diverged", "running", "failed", "missing")
    }
    if as_json:
        click.echo(json.dumps({"study": study.name, "scale": study.scale, **counts, "reasons": reasons}))
        return
    click.echo(_headline(study))
    click.echo(f"{len(unique)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    for trial_id, reason in reasons.items():
        click.echo(f"failed {trial_id}: {printable(reason)}")


@commands.command()
@_study_arguments
@click.option("--to", "folder", metavar="FOLDER", help="Where the report goes. [STORE/reports/STUDY]")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON; write no files.")
def report(
    study_name: str, overrides: tuple[str, ...], scale: str | None, store_path: str | None, folder: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Answer a study: a table, and a report with figures, CSV and JSON that opens without a network."""
    if not as_json:
        from normlab import plotters

        plotters.start()  # before anything else is imported
    study, store = _open(study_name, scale, overrides, store_path, existing=True)
    from normlab import datasets
    from normlab.rows import to_json
    from normlab.table import read_table

    if as_json:
        click.echo(to_json(read_table(study, store, datasets.fingerprint)))
        return
    from normlab.report import report_folder, write_report

    table = read_table(study, store, datasets.fingerprint)
    place = Path(folder) if folder else store.root / "reports" / report_folder(study)
    shown: list[str] = []
    path = write_report(study, table, place, meanwhile=lambda: shown.append(_answer(study, table)))
    print(*shown, sep="", end="")
    click.echo(f"report: {path}")


@commands.command()
@_study_arguments
@click.option("--csv", "as_csv", type=click.Choice(["arms", "contrasts"]), help="Print one table as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print both tables as JSON.")
def compare(
    study_name: str, overrides: tuple[str, ...], scale: str | None, store_path: str | None, as_csv: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Print a study's arms and contrasts, with intervals."""
    from normlab import datasets
    from normlab.rows import arm_rows, contrast_rows, to_csv, to_json
    from normlab.table import read_table

    if as_csv and as_json:
        raise UsageError("--csv and --json: write one of them")
    study, store = _open(study_name, scale, overrides, store_path, existing=True)
    table = read_table(study, store, datasets.fingerprint)
    if as_json:
        click.echo(to_json(table))
    elif as_csv:
        click.echo(to_csv(arm_rows(table) if as_csv == "arms" else contrast_rows(table)), nl=False)
    else:
        print(_answer(study, table), end="")


@commands.command()
@_study_arguments
@click.option("--to", "tool", required=True, type=click.Choice(["tensorboard", "mlflow", "wandb"]), help="The tool.")
@click.option("--folder", metavar="FOLDER", help="Where its files go. [STORE/exports/TOOL]")
@click.option("--uri", metavar="URI", help="An MLflow tracking server instead of a folder.")
def export(
    study_name: str, overrides: tuple[str, ...], scale: str | None, store_path: str | None, tool: str,
    folder: str | None, uri: str | None,
) -> None:  # fmt: skip
    """Export a study's trials to TensorBoard, MLflow, or Weights & Biases offline runs."""
    from normlab import datasets
    from normlab.export import export as export_to
    from normlab.table import read_table

    if uri is not None and tool != "mlflow":
        raise UsageError(f"--uri: {tool} writes files; write --folder, or --to mlflow")
    study, store = _open(study_name, scale, overrides, store_path, existing=True)
    place = Path(folder) if folder else store.root / "exports" / tool
    count = export_to(read_table(study, store, datasets.fingerprint), tool, place, uri)
    opens = {
        "tensorboard": f"tensorboard --logdir {place}",
        "mlflow": f"mlflow ui --backend-store-uri {uri or f'sqlite:///{place}/mlflow.db'}",
        "wandb": f"wandb sync {place}/wandb/offline-run-*",
    }
    said = f"exported {count} trial{'s' * (count != 1)} that were not there yet" if count else "nothing new to export"
    click.echo(f"{said}; {opens[tool]} shows what is there")


@commands.command()
@click.argument("trial")
@click.option("--store", "store_path", metavar="FOLDER", help="Where results are kept. [normlab-store]")
@click.option("--to", "folder", metavar="FOLDER", help="Where the pictures go. [STORE/reports/inspect/TRIAL]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON; write no files.")
def inspect(trial: str, store_path: str | None, folder: str | None, as_json: bool) -> None:
    """Look into a finished trial: confusion, accuracy by class, surest mistakes. TRIAL is its id or a part of it."""
    from dataclasses import asdict

    from normlab.inspection import class_rows, class_words, load_trial, macro_accuracy, write_inspection

    store = open_store(store_path, existing=True)
    result, details = load_trial(store, trial)
    if as_json:
        tree = {"id": result.id, "metrics": dict(result.metrics), "macro_accuracy": macro_accuracy(details),
                "by_class": class_rows(details), **asdict(details)}  # fmt: skip
        click.echo(json.dumps(tree))
        return
    click.echo(result.id)
    print_table(class_words(details))
    click.echo(f"mean over classes {100 * macro_accuracy(details):.2f} %; test images of this trial's own split")
    written, why = write_inspection(
        result, details, Path(folder) if folder else store.root / "reports" / "inspect" / result.id
    )
    click.echo(f"pictures: {written[0].parent}" + (f" (without mistakes: {why})" if why else ""))


@commands.command()
@click.argument("overrides", nargs=-1, metavar="KEY=VALUE...", required=True)
@click.option("--store", "store_path", metavar="FOLDER", help="Where results are kept. [normlab-store]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(overrides: tuple[str, ...], store_path: str | None, device: str, as_json: bool) -> int:
    """Train one trial: normlab train data=digits split=fraction network=8K-2C2B-10D epochs=10."""
    from normlab import datasets
    from normlab.grid import trials_by_arm
    from normlab.study import single_trial

    study, store = single_trial(overrides), open_store(store_path)
    code = train_missing(_headline(study), study, store, workers=1, device=device, save_weights=True, as_json=False)
    (_, (trial,)), *_ = trials_by_arm(study, datasets.fingerprint)
    result = store.load(trial.id)
    if result is None:
        return code
    if as_json:
        click.echo(json.dumps({"id": result.id, "status": result.status, "metrics": dict(result.metrics)}))
    else:
        print_table(
            [{"metric": name, "value": f"{value:.4f}".removesuffix(".0000")} for name, value in result.metrics.items()]
        )
        click.echo(f"{result.status}: {store.root / 'trials' / result.id}")
    return code


def _answer(study: "Study", table: Any) -> str:
    """What a study says, as lines."""
    from normlab.wording import arm_summary, context_words, contrast_summary, status_words

    parts = [_headline(study), f"{context_words(table)}; {status_words(table)}", table_lines(arm_summary(table))]
    if contrasts := contrast_summary(table):
        parts += ["", table_lines(contrasts)]
    parts += [f"planned, but not among these levels: {dropped}" for dropped in study.dropped_contrasts]
    return "\n".join(parts) + "\n"
