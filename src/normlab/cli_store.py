"""The verbs of `normlab store`: check, merge, export."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from normlab.cli_common import Group, open_store
from normlab.errors import UsageError, printable


@click.group(cls=Group)
def store() -> None:
    """Check, merge and pack the results that are kept."""


_store_option = click.option("--store", "store_path", metavar="FOLDER", help="Where results are kept. [normlab-store]")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


@store.command()
@_store_option
@click.option("--repair", is_flag=True, help="Set damaged results aside, to be trained again; remove leftovers.")
@_json_option
def check(store_path: str | None, repair: bool, as_json: bool) -> int:
    """Read every file of every result and compare its SHA-256. Exit code 1 where a result is damaged."""
    from normlab.upkeep import check as check_store

    place = open_store(store_path, existing=True)
    found = check_store(place, repair=repair)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        for path, reason in found.damaged.items():
            click.echo(f"damaged{', set aside' * repair}: {printable(path)}: {reason}")
        for path, reason in found.unreadable.items():
            click.echo(f"cannot be read, left where it is: {printable(path)}: {reason}")
        for path in found.leftovers:
            click.echo(f"left behind{', removed' * repair}: {path}")
        click.echo(f"{found.whole} results are whole, {len(found.damaged)} are damaged")
        if (found.damaged or found.leftovers) and not repair:
            click.echo(
                "normlab store check --repair sets damaged ones aside and removes leftovers; nothing else is lost"
            )
    return 1 if found.damaged else 0


@store.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_store_option
@_json_option
def merge(sources: tuple[str, ...], store_path: str | None, as_json: bool) -> int:
    """Copy the results of other stores, folders or exported zips, into this one. Exit code 1 where some conflict."""
    from normlab.upkeep import merge as merge_stores

    done = merge_stores(map(Path, sources), open_store(store_path))
    if as_json:
        click.echo(json.dumps(asdict(done)))
    else:
        for name, difference in done.conflicts.items():
            click.echo(f"conflict, kept the one that stands in the store: {name}: {difference}")
        for path, reason in done.damaged.items():
            click.echo(f"damaged, not copied: {printable(path)}: {reason}")
        click.echo(f"{done.added} results added, {done.there} were there already")
    return 1 if done.conflicts or done.damaged else 0


@store.command()
@click.argument("study_name", metavar="[STUDY]", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--to", "target", metavar="FILE.zip", required=True, help="The zip to write.")
@click.option("--scale", metavar="NAME", help="A set of overrides named in the study; its first by default.")
@_store_option
def export(
    study_name: str | None, overrides: tuple[str, ...], target: str, scale: str | None, store_path: str | None
) -> None:
    """Pack the results of a study, or all, into a zip that `normlab store merge` reads."""
    from normlab.upkeep import export as export_store

    if not target.endswith(".zip"):
        raise UsageError(f"--to {target}: write a file that ends in .zip")
    place = open_store(store_path, existing=True)
    ids = place.ids()
    if study_name is not None:
        from normlab import datasets
        from normlab.grid import trials_by_arm
        from normlab.study import Study

        study = Study.load(study_name, scale=scale, overrides=overrides)
        wanted = {trial.id for _, row in trials_by_arm(study, datasets.fingerprint) for trial in row}
        ids = [name for name in ids if name in wanted]
    click.echo(f"{export_store(place, ids, Path(target))} results packed: {target}")
