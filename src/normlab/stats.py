"""Statistics of runs that differ only by seed: pure functions on arrays, each with its method and source.

Scores go in as fractions of 1, and fractions come out. An interval is None where the data give none: with one run, or
with no spread at all. Nothing here decides what a trial counts for, but for `score`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special, stats

LEVEL = 0.95  # chosen: the convention of the field

Verdict = Literal["higher", "lower", "not resolved", "too few runs", "no spread"]


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


def score(value: float, *, diverged: bool, num_classes: int) -> float:
    """What a trial counts for: its accuracy, or chance, 1 / num_classes, where it diverged. It is never dropped."""
    return 1.0 / num_classes if diverged else value


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> Mean:
    """Mean, sample standard deviation (n − 1) and Student's t interval of n ≥ 1 independent runs.

    mean ± t(n − 1) · sd / √n (Student 1908). There is no interval for one run, nor for runs without any spread: one of
    zero width would claim a certainty that n runs cannot give. A percentile bootstrap would under-cover: 76 % at n = 3.
    """
    x = _checked(values)
    _checked_level(level)
    n, mean, sd = len(x), _mean(x), _sd(x)
    if not sd:
        return Mean(n=n, mean=mean, sd=sd, low=None, high=None, level=level)
    half = _t_quantile(level, n - 1) * sd / n**0.5
    return Mean(n=n, mean=mean, sd=sd, low=mean - half, high=mean + half, level=level)


def welch_difference(first: Sequence[float], second: Sequence[float], *, level: float = LEVEL) -> Difference:
    """Difference of two means with Welch's t interval, which lets the arms' variances and numbers of runs differ.

    Standard error √(s₁²/n₁ + s₂²/n₂), degrees of freedom of Welch (1947) and Satterthwaite (1946). No interval where an
    arm has one run, or where neither has any spread. Seeds are not paired (see `shared_seeds`).
    """
    x, y = _checked(first), _checked(second)
    _checked_level(level)
    n_first, n_second, difference = len(x), len(y), _mean(x) - _mean(y)
    sd_first, sd_second = _sd(x), _sd(y)
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


def shared_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> SharedSeeds:
    """Pearson's correlation of two arms over the seeds both have, scores by seed; from three shared seeds on.

    It is measured and reported. It does not choose between a paired and an unpaired interval: a choice made on the
    data that it then serves would not keep its error rate. One bit of difference gives full churn (Summers & Dinneen,
    2021), so little correlation is to be expected.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 3:  # two points always lie on a line
        return SharedSeeds(n=len(seeds), correlation=None)
    x, y = np.array([first[s] for s in seeds]), np.array([second[s] for s in seeds])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return SharedSeeds(n=len(seeds), correlation=None)
    return SharedSeeds(n=len(seeds), correlation=float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1)))


def verdict(difference: Difference) -> Verdict:
    """What an interval allows to be said. An interval that holds 0 resolves nothing; it never means 'equal'."""
    if min(difference.n_first, difference.n_second) < 2:
        return "too few runs"
    if difference.low is None or difference.high is None:
        return "no spread"
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else "not resolved"


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
    table = [[diverged_first, n_first - diverged_first], [diverged_second, n_second - diverged_second]]
    if min(map(min, table)) < 0:
        raise ValueError(f"{diverged_first} of {n_first} and {diverged_second} of {n_second} runs cannot have diverged")
    return float(stats.fisher_exact(table).pvalue)


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


def _t_quantile(level: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + level) / 2))  # the quantile itself: stats.t.ppf is 100 times slower
