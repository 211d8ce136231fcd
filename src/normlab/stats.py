"""Statistics of runs that differ only by seed: pure functions on arrays, each with its method and source.

Scores go in as fractions of 1, and fractions come out. An interval is None where the data give none: with one run, or
with no spread at all. Nothing here decides what a trial counts for, but for `score`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from normlab import special

LEVEL = 0.95  # chosen: the convention of the field
MAX_SEEDS = 10_000  # of an estimate: more than anyone will run

MIN_PAIRS, PAIRING_ALPHA = 5, 0.01  # of `compare`: when seeds are paired
FAR = 35.0  # standard errors beyond which the noncentral t is not computed but approximated
MIN_BOOTSTRAP = 10  # runs: a percentile bootstrap's 95 % interval covers 76, 84 and 90 % at n = 3, 5 and 10

Verdict = Literal["better", "worse", "equivalent", "not resolved", "n too small to say", "no spread"]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with its interval. `sd` is None with one run; `low` and `high` are None where there is no interval."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    level: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of the first arm minus mean of the second. `low` and `high` are None where there is no interval."""

    n_first: int
    n_second: int
    difference: float
    standard_error: float | None
    degrees_of_freedom: float | None
    low: float | None
    high: float | None
    level: float
    method: str


@dataclass(frozen=True, kw_only=True)
class SharedSeeds:
    """How two arms move together over the seeds they share. `correlation` is None where it is not defined."""

    n: int
    correlation: float | None


@dataclass(frozen=True, kw_only=True)
class Superiority:
    """P(A > B) over n pairs of runs, with its interval."""

    n: int
    probability: float
    low: float
    high: float
    level: float


def score(value: float, *, diverged: bool, num_classes: int) -> float:
    """What a trial counts for: its accuracy, or chance, 1 / num_classes, where it diverged. It is never dropped."""
    return 1.0 / num_classes if diverged else value


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> Mean:
    """Mean, sample standard deviation (n − 1) and Student's t interval of n ≥ 1 independent runs.

    mean ± t(n − 1) · sd / √n (Student 1908). There is no interval for one run, nor for runs without any spread: one of
    zero width would claim a certainty that n runs cannot give. A percentile bootstrap would under-cover: 76 % at n = 3.
    """
    _checked_level(level)
    n, mean, sd = _moments(values)
    if not sd:
        return Mean(n=n, mean=mean, sd=sd, low=None, high=None, level=level)
    half = _t_quantile(level, n - 1) * sd / n**0.5
    return Mean(n=n, mean=mean, sd=sd, low=mean - half, high=mean + half, level=level)


def welch_difference(first: Sequence[float], second: Sequence[float], *, level: float = LEVEL) -> Difference:
    """Difference of two means with Welch's t interval, which lets the arms' variances and numbers of runs differ.

    Standard error √(s₁²/n₁ + s₂²/n₂), degrees of freedom of Welch (1947) and Satterthwaite (1946). No interval where an
    arm has one run, or where neither has any spread. Seeds are not paired (see `shared_seeds`).
    """
    _checked_level(level)
    return _welch(_moments(first), _moments(second), level)


Moments = tuple[int, float, float | None]  # runs, their mean and standard deviation


def _moments(values: Sequence[float]) -> Moments:
    x = _checked(values)
    return len(x), _mean(x), _sd(x)


def _welch(first: Moments, second: Moments, level: float) -> Difference:
    (n_first, mean_first, sd_first), (n_second, mean_second, sd_second) = first, second
    difference = mean_first - mean_second
    error = freedom = half = None
    if sd_first is not None and sd_second is not None:
        error = float(np.hypot(sd_first / n_first**0.5, sd_second / n_second**0.5))
    if error and sd_first is not None and sd_second is not None:
        # As shares of the squared error, so that no power of a tiny spread underflows.
        share_first = (sd_first / n_first**0.5 / error) ** 2
        share_second = (sd_second / n_second**0.5 / error) ** 2
        freedom = 1 / (share_first**2 / (n_first - 1) + share_second**2 / (n_second - 1))
        half = _t_quantile(level, freedom) * error
    return Difference(
        n_first=n_first,
        n_second=n_second,
        difference=difference,
        standard_error=error,
        degrees_of_freedom=freedom,
        low=None if half is None else difference - half,
        high=None if half is None else difference + half,
        level=level,
        method="Welch t",
    )


