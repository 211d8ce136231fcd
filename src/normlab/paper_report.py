"""The report of the whole paper at one scale: its figures in the paper's form, its numbers beside ours, and its claims.

`write_paper_report` arranges what `paper` and `figures` computed into one HTML page with Markdown and CSV beside it;
each study's own report lies in a folder below. Only figure 3, which training's own code draws, needs torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab import datasets
from normlab.errors import UsageError
from normlab.figures import factor_figure, metric_figure
from normlab.files import write_file
from normlab.grid import arms
from normlab.paper import (
    EVALUATIONS,
    SMALL_BATCH,
    Comparison,
    Finding,
    Judgement,
    Paper,
    Tables,
    compare_numbers,
)
from normlab.paper import three_evaluations as evaluation_rows
from normlab.plotters import write_figure
from normlab.report import (
    ReportFigure,
    markdown_table,
    own_seconds,
    plot_factor,
    provenance_rows,
    render,
    write_report,
)
from normlab.rows import to_csv
from normlab.stats import Difference, Mean
from normlab.study import label_of
from normlab.table import StudyTable
from normlab.trial import SETTINGS, make_spec
from normlab.wording import context_words, interval_words, p_words, percent, seeds_words, words

EVALUATION_NAMES = {
    "test_accuracy": "moving averages",
    "test_accuracy_recomputed": "recomputed",
    "test_accuracy_batch": "batch statistics",
}
CAVEAT = (
    "Intervals are 95 % t intervals over seeds (Welch's for differences), p-values are corrected after Holm over all "
    "planned contrasts of a study in one metric. Not resolved means that these runs cannot tell, not that there is no "
    "difference; the seeds it needs, for a power of 0.8, are as rough an estimate as the spread of so few runs."
)
OTHER_SCALE = (
    "Other scales than the paper's differ from it in data, networks or length, see how below: they answer the claims "
    "for their setting, not for the paper's."
)


@dataclass(frozen=True, kw_only=True)
class _PaperFigure:
    """A figure of the paper that one study answers: a factor along x."""

    label: str
    stem: str
    study: str
    factor: str
    title: str


FIGURES = (
    _PaperFigure(label="Figure 4", stem="figure-4-learning-rate", study="paper/learning-rate", factor="learning_rate",
                 title="Accuracy against the learning rate, with batch normalization and without"),
    _PaperFigure(label="Figure 5", stem="figure-5-batch-size", study="paper/batch-size", factor="batch_size",
                 title="Accuracy against the batch size, with batch normalization and without"),
    _PaperFigure(label="Figure 6", stem="figure-6-small-batch", study="paper/small-batch", factor="norm",
                 title="Norms at small batches"),
    _PaperFigure(label="Figure 7", stem="figure-7-activation", study="paper/activation", factor="activation",
                 title="Activations, with batch normalization and without"),
    _PaperFigure(label="Figure 8", stem="figure-8-order", study="paper/order", factor="network",
                 title="Batch normalization before or after the activation, on four networks"),
    _PaperFigure(label="Figure 8, cats and dogs", stem="figure-8-order-cats-dogs", study="paper/order-cats-dogs",
                 factor="image_size", title="Batch normalization before or after the activation, cats and dogs"),
    _PaperFigure(label="Beyond the paper", stem="figure-precision", study="paper/precision", factor="batch_size",
                 title="Training in float32 and in bfloat16"),
)  # fmt: skip


def write_paper_report(paper: Paper, judgements: Sequence[Judgement], tables: Tables, folder: Path) -> Path:
    """Writes report.html and .md, claims.csv, evidence.csv, numbers.csv, figures, and a report of every study below
    `studies/`; returns report.html. Files of an earlier report are replaced."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        comparisons = compare_numbers(paper, tables)
        figures, absent = _figures(paper, tables, folder)
        unread = _unread(paper, tables)
        read = [name for name in paper.studies if name not in unread]
        reports = [(name, _study_report(name, tables, folder)) for name in read]
        three = evaluation_rows(tables) if SMALL_BATCH in read else []
        scale = tables.study(paper.studies[0]).scale
        values: dict[str, Any] = {
            "scale": scale,
            "status": _status(read, tables),
            "caveat": CAVEAT,
            "other_scale": OTHER_SCALE if tables.scale != "paper" else "",
            "claims": [_claim_row(judgement) for judgement in judgements],
            "numbers": [_number_row(comparison) for comparison in comparisons],
            "figures": figures,
            "absent": [*absent, *(f"{name} cannot be read: {problem}" for name, problem in unread.items())],
            "small_batch": [_three_row(row) for row in three],
            "small_batch_words": small_batch_words(three),
            "evidence": [_evidence_row(j.name, finding) for j in judgements for finding in j.findings],
            "reports": reports,
            "differences": scale_differences(paper, tables),
            "provenance": [_provenance_row(name, tables(name)) for name in read],
            "commands": [f"normlab paper {verb} --scale {scale}" for verb in ("run", "report")],
        }
        write_file(folder / "claims.csv", to_csv(values["claims"]).encode())
        write_file(
            folder / "evidence.csv", to_csv([_numbers_of(j.name, f) for j in judgements for f in j.findings]).encode()
        )
        write_file(folder / "numbers.csv", to_csv(values["numbers"]).encode())
        path = folder / "report.html"
        write_file(path, render("paper.html.jinja", **values).encode())
        write_file(folder / "report.md", _markdown(values).encode())
    except OSError as error:
        raise UsageError(f"report {folder}: cannot be written ({error.strerror})") from None
    return path


