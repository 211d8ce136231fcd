"""Sensitivity to a numeric factor: worked examples, and error rates under known truth."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normlab.grid import contrasts
from normlab.result import Result
from normlab.rows import contrast_rows, sensitivity_rows
from normlab.sensitivity import is_log, mean_height, own_ranges, sensitivities, sensitivity_contrasts, usable_range
from normlab.stats import compare, mean_interval, not_worse_than_best, welch_difference
from normlab.study import Study, parse_study
from normlab.table import StudyTable, read_table
from normlab.trial import TrialSpec
from normlab.wording import best_words, number, sensitivity_contrast_summary, sensitivity_summary
from tests.test_table import fill, fingerprint, make_store

RATES = (1e-4, 1e-3, 1e-2, 0.1)
STUDY = """
question: Does batch normalization widen the range of usable learning rates?
base: {data: digits, split: fraction, network: 8K-2C2B-10D, epochs: 4}
factors:
  norm: [none, batch]
  learning_rate: [1e-4, 1e-3, 1e-2, 0.1]
seeds: 6
contrasts:
  - {norm: [batch, none], best: learning_rate}
"""


class Scores:
    """A store in memory: every trial is finished with the accuracy that a function gives its spec."""

    def __init__(self, study: Study, accuracy: Callable[[TrialSpec], float]) -> None:
        from normlab.grid import trials_by_arm

        self.results = {
            trial.id: Result(
                id=trial.id, spec=trial.spec, status="finished",
                metrics={"test_accuracy": accuracy(trial.spec), "num_test": 360},
            )
            for _, row in trials_by_arm(study, str)
            for trial in row
        }  # fmt: skip

    def load(self, trial_id: str) -> Result:
        return self.results[trial_id]

    def details(self, result: Result) -> None:
        return None

    def failures(self, ids: object) -> Mapping[str, str]:
        return {}


def make_table(accuracy: Callable[[TrialSpec], float], text: str = STUDY) -> StudyTable:
    study = parse_study(text.encode(), name="s", path="s.yaml")
    return read_table(study, Scores(study, accuracy), str)


def bump(spec: TrialSpec) -> float:
    """A curve over the learning rate with its top at 1e-3 without the norm and at 1e-2, wider, with it."""
    top, fall = (-3, 0.10) if spec.norm == "none" else (-2, 0.04)
    noise = np.random.default_rng([spec.seed, len(spec.norm)]).normal(0, 0.003)
    return float(0.9 - fall * abs(math.log10(spec.learning_rate) - top) + noise)


def test_the_range_ends_where_the_line_between_two_levels_falls_below_the_best_by_so_much() -> None:
    found = usable_range([0, 1, 2, 3], [0.6, 0.9, 0.8, 0.2], within=0.15)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(2 + 0.05 / 0.6))
    assert not found.open_low
    assert not found.open_high


def test_a_range_that_reaches_an_end_of_what_was_tried_is_open_there() -> None:
    found = usable_range([0, 1, 2], [0.88, 0.9, 0.2], within=0.05)
    assert (found.low, found.open_low) == (0, True)
    assert not found.open_high


def test_a_second_hill_beyond_a_valley_is_not_part_of_the_range() -> None:
    assert usable_range([0, 1, 2, 3], [0.9, 0.5, 0.9, 0.9], within=0.1).high < 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.floats(0.001, 1))
def test_the_range_holds_the_best_level_and_no_point_below_its_floor(heights: list[float], within: float) -> None:
    places = list(range(len(heights)))
    found = usable_range(places, heights, within)
    assert found.low <= int(np.argmax(heights)) <= found.high
    inside = np.interp(np.linspace(found.low, found.high, 50), places, heights)
    assert inside.min() >= max(heights) - within - 1e-9


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_mean_height_is_the_average_of_the_line_over_its_axis(heights: list[float]) -> None:
    places = np.cumsum(np.arange(1, len(heights) + 1)).astype(float).tolist()
    fine = np.linspace(places[0], places[-1], 20_001)
    assert mean_height(places, heights) == pytest.approx(np.interp(fine, places, heights).mean(), abs=1e-3)


def test_levels_that_span_more_than_a_factor_of_ten_are_seen_on_a_log_axis() -> None:
    assert is_log([1e-3, 0.1])
    assert not is_log([2, 16])
    assert not is_log([0, 16])


def test_a_line_has_the_statistics_of_its_seeds_own_curves() -> None:
    table = make_table(bump)
    none, batch = sensitivities(table)
    assert (none.best, batch.best) == (1e-3, 1e-2)
    assert none.best_low == none.best_high == 1e-3
    places = [math.log10(rate) for rate in RATES]
    by_level = {arm.arm.levels["learning_rate"]: arm.scores for arm in table.arms if arm.arm.levels["norm"] == "none"}
    areas = [mean_height(places, [by_level[f"{rate:g}"][seed] for rate in RATES]) for seed in range(6)]
    assert none.area == mean_interval(areas)
    assert none.width.mean == pytest.approx(1.0, abs=1e-6)  # half a decade on either side falls by 5 points
    assert (none.usable.low, none.usable.high) == (pytest.approx(10**-3.5), pytest.approx(10**-2.5))
    (pair,) = sensitivity_contrasts(make_table(bump, STUDY.replace(", best: learning_rate", "")))
    assert pair.label == "norm: batch − none"
    assert pair.area == compare(batch.areas, none.areas)
    assert pair.width.difference == pytest.approx(batch.width.mean - none.width.mean)


CURVES = {
    "a plateau": [0.6, 0.9, 0.9, 0.9, 0.7],
    "a peak": [0.7, 0.87, 0.9, 0.82, 0.6],
    "a slope": [0.9, 0.88, 0.8, 0.7, 0.5],
}


def own_widths(places: list[float], runs: np.ndarray) -> dict[int, float]:
    ranges = own_ranges(places, dict(enumerate(runs.tolist())), 0.05)
    return {seed: found.high - found.low for seed, found in ranges.items()}


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("curve", CURVES)
def test_the_interval_of_the_width_holds_the_true_width_as_often_as_it_says(curve: str, spread: float, n: int) -> None:
    places, true, studies = [0.0, 1.0, 2.0, 3.0, 4.0], CURVES[curve], 300
    width = usable_range(places, true, 0.05)
    rng, held = np.random.default_rng(n), 0
    for runs in rng.normal(true, spread, (studies, n, 5)):
        found = mean_interval(list(own_widths(places, runs).values()))
        held += found.low is not None and found.high is not None and found.low <= width.high - width.low <= found.high
    assert held / studies >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / studies)


def test_lines_of_one_shape_and_other_spreads_are_no_wider_than_each_other() -> None:
    """The same true plateau, run to run four times as loud in one: the widths must not tell them apart."""
    places, studies, wrong = [0.0, 1.0, 2.0, 3.0, 4.0], 400, 0
    rng = np.random.default_rng(0)
    for _ in range(studies):
        first, second = (
            own_widths(places, rng.normal(CURVES["a plateau"], spread, (5, 5))) for spread in (0.005, 0.02)
        )
        found = compare(first, second)
        wrong += found.low is not None and found.high is not None and not found.low <= 0 <= found.high
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_an_interval_of_a_width_stays_within_what_was_tried() -> None:
    table = make_table(
        lambda spec: float(np.random.default_rng([spec.seed, int(1e6 * spec.learning_rate)]).normal(0.5, 0.2))
    )
    for line in sensitivities(table):
        assert line.width.low is not None
        assert line.width.high is not None
        assert 0 <= line.width.low <= line.width.high <= 3


def test_the_tolerance_of_the_usable_range_stands_in_the_study() -> None:
    none, _ = sensitivities(make_table(bump, STUDY + "usable_within: 10\n"))
    assert none.width.mean == pytest.approx(2.0, abs=1e-6)


def test_two_levels_are_no_line_and_names_are_no_numbers() -> None:
    text = STUDY.replace("1e-4, 1e-3, 1e-2, 0.1", "1e-3, 1e-2")
    assert sensitivities(make_table(bump, text)) == ()
    named = "{a: {learning_rate: 0.1}, b: {learning_rate: 0.01}, c: {learning_rate: 1e-3}}"
    assert sensitivities(make_table(bump, STUDY.replace("[1e-4, 1e-3, 1e-2, 0.1]", named))) == ()


def test_the_words_name_units_and_ends() -> None:
    table = make_table(bump, STUDY.replace(", best: learning_rate", ""))
    rows = sensitivity_summary(table)
    assert rows[0]["usable within 5 points"] == "0.000316 to 0.00316"
    assert rows[1]["usable within 5 points"] == "0.000562 to ≥ 0.1"
    assert rows[0]["width"] == "1 factors of ten"
    assert sensitivity_contrast_summary(table)[0]["wider by"].startswith("+1.")


def test_a_width_is_at_least_so_much_where_the_range_of_any_seed_is_cut_off() -> None:
    def one_goes_on(spec: TrialSpec) -> float:
        return 0.9 if spec.seed == 0 else bump(spec)

    table = make_table(one_goes_on)
    usable = sensitivities(table)[0].usable
    assert (usable.open_low, usable.open_high) == (False, False)
    assert sensitivity_summary(table)[0]["width"].startswith("≥ ")
    assert sensitivity_rows(table)[0]["width_is_cut"] is True


def test_numbers_of_an_axis_have_no_exponent() -> None:
    assert [number(value) for value in (2.0, 128.0, 0.0625, 1e-4, 44_700.0, -1234.5)] == [
        "2", "128", "0.0625", "0.0001", "44,700", "-1,234"
    ]  # fmt: skip


def test_lines_at_levels_that_were_chosen_for_them_are_not_compared() -> None:
    table = make_table(bump, STUDY.replace("seeds: 6", "  batch_size: [16, 32, 64]\nseeds: 6"))
    assert {line.factor for line in sensitivities(table)} == {"learning_rate", "batch_size"}
    assert sensitivity_contrasts(table) == ()


# Best levels


def test_one_level_is_no_choice() -> None:
    text = STUDY + "  - {norm: [batch, none]}\n"
    study = parse_study(text.encode(), name="s", path="s.yaml", overrides=["learning_rate=1e-3"])
    assert study.dropped_contrasts == ("norm: batch − none, each at its own best learning_rate",)
    (contrast,) = contrasts(study)
    assert contrast.best is None


@pytest.mark.parametrize("seeds", [1, 6])
def test_arms_that_are_the_same_trials_at_one_level_alone_are_a_contrast_at_their_best(seeds: int) -> None:
    positions = "norm_position: [before_activation, after_activation]"
    text = STUDY.replace("learning_rate: [1e-4, 1e-3, 1e-2, 0.1]", positions).replace("seeds: 6", f"seeds: {seeds}")
    contrast = "contrasts:\n  - {norm_position: [after_activation, before_activation], best: norm}\n"
    text = re.sub(r"contrasts:.*", contrast, text, flags=re.S)
    (record,) = make_table(lambda spec: 0.9 + 0.01 * spec.seed - 0.1 * (spec.norm == "batch"), text).contrasts
    assert record.verdict != "same trials"


def test_each_arm_is_compared_at_the_level_that_other_seeds_chose() -> None:
    (record,) = make_table(bump).contrasts
    assert record.best_levels == ("0.01", "0.001")
    assert record.chosen_on == (0, 1, 2)
    assert best_words(record) == " (0.01 and 0.001, chosen on seeds 0, 1, 2)"
    specs = [arm.spec for arm in (record.first, record.second)]
    first, second = ([bump(spec.model_copy(update={"seed": seed})) for seed in (3, 4, 5)] for spec in specs)
    assert record.difference == welch_difference(first, second)


def test_what_diverged_among_the_seeds_that_chose_is_no_part_of_the_comparison(tmp_path: Path) -> None:
    def one_diverges(spec: TrialSpec) -> float:
        return math.nan if spec.seed == 0 and spec.norm == "batch" else bump(spec)

    def row_of(name: str, accuracy: Callable[[TrialSpec], float | None]) -> dict[str, Any]:
        study, store = parse_study(STUDY.encode(), name="s", path="s.yaml"), make_store(tmp_path / name)
        fill(store, study, accuracy)
        (row,) = contrast_rows(read_table(study, store, fingerprint))
        return row

    row = row_of("all", one_diverges)
    assert (row["n_first"], row["diverged_first"], row["divergence_p"]) == (3, 0, None)

    row = row_of("one of those that choose is missing", lambda spec: None if spec.seed == 1 else one_diverges(spec))
    assert (row["n_first"], row["diverged_first"], row["divergence_p"]) == (0, 0, None)


def test_lines_of_the_same_trials_are_not_compared() -> None:
    text = STUDY.replace("norm: [none, batch]", "activation: [relu, leaky_relu]\n  slope: [0.1, 0.2]")
    text = re.sub(r"contrasts:.*", "contrasts:\n  - slope: [0.1, 0.2]\n", text, flags=re.S)
    table = make_table(bump, text)
    assert "same trials" in {record.verdict for record in table.contrasts}
    labels = [pair.label for pair in sensitivity_contrasts(table)]
    assert labels == ["slope: 0.1 − 0.2 at activation leaky_relu"]


def test_one_seed_chooses_nothing_and_compares_nothing() -> None:
    (record,) = make_table(bump, STUDY.replace("seeds: 6", "seeds: 1")).contrasts
    assert record.difference is None
    assert record.best_levels == (None, None)
    assert record.contrast.label == "norm: batch − none, each at its own best learning_rate"


def test_arms_that_are_equal_at_every_level_are_told_apart_no_more_often_than_five_times_in_a_hundred() -> None:
    studies, wrong, naive = 300, 0, 0
    for study in range(studies):
        rng = np.random.default_rng(study)
        table = make_table(lambda spec, rng=rng: float(rng.normal(0.9, 0.01)))
        (record,) = table.contrasts
        wrong += record.verdict in ("better", "worse")
        tops: dict[str, float] = {}
        for arm in table.arms:  # what a sweep reports: the best level, on the very runs that chose it
            norm = arm.arm.levels["norm"]
            tops[norm] = max(tops.get(norm, 0.0), float(np.mean(list(arm.scores.values()))))
        naive += record.first.mean is not None and tops["batch"] > record.first.mean.mean
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert naive / studies > 0.8  # the best level looks better on the runs that chose it


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("means", [[0.9] * 5, [0.9, 0.9, 0.89, 0.88], [0.9, 0.8]])
def test_the_best_level_stays_in_its_set_as_often_as_it_says(n: int, means: list[float]) -> None:
    rng, studies = np.random.default_rng(n), 400
    spread = np.linspace(0.005, 0.02, len(means))[:, None]  # and not the same everywhere
    kept = sum(
        not_worse_than_best(rng.normal(np.array(means)[:, None], spread, (len(means), n)))[0] for _ in range(studies)
    )
    assert kept / studies >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / studies)


def test_a_level_that_is_clearly_worse_leaves_the_set_and_one_that_cannot_be_tested_stays() -> None:
    assert not_worse_than_best([[0.9, 0.91, 0.9], [0.5, 0.51, 0.52]]) == [True, False]
    assert not_worse_than_best([[0.9], [0.5]]) == [True, True]
    assert not_worse_than_best([[0.9, 0.9], [0.5, 0.5]]) == [True, True]
    assert not_worse_than_best([[0.9]]) == [True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("best: learning_rate", "best: rate"),
            "best: given 'rate'; write another factor that 'at' does not fix: learning_rate",
        ),
        (("best: learning_rate", "best: norm"), "best: given 'norm'"),
        (("best: learning_rate", "best: [norm]"), "best: given 'norm'"),
        (("best: learning_rate", "best: learning_rate, at: {learning_rate: 0.1}"), "fix; there is none"),
        (("seeds: 6", "seeds: 3..9"), "number has to be fixed; write seeds: 10"),
        (("seeds: 6", "seeds: 6\nvary: one-at-a-time"), "write vary: grid"),
        (("seeds: 6", "seeds: 6\nusable_within: 0"), "usable_within: 0; allowed: percentage points"),
    ],
)
def test_what_cannot_be_asked_is_one_line(change: tuple[str, str], words: str) -> None:
    from normlab.errors import UsageError

    with pytest.raises(UsageError) as caught:
        parse_study(STUDY.replace(*change).encode(), name="s", path="s.yaml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("s.yaml:")
    assert "\n" not in str(caught.value)


def test_a_contrast_at_own_best_levels_is_part_of_the_family_that_is_corrected() -> None:
    text = STUDY + "  - {norm: [batch, none], at: {learning_rate: 0.1}}\n"
    best, plain = make_table(bump, text).contrasts
    assert best.p is not None
    assert plain.p is not None
    corrected: Any = sorted((best.corrected_p, plain.corrected_p))
    assert corrected[0] == pytest.approx(2 * min(best.p, plain.p))