def paired_difference(first: Mapping[int, float], second: Mapping[int, float], *, level: float = LEVEL) -> Difference:
    """Mean difference over the seeds that both arms have, scores by seed, with the t interval of the n differences
    (Student 1908). No interval with one shared seed, nor where all differences are equal, but for rounding. Raises
    ValueError without a shared seed."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError("the arms share no seed; allowed: at least one")
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    rounding = 4 * np.finfo(float).eps * max(abs(arm[seed]) for arm in (first, second) for seed in seeds)
    if np.ptp(differences) <= rounding:
        differences[:] = differences[0]
    mean = mean_interval(differences.tolist(), level=level)
    return Difference(
        n_first=mean.n,
        n_second=mean.n,
        difference=mean.mean,
        standard_error=None if mean.sd is None else mean.sd / mean.n**0.5,
        degrees_of_freedom=mean.n - 1 if mean.low is not None else None,
        low=mean.low,
        high=mean.high,
        level=level,
        method="paired t",
    )


def compare(first: Mapping[int, float], second: Mapping[int, float], *, level: float = LEVEL) -> Difference:
    """The difference of two arms, scores by seed: paired over seeds that are shown to move together, else Welch's.

    The rule is fixed before the data: seeds are paired if both arms have the same ones, at least five, and their
    correlation is above 0 by a one-sided test at 0.01. Choosing whatever interval is tighter would be wrong in 6.7 % of
    comparisons of equal, independent arms at n = 5; this rule is in 4.8 to 5.2 % at n = 5, 10 and 20 (simulated).
    """
    shared = shared_seeds(first, second)
    if first.keys() == second.keys() and is_pairing_shown(shared):
        paired = paired_difference(first, second, level=level)
        if paired.low is not None:  # not where all differences are the same
            return paired
    return welch_difference(list(first.values()), list(second.values()), level=level)


def is_pairing_shown(shared: SharedSeeds) -> bool:
    """Whether arms move together over their seeds: correlation above 0 by the one-sided t test of Pearson's r."""
    if shared.n < MIN_PAIRS or shared.correlation is None:
        return False
    t = _t_quantile(1 - 2 * PAIRING_ALPHA, shared.n - 2)
    return bool(shared.correlation > t / (shared.n - 2 + t**2) ** 0.5)


def superiority(first: Mapping[int, float], second: Mapping[int, float], *, level: float = LEVEL) -> Superiority | None:
    """P(A > B): how often a run of the first arm beats one of the second, over the seeds they share, ties as half.

    The interval is that of Clopper & Pearson (1934) for the wins among the pairs, exact for independent seeds; ties
    count against its lower end and for its upper. None without a shared seed.
    """
    _checked_level(level)
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    n, wins = len(seeds), sum(first[seed] > second[seed] for seed in seeds)
    ties, tail = sum(first[seed] == second[seed] for seed in seeds), (1 - level) / 2
    low = float(special.betaincinv(wins, n - wins + 1, tail)) if wins else 0.0
    high = float(special.betaincinv(wins + ties + 1, n - wins - ties, 1 - tail)) if wins + ties < n else 1.0
    return Superiority(n=n, probability=(wins + ties / 2) / n, low=low, high=high, level=level)


