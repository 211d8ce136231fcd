"""What a study answers, in sentences built from the numbers alone, and what a reader must know about them.

What is resolved is better or worse by so much; nothing is called equal but within a margin that the study set.
"""

import functools
from collections.abc import Sequence

from normlab.sensitivity import SensitivityContrast, sensitivity_contrasts
from normlab.stats import Difference
from normlab.table import ContrastRecord, StudyTable
from normlab.wording import (
    MAX_SHOWN,
    axis_unit,
    best_words,
    interval_words,
    number,
    percent,
    plain_interval,
    runs_words,
    seeds_words,
    some,
    words,
)

VERDICTS = ("better", "worse", "equivalent", "not resolved", "n too small to say", "no spread", "same trials")
MAX_LINES = 4  # chosen: pairs of lines that are all put into words
MADE_BY = ("normlab_version", "commit", "torch", "device", "gpu", "processor")  # of which a study should have one each


def answers(table: StudyTable) -> list[str]:
    """The answer, a sentence for each pair of levels that was compared, built from the numbers alone: what was planned
    first, then how lines over a numeric factor differ, then the rest."""
    groups: dict[tuple[str, str, str, str], list[ContrastRecord]] = {}
    for record in table.contrasts:
        contrast = record.contrast
        pair = (contrast.factor, contrast.first.levels[contrast.factor], contrast.second.levels[contrast.factor])
        groups.setdefault((*pair, contrast.best or ""), []).append(record)
    if groups:
        start = words(table.metric).capitalize()
        sentences: dict[bool, list[str]] = {True: [], False: []}  # by whether they were planned
        for key, group in groups.items():
            where = _one_place(table, group) + _at_best(key[3], group)
            sentence = _group_sentence(f"{start}, {words(key[0])}{where}{':' * bool(where)} ", key[:3], group)
            sentences[any(record.contrast.planned for record in group)].append(sentence)
        return sentences[True] + _line_sentences(table) + sentences[False]
    means = [(arm.arm.label, arm.mean) for arm in table.arms if arm.mean]
    return [
        f"{label}: {words(table.metric)} {percent(mean.mean)} %"
        + (f" {interval_words(mean.low, mean.high)}" if mean.low is not None else ", without an interval")
        + f" at n = {mean.n}."
        for label, mean in means
    ] or ["No trial is finished yet."]


def _line_sentences(table: StudyTable) -> list[str]:
    """How lines over a numeric factor differ; of many, those of which an interval says that they do."""
    pairs = sensitivity_contrasts(table)
    if len(pairs) <= MAX_LINES:
        return [_line_sentence(table, pair) for pair in pairs]
    told = [pair for pair in pairs if _sign(pair.width) or _sign(pair.area)]
    return [
        f"Over numeric factors, {len(told) or 'none'} of {len(pairs)} pairs of lines have an interval without 0, of "
        "their usable ranges or their heights; these are not corrected, and of so many some would by chance.",
        *(_line_sentence(table, pair) for pair in told),
    ]


def _line_sentence(table: StudyTable, pair: SensitivityContrast) -> str:
    """Two lines over a numeric factor in words: how much wider one's usable range is, and how much higher it lies."""
    runs = runs_words([pair.area.n_first, pair.area.n_second])
    unit, interval = axis_unit(pair.log, pair.factor), plain_interval(pair.width.low, pair.width.high, signed=True)
    width = f"{number(pair.width.difference, signed=True)} {f'{interval} ' if interval else ''}{unit}"
    interval = interval_words(pair.area.low, pair.area.high, signed=True)
    height = f"{percent(pair.area.difference, signed=True)} points{f' {interval}' if interval else ''}"
    return (
        f"Over {words(pair.factor)}, {pair.label} ({runs}; exploratory, not corrected): usable range (within "
        f"{table.study.usable_within:g} points of the best{', as far as was tried' * pair.is_cut}) "
        f"{_direction(pair.width, 'wider', 'narrower')}: {width}; {words(table.metric)} on average "
        f"{_direction(pair.area, 'higher', 'lower')}: {height}."
    )


def _direction(difference: Difference, more: str, less: str) -> str:
    """What an interval says of a difference."""
    words_of = {None: "cannot be said to differ", 0: "is not resolved", 1: f"is {more}", -1: f"is {less}"}
    return words_of[_sign(difference)]


