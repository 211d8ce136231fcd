"""Results in a notebook: rows, frames, comparisons and figures. The examples of docs/notebooks.md run as they stand."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import normlab as api
from normlab.results import Results
from normlab.table import read_table
from tests.test_table import STUDY, fill, fingerprint, make_store, make_study, noisy

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the documentation's examples leave behind, run in a folder of their own."""
    blocks = re.findall(r"^```python\n(.*?)^```", NOTEBOOKS.read_text(), flags=re.M | re.S)
    assert len(blocks) == 8
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        for block in blocks:
            exec(compile(block, str(NOTEBOOKS), "exec"), names)
        names["folder"] = Path.cwd()
    return names


def test_the_examples_of_the_documentation_run(example: dict[str, Any]) -> None:
    assert example["path"].name == "report.html"
    assert (example["folder"] / example["path"]).is_file()
    assert len(example["trials"]) == 2 * 3 * 4
    assert set(example["curves"]["epoch"]) >= {1, 5}
    assert example["best"]["mean"] > 0.8


@pytest.fixture
def results(example: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.chdir(example["folder"])
    found = example["results"]
    assert isinstance(found, Results)
    return found


def test_rows_are_numbers_and_show_themselves_as_tables(results: Results) -> None:
    rows = results.arms()
    assert 0 < rows[0]["mean"] < 1
    assert rows.frame()["n"].tolist() == [4] * 6
    assert rows._repr_html_().count("<tr>") == 7
    assert "test accuracy (%)" in repr(rows)
    assert "<strong>Does batch normalization" in results._repr_html_()
    assert repr(results).startswith("quickstart: Does batch")
    assert {row["factor"] for row in results.sensitivity()} == {"learning_rate"}
    assert results.frame()["learning_rate"].tolist()[:9:4] == [1e-3, 1e-2, 0.1]  # which can be drawn on an axis
    assert results.frame("contrasts")["verdict"].tolist() == [row["verdict"] for row in results.contrasts()]


def test_a_comparison_that_was_planned_is_planned_and_another_is_exploratory(results: Results) -> None:
    planned = results.compare(norm=("batch", "none"))
    assert [row["planned"] for row in planned] == [True] * 3
    assert planned == results.contrasts()
    part = results.compare(norm=("batch", "none"), at={"learning_rate": 0.01})
    assert list(part) == [row for row in planned if row["at"] == "learning_rate 0.01"]
    assert results.compare(norm=("none", "batch")) == planned
    assert results.compare(norm=("batch", "none"), at={"learning_rate": "1e-2"}) == part
    (other,) = results.compare(learning_rate=(1e-3, 0.1), at={"norm": "none"}, margin=3)
    assert not other["planned"]
    assert other["margin"] == 0.03
    assert other["verdict"] == "better"


def test_arms_are_compared_at_their_own_best_level_on_other_seeds_than_chose_it(results: Results) -> None:
    (row,) = results.compare(norm=("batch", "none"), best="learning_rate")
    scores = {(arm.arm.levels["norm"], arm.arm.levels["learning_rate"]): arm.scores for arm in results.table.arms}
    means = {}
    for norm, chosen in (("batch", str(row["first_best"])), ("none", str(row["second_best"]))):
        levels = [level for one, level in scores if one == norm]
        assert chosen == max(levels, key=lambda level: scores[norm, level][0] + scores[norm, level][1])
        means[norm] = (scores[norm, chosen][2] + scores[norm, chosen][3]) / 2
    assert (row["n_first"], row["n_second"]) == (2, 2)
    assert row["difference"] == pytest.approx(means["batch"] - means["none"])
    assert row["contrast"] == "norm: batch − none, each at its own best learning_rate"


def test_a_figure_shows_itself(results: Results) -> None:
    figure = results.plot("norm")
    assert isinstance(figure, Figure)
    assert figure._repr_svg_().startswith("<svg")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda r: r.compare(), "given 0 factors; write one"),
        (lambda r: r.compare(norm="batch"), "write two levels, such as norm=('batch', 'none')"),
        (lambda r: r.compare(norm=("batch", "nine")), "level of norm"),
        (lambda r: r.compare(norm=("batch", None)), "level of norm 'None'"),
        (lambda r: r.plot(3), "unknown factor '3'"),
        (lambda r: r.plot(["norm"]), "unknown factor"),
        (lambda r: r.compare(learning_rate=(1e-2, "1e-2")), "both are the level 0.01"),
        (lambda r: r.compare(nrom=("batch", "none")), "did you mean 'norm'"),
        (lambda r: r.compare(norm=("batch", "none"), at={"rate": 1}), "factor 'rate'"),
        (lambda r: r.compare(norm=("batch", "none"), best="rate"), "factor 'rate'"),
        (lambda r: r.compare(norm=("batch", "none"), at={"norm": "batch"}), "'norm' is said twice"),
        (lambda r: r.compare(norm=("batch", "none"), best="norm"), "'norm' is said twice"),
        (
            lambda r: r.compare(norm=("batch", "none"), best="learning_rate", at={"learning_rate": 0.1}),
            "'learning_rate' is said twice",
        ),
        (lambda r: r.compare(norm=("batch", "none"), margin=-2), "margin: -2; allowed: percentage points"),
        (lambda r: r.plot("rate"), "factor 'rate'"),
        (lambda r: r.frame("trial"), "did you mean 'trials'"),
    ],
)
def test_a_wrong_question_is_one_line(results: Results, ask: Any, words: str) -> None:
    with pytest.raises(api.UsageError, match=re.escape(words)) as caught:
        ask(results)
    assert "\n" not in str(caught.value)


