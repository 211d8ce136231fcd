"""Studies that add seeds until their contrasts are resolved, from the file to the words."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from normlab import datasets
from normlab.adaptive import look_words
from normlab.answers import answers
from normlab.errors import UsageError
from normlab.plan import make_plan, wanted_trials
from normlab.rows import contrast_rows
from normlab.sequential import nominal_levels
from normlab.store import Store
from normlab.study import Study
from normlab.table import read_table
from normlab.trial import TrialSpec
from normlab.wording import status_words, verdict_words
from tests.conftest import Run
from tests.test_table import fill, fingerprint, make_store

TEXT = """
question: Does it matter?
base: {data: digits, split: fraction, network: 4K-1C1B-10D, epochs: 1, train_images: 100, batch_size: 20}
factors:
  norm: [none, batch]
  learning_rate: [1e-3, 0.1]
seeds: 3..8
contrasts:
  - norm: [batch, none]
"""


def make_study(tmp_path: Path, text: str = TEXT) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return Study.load(path)


def clear_at_the_large_rate(spec: TrialSpec) -> float:
    noise = np.random.default_rng([spec.seed, len(spec.norm)]).normal(0, 0.002)
    return float(0.9 + noise - 0.4 * (spec.norm == "none" and spec.learning_rate > 0.05))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are made up, for data of this fingerprint."""
    monkeypatch.setattr(datasets, "fingerprint", fingerprint)


def seeds_by_arm(study: Study, store: Store) -> dict[str, int]:
    return {arm.label: len(row) for arm, row in wanted_trials(study, store)}


def test_the_looks_of_a_study_grow_by_about_half(tmp_path: Path) -> None:
    assert make_study(tmp_path).looks == (3, 5, 8)
    assert make_study(tmp_path, TEXT.replace("3..8", "3..20")).looks == (3, 5, 8, 13, 20)
    assert make_study(tmp_path, TEXT.replace("3..8", "3")).looks == ()


@pytest.mark.parametrize("seeds", ["8..3", "1..5", "3..", "3..3", "a..b"])
def test_a_range_of_seeds_that_makes_no_sense_is_refused(tmp_path: Path, seeds: str) -> None:
    with pytest.raises(UsageError, match=r"or 3\.\.20"):
        make_study(tmp_path, TEXT.replace("3..8", seeds))


def test_a_study_begins_with_its_first_seeds_and_adds_more_only_where_contrasts_are_open(
    tmp_path: Path, store: Store, filled: None
) -> None:
    study = make_study(tmp_path)
    assert set(seeds_by_arm(study, store).values()) == {3}
    fill(store, study, clear_at_the_large_rate)
    assert seeds_by_arm(study, store) == {
        "norm none, learning_rate 0.001": 8, "norm none, learning_rate 0.1": 3,
        "norm batch, learning_rate 0.001": 8, "norm batch, learning_rate 0.1": 3,
    }  # fmt: skip
    assert make_plan(study, store).missing() == ()
    table = read_table(study, store, fingerprint)
    assert [record.verdict for record in table.contrasts] == ["not resolved", "better"]
    assert verdict_words(table.contrasts[1]).startswith("better (resolved at n = 3, p ")
    assert look_words(study, store).startswith("1 of 2 contrasts is resolved, with up to 8 seeds an arm")


def test_what_comes_next_is_said_with_its_cost(tmp_path: Path, store: Store, filled: None) -> None:
    study = make_study(tmp_path)
    fill(store, study, clear_at_the_large_rate, skip={3, 4, 5, 6, 7})
    said = look_words(study, store, device="cpu").splitlines()[0]
    assert re.fullmatch(
        r"1 of 2 contrasts is resolved; 5 seeds an arm come next: 4 trials, about .*; "
        r"at most 10 trials, about .*, to 8 seeds an arm",
        said,
    )


def test_arms_of_the_same_trials_are_no_contrast_to_resolve(tmp_path: Path, store: Store, filled: None) -> None:
    text = TEXT.replace(
        "norm: [none, batch]\n  learning_rate: [1e-3, 0.1]", "activation: [relu, leaky_relu]\n  slope: [0.1, 0.2]"
    )
    study = make_study(tmp_path, text.replace("norm: [batch, none]", "slope: [0.1, 0.2]"))
    fill(
        store,
        study,
        lambda spec: 0.9 + 0.001 * spec.seed - 0.4 * (spec.activation == "leaky_relu" and spec.slope > 0.1),
    )
    table = read_table(study, store, fingerprint)
    assert [record.verdict for record in table.contrasts] == ["same trials", "better"]
    assert seeds_by_arm(study, store)["activation relu, slope 0.1"] == 3
    assert "1 of 1 contrasts is resolved" in status_words(table)


def test_arms_of_the_same_trials_stay_so_where_one_got_more_seeds(tmp_path: Path, store: Store, filled: None) -> None:
    text = TEXT.replace(
        "norm: [none, batch]\n  learning_rate: [1e-3, 0.1]", "activation: [relu, leaky_relu]\n  slope: [0.1, 0.2]"
    )
    text = text.replace("norm: [batch, none]", "slope: [0.1, 0.2]\n  - activation: [leaky_relu, relu]")

    def clear_at_the_large_slope(spec: TrialSpec) -> float:
        noise = np.random.default_rng([spec.seed, len(spec.activation)]).normal(0, 0.002)
        return float(0.9 + noise - 0.4 * (spec.activation == "leaky_relu" and spec.slope > 0.1))

    study = make_study(tmp_path, text)
    fill(store, study, clear_at_the_large_slope)
    assert len({*seeds_by_arm(study, store).values()}) == 2
    verdicts = {record.contrast.label: record.verdict for record in read_table(study, store, fingerprint).contrasts}
    assert verdicts["slope: 0.1 − 0.2 at activation relu"] == "same trials"