def _sign(difference: Difference) -> int | None:
    """Of all that an interval holds; 0 where it holds 0, None where it is none or a point."""
    low, high = difference.low, difference.high
    return None if low is None or high is None or low == high else (low > 0) - (high < 0)


def _one_place(table: StudyTable, group: Sequence[ContrastRecord]) -> str:
    """Where a contrast stands that stands alone, by the factors that have other levels."""
    several = [factor.name for factor in table.study.factors if len(factor.levels) > 1]
    place = group[0].contrast.place.items() if len(group) == 1 else ()
    found = ", ".join(f"{words(factor)} {level}" for factor, level in place if factor in several)
    return f" at {found}" if found else ""


def _at_best(factor: str, group: Sequence[ContrastRecord]) -> str:
    if not factor:
        return ""
    return f", each at its own best {words(factor)}{best_words(group[0]) if len(group) == 1 else ''}"


def _group_sentence(start: str, pair: tuple[str, str, str], group: Sequence[ContrastRecord]) -> str:
    if len(group) == 1:
        return f"{start}{_sentence(group[0])}."
    by_verdict: dict[str, list[ContrastRecord]] = {}
    for record in sorted(group, key=lambda record: VERDICTS.index(record.verdict)):
        margin = f" within ±{100 * (record.contrast.margin or 0):g} points" if record.verdict == "equivalent" else ""
        by_verdict.setdefault(record.verdict + margin, []).append(record)
    parts = []
    for verdict, found in by_verdict.items():
        places = "each" if MAX_SHOWN < len(found) == len(group) else _places(found)
        parts.append(f"{verdict} at {places}{_extreme(found)}")
    return f"{start}{pair[1]} against {pair[2]} at {len(group)} settings: {'; '.join(parts)}."


def _sentence(record: ContrastRecord) -> str:
    """One contrast in words, with its interval and both numbers of runs."""
    contrast, difference = record.contrast, record.difference
    first, second = (arm.levels[contrast.factor] for arm in (contrast.first, contrast.second))
    counts = f"n = {len(record.first.scores)} and {len(record.second.scores)}{_diverged([record])}"
    if record.same_trials:
        return f"{first} and {second} are the same trials; the setting has no effect beside the others"
    if difference is None and contrast.best:
        return (
            f"{first} against {second} cannot be said: half of the seeds choose the levels, the others count ({counts})"
        )
    if difference is None:
        return f"{first} against {second} cannot be said yet ({counts})"
    points = f"{100 * abs(difference.difference):.2f} points"
    interval = interval_words(difference.low, difference.high, signed=True)
    match record.verdict:
        case "better" | "worse" as direction:
            return f"{first} is {direction} than {second} by {points} {interval} ({counts})"
        case "equivalent":
            margin = 100 * (contrast.margin or 0)
            return f"{first} and {second} are equivalent within ±{margin:g} points {interval} ({counts})"
        case "not resolved":
            signed = f"{percent(difference.difference, signed=True)} points"
            settle = f"; {seeds_words(record.seeds)} seeds would settle it" if record.seeds else ""
            return f"{first} against {second} is not resolved at {counts}: {signed} {interval}{settle}"
        case "no spread":
            return f"{first} against {second} cannot be said: neither arm has any spread to go by ({counts})"
    return f"{first} against {second} cannot be said: n is too small ({counts})"


def _diverged(records: Sequence[ContrastRecord]) -> str:
    """How many runs of either side diverged, where any did."""
    first, second = (sum(r.first.count("diverged") for r in records), sum(r.second.count("diverged") for r in records))
    return f", of which {first} and {second} diverged" if first or second else ""


def _places(records: Sequence[ContrastRecord]) -> str:
    """Where the contrasts hold, such as `learning_rate 0.05, 0.1`."""
    others = [list(record.contrast.place.items()) for record in records]
    if all(len(levels) == 1 for levels in others):
        return f"{words(others[0][0][0])} {some([levels[0][1] for levels in others])}"
    return some([" ".join(f"{words(f)} {v}" for f, v in levels) for levels in others], "; ")


