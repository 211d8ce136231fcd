"""The table of a study as rows of plain numbers (fractions of 1), and the formats they go to: CSV, JSON, LaTeX."""

import csv
import functools
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic_core

from normlab.grid import Arm, numeric_levels
from normlab.sensitivity import sensitivities, sensitivity_contrasts
from normlab.sequential import Resolution
from normlab.stats import binomial_error
from normlab.study import label_of
from normlab.table import STATES, ArmRecord, ContrastRecord, StudyTable

FORMAT_VERSION = 1  # of results.json

# Further columns of the rows; a factor of such a name has `factor: ` before it there.
CONTEXT = ("data", "data_fingerprint", "split", "train_images", "test_images", "precision", "scale")
RESERVED = frozenset({*CONTEXT, *STATES, "id", "seed", "seeds", "metric", "n", "mean", "sd", "low", "high", "level",
                       "interval", "binomial_error", "state", "score", "reason", "scores"})  # fmt: skip


def arm_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row an arm, accuracies as fractions of 1, None where there is nothing to say."""
    rows = []
    for record in table.arms:
        mean = record.mean
        error = test_set_error(record, table.metric)
        rows.append(
            _levels(table, record.arm)
            | {"metric": table.metric, "seeds": len(record.trials)}
            | {"n": mean.n if mean else 0}
            | {name: getattr(mean, name, None) for name in ("mean", "sd", "low", "high")}
            | {"level": table.level, "interval": "Student t", "binomial_error": error}
            | {state: record.count(state) for state in STATES}
            | arm_context(table, record)
        )
    return rows


def contrast_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a contrast: the first arm minus the second, in fractions of 1."""
    rows, values = [], _values_by_factor(table)
    several = [factor.name for factor in table.study.factors] if len(table.study.factors) > 1 else []
    for record in table.contrasts:
        contrast, difference = record.contrast, record.difference
        levels, place = values[contrast.factor], contrast.place
        best = values.get(contrast.best or "", {})
        rows.append(
            {
                "contrast": contrast.label,
                "factor": contrast.factor,
                "first": levels[contrast.first.levels[contrast.factor]],
                "second": levels[contrast.second.levels[contrast.factor]],
                "at": ", ".join(f"{f} {level}" for f, level in place.items()),
                **{f"at_{name}": values[name][place[name]] if name in place else None for name in several},
                "best_of": contrast.best,
                "first_best": best.get(record.best_levels[0]),
                "second_best": best.get(record.best_levels[1]),
                "planned": contrast.planned,
                "metric": table.metric,
                "n_first": len(record.first.scores),
                "n_second": len(record.second.scores),
                "difference": difference.difference if difference else None,
                "low": difference.low if difference else None,
                "high": difference.high if difference else None,
                "level": table.level,
                "interval": difference.method if difference else "Welch t",
                # In a study that adds seeds the p of the look that resolved it; looks have levels of their own.
                "p": record.p if record.sequential is None else getattr(record.sequential, "p", None),
                "p_holm": record.corrected_p if record.sequential is None else None,
                "margin": contrast.margin,
                "p_equivalence_holm": record.corrected_equivalence_p,
                "verdict": record.verdict,
                "looks": "resolved" if isinstance(record.sequential, Resolution) else record.sequential,
                "resolved_at": getattr(record.sequential, "runs", None),
                "probability_first_higher": record.superiority.probability if record.superiority else None,
                "probability_low": record.superiority.low if record.superiority else None,
                "probability_high": record.superiority.high if record.superiority else None,
                "smallest_resolvable": record.smallest,
                "seeds_to_settle": record.seeds,
                "shared_seeds": record.shared.n,
                "correlation": record.shared.correlation,
                "diverged_first": record.first.count("diverged"),
                "diverged_second": record.second.count("diverged"),
                "divergence_p": record.divergence_p,
            }
            | _contrast_context(table, record)
        )
    return rows


