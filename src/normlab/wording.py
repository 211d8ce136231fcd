"""The table of a study in words: short rows for a terminal or a page, in per cent, and the sentences around them."""

from collections.abc import Sequence
from typing import Any

from normlab.rows import CONTEXT, RESERVED, arm_context, levels_of, test_set_error
from normlab.sensitivity import Range, sensitivities, sensitivity_contrasts
from normlab.sequential import Resolution
from normlab.table import STATES, ContrastRecord, State, StudyTable

MAX_SHOWN = 8  # chosen: distinct values in one cell before the rest is counted
UNITS = {"batch_size": "images", "train_images": "images", "image_size": "pixels", "rotation_degrees": "degrees"}


def arm_summary(table: StudyTable, *, full: bool = False) -> list[dict[str, Any]]:
    """One short row an arm, in per cent, with the counts and context that are not the same in all; `full` adds the
    standard error that the number of test images leaves, beside the spread between runs."""
    shown = [state for state in STATES[1:] if state == "diverged" or table.count(state)]
    contexts = [arm_context(table, record) for record in table.arms]
    differing = [name for name in CONTEXT if len({str(context[name]) for context in contexts}) > 1]
    rows = []
    for record, context in zip(table.arms, contexts, strict=True):
        mean, error = record.mean, test_set_error(record, table.metric)
        rows.append(
            (levels_of(record.arm, RESERVED - {*CONTEXT}) or {"arm": "base"})
            | {"n": mean.n if mean else 0}
            | {f"{words(table.metric)} (%)": percent(mean.mean) if mean else None}
            | {"sd": percent(mean.sd) if mean and mean.sd is not None else None}
            | {f"{table.level:.0%} t interval": interval_words(mean.low, mean.high) if mean else None}
            | ({"test-set error": percent(error) if error else None} if full else {})
            | {state: record.count(state) for state in shown}
            | {name: context[name] for name in differing if name not in record.arm.levels}
        )
    return rows


def contrast_summary(table: StudyTable, *, full: bool = False) -> list[dict[str, Any]]:
    """One short row a contrast, in percentage points; `full` adds how the seeds were used, P(A > B), and the smallest
    difference that these runs could resolve, and Fisher's p where runs diverged."""
    rows = []
    diverged = any(record.divergence_p is not None for record in table.contrasts)
    for record in table.contrasts:
        difference = record.difference
        interval = interval_words(difference.low, difference.high, signed=True) if difference else None
        further = {
            "seeds": _method_words(record),
            "P(A > B)": _superiority_words(record),
            "could resolve": f"{100 * record.smallest:.2f}" if record.smallest else None,
        }
        if diverged:
            further["diverged"] = f"{record.first.count('diverged')} and {record.second.count('diverged')}"
            further["Fisher's p of divergence"] = p_words(record.divergence_p)
        rows.append(
            {
                "contrast": record.contrast.label + best_words(record),
                "verdict": verdict_words(record),
                "n": f"{len(record.first.scores)} and {len(record.second.scores)}",
                "points": percent(difference.difference, signed=True) if difference else None,
                f"{table.level:.0%} t interval": interval,
                **(further if full else {}),
                **(
                    {} if table.progress else {"Holm's p": p_words(record.corrected_p)}
                ),  # looks have levels of their own
                "asked": "planned" if record.contrast.planned else "exploratory",
            }
        )
    return rows


def sensitivity_summary(table: StudyTable) -> list[dict[str, Any]]:
    """One short row a line over a numeric factor, accuracies in per cent."""
    return [
        {
            "factor": line.factor,
            "line": ", ".join(f"{f} {level}" for f, level in line.others) or "all",
            "n": line.n,
            "best level": f"{line.best:g}",
            "may be": f"{line.best_low:g} to {line.best_high:g}" if line.best_low < line.best_high else None,
            f"usable within {table.study.usable_within:g} points": _range_words(line.usable),
            "width": f"{'≥ ' * line.is_cut}{number(line.width.mean)} {axis_unit(line.log, line.factor)}",
            f"{table.level:.0%} interval": plain_interval(line.width.low, line.width.high),
            "mean over the axis (%)": percent(line.area.mean),
            f"{table.level:.0%} t interval": interval_words(line.area.low, line.area.high),
        }
        for line in sensitivities(table)
    ]


def sensitivity_contrast_summary(table: StudyTable) -> list[dict[str, Any]]:
    """One short row a pair of lines: how much wider, and by how many points higher over the axis."""
    return [
        {
            "factor": pair.factor,
            "contrast": pair.label,
            "n": f"{pair.area.n_first} and {pair.area.n_second}",
            "wider by": f"{number(pair.width.difference, signed=True)} {axis_unit(pair.log, pair.factor)}"
            + " as far as was tried" * pair.is_cut,
            f"{table.level:.0%} interval": plain_interval(pair.width.low, pair.width.high, signed=True),
            "higher by (points)": percent(pair.area.difference, signed=True),
            f"{table.level:.0%} t interval": interval_words(pair.area.low, pair.area.high, signed=True),
        }
        for pair in sensitivity_contrasts(table)
    ]


def _range_words(usable: Range) -> str:
    """A usable range; ≤ and ≥ where it reaches the end of what was tried."""
    return f"{'≤ ' * usable.open_low}{number(usable.low)} to {'≥ ' * usable.open_high}{number(usable.high)}"


