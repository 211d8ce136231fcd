"""Verbs that show what there is: studies, settings, networks and data sets."""

import json
from pathlib import Path
from typing import Any

import click

from normlab.cli_common import Group, note
from normlab.errors import UsageError, unknown
from normlab.terminal import print_table, word

LAYER_SETTINGS = ("norm", "norm_position", "norm_dense", "activation", "conv_bias", "image_size")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def studies(as_json: bool) -> None:
    """List the studies that come with normlab."""
    from normlab.study import Study, shipped_studies

    loaded = {name: Study.load(path) for name, path in shipped_studies().items()}
    if as_json:
        rows = {n: {"question": s.question, "scales": list(s.scales), "path": s.path} for n, s in loaded.items()}
        click.echo(json.dumps(rows))
        return
    print_table([{"study": n, "question": s.question, "scales": ", ".join(s.scales)} for n, s in loaded.items()])


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def settings(as_json: bool) -> None:
    """List every setting a study may use, with its default and what is allowed."""
    from normlab.trial import SETTINGS, TrialSpec, allowed

    rows = []
    for name in SETTINGS:
        field = TrialSpec.model_fields[name]
        default = None if field.is_required() else field.default
        about = field.description or ""
        rows.append({"setting": name, "default": default, "allowed": allowed(name), "about": about})
    if as_json:
        click.echo(json.dumps(rows))
        return
    required = {name for name in SETTINGS if TrialSpec.model_fields[name].is_required()}
    print_table([row | {"default": "required" if row["setting"] in required else word(row["default"])} for row in rows])


@click.command()
@click.argument("notation")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--to", "picture", metavar="FILE", help="Also draw it, as .svg, .pdf or .png.")
@click.option("--in-channels", default=3, show_default=True, type=click.IntRange(1, 1024))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(notation: str, overrides: tuple[str, ...], picture: str | None, in_channels: int, as_json: bool) -> None:
    """Show a network's layers, shapes, parameters and work. Settings such as norm=batch image_size=224 may follow."""
    from normlab.study import read_overrides
    from normlab.summary import network_rows
    from normlab.trial import make_spec

    _require_picture(picture)
    given = read_overrides(overrides)
    for key in given:
        if key not in LAYER_SETTINGS:
            raise UsageError(f"{unknown('setting of layers', key, LAYER_SETTINGS)}")
    spec_settings = {"data": "-", "epochs": 1, "image_size": 32, **given, "network": notation}
    spec = make_spec(spec_settings, lambda key: f"override '{key}': " if key in given else "")
    rows = network_rows(spec, in_channels)
    total, macs = sum(row["parameters"] for row in rows), sum(row["MACs"] for row in rows)
    if as_json:
        click.echo(json.dumps({"layers": rows, "parameters": total, "macs": macs}))
    else:
        print_table([{**row, "parameters": f"{row['parameters']:,}", "MACs": f"{row['MACs']:,}"} for row in rows])
        click.echo(f"{total:,} parameters; {macs / 1e6:,.1f} MMAC forward an image")
    if picture:
        from normlab.diagram import draw_network

        figure = draw_network(
            notation, in_channels=in_channels, image_size=spec.image_size or 32, norm=spec.norm,
            norm_position=spec.norm_position, activation=spec.activation,
        )  # fmt: skip
        _draw(figure, picture)


@click.group(cls=Group)
def data() -> None:
    """List, fetch and look at data sets."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def data_list(as_json: bool) -> None:
    """List the data sets that are known or found in $NORMLAB_DATA and the cache."""
    from dataclasses import asdict

    from normlab import datasets

    rows = [asdict(entry) for entry in datasets.catalogue()]
    if as_json:
        click.echo(json.dumps(rows, default=str))
    else:
        print_table(rows)


@data.command("fetch")
@click.argument("name")
@click.option("--image-size", type=click.IntRange(1, 1024), help="Pixels, for folders.")
@click.option("--max-bad-images", default=0, type=click.IntRange(0), help="Skip up to this many unreadable images.")
def data_fetch(name: str, image_size: int | None, max_bad_images: int) -> None:
    """Find or download a data set, check it, decode it once and keep it."""
    from normlab import datasets

    images = datasets.load(name, image_size=image_size, max_bad_images=max_bad_images)
    click.echo(f"{name}: {len(images.train_labels):,} training and {len(images.test_labels):,} test images are ready")
    for remark in images.remarks():
        note(remark)


@data.command("show")
@click.argument("name")
@click.option("--image-size", type=click.IntRange(1, 1024), help="Pixels, for folders.")
@click.option("--to", "picture", metavar="FILE", help="Also draw samples of each class, as .svg, .pdf or .png.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def data_show(name: str, image_size: int | None, picture: str | None, as_json: bool) -> None:
    """Show a data set's sizes and class counts, and draw samples of each class."""
    from normlab import datasets

    _require_picture(picture)
    images = datasets.load(name, image_size=image_size)
    rows = []
    for label, name_of_class in enumerate(images.classes):
        train, test = (int((labels == label).sum()) for labels in (images.train_labels, images.test_labels))
        rows.append({"class": name_of_class, "training images": train, "test images": test})
    shape = "×".join(map(str, images.train_images.shape[1:]))
    if as_json:
        tree = {"name": name, "fingerprint": images.fingerprint, "shape": shape, "classes": rows}
        click.echo(json.dumps(tree | {"remarks": images.remarks()}))
    else:
        print_table(rows)
        click.echo(
            f"{name}: {len(images.train_labels):,} training and {len(images.test_labels):,} test images of {shape}, "
            f"fingerprint {images.fingerprint}"
        )
        for remark in images.remarks():
            note(remark)
    if picture:
        from normlab.datasets.samples import draw_samples

        _draw(draw_samples(images), picture)


def _require_picture(path: str | None) -> None:
    """Refuses a picture that could not be written, before any work."""
    if path is None:
        return
    if Path(path).suffix not in {".svg", ".pdf", ".png"}:
        raise UsageError(f"--to {path}: write a file that ends in .svg, .pdf or .png")
    if not Path(path).resolve().parent.is_dir():
        raise UsageError(f"--to {path}: the folder does not exist")


def _draw(figure: Any, path: str) -> None:
    from normlab.pictures import picture

    Path(path).write_bytes(picture(figure, Path(path).suffix))
    click.echo(f"drawn: {path}", err=True)