# --- rows of words ----------------------------------------------------------------------------------------------------


def _claim_row(judgement: Judgement) -> dict[str, Any]:
    claim = judgement.claim
    return {
        "claim": judgement.name,
        "the paper says": claim.says,
        "verdict": judgement.verdict,
        "because": judgement.reason,
        "beware": claim.beware or None,
    }


def _evidence_row(claim: str, finding: Finding) -> dict[str, Any]:
    difference, scaled = finding.difference, _unit(finding.metric)
    return {
        "claim": claim,
        "study": finding.study.removeprefix("paper/"),
        "contrast": finding.contrast,
        "metric": words(finding.metric) + (" (decades)" if scaled == 1 else " (points)"),
        "n": " and ".join(map(str, finding.n)),
        "difference": f"{scaled * difference.difference:+z.2f}" if difference else None,
        "95% t interval": _scaled_interval(difference, scaled),
        "p": p_words(finding.p),
        "Holm's p": p_words(finding.corrected),
        "claimed": finding.expects,
        "outcome": finding.outcome,
        "seeds it needs": None if finding.seeds is None else seeds_words(finding.seeds),
    }


def _numbers_of(claim: str, finding: Finding) -> dict[str, Any]:
    """A finding as plain numbers, in the metric's own unit."""
    difference = finding.difference
    return {
        "claim": claim,
        "study": finding.study,
        "contrast": finding.contrast,
        "metric": finding.metric,
        "n_first": finding.n[0],
        "n_second": finding.n[-1],
        "difference": difference.difference if difference else None,
        "low": difference.low if difference else None,
        "high": difference.high if difference else None,
        "p": finding.p,
        "p_holm": finding.corrected,
        "expects": finding.expects,
        "outcome": finding.outcome,
        "seeds_needed": finding.seeds,
    }


def _number_row(comparison: Comparison) -> dict[str, Any]:
    number, mean = comparison.number, comparison.arm.mean
    place = comparison.place
    return {
        "figure": number.figure,
        "what": number.says,
        "paper": percent(number.value),
        "our arm": comparison.arm.arm.label,
        "ours, mean": percent(mean.mean) if mean else None,
        "95% t interval": interval_words(mean.low, mean.high) if mean else None,
        "n": mean.n if mean else 0,
        "one further run, 95%": interval_words(*comparison.interval) if comparison.interval else None,
        "the paper's number is": place,
        "data": comparison.context,
    }


def _three_row(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if not isinstance(value, Mean | Difference | None)}
    for metric in EVALUATIONS:
        mean: Mean | None = row[metric]
        difference: Difference | None = row[f"{metric} - none"]
        name = EVALUATION_NAMES[metric]
        shown[name] = percent(mean.mean) if mean else None
        interval = interval_words(difference.low, difference.high, signed=True) if difference else None
        shown[f"{name} − none"] = (
            f"{percent(difference.difference, signed=True)} {interval or ''}" if difference else None
        )
    return shown