def axis_unit(log: bool, factor: str) -> str:
    return "factors of ten" if log else UNITS.get(factor, words(factor))


def number(value: float, *, signed: bool = False) -> str:
    """With three digits, or all before the point where those are more."""
    return f"{value:{'+' * signed}{'.3g' if abs(value) < 999.5 else ',.0f'}}"


def plain_interval(low: float | None, high: float | None, *, signed: bool = False) -> str | None:
    return None if low is None or high is None else f"[{number(low, signed=signed)}, {number(high, signed=signed)}]"


def verdict_words(record: ContrastRecord) -> str:
    """The verdict, with the margin of an equivalence, or the seeds that would settle what is open."""
    match record.verdict:
        case "equivalent":
            return f"equivalent within ±{100 * (record.contrast.margin or 0):g} points"
        case "better" | "worse" as direction if isinstance(record.sequential, Resolution):
            return f"{direction} (resolved at n = {record.sequential.runs}, p {p_words(record.sequential.p)})"
        case "not resolved" if record.seeds is not None:
            return f"not resolved: {seeds_words(record.seeds)} seeds would settle it"
    return record.verdict


def best_words(record: ContrastRecord) -> str:
    """The levels that were chosen for a contrast at each arm's own best, and the seeds that chose them."""
    first, second = record.best_levels
    if first is None:
        return ""
    seeds = ", ".join(map(str, record.chosen_on))
    return f" ({first} and {second}, chosen on seed{'s' if len(record.chosen_on) > 1 else ''} {seeds})"


def seeds_words(seeds: int) -> str:
    """An estimate of seeds with no more digits than it deserves."""
    if seeds >= 1_000:
        return "more than 1,000"
    return f"about {seeds if seeds < 20 else round(seeds, -1)}"


def _method_words(record: ContrastRecord) -> str | None:
    """How the seeds entered the interval, and the correlation that decided it."""
    if record.difference is None:
        return None
    correlation = record.shared.correlation
    measured = "" if correlation is None else f", r = {correlation:z.2f}"
    return ("paired" if record.difference.method == "paired t" else "independent") + measured


def _superiority_words(record: ContrastRecord) -> str | None:
    found = record.superiority
    return None if found is None else f"{found.probability:.2f} [{found.low:.2f}, {found.high:.2f}]"


def context_words(table: StudyTable) -> str:
    """What all arms share of data, split, test images, precision and scale, as one line."""
    contexts = [arm_context(table, record) for record in table.arms]
    shared = {n: contexts[0][n] for n in CONTEXT if len({str(c[n]) for c in contexts}) == 1}
    phrases = {
        "data": "{}",
        "data_fingerprint": "({})",
        "split": "split {}",
        "train_images": "{:,} training images",
        "test_images": "{:,} test images",
        "precision": "{}",
        "scale": "scale {}",
    }
    phrased = [phrases[name].format(value) for name, value in shared.items() if value is not None]
    return ", ".join(phrased).replace(", (", " (")  # the fingerprint stands by its data


def status_words(table: StudyTable) -> str:
    """How far the study is, as one line."""
    done = table.count("finished") + table.count("diverged")
    parts = [f"{done} of {len(table.records())} trials are done"]
    if diverged := table.count("diverged"):
        parts[0] += f", {diverged} of which diverged and count as chance"
    rest: tuple[State, ...] = ("running", "missing", "failed", "damaged")
    parts += [f"{table.count(state)} {state}" for state in rest if table.count(state)]
    if table.progress is not None:
        parts.append(f"{resolved_words(table)}, looking at {_some_looks(table.study.looks)} seeds")
    return "; ".join(parts)


def resolved_words(table: StudyTable) -> str:
    verb = "is" if table.num_settled == 1 else "are"
    return f"{table.num_settled} of {table.num_compared} contrasts {verb} resolved"


def _some_looks(looks: Sequence[int]) -> str:
    return f"{', '.join(map(str, looks[:-1]))} and {looks[-1]}"


def words(name: str) -> str:
    """A name as it stands in a sentence or on an axis: `test_accuracy` is test accuracy."""
    return name.replace("_", " ")


def percent(fraction: float, *, signed: bool = False) -> str:
    """With two digits; what is rounded to nothing is not below it."""
    return f"{100 * fraction:{'+' * signed}z.2f}"


def p_words(p: float | None) -> str | None:
    """A p-value with two digits that count; None where there is none."""
    return None if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def interval_words(low: float | None, high: float | None, *, signed: bool = False) -> str | None:
    """An interval in per cent, such as `[93.10, 95.20]`; None where there is none. The sign of an end that is rounded
    to nothing tells on which side it lies."""
    if low is None or high is None:
        return None
    sign = "+" if signed else ""
    return f"[{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"


def runs_words(counts: Sequence[int]) -> str:
    """Such as n = 3 to 5."""
    return f"n = {min(counts)}" + (f" to {max(counts)}" if min(counts) < max(counts) else "")


def some(values: Sequence[str], separator: str = ", ") -> str:
    """The first of many, and how many more there are."""
    shown = separator.join(values[:MAX_SHOWN])
    return shown + (f" and {len(values) - MAX_SHOWN} more" if len(values) > MAX_SHOWN else "")
