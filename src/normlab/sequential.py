"""Looking at a study more than once: nominal levels that keep the error rate over all looks, and Holm's procedure
with them. Pure functions.

A study that adds seeds until something is resolved tests again and again; at the usual level each time, equal arms
would be called different far more often than 5 times in 100. Alpha spending (Lan & DeMets 1983) gives each look its
share; the group sequential Holm procedure (Ye, Li, Liu & Yao 2013; Maurer & Bretz 2013) spends it over several
contrasts.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from normlab import special
from normlab.stats import Difference, compare, t_test_p

GRID = 801  # points of the numerical integration


@functools.cache
def nominal_levels(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """Two-sided p below which a contrast is resolved at each look, for runs an arm at the `looks`, the last of which is
    the most there will be. The chance that equal arms are ever called different is `alpha`.

    Pocock-type spending, α ln(1 + (e − 1) t) with t the share of the runs (Lan & DeMets 1983), by recursive numerical
    integration (Armitage, McPherson & Rowe 1969). The levels are those of normal statistics; t tests use them for their
    p (as Pocock 1977, section 4, does).
    """
    if not looks or list(looks) != sorted(set(looks)) or looks[0] < 2 or not 0 < alpha < 1:
        raise ValueError(f"looks {looks} at alpha {alpha}; allowed: rising numbers of runs from 2 on, alpha in (0, 1)")
    shares = np.array(looks) / looks[-1]
    spent = alpha * np.log(1 + (math.e - 1) * shares)
    levels: list[float] = []
    points, density, before = np.zeros(1), np.ones(1), 0.0  # of the score at the last look, had it not stopped
    for share, budget in zip(shares, np.diff(spent, prepend=0.0), strict=True):
        spread = math.sqrt(share - before)
        low, high = 0.0, 40.0
        for _ in range(60):  # the critical value, by bisection
            middle = (low + high) / 2
            outside = 2 * float(density @ special.ndtr((points - middle * math.sqrt(share)) / spread))
            low, high = (middle, high) if outside > budget else (low, middle)
        critical = (low + high) / 2
        levels.append(float(2 * special.ndtr(-critical)))
        edge = critical * math.sqrt(share)
        grid = np.linspace(-edge, edge, GRID)
        weights = np.full(GRID, grid[1] - grid[0])
        weights[[0, -1]] /= 2  # trapezoids
        steps = (grid[:, None] - points) / spread
        density = weights * (np.exp(-0.5 * steps**2) @ density) / (spread * math.sqrt(2 * math.pi))
        points, before = grid, share
    return tuple(levels)


def sequential_holm(
    p_values: Mapping[str, float | None], look: int, looks: Sequence[int], *, alpha: float = 0.05
) -> set[str]:
    """Which of the contrasts still open are resolved at this look, given by its index, by their two-sided p.

    What was resolved at earlier looks is not among `p_values`, and stays resolved; its share of alpha goes to the rest.
    """
    resolved: set[str] = set()
    open_tests = sorted((p, name) for name, p in p_values.items() if p is not None)
    remaining = len(p_values)
    for p, name in open_tests:
        if p >= nominal_levels(tuple(looks), alpha / remaining)[look]:
            break
        resolved.add(name)
        remaining -= 1
    return resolved


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """When a contrast was resolved, by which p, and the level that it was below."""

    runs: int
    p: float
    higher: bool  # the first arm


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study that adds seeds is: runs that each arm should have, what is resolved, and what is open."""

    runs: Mapping[str, int]  # by arm
    resolved: Mapping[str, Resolution]  # by contrast
    open: tuple[str, ...]
    runs_now: int  # of the arms of open contrasts
    is_done: bool


def follow(
    looks: Sequence[int],
    pairs: Mapping[str, tuple[str, str]],
    scores: Mapping[str, Sequence[float | None]],
    *,
    alpha: float = 0.05,
) -> Progress:
    """Plays the looks again from what there is: the arms' scores in the order of their seeds, None where one is still
    missing, and the two arms of each contrast. Every arm begins with the runs of the first look; those of contrasts
    that are open get the runs of the next. The same scores always give the same answer."""
    runs = dict.fromkeys(scores, looks[0])
    resolved: dict[str, Resolution] = {}
    open_contrasts = list(pairs)
    for look, count in enumerate(looks):
        for arm in {arm for name in open_contrasts for arm in pairs[name]}:
            runs[arm] = count
        present = {arm: [score for score in scores[arm][: runs[arm]] if score is not None] for arm in runs}
        if any(len(present[arm]) < runs[arm] for arm in runs):
            return Progress(runs=runs, resolved=resolved, open=tuple(open_contrasts), runs_now=count, is_done=False)
        differences = {name: _difference(*(scores[arm][:count] for arm in pairs[name])) for name in open_contrasts}
        p_values = {name: t_test_p(difference) for name, difference in differences.items()}
        for name in sequential_holm(p_values, look, looks, alpha=alpha):
            p = p_values[name]
            assert p is not None
            resolved[name] = Resolution(runs=count, p=p, higher=differences[name].difference > 0)
            open_contrasts.remove(name)
        if not open_contrasts:
            break
    return Progress(runs=runs, resolved=resolved, open=tuple(open_contrasts), runs_now=count, is_done=True)


def _difference(first: Sequence[float | None], second: Sequence[float | None]) -> Difference:
    a, b = ({i: score for i, score in enumerate(arm) if score is not None} for arm in (first, second))
    return compare(a, b)
