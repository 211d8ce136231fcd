"""Results for a notebook: a study's table, arms, contrasts and figures at hand, shown as tables where that is possible.

results = normlab.load_results("quickstart")
results.arms()
results.compare(norm=("batch", "none"))
results.plot("learning_rate")
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from normlab import datasets
from normlab.errors import UsageError, unknown
from normlab.grid import as_number, contrasts, without_arms
from normlab.report import render, report_folder, write_report
from normlab.rows import arm_rows, contrast_rows, curve_rows, measured_rows, sensitivity_rows
from normlab.store import Store, as_store
from normlab.study import ContrastSpec, Factor, Study, label_of, read_points
from normlab.table import StudyTable, read_table
from normlab.wording import arm_summary, context_words, contrast_summary, sensitivity_summary, status_words

Kind = Literal["trials", "arms", "contrasts", "sensitivity", "curves"]
KINDS: Mapping[str, Callable[[StudyTable], list[dict[str, Any]]]] = {
    "trials": measured_rows,
    "arms": arm_rows,
    "contrasts": contrast_rows,
    "sensitivity": sensitivity_rows,
    "curves": curve_rows,
}


class Rows(list[dict[str, Any]]):
    """Rows of plain numbers (fractions of 1) with `frame()`; a notebook shows them in words and per cent."""

    def __init__(self, numbers: Sequence[Mapping[str, Any]], summary: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(map(dict, numbers))
        self._summary = summary

    def frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        return _frame(self)

    def _repr_html_(self) -> str:
        return render("rows.html.jinja", rows=self._summary) if self._summary else "<p>no rows</p>"

    def __repr__(self) -> str:
        from normlab.terminal import table_text

        return table_text(self._summary) if self._summary else "no rows"


@dataclass(frozen=True)
class Results:
    """A study with what its store holds. `table` has every record behind what the methods return."""

    table: StudyTable
    store: Store

    def arms(self) -> Rows:
        """The arms: n, mean, standard deviation and t interval over seeds, counts of trials by state."""
        return Rows(arm_rows(self.table), arm_summary(self.table, full=True))

    def contrasts(self) -> Rows:
        """The study's own contrasts, with verdicts."""
        return _contrast_rows(self.table)

    def sensitivity(self) -> Rows:
        """Best level, usable range and area under the curve of every line over a numeric factor."""
        return Rows(sensitivity_rows(self.table), sensitivity_summary(self.table))

    def compare(
        self,
        *,
        at: Mapping[str, Any] | None = None,
        best: str | None = None,
        margin: float | None = None,
        **factor: tuple[Any, Any],
    ) -> Rows:
        """Two levels of a factor, the first minus the second: `compare(norm=("batch", "none"))`.

        `at` keeps to levels of other factors, `{"learning_rate": 0.01}`; `best` names a factor at whose best level each
        arm stands, chosen on half of the seeds; `margin` (percentage points) allows the verdict *equivalent*. What the
        study planned is shown as it stands there, in its direction and corrected over all that was planned; anything
        else is exploratory, and corrected by itself, for its own number of comparisons.
        """
        if len(factor) != 1:
            raise UsageError(f"compare: given {len(factor)} factors; write one, such as norm=('batch', 'none')")
        ((name, pair),) = factor.items()
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise UsageError(f"compare: {name}={pair!r}; write two levels, such as {name}=('batch', 'none')")
        if at is not None and not isinstance(at, Mapping):
            raise UsageError(f"compare: at={at!r}; write levels by factor, such as at={{'learning_rate': 0.01}}")
        first, second = (self._level(name, level) for level in pair)
        if first == second:
            raise UsageError(f"compare: {name}={pair!r}; both are the level {first}, write two")
        levels = {
            other: tuple(self._level(other, one) for one in (given if isinstance(given, list | tuple) else [given]))
            for other, given in (at or {}).items()
        }
        if best is not None:
            self._factor(best)
        study = self.table.study
        for other in [*levels, *([best] if best else [])]:
            if other == name or (other == best and best in levels):
                raise UsageError(f"compare: '{other}' is said twice; 'at' and 'best' name other factors, once each")
        if best is not None and study.vary != "grid":
            raise UsageError(f"compare: best='{best}' needs every level of it in both arms; write vary: grid")
        points = None if margin is None else read_points("compare: margin", margin)
        asked = ContrastSpec(factor=name, first=first, second=second, at=levels, margin=points, best=best)
        is_named = any(one in study.contrasts for one in (asked, replace(asked, first=second, second=first)))
        study = replace(study, contrasts=(asked,), first_seeds=None)
        if without_arms(study):
            raise UsageError(f"compare: no arm with {name} {first} has a partner with {second} there")
        questions = {contrast.question for contrast in contrasts(study)}
        # What was planned is judged among all that was planned, by the looks where seeds are added.
        planned = [one for one in self.table.contrasts if one.contrast.planned and (is_named or points is None)]
        own = {one.contrast.question: one for one in planned if one.contrast.question in questions}
        if len(own) == len(questions):
            return _contrast_rows(replace(self.table, contrasts=tuple(own.values())))
        found = read_table(study, self.store, datasets.fingerprint, metric=self.table.metric, level=self.table.level)
        further = [replace(one, contrast=replace(one.contrast, planned=False)) for one in found.contrasts]
        shown = replace(found, contrasts=tuple(own.get(one.contrast.question, one) for one in further))
        if self.table.progress is None:
            return _contrast_rows(shown)
        rows = contrast_summary(shown, full=True)
        return Rows(
            [row if row["planned"] else row | {"looks": "not adjusted"} for row in contrast_rows(shown)],
            [
                row | {"asked": row["asked"].replace("exploratory", "exploratory, not adjusted for the looks")}
                for row in rows
            ],
        )

    def plot(self, factor: str | None = None) -> Figure:
        """The figure of a factor: every seed, means and intervals; without a factor, the learning curves."""
        from normlab.drawing import draw_curves, draw_factor
        from normlab.figures import curve_figure, factor_figure

        if factor is None:
            return draw_curves(curve_figure(self.table))
        self._factor(factor)
        return draw_factor(factor_figure(self.table, factor))

    def frame(self, kind: Kind = "trials") -> Any:
        """A pandas DataFrame of numbers: one row a trial, or of `arms`, `contrasts`, `sensitivity`, `curves` (one row
        a trial and epoch)."""
        if kind not in KINDS:
            raise UsageError(f"frame: {unknown('kind', str(kind), KINDS)}")
        return _frame(KINDS[kind](self.table))

    def report(self, folder: str | Path | None = None) -> Path:
        """Writes the report, as `normlab report` does; returns report.html."""
        study = self.table.study
        place = Path(folder) if folder else self.store.root / "reports" / report_folder(study)
        return write_report(study, self.table, place)

    def _factor(self, name: object) -> Factor:
        for factor in self.table.study.factors:
            if factor.name == name:
                return factor
        raise UsageError(unknown("factor", str(name), [factor.name for factor in self.table.study.factors]))

    def _level(self, factor: str, level: Any) -> str:
        """A level's label."""
        level = level.item() if hasattr(level, "item") else level  # out of a frame
        labels, label = [one.label for one in self._factor(factor).levels], label_of(level)
        if label not in labels and (number := as_number(label)) is not None:  # written in another way, such as '1e-2'
            label = next((one for one in labels if as_number(one) == number), label)
        if label not in labels:
            raise UsageError(unknown(f"level of {factor}", label, labels))
        return label

    def __repr__(self) -> str:
        return f"{self.table.study.name}: {self.table.study.question}\n{status_words(self.table)}\n{self.arms()!r}"

    def _repr_html_(self) -> str:
        return render(
            "results.html.jinja",
            study=self.table.study,
            context=context_words(self.table),
            status=status_words(self.table),
            arms=arm_summary(self.table, full=True),
            contrasts=contrast_summary(self.table, full=True),
        )


def load_results(
    study: Study | str | Path,
    *,
    store: Store | str | Path | None = None,
    scale: str | None = None,
    overrides: Sequence[str] = (),
) -> Results:
    """The results of a study, by its file or the name of a shipped one. `store` may be its folder; `overrides` are
    `key=value` texts, as on the command line."""
    loaded = study if isinstance(study, Study) else Study.load(study, scale=scale, overrides=overrides)
    place = as_store(store)
    if store is not None and not place.root.exists():
        raise UsageError(f"store {place.root}: there is no such folder; normlab.run(study, store=…) would make it")
    return Results(read_table(loaded, place, datasets.fingerprint), place)


def _contrast_rows(table: StudyTable) -> Rows:
    return Rows(contrast_rows(table), contrast_summary(table, full=True))


def _frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    return _pandas().DataFrame(list(rows))


@functools.cache
def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise UsageError("a frame needs pandas; write pip install pandas, or use the rows as they are") from None
    return pandas
