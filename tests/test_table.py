"""The table: every trial is accounted for, the numbers are those of `stats`, and damage stops nothing."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from normlab.errors import UsageError
from normlab.grid import arms, trials_by_arm
from normlab.result import Details, Result
from normlab.rows import arm_rows, contrast_rows, to_csv, to_json, to_latex, trial_rows
from normlab.stats import holm, mean_interval, seeds_for_equivalence, welch_difference
from normlab.store import Store
from normlab.study import Study, parse_study
from normlab.table import read_table
from normlab.trial import TrialSpec
from normlab.wording import arm_summary, context_words, contrast_summary, status_words, verdict_words

STUDY = """
question: Does batch normalization help?
base: {data: digits, split: fraction, network: 8K-2C2B-10D, epochs: 4}
factors:
  norm: [none, batch]
  learning_rate: [1e-3, 0.1]
seeds: 3
contrasts:
  - norm: [batch, none]
"""


def fingerprint(name: str) -> str:
    return f"fingerprint of {name}"


def make_study(text: str = STUDY, **keywords: Any) -> Study:
    return parse_study(text.encode(), name="example", path="example.yaml", **keywords)


def make_store(folder: Path) -> Store:
    store = Store(folder / "store")
    store.require_writable()
    return store


def fill(
    store: Store,
    study: Study,
    accuracy: Callable[[TrialSpec], float | None],
    *,
    skip: Collection[int] = (),
    num_test: int = 360,
) -> None:
    """Saves a result for every trial: `accuracy` gives its last accuracy, NaN where it diverged, None to leave it."""
    for _, row in trials_by_arm(study, fingerprint):
        for trial in row:
            value = accuracy(trial.spec)
            if value is not None and trial.spec.seed not in skip:
                store.save(make_result(trial.id, trial.spec, value, num_test))


def make_result(trial_id: str, spec: TrialSpec, value: float, num_test: int = 360) -> Result:
    diverged = math.isnan(value)
    epochs = list(range(1, spec.epochs + 1 - diverged * (spec.epochs // 2)))
    rise = [0.1 if diverged else 0.1 + (value - 0.1) * (1 - math.exp(-3 * e / spec.epochs)) for e in epochs]
    curves: dict[str, list[float | None]] = {
        "epoch": [float(e) for e in epochs],
        "train_loss": [1 / e for e in epochs],
        "train_accuracy": [0.98 * r for r in rise],
        "test_loss": [1.1 / e for e in epochs],
        "test_accuracy": [r if e % spec.evaluate_every == 0 else None for r, e in zip(rise, epochs, strict=True)],
        "learning_rate": [spec.learning_rate for _ in epochs],
    }
    metrics = {"num_test": num_test} if diverged else {"num_test": num_test, "test_accuracy": value, "test_loss": 0.2}
    provenance = {
        "normlab_version": "0.1.0", "commit": "0123456789ab", "torch": "2.13.0", "python": "3.13.5",
        "platform": "Linux x86_64", "processor": "a processor", "device": "cpu", "threads": 1, "cohort_size": 1,
        "started": f"2026-01-0{1 + spec.seed % 9}T10:00:00Z", "seconds": 1.5, "images_per_second": 9000.0,
    }  # fmt: skip
    return Result(
        id=trial_id,
        spec=spec,
        status="diverged" if diverged else "finished",
        metrics=metrics,
        diverged_epoch=len(epochs) + 1 if diverged else None,
        provenance=provenance,
        details=Details(curves=curves, classes=tuple("0123456789")),
    )


def noisy(spec: TrialSpec) -> float:
    """Batch normalization near 0.95 everywhere; without it the large learning rate diverges."""
    noise = np.random.default_rng([spec.seed, int(1e6 * spec.learning_rate), len(spec.norm)]).normal(0, 0.005)
    if spec.norm == "none" and spec.learning_rate > 0.05:
        return math.nan
    return float(0.95 + noise)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


def test_a_full_store_gives_every_arm_the_statistics_of_its_scores(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint)
    assert [arm.arm.levels for arm in table.arms] == [arm.levels for arm in arms(study)]
    values = list(table.arms[2].scores.values())
    assert values == [noisy(record.trial.spec) for record in table.arms[2].trials]
    assert table.arms[2].mean == mean_interval(values)
    assert table.count("finished") == 9
    assert status_words(table) == "12 of 12 trials are done, 3 of which diverged and count as chance"


@pytest.mark.fault(21)
def test_diverged_trials_count_as_chance_and_are_counted(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy)
    row = arm_rows(read_table(study, store, fingerprint))[1]
    assert (row["norm"], row["learning_rate"]) == ("none", 0.1)
    assert (row["mean"], row["n"], row["diverged"], row["finished"], row["low"]) == (0.1, 3, 3, 0, None)


def test_a_diverged_trial_has_no_score_in_what_its_network_has_not(store: Store) -> None:
    """Without a norm there are no statistics to recompute; chance would be made up."""
    study = make_study()
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint, metric="test_accuracy_recomputed")
    assert [arm.mean for arm in table.arms[:2]] == [None, None]


def test_contrasts_are_welch_differences_with_the_measured_correlation(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint)
    none, batch = (list(table.arms[i].scores.values()) for i in (0, 2))
    assert table.contrasts[0].difference == welch_difference(batch, none)
    rows = contrast_rows(table)
    assert rows[0]["correlation"] == pytest.approx(np.corrcoef(batch, none)[0, 1])
    assert [row["planned"] for row in rows] == [True, True]
    assert (rows[1]["verdict"], rows[1]["diverged_second"]) == ("better", 3)
    assert rows[1]["divergence_p"] == pytest.approx(0.1)
    assert rows[0]["divergence_p"] is None
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])


def test_a_verdict_goes_by_the_p_value_corrected_for_all_planned_comparisons(store: Store) -> None:
    """An interval that just leaves 0 out resolves one comparison, but not one of ten."""
    rates = ", ".join(f"{rate}e-3" for rate in range(1, 11))
    many = make_study(STUDY.replace("[1e-3, 0.1]", f"[{rates}]"))
    fill(store, many, lambda spec: 0.9 + 0.005 * spec.seed + 0.015 * (spec.norm == "batch"))
    table = read_table(many, store, fingerprint)
    first = table.contrasts[0]
    assert first.difference is not None
    assert first.difference.low is not None
    assert first.difference.low > 0
    assert {record.verdict for record in table.contrasts} == {"not resolved"}
    one = read_table(make_study(STUDY.replace("[1e-3, 0.1]", "[1e-3]")), store, fingerprint)
    assert one.contrasts[0].verdict == "better"


def test_a_margin_in_the_study_allows_the_verdict_equivalent(store: Store) -> None:
    study = make_study(STUDY + "margin: 2\n")
    fill(store, study, lambda spec: 0.9 + 0.001 * spec.seed + 0.0005 * (spec.norm == "batch"))
    table = read_table(study, store, fingerprint)
    assert {record.verdict for record in table.contrasts} == {"equivalent"}
    assert {verdict_words(record) for record in table.contrasts} == {"equivalent within ±2 points"}
    assert [row["margin"] for row in contrast_rows(table)] == [0.02, 0.02]
    unmargined = read_table(make_study(), store, fingerprint)
    assert {record.verdict for record in unmargined.contrasts} == {"not resolved"}


def test_seeds_that_would_settle_an_equivalence_go_by_the_tests_of_equivalence_that_are_open(store: Store) -> None:
    rates = ", ".join(f"{i}e-4" for i in range(1, 11))
    study = make_study(STUDY.replace("1e-3, 0.1", rates).replace("seeds: 3", "seeds: 5") + "margin: 0.5\n")

    def alike_at_the_first_rate(spec: TrialSpec) -> float:
        noise = np.random.default_rng([spec.seed, int(1e5 * spec.learning_rate), len(spec.norm)]).normal(0, 0.003)
        return float(0.9 + noise - 0.3 * (spec.norm == "batch" and spec.learning_rate > 1.5e-4))

    fill(store, study, alike_at_the_first_rate)
    first, *others = read_table(study, store, fingerprint).contrasts
    assert {record.verdict for record in others} == {"worse"}
    assert first.verdict == "not resolved"
    assert (first.alpha, first.equivalence_alpha) == pytest.approx((0.05, 0.005))
    assert first.difference is not None
    at_the_level_of_the_verdict = seeds_for_equivalence(first.difference, 0.005, alpha=0.005)
    assert first.seeds == at_the_level_of_the_verdict


def test_what_is_not_resolved_says_what_these_runs_could_and_how_many_would(store: Store) -> None:
    study = make_study()
    fill(store, study, lambda spec: 0.9 + 0.01 * spec.seed + 0.01 * (spec.norm == "batch"))
    table = read_table(study, store, fingerprint)
    record = table.contrasts[0]
    assert record.smallest is not None
    effect, critical = record.smallest / 0.01, scipy_stats.t.ppf(1 - 0.025 / 2, 4)  # two comparisons are open
    assert scipy_stats.nct.sf(critical, 4, effect * (3 / 2) ** 0.5) == pytest.approx(0.8, abs=1e-3)
    assert record.seeds == 21
    assert verdict_words(record) == "not resolved: about 20 seeds would settle it"
    row = contrast_summary(table, full=True)[0]
    assert row["P(A > B)"] == "1.00 [0.29, 1.00]"
    assert row["seeds"] == "independent, r = 1.00"  # three seeds are too few to pair by
    assert arm_summary(table, full=True)[0]["test-set error"] == "1.51"


def test_five_seeds_that_move_together_are_paired(store: Store) -> None:
    study = make_study(STUDY.replace("seeds: 3", "seeds: 5"))
    fill(
        store, study, lambda spec: 0.9 + 0.01 * spec.seed + (0.005 + 0.0001 * (spec.seed % 2)) * (spec.norm == "batch")
    )
    table = read_table(study, store, fingerprint)
    assert {record.difference.method for record in table.contrasts if record.difference} == {"paired t"}
    assert {record.verdict for record in table.contrasts} == {"better"}


@pytest.mark.fault(40)
def test_a_study_half_done_reports_what_it_has_and_what_is_missing(store: Store) -> None:
    study = make_study()
    fill(store, study, lambda spec: None if spec.norm == "batch" and spec.learning_rate > 0.05 else 0.9, skip={2})
    table = read_table(study, store, fingerprint)
    rows = arm_rows(table)
    assert [(row["n"], row["missing"]) for row in rows] == [(2, 1), (2, 1), (2, 1), (0, 3)]
    assert rows[3]["mean"] is None
    assert contrast_rows(table)[1]["difference"] is None
    assert table.contrasts[1].verdict == "n too small to say"
    assert status_words(table) == "6 of 12 trials are done; 6 missing"


def test_an_empty_store_gives_an_empty_table(tmp_path: Path) -> None:
    table = read_table(make_study(), Store(tmp_path / "nowhere"), fingerprint)
    assert table.count("missing") == 12
    assert json.loads(to_json(table))["trials_by_state"]["missing"] == 12
    assert len(arm_summary(table)) == 4
    assert len(contrast_summary(table)) == 2


def test_failed_running_and_damaged_trials_are_told_apart_with_their_reasons(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy, skip={1, 2})
    ids = [record.trial.id for record in read_table(study, store, fingerprint).arms[0].trials]
    (store.root / "trials" / ids[0] / "result.json").write_text('{"format": 1, "id": ')
    store.record_failure(ids[1], "out of memory")
    store.claim([ids[2]])
    table = read_table(study, store, fingerprint)
    records = table.arms[0].trials
    assert [record.state for record in records] == ["damaged", "failed", "running"]
    assert "result.json is damaged" in records[0].reason
    assert records[1].reason == "out of memory"
    assert table.arms[0].mean is None


@pytest.mark.fault(39)
@pytest.mark.parametrize("change", [{"metrics": {"test_accuracy": math.nan}}, {"metrics": None}, {"files": None},
                                    {"status": 7, "metrics": {"test_accuracy": "high"}}, {"spec": []}])  # fmt: skip
def test_a_record_that_holds_nonsense_is_damaged_and_stops_nothing(store: Store, change: dict[str, Any]) -> None:
    study = make_study()
    fill(store, study, noisy)
    first = read_table(study, store, fingerprint).arms[0].trials[0].trial.id
    path = store.root / "trials" / first / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    table = read_table(study, store, fingerprint)
    assert table.arms[0].trials[0].state == "damaged"
    assert first in table.arms[0].trials[0].reason
    assert len(table.arms[0].scores) == 2


def test_every_row_says_data_split_test_images_precision_and_scale(store: Store) -> None:
    study = make_study(STUDY + "scales: {smoke: {epochs: 2}}\n")
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint)
    for row in [*arm_rows(table), *contrast_rows(table), *trial_rows(table)]:
        assert row["data"] == "digits"
        assert row["split"] == "fraction 0.2"
        assert (row["test_images"], row["precision"], row["scale"]) == (360, "float32", "smoke")
    assert context_words(table) == (
        "digits (fingerprint of digits), split fraction 0.2, 360 test images, float32, scale smoke"
    )


def test_csv_and_json_hold_the_same_numbers(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint)
    tree = json.loads(to_json(table))
    for name, rows in (("arms", arm_rows(table)), ("contrasts", contrast_rows(table))):
        read = list(csv.DictReader(io.StringIO(to_csv(rows))))
        assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in tree[name]] == read
    assert len(tree["trials"]) == 12


def test_a_latex_table_has_booktabs_and_every_letter_that_means_something_is_escaped() -> None:
    rows = [{"level": "50% & {more}_x", "n": "3", "p": "< 0.0001"}, {"level": "a − b", "n": "12", "p": None}]
    text = to_latex(rows, "Does #1 matter?")
    assert r"\begin{tabular}{lrr}" in text
    assert r"50\% \& \{more\}\_x & 3 & $<$ 0.0001 \\" in text
    assert r"a $-$ b & 12 & -- \\" in text
    assert r"\caption{Does \#1 matter?}" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_without_rows_there_is_no_csv() -> None:
    assert to_csv([]) == ""


def test_a_factor_named_like_a_column_keeps_a_column_of_its_own(store: Store) -> None:
    text = STUDY.replace(
        "norm: [none, batch]\n  learning_rate", "n: {few: {norm: none}, many: {norm: batch}}\n  precision"
    )
    study = make_study(
        text.replace("[1e-3, 0.1]", "[float32, bfloat16]").replace("norm: [batch, none]", "n: [many, few]")
    )
    fill(store, study, noisy)
    row = arm_rows(read_table(study, store, fingerprint))[3]
    assert (row["factor: n"], row["n"]) == ("many", 3)
    assert (row["factor: precision"], row["precision"]) == ("bfloat16", "bfloat16")


def test_another_metric_is_read_by_name_and_counts_only_where_it_was_measured(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint, metric="test_accuracy_batch")
    assert table.arms[0].mean is None
    assert table.arms[0].trials[0].reason == "test_accuracy_batch was not measured"
    with pytest.raises(UsageError, match="write an accuracy"):
        read_table(study, store, fingerprint, metric="test_loss")


def test_arms_that_are_the_same_trials_are_not_called_equal(store: Store) -> None:
    text = STUDY.replace("norm: [none, batch]", "activation: [relu, leaky_relu]")
    text = text.replace("learning_rate: [1e-3, 0.1]", "slope: [0.1, 0.2]")
    study = make_study(text.replace("norm: [batch, none]", "slope: [0.1, 0.2]"))
    fill(store, study, lambda spec: 0.9 + 0.01 * spec.seed)
    table = read_table(study, store, fingerprint)
    assert [record.verdict for record in table.contrasts] == ["same trials", "not resolved"]
    assert len(table.records()) == 9


def test_the_summary_is_in_per_cent_and_shows_only_counts_that_are_there_and_that_of_diverged(store: Store) -> None:
    study = make_study()
    fill(store, study, lambda spec: 0.9 + 0.01 * spec.seed)
    table = read_table(study, store, fingerprint)
    assert arm_summary(table)[0] == {
        "norm": "none", "learning_rate": "0.001", "n": 3, "test accuracy (%)": "91.00", "sd": "1.00",
        "95% t interval": "[88.52, 93.48]", "diverged": 0,
    }  # fmt: skip
    assert contrast_summary(table)[0] == {
        "contrast": "norm: batch − none at learning_rate 0.001", "n": "3 and 3", "points": "+0.00",
        "95% t interval": "[-2.27, +2.27]", "Holm's p": "1", "verdict": "not resolved",
        "asked": "planned",
    }  # fmt: skip


def test_details_are_read_when_asked_for_and_never_kept(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint)
    result = table.arms[0].trials[0].result
    assert result is not None
    assert table.details(result) is not None
    assert result.details is None
    for path in (store.root / "trials").glob("*/details.json"):
        path.unlink()
    assert read_table(study, store, fingerprint).arms == table.arms


@pytest.mark.fault(41)
def test_damaged_details_are_left_out_with_a_warning_that_names_them_and_change_no_number(store: Store) -> None:
    study = make_study()
    fill(store, study, noisy)
    table = read_table(study, store, fingerprint)
    result = table.arms[0].trials[0].result
    assert result is not None
    path = store.root / "trials" / result.id / "details.json"
    path.write_text("{}")
    with pytest.warns(UserWarning, match=f"left out: {re.escape(str(path))} is damaged: its SHA-256"):
        assert table.details(result) is None
    assert read_table(study, store, fingerprint).arms == table.arms