def trial_rows(table: StudyTable, reserved: frozenset[str] = RESERVED) -> list[dict[str, Any]]:
    """One row a trial of an arm: its state and score, so that every number above can be computed again."""
    rows = []
    for arm in table.arms:
        levels, context = _levels(table, arm.arm, reserved), arm_context(table, arm)
        rows += [
            levels
            | {"seed": record.trial.spec.seed, "id": record.trial.id, "state": record.state, "score": record.score}
            | {"metric": table.metric, "reason": record.reason}
            | context
            for record in arm.trials
        ]
    return rows


def measured_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a trial of an arm, as `trial_rows`, with all that was measured of it; see `Result.metrics`."""
    records = [record for arm in table.arms for record in arm.trials]
    names = dict.fromkeys(name for record in records if record.result for name in record.result.metrics)
    return [
        row | {name: record.result.metrics.get(name) if record.result else None for name in names}
        for row, record in zip(trial_rows(table, RESERVED | names.keys()), records, strict=True)
    ]


def sensitivity_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a line over a numeric factor; see `Sensitivity`. Widths are in `width_unit`, areas fractions of 1."""
    return [
        {
            "factor": line.factor,
            "line": ", ".join(f"{f} {level}" for f, level in line.others),
            "n": line.n,
            "best": line.best,
            "best_low": line.best_low,
            "best_high": line.best_high,
            "usable_within": table.study.usable_within / 100,
            "usable_low": line.usable.low,
            "usable_high": line.usable.high,
            "open_low": line.usable.open_low,
            "open_high": line.usable.open_high,
            "width": line.width.mean,
            "width_low": line.width.low,
            "width_high": line.width.high,
            "width_unit": _width_unit(line.log, line.factor),
            "width_is_cut": line.is_cut,
            "area": line.area.mean,
            "area_low": line.area.low,
            "area_high": line.area.high,
            "level": table.level,
        }
        for line in sensitivities(table)
    ]