def one_at_a_time(folder: Path) -> Any:
    study, store = make_study(STUDY.replace("factors:", "vary: one-at-a-time\nfactors:")), make_store(folder)
    fill(store, study, noisy)
    return api.load_results(study, store=store)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"at": {"learning_rate": 0.1}}, "no arm with norm batch has a partner with none there"),
        ({"best": "learning_rate"}, "write vary: grid"),
    ],
)
def test_a_question_to_which_no_arms_belong_is_refused_and_no_other_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: Any, words: str
) -> None:
    monkeypatch.setattr("normlab.datasets.fingerprint", fingerprint)
    results = one_at_a_time(tmp_path)
    assert len(results.compare(norm=("batch", "none"))) == 1
    with pytest.raises(api.UsageError, match=words):
        results.compare(norm=("batch", "none"), **question)


def test_one_of_several_planned_contrasts_keeps_the_correction_over_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normlab.datasets.fingerprint", fingerprint)
    text = STUDY.replace("norm: [none, batch]", "norm: [none, batch, renorm]")
    text = text.replace("contrasts:", "margin: 2\ncontrasts:\n  - norm: [renorm, none]")
    study, store = make_study(text), make_store(tmp_path)
    fill(store, study, noisy)
    results = api.load_results(study, store=store)
    asked = results.compare(norm=("batch", "none"))
    assert 0 < len(asked) < len(results.contrasts())
    one = text.replace("norm: [batch, none]", "{norm: [batch, none], at: {learning_rate: 0.1}}")
    rows = api.load_results(make_study(one), store=store).compare(norm=("batch", "none"))
    assert [(row["at_learning_rate"], row["planned"], row["margin"]) for row in rows] == [
        (0.001, False, None), (0.1, True, 0.02)
    ]  # fmt: skip
    assert asked == [row for row in results.contrasts() if row["contrast"].startswith("norm: batch")]
    assert all(row["planned"] and row["margin"] == 0.02 for row in asked)


def test_a_store_is_given_by_its_folder_too_and_a_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    calls: list[Callable[[Path], object]] = [
        lambda store: api.load_results("quickstart", store=store),
        lambda store: api.load_network("nothing", store=store),
        lambda store: api.run("quickstart", store=store),
    ]
    for call in calls:
        with pytest.raises(api.UsageError, match="afile: it is no folder"):
            call(tmp_path / "afile")
    with pytest.raises(api.UsageError, match="has no such result"):
        api.load_network("nothing", store=str(tmp_path / "new"))
    with pytest.raises(api.UsageError, match="new: there is no such folder"):
        api.load_results("quickstart", store=str(tmp_path / "new"))


def test_what_rows_call_a_level_compare_takes_back(tmp_path: Path) -> None:
    """Labels by hand that are the same number, or are written in another way, stay texts."""
    for labels, expected in (
        (["16", "32"], [16, 32]),
        (["1", "1.0"], ["1", "1.0"]),
        (["1", "02", "1e1"], ["1", "02", "1e1"]),
        (["0.5", "2"], [0.5, 2.0]),
        (["8", "wide"], ["8", "wide"]),
        (["true", "false"], [True, False]),
        (["true", "wide"], ["true", "wide"]),
    ):
        levels = ", ".join(f'"{label}": {{batch_size: {16 + i}}}' for i, label in enumerate(labels))
        text = STUDY.replace("learning_rate: [1e-3, 0.1]", f"size: {{{levels}}}").partition("contrasts")[0]
        study, store = make_study(text), make_store(tmp_path / "-".join(labels))
        fill(store, study, lambda spec: 0.5 + 0.01 * spec.batch_size + 0.001 * spec.seed)
        results = Results(read_table(study, store, fingerprint), store)
        found = [row["size"] for row in results.arms()[: len(labels)]]
        assert found == expected
        assert list(map(type, found)) == list(map(type, expected))
        for label, given in zip(labels, found, strict=True):
            assert results._level("size", given) == label
            assert results._level("size", np.array([given])[0]) == label
            if isinstance(given, int) and not isinstance(given, bool):
                assert results._level("size", float(given)) == label
        sizes, norms = ([row for row in results.contrasts() if row["factor"] == name] for name in ("size", "norm"))
        assert {(row["first"], row["second"]) for row in sizes} == {(level, expected[0]) for level in expected[1:]}
        assert [row["at_size"] for row in norms] == expected
    with pytest.raises(api.UsageError, match="write levels by factor"):
        results.compare(norm=("batch", "none"), at="size 8")
