"""Sequential looks: known boundaries, the error rate over all looks, and what stopping early saves."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from normlab.sequential import follow, nominal_levels


def test_one_look_is_an_ordinary_test() -> None:
    assert nominal_levels((10,), 0.05) == pytest.approx((0.05,), rel=1e-6)


def test_equal_looks_have_the_published_pocock_type_boundaries() -> None:
    """Critical values of Lan & DeMets' spending function for 5 equal looks at two-sided 0.05 (their table, and any
    group sequential package): 2.438, 2.427, 2.410, 2.397, 2.386 within the third decimal."""
    critical = [-scipy_stats.norm.ppf(level / 2) for level in nominal_levels((2, 4, 6, 8, 10), 0.05)]
    assert critical == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=2e-3)


def test_levels_that_make_no_sense_are_refused() -> None:
    for looks, alpha in (((), 0.05), ((5, 3), 0.05), ((1, 3), 0.05), ((3, 5), 0.0)):
        with pytest.raises(ValueError, match="allowed: rising numbers"):
            nominal_levels(looks, alpha)


LOOKS = (3, 5, 8, 13, 20)


def play(shifts: np.ndarray, rng: np.random.Generator) -> tuple[set[str], int]:
    """One sequential study of arms with these true means (in standard deviations) against the first: what is resolved,
    and the runs it took."""
    runs = (rng.normal(size=(len(shifts), LOOKS[-1])) + shifts[:, None]).tolist()
    scores = {str(arm): row for arm, row in enumerate(runs)}
    pairs = {f"{arm} − 0": (str(arm), "0") for arm in range(1, len(shifts))}
    progress = follow(LOOKS, pairs, scores)
    assert progress.is_done
    return set(progress.resolved), sum(progress.runs.values())


def test_equal_arms_are_called_different_no_more_often_over_all_looks_than_five_times_in_a_hundred() -> None:
    rng, studies = np.random.default_rng(0), 800
    wrong = sum(bool(play(np.zeros(4), rng)[0]) for _ in range(studies))
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_large_differences_are_found_as_surely_as_with_all_seeds_and_with_clearly_fewer_runs() -> None:
    rng, shifts = np.random.default_rng(1), np.array([0.0, 3.0, 3.0, 3.0])
    studies = [play(shifts, rng) for _ in range(100)]
    assert np.mean([len(found) == 3 for found, _ in studies]) > 0.97
    assert np.mean([used for _, used in studies]) < 0.5 * LOOKS[-1] * len(shifts)


def test_seeds_are_added_only_to_the_arms_of_open_contrasts() -> None:
    rng = np.random.default_rng(2)
    rows: dict[str, list[float | None]] = {
        "base": [*rng.normal(0, 1, 20)],
        "far": [*rng.normal(50, 1, 20)],
        "near": [*rng.normal(0, 1, 20)],
    }
    pairs = {"far − base": ("far", "base"), "near − base": ("near", "base")}
    begun = follow(LOOKS, pairs, {arm: row[:3] + [None] * 17 for arm, row in rows.items()})
    assert (begun.runs, begun.open, begun.is_done) == ({"base": 5, "far": 3, "near": 5}, ("near − base",), False)
    assert begun.resolved["far − base"].higher
    assert begun.resolved["far − base"].runs == 3
    empty = follow(LOOKS, pairs, {arm: [None] * 20 for arm in rows})
    assert (set(empty.runs.values()), empty.is_done) == ({3}, False)
    whole = follow(LOOKS, pairs, rows)
    assert (whole.runs, whole.is_done) == ({"base": 20, "far": 3, "near": 20}, True)


def test_what_was_resolved_stays_so_whatever_later_runs_say() -> None:
    first: list[float | None] = [10.0, 10.1, 9.9, *([-10.0] * 17)]
    second: list[float | None] = [0.0, 0.1, -0.1, *([0.0] * 17)]
    progress = follow(LOOKS, {"a − b": ("a", "b")}, {"a": first, "b": second})
    assert progress.resolved["a − b"].runs == 3
    assert progress.runs == {"a": 3, "b": 3}