def sensitivity_contrast_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a pair of lines that the study compares level by level: differences of width and of area."""
    return [
        {"factor": pair.factor, "contrast": pair.label, "n_first": pair.area.n_first, "n_second": pair.area.n_second}
        | {
            f"{name}_{key}".removesuffix("_difference"): getattr(found, key)
            for name, found in (("width", pair.width), ("area", pair.area))
            for key in ("difference", "low", "high")
        }
        | {"width_unit": _width_unit(pair.log, pair.factor), "width_is_cut": pair.is_cut}
        | {"level": table.level, "width_interval": pair.width.method, "interval": pair.area.method}
        for pair in sensitivity_contrasts(table)
    ]


def curve_rows(table: StudyTable) -> list[dict[str, Any]]:
    """One row a trial and epoch."""
    rows = []
    for arm in table.arms:
        for record in arm.trials:
            details = table.details(record.result) if record.result else None
            if details is None:
                continue
            curves = details.curves
            levels = _levels(table, arm.arm, RESERVED | curves.keys())
            start = levels | {"seed": record.trial.spec.seed, "id": record.trial.id}
            rows += [start | dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    return rows


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; an absent number is an empty field. Without rows, nothing."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "−": "$-$", "±": r"$\pm$",
    "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "–": "--", "…": r"\dots{}", "\n": " ",
}  # fmt: skip


def to_latex(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """Rows as a LaTeX table for a paper (package booktabs), text to the left, numbers to the right."""
    names = list(rows[0]) if rows else []
    columns = "".join("r" if _are_numbers([row[name] for row in rows]) else "l" for name in names)

    def line(cells: Sequence[Any]) -> str:
        return " & ".join(_latex("–" if cell is None else str(cell)) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{_latex(caption)}}}", rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule", line(names), r"\midrule", *(line(list(row.values())) for row in rows), r"\bottomrule",
            r"\end{tabular}", r"\end{table}", "",
        ]
    )  # fmt: skip


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _are_numbers(cells: Sequence[Any]) -> bool:
    given = [str(cell) for cell in cells if cell is not None]
    return bool(given) and all(re.fullmatch(r"[<> ]*[-+]?[0-9.]+(e-?[0-9]+)?", cell) for cell in given)


def to_json(table: StudyTable) -> str:
    """Everything the table holds as JSON, without NaN or infinity."""
    study = table.study
    tree = {
        "format": FORMAT_VERSION,
        "study": study.name,
        "question": study.question,
        "scale": study.scale,
        "overrides": list(study.overrides),
        "metric": table.metric,
        "level": table.level,
        "trials_by_state": {state: table.count(state) for state in STATES},
        "arms": arm_rows(table),
        "contrasts": contrast_rows(table),
        "sensitivity": sensitivity_rows(table),
        "sensitivity_contrasts": sensitivity_contrast_rows(table),
        "trials": trial_rows(table),
    }
    return pydantic_core.to_json(tree, indent=1, inf_nan_mode="null").decode()


# --- what rows are made of --------------------------------------------------------------------------------------------


def test_set_error(record: ArmRecord, metric: str) -> float | None:
    """Binomial standard error of the mean accuracy; None where the metric is none, or there is none yet."""
    mean, is_accuracy = record.mean, metric.startswith("test_accuracy")
    if not is_accuracy or mean is None or not record.num_test or not 0 <= mean.mean <= 1:
        return None
    return binomial_error(mean.mean, record.num_test)


def _width_unit(log: bool, factor: str) -> str:
    return "factors of ten" if log else factor


def levels_of(arm: Arm, reserved: frozenset[str] = RESERVED) -> dict[str, str]:
    """The labels of an arm, by column."""
    return {(f"factor: {name}" if name in reserved else name): level for name, level in arm.levels.items()}


def _levels(table: StudyTable, arm: Arm, reserved: frozenset[str] = RESERVED) -> dict[str, Any]:
    """The levels of an arm, by column."""
    values = _values_by_factor(table)
    return {
        column: values[name][label]
        for (column, label), name in zip(levels_of(arm, reserved).items(), arm.levels, strict=True)
    }


@functools.lru_cache(maxsize=4)
def _values_by_factor(table: StudyTable) -> dict[str, dict[str | None, Any]]:
    """The value of each factor's labels, which `compare` takes back: numbers, or true and false, where all of a factor
    are; its text where another would have that value's label: by hand a level may be called 1.0, beside another 1."""
    found: dict[str, dict[str | None, Any]] = {}
    for factor in table.study.factors:
        labels = [level.label for level in factor.levels]
        values: dict[str, Any] = dict(numeric_levels(factor))
        if all(label.isdigit() for label in values):
            values = {label: int(label) for label in values}
        if set(labels) <= {"true", "false"}:
            values = {label: label == "true" for label in labels}
        is_exact = all(label_of(value) == label for label, value in values.items())
        found[factor.name] = {label: values.get(label, label) if is_exact else label for label in labels}
    return found


def arm_context(table: StudyTable, record: ArmRecord) -> dict[str, Any]:
    """What a number must never be read without. `train_images` is None where all of them are used."""
    spec = record.spec
    split = f"fraction {spec.test_fraction:g}" if spec.split == "fraction" else spec.split
    return {
        "data": spec.data,
        "data_fingerprint": spec.data_fingerprint,
        "split": split if not spec.split_seed else f"{split} (split seed {spec.split_seed})",
        "train_images": spec.train_images,
        "test_images": record.num_test,
        "precision": spec.precision,
        "scale": table.study.scale,
    }


def _contrast_context(table: StudyTable, record: ContrastRecord) -> dict[str, Any]:
    """The context of both arms; where they differ, both values, the first arm's first."""
    first, second = arm_context(table, record.first), arm_context(table, record.second)
    return {k: first[k] if first[k] == second[k] else f"{first[k]} − {second[k]}" for k in CONTEXT}