def small_batch_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the three evaluations of plain batch normalization say, a sentence a batch size."""
    sentences = []
    for row in rows:
        if row["norm"] != "batch" or row["test_accuracy - none"] is None:
            continue
        said = [
            f"{EVALUATION_NAMES[metric]} {percent(d.difference, signed=True)} points "
            f"{interval_words(d.low, d.high, signed=True) or '(no interval)'}"
            for metric in EVALUATIONS
            if (d := row[f"{metric} - none"]) is not None
        ]
        sentences.append(f"Batch normalization against none at batch size {row['batch_size']}: {', '.join(said)}.")
    return sentences


def scale_differences(paper: Paper, tables: Tables) -> list[dict[str, Any]]:
    """Settings of each study at this scale that are not the paper's, whatever its factors vary left out."""
    rows = []
    original = Tables(tables.store, "paper")
    for name in paper.studies:
        here, there = tables.study(name), original.study(name)
        ours, theirs = arms(here)[0].settings, arms(there)[0].settings
        changed = {
            words(key): (_setting(ours.get(key)), _setting(theirs.get(key)))
            for key in SETTINGS
            if ours.get(key) != theirs.get(key) and key not in ("evaluate_every", "seed")
        }
        for factor, original_factor in zip(here.factors, there.factors, strict=True):
            levels = [", ".join(level.label for level in f.levels) for f in (factor, original_factor)]
            if levels[0] != levels[1]:
                changed[words(factor.name)] = levels[0], levels[1]
        rows += [
            {"study": name.removeprefix("paper/"), "setting": setting, "here": mine, "paper": papers}
            for setting, (mine, papers) in changed.items()
        ]
    return rows


def _setting(value: Any) -> str:
    return "all" if value is None else label_of(value)


def _provenance_row(name: str, table: StudyTable) -> dict[str, Any]:
    entries = {row["entry"]: row["value"] for row in provenance_rows(table)}
    seconds = [own_seconds(record.result) for record in table.records().values() if record.result]
    done = sum(table.count(state) for state in ("finished", "diverged"))
    return {
        "study": name.removeprefix("paper/"),
        "trials": f"{done} of {len(table.records())}",
        "data": context_words(table),
        "core hours": f"{sum(seconds) / 3600:.2f}",
        **{key: entries.get(key) for key in ("commit", "torch", "device", "processor", "machine") if key in entries},
        "fingerprint": entries["data fingerprint"],
    }


def _unread(paper: Paper, tables: Tables) -> dict[str, str]:
    """The studies whose data is not here, with the reason."""
    problems = {}
    for name in paper.studies:
        try:
            tables(name)
        except UsageError as error:
            problems[name] = str(error)
    return problems


def _status(studies: Sequence[str], tables: Tables) -> str:
    records = {key: record for name in studies for key, record in tables(name).records().items()}  # some share trials
    done = sum(record.state in ("finished", "diverged") for record in records.values())
    return f"{done} of {len(records)} trials of {len(studies)} studies are done"


def _unit(metric: str) -> int:
    """What a metric is multiplied with to be shown: shares in per cent, decades as they are."""
    return 1 if metric.startswith("gradient_spread") else 100


def _scaled_interval(difference: Difference | None, unit: int) -> str | None:
    if difference is None or difference.low is None or difference.high is None:
        return None
    return f"[{unit * difference.low:+.2f}, {unit * difference.high:+.2f}]"


# --- figures ----------------------------------------------------------------------------------------------------------


def _figures(paper: Paper, tables: Tables, folder: Path) -> tuple[list[tuple[str, ReportFigure]], list[str]]:
    """The figures with their labels, and a line for each that could not be drawn yet."""
    made: list[tuple[str, ReportFigure]] = []
    absent: list[str] = []
    begun: list[tuple[str, Callable[[], ReportFigure | None]]] = [
        ("Figure 1", lambda: _classes(tables, folder)),
        ("Figure 2", lambda: _network(folder)),
        ("Figure 3", lambda: _augmentation(tables, folder)),
        *((figure.label, lambda figure=figure: _factor(figure, tables, folder)) for figure in FIGURES),
    ]
    begun.insert(6, ("Figure 6, three evaluations", lambda: _three_figure(tables, folder)))
    for label, begin in reversed(begun):  # first those that plotters draw, while the others are drawn here
        try:
            figure = begin()
        except UsageError as error:  # such as data that is not here
            absent.insert(0, f"{label} could not be drawn: {error}")
            continue
        if figure is None:
            absent.insert(0, f"{label}: no results yet.")
        else:
            made.insert(0, (label, figure))
    return made, absent


