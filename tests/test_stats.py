"""Statistics: equal to scipy and to worked examples, equivariant, and covering what they claim to cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from normlab.stats import (
    Difference,
    binomial_error,
    divergence_p,
    mean_interval,
    score,
    shared_seeds,
    verdict,
    welch_difference,
)

scores = st.lists(st.integers(0, 10_000).map(lambda k: k / 10_000), min_size=2, max_size=12)


def test_the_mean_interval_is_that_of_scipy() -> None:
    values = [0.912, 0.905, 0.917, 0.909]
    found = mean_interval(values, level=0.9)
    expected = scipy_stats.t.interval(0.9, 3, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert (found.n, found.mean, found.sd) == (4, pytest.approx(0.91075), pytest.approx(np.std(values, ddof=1)))


def test_the_mean_interval_of_1_2_3_is_the_one_worked_by_hand() -> None:
    # sd 1, t(2) at 97.5 % = 4.302653, so 2 ± 4.302653 / √3
    found = mean_interval([1, 2, 3])
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_one_run_has_a_mean_and_neither_spread_nor_interval() -> None:
    found = mean_interval([0.5])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, 0.5, None, None, None)


def test_runs_without_spread_have_no_interval_of_zero_width() -> None:
    found = mean_interval([0.1, 0.1, 0.1])
    assert (found.mean, found.sd, found.low, found.high) == (0.1, 0.0, None, None)


def test_the_difference_is_that_of_scipys_welch_test() -> None:
    first, second = [0.91, 0.93, 0.92, 0.95], [0.90, 0.89, 0.94]
    found = welch_difference(first, second)
    test = scipy_stats.ttest_ind(first, second, equal_var=False)
    expected = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert found.degrees_of_freedom == pytest.approx(test.df, rel=1e-10)
    assert (found.n_first, found.n_second, found.method) == (4, 3, "Welch t")


def test_an_arm_without_spread_leaves_the_difference_the_other_arms_freedom() -> None:
    found = welch_difference([0.95, 0.96, 0.97], [0.1, 0.1, 0.1])
    alone = mean_interval([0.95, 0.96, 0.97])
    assert found.degrees_of_freedom == pytest.approx(2)
    assert alone.low is not None
    assert found.low == pytest.approx(alone.low - 0.1)


@settings(deadline=None)  # other work on the machine is no fault
@given(scores, st.floats(-5, 5), st.floats(0.1, 10))
def test_shifting_and_scaling_runs_shifts_and_scales_their_interval(
    values: list[float], shift: float, scale: float
) -> None:
    before = mean_interval(values)
    after = mean_interval([scale * v + shift for v in values])
    if before.low is None or before.high is None:
        assert after.sd == pytest.approx(0, abs=1e-12)
        return
    assert after.low == pytest.approx(scale * before.low + shift, abs=1e-9)
    assert after.high == pytest.approx(scale * before.high + shift, abs=1e-9)


@settings(deadline=None)
@given(scores, scores)
def test_swapping_the_arms_negates_their_difference(first: list[float], second: list[float]) -> None:
    one, other = welch_difference(first, second), welch_difference(second, first)
    assert one.difference == -other.difference
    assert (one.low is None) == (other.low is None)
    if one.low is not None and other.high is not None:
        assert one.low == pytest.approx(-other.high, abs=1e-12)
    opposite = {"higher": "lower", "lower": "higher"}
    assert verdict(other) == opposite.get(verdict(one), verdict(one))


@settings(deadline=None)
@given(scores, scores, st.floats(-1, 1))
def test_shifting_both_arms_leaves_their_difference(first: list[float], second: list[float], shift: float) -> None:
    before = welch_difference(first, second)
    after = welch_difference([v + shift for v in first], [v + shift for v in second])
    assert after.difference == pytest.approx(before.difference, abs=1e-12)
    if before.standard_error:
        assert after.low == pytest.approx(before.low, abs=1e-7)


@settings(deadline=None)
@given(scores)
def test_an_interval_holds_its_mean_and_widens_with_its_level(values: list[float]) -> None:
    narrow, wide = mean_interval(values, level=0.8), mean_interval(values, level=0.99)
    if narrow.low is not None and wide.low is not None and narrow.high is not None and wide.high is not None:
        assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_of_few_normal_runs_cover_the_truth_as_often_as_they_claim(n: int) -> None:
    generator, repeats = np.random.default_rng(20240 + n), 4000
    runs = generator.normal(0.9, 0.003, (repeats, 2, n))
    hits = difference_hits = 0
    for first, second in runs:
        mean, difference = mean_interval(first), welch_difference(first, second)
        assert mean.low is not None
        assert mean.high is not None
        assert difference.low is not None
        assert difference.high is not None
        hits += mean.low <= 0.9 <= mean.high
        difference_hits += difference.low <= 0 <= difference.high
    error = math.sqrt(0.95 * 0.05 / repeats)
    assert abs(hits / repeats - 0.95) < 4 * error
    # Welch's interval errs on the safe side at such n, with equal variances by up to about two points.
    assert 0.95 - 4 * error < difference_hits / repeats < 0.98


def test_the_correlation_is_measured_over_shared_seeds_alone() -> None:
    first = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.35, 8: 0.9}
    second = {0: 0.2, 1: 0.4, 2: 0.5, 3: 0.9, 7: 0.0}
    found = shared_seeds(first, second)
    assert found.n == 4
    expected = scipy_stats.pearsonr([0.1, 0.2, 0.3, 0.35], [0.2, 0.4, 0.5, 0.9]).statistic
    assert found.correlation == pytest.approx(expected)


@pytest.mark.parametrize("second", [{}, {0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.5, 2: 0.5}])
def test_too_few_seeds_or_no_spread_have_no_correlation(second: dict[int, float]) -> None:
    assert shared_seeds({0: 0.1, 1: 0.2, 2: 0.3}, second).correlation is None


def test_the_binomial_error_is_that_of_the_design_notes() -> None:
    assert binomial_error(0.895, 5_000) == pytest.approx(0.0043, abs=5e-5)
    assert binomial_error(0.895, 10_000) == pytest.approx(0.0031, abs=5e-5)
    with pytest.raises(ValueError, match="at least 1 image"):
        binomial_error(0.5, 0)


def test_divergence_rates_are_compared_by_fishers_exact_test() -> None:
    # 3 of 3 against 0 of 3: both tails of 20 equally likely tables, 2 / 20
    assert divergence_p(3, 3, 0, 3) == pytest.approx(0.1)
    assert divergence_p(0, 3, 0, 3) == 1
    with pytest.raises(ValueError, match="cannot have diverged"):
        divergence_p(4, 3, 0, 3)


def test_a_diverged_trial_counts_as_chance() -> None:
    assert score(0.93, diverged=False, num_classes=10) == 0.93
    assert score(math.nan, diverged=True, num_classes=10) == 0.1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0.9, 0.91, 0.92], [0.5, 0.51, 0.52], "higher"),
        ([0.5, 0.51, 0.52], [0.9, 0.91, 0.92], "lower"),
        ([0.9, 0.91, 0.92], [0.9, 0.92, 0.93], "not resolved"),
        ([0.9], [0.5, 0.51], "too few runs"),
        ([0.1, 0.1], [0.2, 0.2], "no spread"),
    ],
)
def test_the_verdict_says_what_the_interval_allows(first: list[float], second: list[float], expected: str) -> None:
    difference: Difference = welch_difference(first, second)
    assert verdict(difference) == expected


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, math.inf], [[0.5]]])
def test_what_is_not_a_list_of_finite_numbers_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        mean_interval(values)


def test_a_level_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ValueError, match="level 95"):
        mean_interval([0.1, 0.2], level=95)