def shared_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> SharedSeeds:
    """Pearson's correlation of two arms over the seeds both have, scores by seed; from three shared seeds on.

    One bit of difference gives full churn (Summers & Dinneen 2021), so little correlation is to be expected, and as
    much as `compare` asks for is rare.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 3:  # two points always lie on a line
        return SharedSeeds(n=len(seeds), correlation=None)
    x, y = np.array([first[s] for s in seeds]), np.array([second[s] for s in seeds])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return SharedSeeds(n=len(seeds), correlation=None)
    return SharedSeeds(n=len(seeds), correlation=float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1)))


def verdict(
    difference: Difference, corrected_p: float | None = None, corrected_equivalence_p: float | None = None
) -> Verdict:
    """What an interval, and p-values corrected for the number of comparisons if there are any, allow to be said.

    `corrected_equivalence_p` is that of `equivalence_p`, where a margin was set. Arms within it are equivalent even if
    the small difference between them is resolved: the margin says what is too small to matter. Without a margin
    nothing is ever called equal; not resolved means that these runs cannot tell.
    """
    if min(difference.n_first, difference.n_second) < 2:
        return "n too small to say"
    if difference.low is None or difference.high is None:
        return "no spread"
    alpha = 1 - difference.level
    if corrected_equivalence_p is not None and corrected_equivalence_p < alpha:
        return "equivalent"
    if difference.low <= 0 <= difference.high or (corrected_p is not None and corrected_p >= alpha):
        return "not resolved"
    return "better" if difference.low > 0 else "worse"


def t_test_p(difference: Difference) -> float | None:
    """Two-sided p of the t test that the means are equal, by the difference's own method; None where there is no
    interval either."""
    if not difference.standard_error or difference.degrees_of_freedom is None:
        return None
    return 2 * _t_tail(abs(difference.difference) / difference.standard_error, difference.degrees_of_freedom)


def equivalence_p(difference: Difference, margin: float) -> float | None:
    """p of two one-sided t tests (Schuirmann 1987) that the means differ by `margin` or more, either way. Small: they
    are equivalent within the margin. None where there is no interval."""
    if margin <= 0:
        raise ValueError(f"margin {margin}: allowed: above 0")
    if not difference.standard_error or difference.degrees_of_freedom is None:
        return None
    nearest = margin - abs(difference.difference)
    return _t_tail(nearest / difference.standard_error, difference.degrees_of_freedom)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number by Holm's step-down method (1979), in the order given. The error rate over
    the whole family is that of one test. None, a test that cannot be made, or not yet, stays None and counts as one of
    the family: its size must not depend on the results."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        corrected[i] = highest
    return corrected


def seeds_needed(difference: Difference, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Runs an arm at which a two-sided t test at `alpha`, by this difference's own method, finds a difference as large
    as this one with probability `power` (noncentral t). None where there is no spread or no difference to go by; at
    most `MAX_SEEDS`. The estimate is as rough as the difference and the spread it is made of."""
    if not difference.standard_error or difference.degrees_of_freedom is None or not difference.difference:
        return None
    ratio, n = abs(difference.difference) / difference.standard_error, _runs(difference)
    freedom = difference.degrees_of_freedom / (n - 1)  # n − 1 of paired runs; of Welch's test up to twice as many
    return _smallest(lambda m: _power_of_t(ratio * (m / n) ** 0.5, freedom * (m - 1), alpha) >= power)