def _extreme(records: Sequence[ContrastRecord]) -> str:
    """The largest difference of a group with its interval, or the numbers of runs of one that is not resolved."""
    runs = runs_words([n for r in records for n in (len(r.first.scores), len(r.second.scores))]) + _diverged(records)
    if records[0].verdict not in ("better", "worse"):
        needs = [record.seeds for record in records if record.seeds is not None]
        if not needs:
            return f" ({runs})"
        least, most = seeds_words(min(needs)), seeds_words(max(needs))
        of = f"of {len(needs)} of them " if len(needs) < len(records) else ""
        whom = "it" if len(records) == 1 else "each"
        settled = f"settle {whom}" if least == most else f"settle the easiest, {most} the hardest"
        return f" ({runs}; {of}{least} seeds would {settled})"
    largest = max((r.difference for r in records if r.difference), key=lambda d: abs(d.difference))
    interval = interval_words(largest.low, largest.high, signed=True)
    by = "by" if len(records) == 1 else "by up to"
    return f" ({by} {percent(abs(largest.difference))} points {interval}; {runs})"


@functools.lru_cache(maxsize=4)  # the page and its Markdown ask for it
def caveat(table: StudyTable) -> str:
    """What a reader must know about the intervals."""
    planned = any(record.contrast.planned for record in table.contrasts)
    found = [record.difference for record in table.contrasts if record.difference is not None]
    found += [difference for pair in sensitivity_contrasts(table) for difference in (pair.width, pair.area)]
    paired = any(difference.method == "paired t" for difference in found)
    how = "Welch's for differences, paired where the table says so" if paired else "Welch's for differences"
    text = f"Intervals are {table.level:.0%} t intervals over seeds ({how})"
    if table.progress is not None:
        text += (
            f", not adjusted for the looks; better and worse keep an error rate of {100 * (1 - table.level):.3g} % "
            "over all looks and contrasts (alpha spending after Lan and DeMets, Holm's procedure group by group)"
        )
        if any(record.contrast.margin for record in table.contrasts):
            text += ", equivalence, which is tested at the last look, one of its own"
    elif table.num_compared > 1:
        text += (
            f", each by itself; verdicts go by p-values corrected after Holm for the {table.num_compared} comparisons"
        )
    text += ". Not resolved means that these runs cannot tell, not that there is no difference."
    if any(record.seeds for record in table.contrasts):
        text += (
            " Numbers of seeds that would settle something are for a power of 0.8, if differences and spreads are as "
            "these runs have them; seeds added by hand after this look do not keep the error rate (seeds: N..MAX does)."
        )
    if any(arm.count("diverged") for arm in table.arms):
        text += " Runs that diverged count as chance: an interval over such and others is a rough guide."
    ends = [end for arm in table.arms if arm.mean for end in (arm.mean.low, arm.mean.high) if end is not None]
    if ends and not 0 <= min(ends) <= max(ends) <= 1:
        text += " Where few runs lie far apart, an interval reaches beyond what an accuracy can be."
    if table.progress is None and len({len(arm.scores) for arm in table.arms}) > 1:
        text += (
            " Arms have different numbers of runs: where some were added because something was open, these verdicts do "
            "not keep their error rate (seeds: N..MAX does)."
        )
    if table.contrasts and not planned:
        text += " All comparisons are exploratory: the study named none of them before it ran."
    if mixed := _mixed(table):
        text += f" The trials were not all made alike: {mixed}; what differs may be due to that."
    if table.study.dropped_contrasts:
        text += f" Planned, but not among these levels: {'; '.join(table.study.dropped_contrasts)}."
    return text


def remarks(table: StudyTable) -> list[str]:
    """What the runner had to say of the settings of what it trained, each once, with the arms that it is said of."""
    said: dict[str, dict[str, None]] = {}
    known = {arm.arm.label for arm in table.arms if any(record.result for record in arm.trials)}
    for arm in table.arms:
        for record in arm.trials:
            found = record.result.provenance.get("remarks") if record.result is not None else None
            for remark in found if isinstance(found, list) else ():
                said.setdefault(str(remark), {})[arm.arm.label] = None
    return [
        remark + (f" ({some(list(labels), '; ')})" if labels.keys() < known else "") for remark, labels in said.items()
    ]


def _mixed(table: StudyTable) -> str:
    """What differs between the trials of where and by what they were made, in words."""
    sources = [record.result.provenance for record in table.records().values() if record.result is not None]
    found = {key: {str(one[key]) for one in sources if one.get(key)} for key in MADE_BY}
    return "; ".join(f"{words(key)} {some(sorted(values))}" for key, values in found.items() if len(values) > 1)
