"""The report of a study: one HTML file that needs nothing else, and the same numbers and figures beside it.

FOLDER/report.html, arms.csv, contrasts.csv, results.json, factor-NAME.svg/.png, curves.svg/.png
"""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from normlab import figures
from normlab.stats import Difference
from normlab.study import Study, label_of
from normlab.table import (
    ArmResults,
    StudyTable,
    arm_rows,
    arm_summary,
    contrast_rows,
    contrast_summary,
    to_csv,
    to_json,
    verdict,
)
from normlab.trial import SETTINGS, is_active

PROVENANCE = {
    "normlab_version": "normlab",
    "commit": "commit",
    "torch": "PyTorch",
    "python": "Python",
    "platform": "platform",
    "processor": "processor",
    "cores": "cores",
    "device": "device",
    "threads": "threads a worker",
    "workers": "workers",
    "cohort_size": "trials trained together",
}


def write_report(study: Study, table: StudyTable, folder: Path) -> Path:
    """Writes the report of a table that was read with details, and returns the path of report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "arms.csv").write_text(to_csv(arm_rows(table)), encoding="utf-8")
    (folder / "contrasts.csv").write_text(to_csv(contrast_rows(table)), encoding="utf-8")
    (folder / "results.json").write_text(to_json(table) + "\n", encoding="utf-8")
    pictures = []
    if table.num_finished:
        for name, caption, figure in _figures(table):
            for suffix in (".svg", ".png"):
                figures.save(figure, folder / f"{name}{suffix}")
            pictures.append({"caption": caption, "svg": figures.to_svg(figure, name)})
    path = folder / "report.html"
    path.write_text(_render(study, table, pictures), encoding="utf-8")
    return path


def answer(table: StudyTable) -> str:
    """The study's answer in words, from its contrasts; what is not resolved is said to be so."""
    if not table.num_finished:
        return "Nothing has been trained yet."
    known = [row for row in table.contrasts if row.difference.low is not None]
    if not known:
        return "There are too few trials for an interval yet." if table.contrasts else "The study compares nothing."
    resolved = [row for row in known if row.difference.resolved]
    kind = "planned" if known[0].contrast.planned else "exploratory"
    text = f"{len(resolved)} of {len(known)} {kind} contrasts are resolved: their 95 % interval excludes 0. "
    if resolved:
        largest = max(resolved, key=lambda row: abs(row.difference.estimate or 0))
        text += f"The largest, {largest.contrast.label}: {in_words(largest.difference)}. "
    if len(resolved) < len(known):
        text += "The others are not resolved at this number of seeds, which does not make their arms equal. "
    return text + "Intervals are not corrected for the number of contrasts."


def in_words(found: Difference) -> str:
    """`higher by 3.1 points [1.2, 5.0], n = 3 and 3`."""
    if found.estimate is None or found.low is None or found.high is None:
        return "n too small to say"
    low, high = sorted((abs(100 * found.low), abs(100 * found.high)))
    words = verdict(found)
    size = f"by {abs(100 * found.estimate):.2f} points [{low:.2f}, {high:.2f}]"
    if words == "not resolved":
        size = f"{100 * found.estimate:+.2f} points [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    return f"{words} {size}, n = {found.n_first} and {found.n_second}"


def _figures(table: StudyTable) -> list[tuple[str, str, Figure]]:
    """Name, caption and drawing of each figure; the factor with the most levels comes first."""
    found = []
    for factor in sorted(table.study.factors, key=lambda factor: -len(factor.levels)):
        if len(factor.levels) > 1:
            caption = f"Test accuracy against {factor.name.replace('_', ' ')}. {_context(table)}"
            data = figures.factor_figure(table, factor.name)
            found.append((f"factor-{factor.name}", caption, figures.draw_factor(data)))
    curves = figures.curves_figure(table)
    if curves.panels:
        caption = f"Learning curves: mean over seeds, band from the lowest to the highest. {_context(table)}"
        found.append(("curves", caption, figures.draw_curves(curves)))
    return found


def _context(table: StudyTable) -> str:
    """Data, split, size of the test set, precision and scale: what every number depends on."""
    rows = arm_rows(table)
    parts = [
        f"{word} {', '.join(values)}"
        for word, key in (("data", "data"), ("split", "split"), ("test images", "num_test"), ("precision", "precision"))
        if (values := _distinct(row[key] for row in rows))
    ]
    scale = f"; scale {table.study.scale}" if table.study.scale else ""
    return "; ".join(parts).capitalize() + scale + "."


def _render(study: Study, table: StudyTable, pictures: Sequence[Mapping[str, str]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("normlab", "templates"),
        autoescape=True,  # a study's text is anybody's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        study=study,
        answer=answer(table),
        context=_context(table),
        finished=table.num_finished,
        total=table.num_trials,
        missing=sum(arm.missing for arm in table.arms),
        failures=table.failures,
        diverged=_diverged(table.arms),
        arms=arm_summary(table),
        contrasts=contrast_summary(table),
        planned=bool(study.contrasts),
        pictures=pictures,
        settings=_settings(table.arms),
        provenance=_provenance(table.arms),
        command=_command(study),
    )


def _diverged(arms: Sequence[ArmResults]) -> list[dict[str, Any]]:
    return [
        {"arm": arm.arm.label, "seed": seed, "epoch": result.diverged_epoch}
        for arm in arms
        for seed, result in arm.results.items()
        if result.status == "diverged"
    ]


def _settings(arms: Sequence[ArmResults]) -> list[dict[str, str]]:
    """Every setting that has an effect in some arm, with its values; the seed is not a setting of an arm."""
    rows = []
    for name in SETTINGS:
        values = _distinct(getattr(arm.spec, name) for arm in arms if is_active(arm.spec, name))
        if name != "seed" and values:
            rows.append({"setting": name, "value": ", ".join(values), "varies": "varied" if len(values) > 1 else ""})
    return rows


def _provenance(arms: Sequence[ArmResults]) -> list[dict[str, str]]:
    sources = [result.provenance for arm in arms for result in arm.results.values()]
    rows = [
        {"what": word, "value": "; ".join(values)}
        for key, word in PROVENANCE.items()
        if (values := _distinct(source[key] for source in sources if source.get(key) not in (None, "")))
    ]
    started = sorted(str(source["started"]) for source in sources if "started" in source)
    seconds = [
        float(source["seconds"]) / max(int(source.get("cohort_size", 1)), 1)
        for source in sources
        if "seconds" in source
    ]
    if started:
        rows.append({"what": "trained", "value": f"{started[0]} to {started[-1]} (starts of trials, UTC)"})
    if seconds:
        rows.append({"what": "training time", "value": f"{sum(seconds):,.0f} s of workers for {len(seconds)} trials"})
    fingerprints = _distinct(arm.spec.data_fingerprint for arm in arms)
    rows.append({"what": "data fingerprint", "value": ", ".join(fingerprints)})
    return rows


def _command(study: Study) -> str:
    words = ["normlab", "run", study.path or study.name]
    with contextlib.suppress(ValueError):  # a shipped study goes by its name
        words[2] = str(Path(study.path).relative_to(Path(__file__).parent / "studies").with_suffix(""))
    if study.scale:
        words += ["--scale", study.scale]
    return shlex.join([*words, *study.overrides])


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(label_of(value) for value in values if value is not None))
