"""The paper: every claim is answered by contrasts that its studies planned, in words that the numbers allow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from normlab.errors import UsageError
from normlab.grid import contrasts, trials_by_arm
from normlab.paper import (
    Claim,
    Paper,
    Part,
    Tables,
    Verdict,
    compare_numbers,
    judge,
    scales_of,
    three_evaluations,
)
from normlab.paper_report import scale_differences, small_batch_words, write_paper_report
from normlab.result import Result
from normlab.store import Store
from normlab.study import Study
from normlab.table import StudyTable, read_table
from normlab.wording import seeds_words
from tests.conftest import Run
from tests.test_table import fingerprint, make_store

PAPER = Paper.load()

TEXT = """
question: Does it matter?
base: {data: digits, network: 4K-1C1B-10D, epochs: 1}
factors: {norm: [none, batch], batch_size: [2, 4]}
seeds: 5
contrasts:
  - norm: [batch, none]
"""


class OneTable:
    """Stands for `Tables`: one study made of scores, `accuracy[norm, batch size]` by seed."""

    def __init__(self, tmp_path: Path, accuracy: dict[tuple[str, int], list[float]], **metrics: float) -> None:
        tmp_path.mkdir(exist_ok=True)
        (tmp_path / "example.yaml").write_text(TEXT)
        self._study = Study.load(tmp_path / "example.yaml")
        self.store = make_store(tmp_path / "store")
        for _, row in trials_by_arm(self._study, fingerprint):
            for trial in row:
                scores = accuracy.get((trial.spec.norm, trial.spec.batch_size))
                if scores is None:
                    continue
                seed = trial.spec.seed  # the seeds of two arms run against each other: nothing to pair them by
                if seed >= len(scores):
                    continue
                value = scores[seed if trial.spec.norm == "none" else -1 - seed]
                self.store.save(
                    Result(
                        id=trial.id,
                        spec=trial.spec,
                        status="finished",
                        metrics={"test_accuracy": value, "num_test": 100, "dead_channels": value / 10} | metrics,
                    )
                )

    def study(self, name: str) -> Study:
        return self._study

    def __call__(self, name: str, metric: str = "test_accuracy") -> StudyTable:
        return read_table(self._study, self.store, fingerprint, metric=metric)


def around(mean: float, spread: float = 0.001) -> list[float]:
    return [mean + spread * step for step in (-2, -1, 0, 1, 2)]


def verdict(tables: Any, **part: Any) -> tuple[Verdict, str]:
    made = Part(**{"study": "example", "contrast": {"norm": ("batch", "none")}} | part)
    judged = judge("C", Claim(says="it does", parts=(made,)), tables)
    return judged.verdict, judged.reason


EVERY = {("none", 2): around(0.8), ("batch", 2): around(0.7), ("none", 4): around(0.8), ("batch", 4): around(0.9)}


def test_a_claim_holds_where_all_its_contrasts_are_resolved_as_it_says(tmp_path: Path) -> None:
    tables = OneTable(tmp_path, EVERY)
    assert verdict(tables, at={"batch_size": ("4",)}) == ("supported", "1 of 1 as claimed, none against")
    assert verdict(tables, at={"batch_size": ("2",)}, expects="lower")[0] == "supported"
    assert verdict(tables, at={"batch_size": ("2",)})[0] == "contradicted"


def test_one_contrast_against_it_contradicts_a_claim_that_holds_everywhere_or_somewhere(tmp_path: Path) -> None:
    tables = OneTable(tmp_path, EVERY)
    assert verdict(tables) == ("contradicted", "1 of 2 as claimed, 1 against")
    assert verdict(tables, where="somewhere")[0] == "contradicted"


def test_somewhere_needs_one_contrast_as_claimed_and_everywhere_all(tmp_path: Path) -> None:
    tables = OneTable(tmp_path, EVERY | {("batch", 2): around(0.8005)})
    assert verdict(tables, where="somewhere")[0] == "supported"
    found, reason = verdict(tables)
    assert found == "not resolved"
    assert reason.startswith("1 of 2 as claimed, none against; needs about ")


def test_a_claim_that_asks_for_one_contrast_needs_the_seeds_of_the_nearest(tmp_path: Path) -> None:
    near, far = around(0.8021), around(0.8001)
    tables = OneTable(tmp_path, EVERY | {("batch", 2): far, ("batch", 4): near})
    (_, everywhere), (_, somewhere) = verdict(tables), verdict(tables, where="somewhere")
    (_, nearest) = verdict(tables, at={"batch_size": ("4",)})
    assert somewhere.rpartition("; ")[2] == nearest.rpartition("; ")[2] != everywhere.rpartition("; ")[2]


def test_what_does_not_differ_is_not_resolved_and_never_called_equal(tmp_path: Path) -> None:
    same = dict.fromkeys(EVERY, around(0.8, 0.05))
    found, reason = verdict(OneTable(tmp_path, same))
    assert found == "not resolved"
    assert "equal" not in reason


def test_what_is_not_resolved_needs_more_seeds_than_it_had(tmp_path: Path) -> None:
    nearly = {key: around(0.8 + (key == ("batch", 4)) * 0.0021) for key in EVERY}
    (finding,) = judge(
        "C", Claim(says="x", parts=(Part(study="e", contrast={"norm": ("batch", "none")}, at={"batch_size": ("4",)}),)),
        OneTable(tmp_path, nearly),
    ).findings  # fmt: skip
    assert finding.outcome == "not resolved"
    assert finding.seeds is not None
    assert finding.seeds > 5
    assert [seeds_words(n) for n in (7, 27, 4_734)] == ["about 7", "about 30", "more than 1,000"]


def test_equivalence_needs_an_interval_within_the_margin(tmp_path: Path) -> None:
    tables = OneTable(tmp_path, EVERY | {("batch", 4): around(0.8002)})
    part: dict[str, Any] = {"expects": "equivalent", "at": {"batch_size": ("4",)}}
    assert verdict(tables, margin=0.01, **part)[0] == "supported"
    assert verdict(tables, margin=0.001, **part)[0] == "not resolved"
    assert verdict(OneTable(tmp_path / "far", EVERY), margin=0.01, **part)[0] == "contradicted"


def test_nothing_is_decided_where_trials_ended_without_the_measurement(tmp_path: Path) -> None:
    """A diverged trial has no gradients to compare, and is what a claim about exploding gradients is about."""
    tables = OneTable(tmp_path, EVERY | {("none", 4): [*around(0.99)[:3]]})  # three of five seeds, far above
    for _, row in trials_by_arm(tables.study("example"), fingerprint):
        for trial in row[3:]:
            if (trial.spec.norm, trial.spec.batch_size) == ("none", 4):
                ended = Result(
                    id=trial.id, spec=trial.spec, status="diverged", diverged_epoch=1, metrics={"num_test": 9}
                )
                tables.store.save(ended)
    part: dict[str, Any] = {"metric": "dead_channels", "expects": "lower"}
    assert verdict(tables, at={"batch_size": ("2",)}, **part)[0] == "supported"
    found, reason = verdict(tables, at={"batch_size": ("4",)}, **part)
    assert found == "not resolved"
    assert "2 trials ended without the measurement" in reason


def test_a_claim_waits_for_the_results_of_all_its_contrasts(tmp_path: Path) -> None:
    tables = OneTable(tmp_path, {key: value for key, value in EVERY.items() if key != ("none", 4)})
    assert verdict(tables) == ("not tested", "results are missing for 1 of 2 contrasts")


def test_what_cannot_be_read_leaves_the_other_parts_of_a_claim_their_evidence(tmp_path: Path) -> None:
    class WithoutData(OneTable):
        def __call__(self, name: str, metric: str = "test_accuracy") -> StudyTable:
            if name == "absent":
                raise UsageError("data folder:pets: not found")
            return super().__call__(name, metric)

    tables: Any = WithoutData(tmp_path, EVERY)
    absent = Part(study="absent", contrast={"norm": ("batch", "none")})
    for level, expected in (("4", "not tested"), ("2", "contradicted")):
        here = Part(study="example", contrast={"norm": ("batch", "none")}, at={"batch_size": (level,)})
        judged = judge("C", Claim(says="it does", parts=(here, absent)), tables)
        assert judged.verdict == expected
        assert len(judged.findings) == 1
        assert judged.reason.endswith("; data folder:pets: not found")
    assert judge("C", Claim(says="it does", parts=(absent,)), tables).reason == "data folder:pets: not found"


def test_the_correction_counts_every_planned_contrast_of_the_study(tmp_path: Path) -> None:
    """Two contrasts: the p of the one that the claim asks about is doubled where it is the smaller of both."""
    tables = OneTable(tmp_path, EVERY | {("batch", 2): around(0.8005)})
    (finding,) = judge(
        "C", Claim(says="x", parts=(Part(study="e", contrast={"norm": ("batch", "none")}, at={"batch_size": ("4",)}),)),
        tables,
    ).findings  # fmt: skip
    assert finding.p is not None
    assert finding.corrected == pytest.approx(2 * finding.p)


def test_a_mean_reaches_a_number_when_its_whole_interval_does(tmp_path: Path) -> None:
    class One(OneTable):
        def __call__(self, name: str, metric: str = "test_accuracy") -> StudyTable:
            table = super().__call__(name, metric)
            return StudyTable(**{**vars(table), "arms": table.arms[:1], "contrasts": ()})

    tables = One(tmp_path, EVERY)
    reaches: dict[str, Any] = {"contrast": {}}
    assert verdict(tables, reaches=0.79, **reaches)[0] == "supported"
    assert verdict(tables, reaches=0.8, **reaches)[0] == "not resolved"
    assert verdict(tables, reaches=0.81, **reaches)[0] == "contradicted"
    assert verdict(tables, reaches=0.81, scales=("paper",), **reaches)[0] == "not tested"


def test_a_probe_can_answer_where_an_accuracy_cannot(tmp_path: Path) -> None:
    assert verdict(OneTable(tmp_path, EVERY), metric="dead_channels", at={"batch_size": ("4",)})[0] == "supported"


@pytest.mark.parametrize("name", list(PAPER.claims))
def test_every_claim_rests_on_contrasts_that_its_studies_planned_or_says_why_not(name: str) -> None:
    claim = PAPER.claims[name]
    assert bool(claim.parts) != bool(claim.untested)
    for part in claim.parts:
        assert part.study in PAPER.studies
        if part.reaches is not None:
            continue
        study = Study.load(part.study, scale="paper")
        ((factor, pair),) = part.contrast.items()
        meant = [
            c
            for c in contrasts(study)
            if c.planned
            and (c.factor, c.first.levels[factor], c.second.levels[factor]) == (factor, *pair)
            and all(c.first.levels[f] in labels for f, labels in part.at.items())
        ]
        expected = 1
        for other in study.factors:
            if other.name != factor:
                expected *= len(part.at.get(other.name, other.levels))
        assert len(meant) == expected


def test_there_are_twelve_claims_and_every_number_of_the_text_has_an_arm(tmp_path: Path) -> None:
    assert list(PAPER.claims) == [f"C{i}" for i in range(1, 13)]
    assert scales_of(PAPER) == ["laptop", "smoke", "paper", "paper-jpeg"]
    for number in PAPER.numbers:
        study = Study.load(number.study, scale="paper")
        for factor, label in number.arm.items():
            assert label in [level.label for f in study.factors if f.name == factor for level in f.levels]


def test_the_papers_own_scale_does_not_differ_from_the_paper(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert scale_differences(PAPER, Tables(store, "paper")) == []
    rows = scale_differences(PAPER, Tables(store, "laptop"))
    epochs = {row["study"]: (row["here"], row["paper"]) for row in rows if row["setting"] == "epochs"}
    assert epochs["learning-rate"] == ("8", "60")
    assert set(epochs) == {name.removeprefix("paper/") for name in PAPER.studies}


def test_small_batches_are_compared_with_none_by_each_kind_of_statistics(tmp_path: Path) -> None:
    tables = OneTable(tmp_path, EVERY, test_accuracy_recomputed=0.85, test_accuracy_batch=0.6)
    rows = three_evaluations(tables, "example")
    assert [(row["norm"], row["batch_size"]) for row in rows] == [("batch", "2"), ("batch", "4")]
    assert rows[0]["test_accuracy - none"].difference == pytest.approx(-0.1)
    assert rows[0]["test_accuracy_recomputed - none"].difference == pytest.approx(0.05)
    assert small_batch_words(rows)[0].startswith(
        "Batch normalization against none at batch size 2: moving averages -10"
    )


@pytest.fixture(scope="module")
def smoke_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an empty store where there is no data but the embedded digits."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NORMLAB_DATA", "NORMLAB_HOME"):
            patch.setenv(name, str(folder))
        patch.setenv("NORMLAB_OFFLINE", "1")
        tables = Tables(Store(folder / "store"), "smoke")
        judgements = [judge(name, claim, tables) for name, claim in PAPER.claims.items()]
        return write_paper_report(PAPER, judgements, tables, folder / "report")


def test_the_report_of_an_empty_store_says_what_is_missing(smoke_report: Path) -> None:
    page = smoke_report.read_text()
    assert "0 of " in page
    assert page.count("not tested") >= 11
    for figure in ("figure-1-classes", "figure-2-network", "figure-3-augmentation"):
        assert (smoke_report.parent / f"{figure}.svg").exists()
    assert "Figure 4: no results yet" in page
    assert "Figure 8, cats and dogs could not be drawn" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert (smoke_report.parent / "studies" / "order" / "report.html").exists()


def test_a_trial_that_two_studies_share_is_counted_once(smoke_report: Path) -> None:
    counts = [
        Tables(Store(Path("nowhere")), "smoke")(name).records().keys() for name in PAPER.studies if "cats" not in name
    ]
    assert f"0 of {len(set().union(*counts))} trials" in smoke_report.read_text()
    assert len(set().union(*counts)) < sum(map(len, counts))


def test_options_may_stand_before_the_verb_too(here: Run) -> None:
    done = here("paper", "--scale", "smaller", "report")
    assert (done.returncode, "scale 'smaller'" in done.stderr) == (2, True)
    assert here("paper", "--scale", "smoke", "--store", "mine", "report").stdout.endswith(
        "mine/reports/paper-smoke/report.html\n"
    )
    assert here("paper", "--json", "report").returncode == 2
    assert "scale paper;" in here("paper", "--scale", "paper").stdout


def test_a_number_of_the_paper_is_held_against_one_further_run(tmp_path: Path) -> None:
    comparisons = compare_numbers(PAPER, Tables(Store(tmp_path), "smoke"))
    assert {c.place for c in comparisons} == {"cannot be said"}  # nothing has run
    assert len([c for c in comparisons if c.number.says == "BN at a small batch"]) == 3


def test_the_list_and_the_verdicts_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from normlab.cli import commands\n"
        f"commands.main(['paper', '--scale', 'smoke', '--store', {str(tmp_path)!r}, '--json'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tree = json.loads(done.stdout)
    assert [row["study"] for row in tree["studies"]] == list(PAPER.studies)
