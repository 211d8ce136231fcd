"""`normlab paper`: the paper's studies together, their state, their run, and the report that answers its claims."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normlab.cli_common import Group, open_store, run_options, train_missing
from normlab.errors import UsageError, unknown
from normlab.terminal import flops_words, print_table

if TYPE_CHECKING:
    from normlab.store import State


def _scale_and_store(command: Any) -> Any:
    for decorate in (
        click.option("--store", "store_path", metavar="FOLDER", help="Where results are kept. [normlab-store]"),
        click.option(
            "--scale", metavar="NAME", default="laptop", show_default=True, help="laptop, smoke, paper or paper-jpeg."
        ),
    ):
        command = decorate(command)
    return command


@click.group(cls=Group, invoke_without_command=True)
@_scale_and_store
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def paper(context: click.Context, store_path: str | None, scale: str, as_json: bool) -> None:
    """All studies of the paper: list them with their state, run them, report on its claims."""
    if context.invoked_subcommand is None:
        _list(scale, store_path, as_json)
    elif as_json:
        raise UsageError("--json: write it after the verb, where it has one")
    else:  # what else stands before a verb goes for it too
        context.default_map = {context.invoked_subcommand: context.params}


def _list(scale: str, store_path: str | None, as_json: bool) -> None:
    from normlab.plan import make_plan

    content, store = _open(scale, store_path)
    rows: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for name in content.studies:
        row: dict[str, Any] = {"study": name, **dict.fromkeys((*COUNTS, "trials", "missing_flops"))}
        try:
            made = make_plan(_study(name, scale), store)
        except UsageError as error:  # such as data that is not here
            problems[name] = str(error)
        else:
            row |= {state: made.count(state) for state in COUNTS}
            row |= {"trials": len(made.trials), "missing_flops": sum(made.flops[t.id] for t in made.missing())}
        rows.append(row)
    if as_json:
        click.echo(json.dumps({"scale": scale, "studies": rows, "problems": problems}))
        return
    for row in rows:
        flops = row.pop("missing_flops")
        row["to do"] = "cannot run" if flops is None else flops_words(flops) if flops else "-"
    print_table(rows)
    for name, problem in problems.items():
        click.echo(f"{name} cannot run: {problem}")
    click.echo(f"scale {scale}; train what is missing: normlab paper run --scale {scale}")


COUNTS: "tuple[State, ...]" = ("finished", "diverged", "running", "failed")


@paper.command("run")
@_scale_and_store
@run_options
def paper_run(store_path: str | None, scale: str, **options: Any) -> int:
    """Train what is missing of all of them, most informative first: one seed of everything before the second of
    anything, in each round the arms of the paper's own numbers, then whatever costs least."""
    from normlab.paper import Tables, compare_numbers
    from normlab.plan import make_plan, merge_plans

    content, store = _open(scale, store_path)
    plans = []
    for name in content.studies:
        try:
            plans.append(make_plan(_study(name, scale), store))
        except UsageError as error:  # such as data that is not here; the others go on
            click.echo(f"{name} is left out: {error}", err=True)
    if not plans:
        raise UsageError("no study of the paper can run here")
    numbers = {t.trial.id for c in compare_numbers(content, Tables(store, scale)) for t in c.arm.trials}
    merged = merge_plans(plans, first=numbers)
    return train_missing(
        f"paper, scale {scale}: {len(merged.trials)} trials of {len(plans)} studies", merged, store, **options
    )


@paper.command("report")
@_scale_and_store
@click.option("--to", "folder", metavar="FOLDER", help="Where the report goes. [STORE/reports/paper-SCALE]")
def paper_report(store_path: str | None, scale: str, folder: str | None) -> None:
    """Write one report: figures 1 to 8, the paper's numbers beside ours, and a verdict for every claim."""
    from normlab import plotters

    plotters.start()  # before anything else is imported
    content, store = _open(scale, store_path)
    from normlab.paper import Tables, judge
    from normlab.paper_report import write_paper_report

    tables = Tables(store, scale)
    judged = [judge(name, claim, tables) for name, claim in content.claims.items()]
    place = Path(folder) if folder else store.root / "reports" / f"paper-{scale}"
    path = write_paper_report(content, judged, tables, place)
    print_table(
        [{"claim": j.name, "the paper says": j.claim.says, "verdict": j.verdict, "because": j.reason} for j in judged]
    )
    click.echo(f"report: {path}")


def _open(scale: str, store_path: str | None) -> tuple[Any, Any]:
    from normlab.paper import Paper, scales_of

    content = Paper.load()
    allowed = scales_of(content)
    if scale not in allowed:
        raise UsageError(unknown("scale", scale, allowed))
    return content, open_store(store_path)


def _study(name: str, scale: str) -> Any:
    from normlab.study import Study

    return Study.load(name, scale=scale)