def test_what_is_resolved_stands_on_the_runs_that_resolved_it(tmp_path: Path, store: Store, filled: None) -> None:
    """With three norms, `none` goes on for the open contrast, and the resolved one must not move with it."""
    text = TEXT.replace("[none, batch]", "[none, batch, renorm]").replace("learning_rate: [1e-3, 0.1]", "")
    text = text.replace("norm: [batch, none]", "norm: [batch, none]\n  - norm: [renorm, none]")

    def batch_leads_at_first(spec: TrialSpec) -> float:
        noise = np.random.default_rng([spec.seed, len(spec.norm)]).normal(0, 0.002)
        return float(0.5 + noise + (0.1 if spec.norm == "batch" else 0) + (0.3 if spec.seed > 2 else 0))

    study = make_study(tmp_path, text)
    fill(store, study, batch_leads_at_first)
    table = read_table(study, store, fingerprint)
    resolved, opened = contrast_rows(table)
    assert (resolved["verdict"], resolved["n_first"], resolved["n_second"]) == ("better", 3, 3)
    assert resolved["difference"] == pytest.approx(0.1, abs=0.01)
    assert table.progress is not None
    assert resolved["p"] == table.progress.resolved[resolved["contrast"]].p
    assert (opened["n_first"], opened["p"], opened["p_holm"]) == (8, None, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["seeds=30"], "the study has 30 seeds; write more, as in --max-seeds 60"),
        (["seeds=5", "--max-seeds", "5"], "as in --max-seeds 10"),
        (["seeds=3..6", "--max-seeds", "9"], "write seeds=3..9"),
        (["seeds=[100, 101, 102]"], "this study names others; write seeds: 3"),
    ],
)
def test_seeds_are_added_and_never_taken_away(tmp_path: Path, here: Run, options: list[str], words: str) -> None:
    refused = here("run", make_study(tmp_path).path, *options, "--until-resolved")
    assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr


def test_a_limit_of_seeds_is_not_ignored(tmp_path: Path, here: Run) -> None:
    refused = here("run", make_study(tmp_path).path, "seeds=4", "--max-seeds", "9")
    assert (refused.returncode, "write seeds=4..9" in refused.stderr) == (2, True), refused.stderr


def test_what_is_open_could_resolve_by_the_level_of_a_look_and_equivalence_settles_too(
    tmp_path: Path, store: Store, filled: None
) -> None:
    study = make_study(tmp_path)
    fill(store, study, clear_at_the_large_rate)
    table = read_table(study, store, fingerprint)
    opened = table.contrasts[0]
    assert opened.sequential == "ended"
    assert opened.alpha == nominal_levels((3, 5, 8), 0.05)[-1]
    assert opened.alpha < 0.05
    equal = read_table(make_study(tmp_path, TEXT + "margin: 5\n"), store, fingerprint)
    assert [record.verdict for record in equal.contrasts] == ["equivalent", "better"]
    assert "2 of 2 contrasts are resolved" in status_words(equal)


def test_an_open_contrast_says_what_is_missing_and_never_none(tmp_path: Path, store: Store, filled: None) -> None:
    study = make_study(tmp_path)
    fill(store, study, clear_at_the_large_rate, skip=range(1, 8))
    table = read_table(study, store, fingerprint)
    assert {record.verdict for record in table.contrasts} == {"n too small to say"}
    assert not any("None" in sentence for sentence in answers(table))


def test_without_contrasts_there_is_nothing_to_resolve(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs contrasts that the study names before it runs"):
        make_study(tmp_path, TEXT.partition("contrasts")[0])


def test_a_run_goes_on_look_by_look_until_all_is_resolved_or_the_seeds_are_used_up(
    tmp_path: Path, normlab: Run, here: Run
) -> None:
    equal = TEXT.replace("norm: [none, batch]\n  learning_rate: [1e-3, 0.1]", "learning_rate: [1e-5, 1.001e-5]")
    study = make_study(tmp_path, equal.replace("norm: [batch, none]", "learning_rate: [1e-5, 1.001e-5]"))
    done = normlab("run", study.path, "seeds=3", "--until-resolved", "--max-seeds", "5")
    assert done.returncode == 0, done.stderr
    assert "0 of 1 contrasts are resolved; 5 seeds an arm come next: 4 trials" in done.stderr
    assert "resolved, with up to 5 seeds an arm" in done.stderr
    again = here("run", study.path, "seeds=3..5")
    assert "trained 0 trials" in again.stderr
    assert "10 were finished before" in again.stderr
    shutil.rmtree(next((tmp_path / "normlab-store" / "trials").glob("*-s0-*")))
    again = here("run", study.path, "seeds=3..5")
    assert "trained 1 trial in" in again.stderr
    assert "9 were finished before" in again.stderr
    report = here("report", study.path, "seeds=3..5")
    assert "10 of 10 trials are done; 0 of 1 contrasts are resolved, looking at 3 and 5 seeds" in report.stdout
