"""The report of a study: one HTML file that needs nothing else, with the same numbers as CSV and JSON beside it.

`write_report` arranges what `table` computed, `answers` says of it, and `drawing` makes of `figures`.
"""

import contextlib
import functools
import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from normlab.answers import answers, caveat, remarks
from normlab.errors import UsageError
from normlab.figure_data import CurveFigure, FactorFigure
from normlab.figures import curve_figure, factor_figure
from normlab.files import read_bounded, write_file
from normlab.plotters import KINDS, plot
from normlab.result import Result, sha256
from normlab.rows import arm_rows, contrast_rows, sensitivity_contrast_rows, sensitivity_rows, to_csv, to_json, to_latex
from normlab.stats import binomial_error
from normlab.study import Study, label_of, shipped_studies
from normlab.table import ArmRecord, StudyTable, TrialRecord
from normlab.trial import SETTINGS, is_active
from normlab.wording import (
    arm_summary,
    context_words,
    contrast_summary,
    percent,
    runs_words,
    sensitivity_contrast_summary,
    sensitivity_summary,
    some,
    status_words,
    words,
)

MOST_BYTES = 64 << 20  # of an earlier report
REMARKED = "What may not be meant in the settings or the data of some of these trainings, and bear on their results:"
MAX_ALT_CHARACTERS = 1_500  # chosen: what a listener can bear; the table has every number


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """A figure in the report: the stem of its files, what it shows in words (`alt` for who cannot see it), and its
    drawing, which a plotter may still be at."""

    stem: str
    title: str
    caption: str
    alt: str
    drawn: Future[bytes]

    @property
    def svg(self) -> Markup:
        """The drawing as part of a page; waits for it."""
        return inline_svg(self.drawn.result().decode(), self.stem, f"{self.title}. {self.alt}")


def report_folder(study: Study) -> str:
    """The name of a study's report: its own, its scale, and what was set by hand."""
    name = "-".join(filter(None, [study.name, study.scale]))
    by_hand = " ".join(study.overrides)
    if not by_hand:
        return name
    return f"{name}-{_slug(by_hand)}-{sha256(by_hand.encode())[:6]}"


