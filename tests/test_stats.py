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
    bootstrap_interval,
    compare,
    divergence_p,
    equivalence_p,
    holm,
    is_pairing_shown,
    mean_interval,
    paired_difference,
    prediction_interval,
    score,
    seeds_for_equivalence,
    seeds_needed,
    shared_seeds,
    smallest_difference,
    superiority,
    t_test_p,
    verdict,
    welch_difference,
    wilson_interval,
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
    opposite = {"better": "worse", "worse": "better"}
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
        ([0.9, 0.91, 0.92], [0.5, 0.51, 0.52], "better"),
        ([0.5, 0.51, 0.52], [0.9, 0.91, 0.92], "worse"),
        ([0.9, 0.91, 0.92], [0.9, 0.92, 0.93], "not resolved"),
        ([0.9], [0.5, 0.51], "n too small to say"),
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


def test_p_is_that_of_scipys_welch_test() -> None:
    first, second = [0.91, 0.93, 0.92, 0.95], [0.90, 0.89, 0.94]
    expected = scipy_stats.ttest_ind(first, second, equal_var=False).pvalue
    assert t_test_p(welch_difference(first, second)) == pytest.approx(expected, rel=1e-10)
    assert t_test_p(welch_difference(second, first)) == pytest.approx(expected, rel=1e-10)
    assert t_test_p(welch_difference([0.1, 0.1], [0.2, 0.2])) is None


def test_the_test_of_equivalence_is_two_one_sided_tests_of_scipy() -> None:
    first, second = np.array([0.91, 0.93, 0.92, 0.925]), np.array([0.92, 0.915, 0.93])
    found = equivalence_p(welch_difference(first.tolist(), second.tolist()), 0.02)
    below = scipy_stats.ttest_ind(first + 0.02, second, equal_var=False, alternative="greater").pvalue
    above = scipy_stats.ttest_ind(first - 0.02, second, equal_var=False, alternative="less").pvalue
    assert found == pytest.approx(max(below, above), rel=1e-10)
    with pytest.raises(ValueError, match="margin 0"):
        equivalence_p(welch_difference([0.1, 0.2], [0.1, 0.3]), 0)


def test_a_difference_beyond_the_margin_is_never_equivalent() -> None:
    p = equivalence_p(welch_difference([0.91, 0.92, 0.915], [0.80, 0.81, 0.805]), 0.02)
    assert p is not None
    assert p > 0.5


