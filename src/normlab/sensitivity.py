"""How an answer depends on a numeric factor, such as the learning rate: best level, usable range, area under the curve.

A seed that was run at every level gives one whole curve of its own. The usable range and the area are computed for
each such curve, and their intervals are t intervals over these curves: nothing is assumed of how levels move together.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normlab.grid import numeric_levels
from normlab.stats import Difference, Mean, compare, mean_interval, not_worse_than_best
from normlab.table import ArmRecord, StudyTable

WIDE = 10.0  # a factor whose levels span more than this ratio is seen on a log axis
Others = tuple[tuple[str, str], ...]  # the levels of the other factors


@dataclass(frozen=True, kw_only=True)
class Range:
    """The stretch of an axis in which a curve is usable, at most `within` below its best; `open_low` and `open_high`
    where it reaches the end of what was tried, so that it may go on beyond."""

    low: float
    high: float
    open_low: bool
    open_high: bool


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """One line over a numeric factor: the arms that differ in its level alone.

    `best` is the level with the highest mean, `best_low` to `best_high` spans the levels that are not shown to be worse
    than another (see `stats.not_worse_than_best`). `usable` is that of the mean curve; `widths` are those of each
    seed's own curve (see `own_ranges`), `is_cut` where one of those reaches the end of what was tried, and `width`
    their mean, in factors of ten on a log axis. `areas` are the heights of the seeds' curves averaged over the axis,
    fractions of 1, and `area` is their mean. None without a curve of one seed.
    """

    factor: str
    others: Others
    log: bool
    levels: tuple[float, ...]
    n: int
    best: float
    best_low: float
    best_high: float
    usable: Range
    widths: Mapping[int, float]
    is_cut: bool
    width: Mean
    areas: Mapping[int, float]
    area: Mean


@dataclass(frozen=True, kw_only=True)
class SensitivityContrast:
    """Two lines over one numeric factor, the first minus the second; always exploratory. `is_cut` where a range
    of a seed reaches the end of what was tried, so that its width is that of its part in it."""

    factor: str
    label: str
    width: Difference
    area: Difference
    log: bool
    is_cut: bool


@functools.lru_cache(maxsize=4)  # a report asks again and again
def sensitivities(table: StudyTable) -> tuple[Sensitivity, ...]:
    """One for each line over each numeric factor with at least three levels, where a seed was run at all of them."""
    found = []
    for factor in table.study.factors:
        levels = numeric_levels(factor)
        if len(levels) < 3:
            continue
        lines: dict[Others, dict[float, ArmRecord]] = {}
        for arm in table.arms:
            others = tuple((f, level) for f, level in arm.arm.levels.items() if f != factor.name)
            lines.setdefault(others, {})[levels[arm.arm.levels[factor.name]]] = arm
        for others, line in lines.items():
            if len(line) == len(levels) and (one := _sensitivity(table, factor.name, others, line)):
                found.append(one)
    return tuple(found)


def _sensitivity(table: StudyTable, factor: str, others: Others, line: Mapping[float, ArmRecord]) -> Sensitivity | None:
    levels = sorted(line)
    scores = [line[level].scores for level in levels]
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in scores)))
    if not seeds:
        return None
    log = is_log(levels)
    places = [math.log10(level) for level in levels] if log else list(levels)
    curves = {seed: [by_seed[seed] for by_seed in scores] for seed in seeds}
    means = [float(np.mean(heights)) for heights in zip(*curves.values(), strict=True)]
    within = table.study.usable_within / 100
    kept = not_worse_than_best([[curves[seed][i] for seed in seeds] for i in range(len(levels))], level=table.level)
    ranges = own_ranges(places, curves, within)
    widths = {seed: found.high - found.low for seed, found in ranges.items()}
    width = mean_interval(list(widths.values()), level=table.level)
    if width.low is not None and width.high is not None:  # no width lies beyond these
        width = replace(width, low=max(width.low, 0.0), high=min(width.high, places[-1] - places[0]))
    areas = dict(zip(seeds, mean_height(places, list(curves.values())).tolist(), strict=True))
    usable = usable_range(places, means, within)
    return Sensitivity(
        factor=factor,
        others=others,
        log=log,
        levels=tuple(levels),
        n=len(seeds),
        best=levels[int(np.argmax(means))],
        best_low=min(level for level, keep in zip(levels, kept, strict=True) if keep),
        best_high=max(level for level, keep in zip(levels, kept, strict=True) if keep),
        usable=Range(
            low=levels[0] if usable.open_low else 10**usable.low if log else usable.low,  # not but for rounding
            high=levels[-1] if usable.open_high else 10**usable.high if log else usable.high,
            open_low=usable.open_low,
            open_high=usable.open_high,
        ),
        widths=widths,
        is_cut=any(found.open_low or found.open_high for found in ranges.values()),
        width=width,
        areas=areas,
        area=mean_interval(list(areas.values()), level=table.level),
    )


@functools.lru_cache(maxsize=4)
def sensitivity_contrasts(table: StudyTable) -> tuple[SensitivityContrast, ...]:
    """Width and area of any two lines that a contrast of the study compares level by level; not of one with `best`,
    whose arms stand at levels that were chosen for them."""
    lines = sensitivities(table)
    by_place = {(line.factor, frozenset(line.others)): line for line in lines}
    found: dict[tuple[str, str], SensitivityContrast] = {}
    for record in table.contrasts:
        contrast = record.contrast
        if record.same_trials or contrast.best is not None:
            continue
        for factor in dict.fromkeys(line.factor for line in lines):
            if factor == contrast.factor:
                continue
            first, second = (
                by_place.get((factor, frozenset((f, v) for f, v in arm.levels.items() if f != factor)))
                for arm in (contrast.first, contrast.second)
            )
            if first is not None and second is not None:
                label = contrast.label_without(factor)
                found[factor, label] = SensitivityContrast(
                    factor=factor,
                    label=label,
                    width=compare(first.widths, second.widths, level=table.level),
                    area=compare(first.areas, second.areas, level=table.level),
                    log=first.log,
                    is_cut=first.is_cut or second.is_cut,
                )
    return tuple(found.values())


def is_log(levels: Sequence[float]) -> bool:
    """Whether levels belong on a log axis: all positive, and more than a factor of ten apart."""
    return min(levels) > 0 and max(levels) / min(levels) > WIDE


def usable_range(
    places: Sequence[float], heights: Sequence[float], within: float, *, around: int | None = None
) -> Range:
    """The stretch around a curve's highest point, or around the point of that number, in which it stays at most
    `within` below it, straight lines between the points; `places` ascend."""
    top = int(np.argmax(heights)) if around is None else around
    floor = heights[top] - within
    ends, is_open = [], []
    for step in (-1, 1):
        i = top
        while 0 <= i + step < len(heights) and heights[i + step] >= floor:
            i += step
        if not 0 <= i + step < len(heights):
            ends.append(places[i])
            is_open.append(True)
        else:
            share = (heights[i] - floor) / (heights[i] - heights[i + step])
            ends.append(places[i] + share * (places[i + step] - places[i]))
            is_open.append(False)
    return Range(low=ends[0], high=ends[1], open_low=is_open[0], open_high=is_open[1])


def own_ranges(places: Sequence[float], curves: Mapping[int, Sequence[float]], within: float) -> dict[int, Range]:
    """Each seed's own usable range, around the level that is best on average. Around a seed's own best level, which is
    part luck, ranges come out too narrow, however many seeds there are."""
    top = int(np.argmax(np.mean(list(curves.values()), axis=0)))
    return {seed: usable_range(places, heights, within, around=top) for seed, heights in curves.items()}


def mean_height(places: Sequence[float], heights: ArrayLike) -> NDArray[np.float64]:
    """Area under curves of straight lines divided by the length of their axis: the mean height over what was tried.

    `heights` has a curve's values in its last dimension; the result has the others.
    """
    area: NDArray[np.float64] = np.trapezoid(np.asarray(heights, dtype=float), np.array(places), axis=-1)
    return area / (places[-1] - places[0])