def _classes(tables: Tables, folder: Path) -> ReportFigure:
    from normlab.datasets.samples import draw_samples

    stem, data = "figure-1-classes", str(tables.study("paper/learning-rate").base["data"])
    images = datasets.load(data)
    return ReportFigure(
        stem=stem,
        title="The classes",
        caption=f"The first ten training images of each class. Data: {data}.",
        alt=", ".join(images.classes),
        drawn=write_figure(folder / stem, draw_samples(images)),
    )


def _network(folder: Path) -> ReportFigure:
    from normlab.diagram import draw_network

    stem, notation = "figure-2-network", "64K-4C3B-256D-Dropout0.5-10D"
    figure = draw_network(
        notation, in_channels=3, image_size=32, norm="batch", norm_position="before_activation", activation="leaky_relu"
    )
    return ReportFigure(
        stem=stem,
        title=f"The network {notation}",
        caption="Every bar is a layer; repeated layers are drawn once. Below them the shapes of their outputs.",
        alt=notation,
        drawn=write_figure(folder / stem, figure),
    )


def _augmentation(tables: Tables, folder: Path) -> ReportFigure:
    from normlab.augment_picture import draw_augmentation

    study, stem = tables.study("paper/final"), "figure-3-augmentation"
    spec = make_spec({**study.base, "seed": study.seeds[0]})
    return ReportFigure(
        stem=stem,
        title="Augmentation",
        caption="Each transform alone at its limit, then all composed, as training composes them (bilinear, edges "
        f"repeated). Data: {spec.data}.",
        alt="Four images, each as it is, rotated, shifted, flipped, and under random compositions of these.",
        drawn=write_figure(folder / stem, draw_augmentation(datasets.load(spec.data), spec)),
    )


def _factor(figure: _PaperFigure, tables: Tables, folder: Path) -> ReportFigure | None:
    table = tables(figure.study)
    data = factor_figure(table, figure.factor)
    if not data.points():
        return None
    return plot_factor(data, folder, figure.stem, figure.title, f"Data: {context_words(table)}")


def _three_figure(tables: Tables, folder: Path) -> ReportFigure | None:
    by_metric = {EVALUATION_NAMES[metric]: tables(SMALL_BATCH, metric) for metric in EVALUATIONS}
    data = metric_figure(by_metric, "norm", "test accuracy (%)")
    if not data.points():
        return None
    title = "The same trained networks, evaluated with three kinds of statistics"
    context = f"Data: {context_words(tables(SMALL_BATCH))}"
    return plot_factor(data, folder, "figure-6-three-evaluations", title, context)


def _study_report(name: str, tables: Tables, folder: Path) -> str:
    study, table = tables.study(name), tables(name)
    place = Path("studies") / name.removeprefix("paper/")
    write_report(study, table, folder / place)
    return (place / "report.html").as_posix()


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown(values: Mapping[str, Any]) -> str:
    """The page as Markdown that shows the figures beside it."""
    parts = [f"# The paper's claims, tested at scale {values['scale']}", f"{values['status']}."]
    for title, key, after in (
        ("Claims", "claims", " ".join(filter(None, [values["caveat"], values["other_scale"]]))),
        ("The paper's numbers beside ours, in per cent", "numbers", ""),
    ):
        parts += [f"## {title}", markdown_table(values[key]), *([after] if after else [])]
    parts += ["## Figures"]
    for label, figure in values["figures"]:
        parts += [f"![{figure.title}]({figure.stem}.svg)", f"*{label}. {figure.title}. {figure.caption}*"]
    parts += values["absent"]
    parts += ["## Small batches: training or inference?", *values["small_batch_words"]]
    for title, key in (
        ("Accuracy in three ways (%), and differences to no norm (points)", "small_batch"),
        ("Evidence: every contrast behind the claims", "evidence"),
        ("How this scale differs from the paper", "differences"),
        ("Provenance", "provenance"),
    ):
        if values[key]:
            parts += [f"## {title}", markdown_table(values[key])]
    return "\n\n".join([*parts, "## Reproduce", "```sh\n" + "\n".join(values["commands"]) + "\n```"]) + "\n"