def test_holms_correction_is_the_one_worked_by_hand() -> None:
    # 0.01 · 4, 0.02 · 3, then 0.03 · 2 = 0.06 stays 0.06, then 0.04 · 1 may not fall below it
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_test_that_cannot_be_made_yet_counts_as_one_of_its_family() -> None:
    assert holm([0.03, None, None]) == [pytest.approx(0.09), None, None]
    for later in (0.0, 0.5, 1.0):  # whatever it will say, what stands now is not too small
        assert holm([0.03, later, None])[0] <= holm([0.03, None, None])[0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_keeps_the_order_and_lies_between_none_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert q is not None
        assert p <= q <= min(1.0, p * len(p_values)) + 1e-12
    assert [q for _, q in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)  # type: ignore[type-var]


def test_the_seeds_needed_give_the_power_they_promise() -> None:
    """Cohen 1988, table 2.4: an effect of 0.8 standard deviations needs 26 runs an arm at α = 0.05, power 0.8."""
    generator = np.random.default_rng(0)
    x = generator.normal(0, 1, 400)
    x = (x - x.mean()) / x.std(ddof=1)
    assert seeds_needed(welch_difference(x + 0.8, x)) == 26
    assert seeds_needed(welch_difference(x + 0.5, x)) == 64
    assert seeds_needed(welch_difference(x, x)) is None
    draws = generator.normal(0, 1, (4000, 2, 26)) + np.array([[0.8], [0.0]])
    power = (scipy_stats.ttest_ind(draws[:, 0], draws[:, 1], axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("true", [0.0, 0.2, -0.3])
def test_the_seeds_for_equivalence_give_the_power_they_promise(true: float) -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(0, 1, 400)
    x = (x - x.mean()) / x.std(ddof=1)
    n = seeds_for_equivalence(welch_difference(x + true, x), 0.5)
    assert n is not None
    draws = generator.normal(0, 1, (1000, 2, n)) + np.array([[true], [0]])
    found = [equivalence_p(welch_difference(a, b), 0.5) for a, b in draws]
    assert np.mean([p is not None and p < 0.05 for p in found]) == pytest.approx(0.8, abs=0.05)


def test_no_number_of_seeds_shows_equivalence_where_the_difference_is_beyond_the_margin() -> None:
    assert seeds_for_equivalence(welch_difference([0.91, 0.92, 0.93], [0.90, 0.91, 0.92]), 0.005) is None


def test_differences_that_are_equal_but_for_rounding_have_no_spread() -> None:
    first = dict(enumerate([0.90, 0.91, 0.92, 0.93, 0.94]))
    second = dict(enumerate([0.89, 0.90, 0.91, 0.92, 0.93]))
    assert len({first[seed] - second[seed] for seed in first}) > 1
    assert paired_difference(first, second).low is None
    found = compare(first, second)
    assert (found.method, verdict(found)) == ("Welch t", "not resolved")


@pytest.mark.parametrize("case", ["paired", "one arm without spread", "Welch"])
@pytest.mark.parametrize("n", [3, 5, 8])
def test_what_could_be_resolved_is_resolved_as_often_as_promised_by_the_same_method(case: str, n: int) -> None:
    """Runs of standard deviation 1, of which the estimate is told: the power is then exactly what is promised."""
    error, freedom = {"paired": (n**-0.5, n - 1), "one arm without spread": (n**-0.5, n - 1)}.get(
        case, ((2 / n) ** 0.5, 2 * n - 2)
    )
    known = Difference(
        n_first=n, n_second=n, difference=0.5, standard_error=error, degrees_of_freedom=freedom, low=0, high=1,
        level=0.95, method="paired t" if case == "paired" else "Welch t",
    )  # fmt: skip
    smallest = smallest_difference(known)
    assert smallest is not None
    assert power_of(case, n, smallest) == pytest.approx(0.8, abs=0.03)
    needed = seeds_needed(known)
    assert needed is not None
    assert power_of(case, needed, 0.5) == pytest.approx(0.81, abs=0.04)  # the first whole number that is enough


def power_of(case: str, n: int, difference: float) -> float:
    draws = np.random.default_rng(n).normal(0, 1, (4000, 2, n))
    first, second = draws[:, 0] + difference, draws[:, 1]
    if case == "Welch":
        return float((scipy_stats.ttest_ind(first, second, axis=1).pvalue < 0.05).mean())
    return float(
        (scipy_stats.ttest_1samp(first, 0, axis=1).pvalue < 0.05).mean()
    )  # of differences, or beside a constant


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_exact_test_of_divergence_is_scipys(n_first: int, n_second: int, data: st.DataObject) -> None:
    first, second = data.draw(st.integers(0, n_first)), data.draw(st.integers(0, n_second))
    expected = scipy_stats.fisher_exact([[first, n_first - first], [second, n_second - second]]).pvalue
    assert divergence_p(first, n_first, second, n_second) == pytest.approx(expected, rel=1e-9)


def test_a_prediction_interval_holds_one_further_run_as_often_as_it_says() -> None:
    runs = np.random.default_rng(2).normal(0.9, 0.01, (4000, 6))
    held = 0
    for row in runs:
        interval = prediction_interval(mean_interval(row[:5], level=0.9))
        assert interval is not None
        held += interval[0] <= row[5] <= interval[1]
    assert held / len(runs) == pytest.approx(0.9, abs=0.02)
    assert prediction_interval(mean_interval([0.5])) is None


def test_corrected_verdicts_are_wrong_about_any_contrast_no_more_often_than_they_say() -> None:
    """Four arms of equal means, n = 3, each against the first: at least one false finding in at most 5 % of studies."""
    studies = np.random.default_rng(3).normal(0.9, 0.01, (2000, 4, 3))
    wrong = 0
    for arms in studies:
        corrected = holm([t_test_p(welch_difference(arm, arms[0])) for arm in arms[1:]])
        wrong += any(p is not None and p < 0.05 for p in corrected)
    assert wrong / len(studies) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(studies))


# Paired seeds


def by_seed(values: "np.ndarray | list[float]") -> dict[int, float]:
    return dict(enumerate(map(float, values)))


def correlated(rng: np.random.Generator, n: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Two arms of equal means and spreads whose runs of one seed correlate by rho."""
    first, own = rng.normal(0.9, 0.01, (2, n))
    return first, 0.9 + rho * (first - 0.9) + math.sqrt(1 - rho**2) * (own - 0.9)


def test_the_paired_interval_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = correlated(rng, 8, 0.9)
    found, expected = paired_difference(by_seed(first), by_seed(second)), scipy_stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert t_test_p(found) == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.n_first, found.n_second, found.method) == (8, 8, "paired t")
    with pytest.raises(ValueError, match="share no seed"):
        paired_difference({0: 0.9}, {1: 0.9})


def test_pairing_only_uses_the_seeds_that_both_arms_have() -> None:
    found = paired_difference({0: 0.9, 1: 0.8, 2: 0.5}, {1: 0.7, 0: 0.85, 3: 0.1})
    assert (found.n_first, found.difference) == (2, pytest.approx(0.075))


def test_seeds_are_paired_where_their_correlation_is_shown_and_nowhere_else() -> None:
    rng = np.random.default_rng(1)
    first, second = correlated(rng, 10, 0.95)
    assert compare(by_seed(first), by_seed(second)).method == "paired t"
    first, second = correlated(rng, 10, 0.0)
    assert compare(by_seed(first), by_seed(second)).method == "Welch t"
    first, second = correlated(rng, 4, 0.9999)  # four pairs are too few to show it
    assert compare(by_seed(first), by_seed(second)).method == "Welch t"
    first, second = correlated(rng, 10, 0.999)  # and other seeds are not pairs
    assert compare(by_seed(first), {seed + 1: value for seed, value in by_seed(second).items()}).method == "Welch t"


def test_the_correlation_that_shows_pairing_is_the_critical_one_of_pearsons_test() -> None:
    rng = np.random.default_rng(2)
    for n in (5, 10, 20):
        for _ in range(50):
            first, second = correlated(rng, n, 0.5)
            p = scipy_stats.pearsonr(first, second, alternative="greater").pvalue
            assert is_pairing_shown(shared_seeds(by_seed(first), by_seed(second))) == (p < 0.01)


# Rates under known truth, by simulation


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_of_a_difference_covers_the_truth_at_least_as_often_as_it_says(n: int, rho: float) -> None:
    rng, studies = np.random.default_rng(n), 2000
    held = 0
    for _ in range(studies):
        first, second = correlated(rng, n, rho)
        found = compare(by_seed(first), by_seed(second))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    assert held / studies >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / studies)
    if rho == 0:
        assert held / studies <= 0.975  # and is not merely wide


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says(n: int) -> None:
    runs = np.random.default_rng(n).normal(0.9, 0.01, (4000, n))
    held = np.mean([found.low <= 0.9 <= found.high for found in map(mean_interval, runs) if found.low and found.high])
    assert held == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / len(runs)))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_study_of_equal_arms_has_a_false_verdict_no_more_often_than_it_says(n: int) -> None:
    """Five arms against the first, as a study compares them, at n = 3, 5 and 10."""
    studies = np.random.default_rng(10 + n).normal(0.9, 0.01, (1000, 6, n))
    wrong = 0
    for arms in studies:
        found = [compare(by_seed(arm), by_seed(arms[0])) for arm in arms[1:]]
        corrected = holm([t_test_p(difference) for difference in found])
        said = {verdict(difference, p) for difference, p in zip(found, corrected, strict=True)}
        wrong += bool(said & {"better", "worse"})
    assert wrong / len(studies) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(studies))


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_arms_at_the_margin_are_called_equivalent_no_more_often_than_five_times_in_a_hundred(
    rho: float, n: int
) -> None:
    rng, studies = np.random.default_rng(5), 1000
    wrong = 0
    for _ in range(studies):
        first, second = correlated(rng, n, rho)
        found = compare(by_seed(first + 0.01), by_seed(second))
        wrong += verdict(found, 1.0, equivalence_p(found, 0.01)) == "equivalent"
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


# Superiority, what could be resolved, and the bootstrap


def test_superiority_counts_wins_and_its_interval_is_the_exact_one() -> None:
    first, second = by_seed([0.9, 0.8, 0.7, 0.95, 0.6]), by_seed([0.8, 0.85, 0.6, 0.9, 0.5])
    found = superiority(first, second)
    assert found is not None
    exact = scipy_stats.binomtest(4, 5).proportion_ci(0.95, method="exact")
    assert (found.n, found.probability) == (5, 0.8)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert superiority({0: 0.9}, {1: 0.8}) is None


def test_ties_are_half_a_win_and_widen_the_interval_both_ways() -> None:
    found = superiority(by_seed([0.9, 0.8, 0.8]), by_seed([0.8, 0.8, 0.9]))
    assert found is not None
    assert found.probability == 0.5
    one, two = (scipy_stats.binomtest(k, 3).proportion_ci(0.95, method="exact") for k in (1, 2))
    assert (found.low, found.high) == pytest.approx((one.low, two.high))
    every = superiority(by_seed([0.9, 0.9]), by_seed([0.8, 0.8]))
    assert every is not None
    assert (every.probability, every.high) == (1, 1)


def test_superiority_covers_the_truth_at_least_as_often_as_it_says() -> None:
    rng, truth, held = np.random.default_rng(6), float(scipy_stats.norm.cdf(1 / math.sqrt(2))), 0
    for _ in range(2000):
        found = superiority(by_seed(rng.normal(1, 1, 5)), by_seed(rng.normal(0, 1, 5)))
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / 2000 >= 0.95


@pytest.mark.parametrize(("n", "points"), [(3, 0.86), (5, 0.57), (10, 0.37), (20, 0.25)])
def test_the_smallest_difference_is_the_one_of_the_table_of_power(n: int, points: float) -> None:
    """For a spread of 0.28 points between runs, an unpaired t test and a power of 0.8."""
    runs = np.random.default_rng(n).normal(size=n)
    runs = 0.28 * (runs - runs.mean()) / runs.std(ddof=1)
    assert smallest_difference(welch_difference(runs, runs)) == pytest.approx(points, abs=0.006)
    assert smallest_difference(welch_difference([0.9, 0.9], [0.8, 0.8])) is None


def test_a_bootstrap_of_few_runs_is_refused_and_of_many_near_the_t_interval() -> None:
    with pytest.raises(ValueError, match="at least 10; write mean_interval"):
        bootstrap_interval([0.9] * 9)
    runs = np.random.default_rng(0).normal(0.9, 0.01, 40)
    mean = mean_interval(runs.tolist())
    assert bootstrap_interval(runs.tolist()) == pytest.approx((mean.low, mean.high), abs=5e-4)
    assert bootstrap_interval(runs.tolist()) == bootstrap_interval(runs.tolist())


def test_arms_within_the_margin_are_equivalent_even_where_their_difference_is_resolved() -> None:
    found = welch_difference([0.902, 0.9021, 0.9022], [0.9, 0.9001, 0.9])
    p = equivalence_p(found, 0.01)
    assert verdict(found, 0.04, p) == "equivalent"
    assert verdict(found, 0.04, None) == "better"
    assert verdict(found, 0.2, 0.2) == "not resolved"


def test_the_wilson_interval_is_that_of_scipy() -> None:
    for right, count in ((0, 1), (1, 1), (3, 7), (0, 40), (40, 40), (987, 1000)):
        expected = scipy_stats.binomtest(right, count).proportion_ci(0.9, method="wilson")
        assert wilson_interval(right, count, level=0.9) == pytest.approx(tuple(expected), abs=1e-15)
    assert wilson_interval(0, 0) is None