def seeds_for_equivalence(
    difference: Difference, margin: float, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Runs an arm at which two one-sided tests show equivalence within `margin` with probability `power`, if difference
    and variance are in truth these (normal approximation; Julious 2004, section 5). None where the difference is not
    within the margin, so that no number would."""
    if not difference.standard_error or abs(difference.difference) >= margin:
        return None
    runs, z = _runs(difference), special.ndtri(1 - alpha)
    size, standard_error = abs(difference.difference), difference.standard_error

    def found(m: int) -> float:
        error = standard_error * (runs / m) ** 0.5
        return float(special.ndtr((margin - size) / error - z) + special.ndtr((margin + size) / error - z) - 1)

    return _smallest(lambda m: found(m) >= power)


def smallest_difference(difference: Difference, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The difference that these runs, with this spread, would resolve with probability `power` in a two-sided t test
    at `alpha` by the same method (noncentral t); None where there is no spread. Less than it they would mostly miss."""
    if not difference.standard_error or difference.degrees_of_freedom is None:
        return None
    low, high = 0.0, 1e9  # in standard errors
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        found = _power_of_t(middle, difference.degrees_of_freedom, alpha) >= power
        low, high = (low, middle) if found else (middle, high)
    return high * difference.standard_error


def not_worse_than_best(arms: Sequence[Sequence[float]], *, level: float = LEVEL) -> list[bool]:
    """Which of several arms may have the highest mean: those that no other arm is shown to beat.

    The set holds the best arm with probability `level` at least: multiple comparisons with the best (Hsu 1984), by
    one-sided Welch tests at (1 − level) / (k − 1) (Bonferroni). An arm that cannot be tested stays in it.
    """
    _checked_level(level)
    moments = [_moments(arm) for arm in arms]
    differences = [[_welch(other, arm, level) for other in moments if other is not arm] for arm in moments]
    alpha = (1 - level) / max(len(arms) - 1, 1)
    return [all(_beaten_p(difference) >= alpha for difference in against) for against in differences]


def _beaten_p(difference: Difference) -> float:
    """One-sided p that the first mean is not higher; 1 where it cannot be tested."""
    if not difference.standard_error or difference.degrees_of_freedom is None:
        return 1.0
    return _t_tail(difference.difference / difference.standard_error, difference.degrees_of_freedom)


def bootstrap_interval(
    values: Sequence[float], *, level: float = LEVEL, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979). Below ten runs, where it under-covers: ValueError."""
    x = _checked(values)
    _checked_level(level)
    if len(x) < MIN_BOOTSTRAP:
        raise ValueError(
            f"a bootstrap of {len(x)} runs covers far less than {level:.0%}; allowed: at least {MIN_BOOTSTRAP}; "
            "write mean_interval, which holds its level for any number"
        )
    draws = np.random.default_rng(seed).choice(x, (resamples, len(x))).mean(axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def prediction_interval(mean: Mean) -> tuple[float, float] | None:
    """The t interval of one further run, mean ± t(n − 1) · sd · √(1 + 1/n); None where the mean has no interval. It is
    the one to hold a single published run against."""
    if not mean.sd or mean.low is None:
        return None
    half = _t_quantile(mean.level, mean.n - 1) * mean.sd * (1 + 1 / mean.n) ** 0.5
    return mean.mean - half, mean.mean + half


def wilson_interval(right: int, count: int, *, level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of Wilson (1927) for a share of which `right` of `count` were seen; None of nothing."""
    _checked_level(level)
    if not count:
        return None
    z = special.ndtri((1 + level) / 2)
    share, spread = right / count, z * z / count
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = ((share + spread / 2 + side * half) / (1 + spread) for side in (-1, 1))
    return float(low) if right else 0.0, float(high) if right < count else 1.0


def binomial_error(accuracy: float, num_test: int) -> float:
    """Standard error of an accuracy measured on `num_test` images drawn at random: √(p (1 − p) / n).

    It is the error of generalizing beyond this test set. All arms share the test images, so that it takes no part in
    a comparison of arms.
    """
    if not 0 <= accuracy <= 1 or num_test < 1:
        raise ValueError(
            f"accuracy {accuracy} on {num_test} images; allowed: an accuracy from 0 to 1, at least 1 image"
        )
    return float(np.sqrt(accuracy * (1 - accuracy) / num_test))


def divergence_p(diverged_first: int, n_first: int, diverged_second: int, n_second: int) -> float:
    """Two-sided p of Fisher's exact test (1922) that two arms diverge at one rate; 1 where none or all of them did."""
    if not (0 <= diverged_first <= n_first and 0 <= diverged_second <= n_second):
        raise ValueError(f"{diverged_first} of {n_first} and {diverged_second} of {n_second} runs cannot have diverged")
    diverged = diverged_first + diverged_second
    first = np.arange(max(0, diverged - n_second), min(diverged, n_first) + 1)  # of those, how many of the first arm
    ways = _log_choose(n_first, first) + _log_choose(n_second, diverged - first)
    chances = np.exp(ways - _log_choose(n_first + n_second, diverged))
    seen = chances[diverged_first - first[0]]
    return float(min(1.0, chances[chances <= seen * (1 + 1e-7)].sum()))  # ties in spite of rounding


def _log_choose(n: int, k: np.ndarray | int) -> np.ndarray:
    """The logarithm of the number of ways to take k of n."""
    return np.asarray(special.gammaln(n + 1) - special.gammaln(np.add(k, 1)) - special.gammaln(n - np.asarray(k) + 1))


def _checked(values: Sequence[float]) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"given {values!r}; allowed: one or more finite numbers")
    return x


def _checked_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level}: allowed: between 0 and 1, such as 0.95")


def _mean(x: np.ndarray) -> float:
    return float(x[0] if np.ptp(x) == 0 else x.mean())  # equal values stay exactly what they are


def _sd(x: np.ndarray) -> float | None:
    if len(x) < 2:
        return None
    return 0.0 if np.ptp(x) == 0 else float(x.std(ddof=1))


def _runs(difference: Difference) -> float:
    """Runs an arm: the harmonic mean of both, which the standard error goes by."""
    return 2 / (1 / difference.n_first + 1 / difference.n_second)


def _power_of_t(shift: float, freedom: float, alpha: float) -> float:
    """Power of a two-sided t test where the true difference is `shift` standard errors."""
    critical = special.stdtrit(freedom, 1 - alpha / 2)
    if shift > FAR:  # nctdtr fails there; beside so large a shift only the spread's own χ² is uncertain
        return float(special.chdtr(freedom, freedom * (shift / critical) ** 2))
    wrong_side = special.nctdtr(freedom, shift, -critical) if shift < 5 else 0.0  # nil beyond
    return float(1 - special.nctdtr(freedom, shift, critical) + wrong_side)


def _smallest(enough: Callable[[int], bool]) -> int:
    """The smallest number of runs from 2 to MAX_SEEDS that is enough, by bisection."""
    low, high = 2, MAX_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _t_tail(t: float, freedom: float) -> float:
    """P(T > t)."""
    return float(special.stdtr(freedom, -t))


def _t_quantile(level: float, freedom: float) -> float:
    # The quantile itself: stats.t.ppf is 100 times slower.
    return float(special.stdtrit(freedom, (1 + level) / 2))
