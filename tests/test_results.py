"""Results in a notebook: rows, frames, comparisons and figures. The examples of docs/notebooks.md run as they stand."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import normlab as api
from normlab.results import Results

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the documentation's examples leave behind, run in a folder of their own."""
    blocks = re.findall(r"^```python\n(.*?)^```", NOTEBOOKS.read_text(), flags=re.M | re.S)
    assert len(blocks) == 7
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
    assert results.frame("contrasts")["verdict"].tolist() == [row["verdict"] for row in results.contrasts()]


def test_a_comparison_that_was_planned_is_planned_and_another_is_exploratory(results: Results) -> None:
    planned = results.compare(norm=("batch", "none"))
    assert [row["planned"] for row in planned] == [True] * 3
    assert planned == results.contrasts()
    (other,) = results.compare(learning_rate=(1e-3, 0.1), at={"norm": "none"}, margin=3)
    assert not other["planned"]
    assert other["margin"] == 0.03
    assert other["verdict"] == "better"


def test_arms_are_compared_at_their_own_best_level_on_other_seeds_than_chose_it(results: Results) -> None:
    (row,) = results.compare(norm=("batch", "none"), best="learning_rate")
    scores = {(arm.arm.levels["norm"], arm.arm.levels["learning_rate"]): arm.scores for arm in results.table.arms}
    means = {}
    for norm, chosen in (("batch", row["first_best"]), ("none", row["second_best"])):
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
        (lambda r: r.compare(nrom=("batch", "none")), "did you mean 'norm'"),
        (lambda r: r.compare(norm=("batch", "none"), at={"rate": 1}), "factor 'rate'"),
        (lambda r: r.compare(norm=("batch", "none"), best="rate"), "factor 'rate'"),
        (lambda r: r.plot("rate"), "factor 'rate'"),
        (lambda r: r.frame("trial"), "did you mean 'trials'"),
    ],
)
def test_a_wrong_question_is_one_line(results: Results, ask: Any, words: str) -> None:
    with pytest.raises(api.UsageError, match=re.escape(words)) as caught:
        ask(results)
    assert "\n" not in str(caught.value)