def write_report(
    study: Study, table: StudyTable, folder: Path, *, meanwhile: Callable[[], None] = lambda: None
) -> Path:
    """Writes report.html and .md, arms and contrasts (.csv, .tex), results.json and figures (SVG, PDF, PNG); returns
    report.html.

    Files of an earlier report are replaced, or removed. `meanwhile` is done while the figures are drawn.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _figures_in(folder)
        figures = _plot_figures(table, folder)
        meanwhile()
        write_numbers(table, folder)
        text = to_markdown(study, table, figures)
        path, page = folder / "report.html", _render(study, table, figures)  # which waits for the figures
        write_file(path, page.encode())
        write_file(folder / "report.md", text.encode())
        for stem in earlier.difference(figure.stem for figure in figures):
            for kind in KINDS:
                (folder / f"{stem}{kind}").unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"report {folder}: cannot be written ({error.strerror})") from None
    return path


def write_numbers(table: StudyTable, folder: Path) -> None:
    """Writes what a report says as numbers: arms, contrasts and sensitivity (.csv, .tex), and results.json."""
    is_ours = (folder / "results.json").is_file()  # and the tables beside it
    for name, numbers in (
        ("arms", arm_rows(table)),
        ("contrasts", contrast_rows(table)),
        ("sensitivity", sensitivity_rows(table)),
        ("sensitivity-contrasts", sensitivity_contrast_rows(table)),
    ):
        _write_or_remove(folder / f"{name}.csv", to_csv(numbers), is_ours=is_ours)
    write_file(folder / "results.json", to_json(table).encode() + b"\n")
    for name, rows in (
        ("arms", arm_summary(table, full=True)),
        ("contrasts", contrast_summary(table, full=True)),
        ("sensitivity", sensitivity_summary(table)),
        ("sensitivity-contrasts", sensitivity_contrast_summary(table)),
    ):
        text = to_latex(rows, f"{table.study.question} {context_words(table)}.") if rows else ""
        _write_or_remove(folder / f"{name}.tex", text, is_ours=is_ours)


def _write_or_remove(path: Path, text: str, *, is_ours: bool) -> None:
    """Where there is nothing to say now, what an earlier report said is removed."""
    if text:
        write_file(path, text.encode())
    elif is_ours:
        path.unlink(missing_ok=True)


def _figures_in(folder: Path) -> set[str]:
    """The figures that an earlier report shows, without suffix."""
    with contextlib.suppress(OSError):
        if (folder / "results.json").is_file():
            text = read_bounded(folder / "report.md", MOST_BYTES).decode(errors="replace")
            return set(re.findall(r"\]\((figure-\d+-[\w-]+)\.svg\)", text))
    return set()


def to_markdown(study: Study, table: StudyTable, figures: Sequence[ReportFigure]) -> str:
    """The report as Markdown that shows the figures beside it."""
    scale = f" (scale {study.scale})" if study.scale else ""
    by_hand = [f"With {', '.join(study.overrides)}."] if study.overrides else []
    parts = [
        f"# {study.name}{scale}",
        f"**{study.question}**",
        f"{context_words(table)}. {status_words(table)}.",
        *by_hand,
    ]
    parts = [plain_text(part) for part in parts]
    parts += [*(f"> {plain_text(sentence)}" for sentence in answers(table)), plain_text(caveat(table))]
    if said := remarks(table):
        parts += [REMARKED, "\n".join(f"- {plain_text(remark)}" for remark in said)]
    for figure in figures:
        parts += [f"![{plain_text(figure.title)}]({figure.stem}.svg)"]
        parts += [plain_text(f"*{figure.title}. {figure.caption}*")]
    equal, varied = settings_rows(table)
    for title, rows in (
        ("Contrasts", contrast_summary(table, full=True)),
        ("Arms", arm_summary(table, full=True)),
        ("Sensitivity", sensitivity_summary(table)),
        ("Sensitivity, compared", sensitivity_contrast_summary(table)),
        ("Not finished, or not as hoped", problem_rows(table)),
        ("Settings that vary", varied),
        ("Settings equal in all arms", equal),
        ("Provenance", provenance_rows(table)),
    ):
        if rows:
            parts += [f"## {title}", markdown_table(rows)]
    return "\n\n".join([*parts, "## Reproduce", "```sh\n" + "\n".join(commands(study)) + "\n```"]) + "\n"


def plain_text(text: str) -> str:
    """Text for Markdown in which nothing is an HTML element: a study's words are anybody's."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    def line(cells: Iterable[Any]) -> str:
        return (
            "| " + " | ".join(plain_text(_word(cell)).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return "\n".join([line(rows[0]), line("---" for _ in rows[0]), *(line(row.values()) for row in rows)])


# --- rows -------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def problem_rows(table: StudyTable) -> list[dict[str, Any]]:
    """What is not finished, or not as hoped, by arm and reason."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for arm in table.arms:
        for record in arm.trials:
            reason = record.reason
            if record.state == "diverged" and record.result is not None:
                reason = f"in epoch {record.result.diverged_epoch}; counts as chance"
            elif not reason and _is_chance(table, arm, record):
                reason = "not shown to be better than chance at the end; counts as it is"
            if record.state != "finished" or reason:
                key = (arm.arm.label, record.state, reason)
                groups.setdefault(key, []).append(str(record.trial.spec.seed))
    return [
        {"arm": arm, "state": state, "seeds": some(seeds), "reason": reason or None}
        for (arm, state, reason), seeds in groups.items()
    ]


def _is_chance(table: StudyTable, arm: ArmRecord, record: TrialRecord) -> bool:
    """Whether a finished trial guesses: at most two standard errors of its test images above chance."""
    if record.state != "finished" or record.score is None or not arm.num_test or "accuracy" not in table.metric:
        return False
    chance = 1 / arm.num_classes
    return record.score <= chance + 2 * binomial_error(chance, arm.num_test)


def settings_rows(table: StudyTable) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Settings that are equal in all arms, and those that vary; one that has no effect anywhere is left out."""
    equal: list[dict[str, Any]] = []
    varied: list[dict[str, Any]] = []
    for name in SETTINGS:
        if name == "seed":
            continue
        active = [arm.spec for arm in table.arms if is_active(arm.spec, name)]
        values = list(dict.fromkeys(_word(getattr(spec, name)) for spec in active))
        if not values or values == ["–"]:
            continue
        note = "" if len(active) == len(table.arms) else " (in some arms without effect)"
        (equal if len(values) == 1 else varied).append({"setting": name, "value": some(values) + note})
    counts = sorted({len(arm.trials) for arm in table.arms})
    note = f" (the first {counts[0]} to {counts[-1]} of them)" if len(counts) > 1 else ""
    seeds = {"setting": "seeds", "value": some([str(seed) for seed in table.study.seeds]) + note}
    (varied if note else equal).append(seeds)
    return equal, varied


@functools.lru_cache(maxsize=4)  # the page and its Markdown ask for them
def provenance_rows(table: StudyTable) -> list[dict[str, str]]:
    """Where the results came from: the distinct values of each entry, times summed, rates as their range."""
    results = [record.result for record in table.records().values() if record.result is not None]
    rows = []
    for key in dict.fromkeys(itertools.chain.from_iterable(result.provenance for result in results)):
        if key == "seconds":
            values: list[Any] = [own_seconds(result) for result in results if key in result.provenance]
        else:
            values = [result.provenance.get(key) for result in results]
        if key not in ("cohort", "remarks"):  # its name, beside which its size stands; and what `remarks` says
            rows.append({"entry": words(key), "value": _provenance_words(key, values)})
    fingerprints = dict.fromkeys(f"{arm.spec.data}: {arm.spec.data_fingerprint}" for arm in table.arms)
    return [*rows, {"entry": "data fingerprint", "value": some(list(fingerprints))}]


def own_seconds(result: Result) -> float:
    """A trial's share of the seconds that its cohort took."""
    source = result.provenance
    return float(source.get("seconds", 0.0)) / max(int(source.get("cohort_size", 1)), 1)


def _provenance_words(key: str, values: Sequence[Any]) -> str:
    if key in {"seconds", "images_per_second", "flops", "joules"}:
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers:
            least, most = f"{min(numbers):,.4g}", f"{max(numbers):,.4g}"
            middle = (
                f"{least} to {most} a trial, median {median(numbers):,.4g}" if least != most else f"{least} a trial"
            )
            return middle if key == "images_per_second" else f"{sum(numbers):,.4g} in all; {middle}"
    known = [word for word in dict.fromkeys(map(str, values)) if word not in ("None", "")]
    if key == "started" and known:
        return f"{min(known)} to {max(known)}"
    return some(known) or "unknown"


def commands(study: Study) -> list[str]:
    """The commands that make this report again."""
    shipped = {str(path): name for name, path in shipped_studies().items()}
    arguments = [shipped.get(study.path, study.path or study.name)]
    if study.scale is not None:
        arguments += ["--scale", study.scale]
    line = shlex.join([*arguments, *study.overrides])
    return [f"normlab run {line}", f"normlab report {line}"]


def _word(value: Any) -> str:
    return "–" if value is None else label_of(value)


# --- figures and page -------------------------------------------------------------------------------------------------


def _plot_figures(table: StudyTable, folder: Path) -> list[ReportFigure]:
    made: list[ReportFigure] = []
    context = f"Data: {context_words(table)}"
    drawn = [factor_figure(table, factor.name) for factor in table.study.factors]
    for data in sorted(drawn, key=lambda f: (len(f.panels), not f.numeric)):  # what says most at a glance first
        if data.points():
            stem = f"figure-{len(made) + 1}-{_slug(data.factor)}"
            title = f"{words(table.metric).capitalize()} against {words(data.factor)}"
            made.append(plot_factor(data, folder, stem, title, context))
    if any(record.result is not None and record.result.has_details for record in table.records().values()):
        curves = curve_figure(table)
        stem, caption = f"figure-{len(made) + 1}-curves", _curve_caption(curves, context)
        drawing = plot(folder / stem, "normlab.drawing:draw_curves", curves)
        made.append(
            ReportFigure(stem=stem, title="Learning curves", caption=caption, alt=_curve_alt(curves), drawn=drawing)
        )
    return made


def plot_factor(data: FactorFigure, folder: Path, stem: str, title: str, context: str) -> ReportFigure:
    """Has a factor's figure drawn, and describes it; `context` says what the numbers must not be read without."""
    drawing = plot(folder / stem, "normlab.drawing:draw_factor", data)
    return ReportFigure(stem=stem, title=title, caption=_factor_caption(data, context), alt=_alt(data), drawn=drawing)


def inline_svg(svg: str, prefix: str, label: str) -> Markup:
    """Matplotlib's SVG as part of a page: without its preamble, with ids of its own and a text for who cannot see."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<\w+ (?:xlink:href="[^"]*" )?id=")', rf"\g<1>{prefix}-", svg)
    for reference in ("url(#", 'href="#'):
        svg = svg.replace(reference, f"{reference}{prefix}-")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))


def _factor_caption(data: FactorFigure, context: str) -> str:
    text = (
        f"Small dots are seeds, markers are means with their {data.level:.0%} t interval over seeds, cut off where it "
        "leaves the axis; an arm with one run, or without any spread, has none."
    )
    if any(point.diverged for point in data.points()):
        text += " Crosses are trials that diverged and count as chance."
    return f"{text} {context}." + (f" Drawn are {data.left_out}." if data.left_out else "")


def _curve_caption(data: CurveFigure, context: str) -> str:
    counts = [arm.n for panel in data.panels for arm in panel.arms]
    bands = ", bands its lowest to highest seed" * (max(counts, default=0) > 1)
    text = (
        f"Thick lines are test accuracy, mean over the seeds{bands}, thin lines training "
        f"accuracy{' with dropout' * data.dropout} ({runs_words(counts)})."
    )
    if any(arm.diverged_at for panel in data.panels for arm in panel.arms):
        text += " A trial counts as chance from the epoch in which it diverged, marked by a cross."
    if data.damaged:
        text += f" Of {data.damaged} trial{'s' * (data.damaged > 1)} the curves are damaged, and left out."
    return f"{text} {context}." + (f" Drawn are {data.left_out}." if data.left_out else "")


def _curve_alt(data: CurveFigure) -> str:
    """Where the curves begin and end, as a text."""
    parts = [
        f"{', '.join(filter(None, [panel.title, arm.name])) or 'test'}: {percent(arm.test.mean[0])} to "
        f"{percent(arm.test.mean[-1])}"
        for panel in data.panels
        for arm in panel.arms
        if arm.test.mean
    ]
    return _bearable(f"Mean test accuracy in per cent from the first to the last epoch. {'; '.join(parts)}.")


def _alt(data: FactorFigure) -> str:
    """The means of a figure as a text."""
    parts = []
    for panel in data.panels:
        for series in panel.series:
            means = ", ".join(f"{percent(p.mean)} at {data.ticks[p.x]}" for p in series.points)
            parts.append(f"{', '.join(filter(None, [panel.title, series.name])) or 'means'}: {means}")
    return _bearable(f"Means in per cent. {'; '.join(parts)}.")


def _bearable(text: str) -> str:
    return text if len(text) <= MAX_ALT_CHARACTERS else text[:MAX_ALT_CHARACTERS] + "… The table has all."


def _render(study: Study, table: StudyTable, figures: Sequence[ReportFigure]) -> str:
    equal, varied = settings_rows(table)
    return render(
        "report.html.jinja",
        study=study,
        context=context_words(table),
        answers=answers(table),
        caveat=caveat(table),
        remarks=remarks(table),
        remarked=REMARKED,
        status=status_words(table),
        problems=problem_rows(table),
        arms=arm_summary(table, full=True),
        contrasts=contrast_summary(table, full=True),
        figures=figures,
        sensitivity=sensitivity_summary(table),
        sensitivity_contrasts=sensitivity_contrast_summary(table),
        usable_within=study.usable_within,
        equal=equal,
        varied=varied,
        provenance=provenance_rows(table),
        commands=commands(study),
    )


def render(template: str, **values: Any) -> str:
    """A page of `templates/`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # the text of a study is anybody's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "factor"
