"""The report: one page that needs nothing else, with honest words, for studies whole and half done."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from normlab import datasets
from normlab.answers import answers, caveat, remarks
from normlab.errors import UsageError
from normlab.report import (
    commands,
    inline_svg,
    problem_rows,
    provenance_rows,
    settings_rows,
    write_report,
)
from normlab.rows import arm_rows, contrast_rows, to_csv
from normlab.runner import run
from normlab.store import Store
from normlab.study import Study, parse_study
from normlab.table import StudyTable, read_table
from normlab.trial import TrialSpec
from tests.test_figures import make_table
from tests.test_table import STUDY, fill, fingerprint, make_store, make_study, noisy

# Elements that HTML never closes, and those that a page could fetch something with.
VOID = {"meta", "link", "br", "hr", "img", "input"}
FETCHING = {"src", "srcset", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """Checks that elements are closed in order; collects ids, links, headings and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in {"href", "xlink:href"}]
        self.fetched += [value or "" for name, value in attrs if name in FETCHING]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyTable, Path]:
    folder = tmp_path_factory.mktemp("report")
    table = make_table(folder)
    return table, write_report(table.study, table, folder / "out" / "report")


def test_a_report_is_a_page_with_its_numbers_and_figures_beside_it(written: tuple[StudyTable, Path]) -> None:
    _, path = written
    assert path.name == "report.html"
    assert {file.name for file in path.parent.iterdir()} == {
        "report.html", "report.md", "results.json",
        *(f"{name}.{kind}" for name in ("arms", "contrasts") for kind in ("csv", "tex")),
        *(f"figure-{n}.{kind}" for n in ("1-learning-rate", "2-norm", "3-curves") for kind in ("svg", "pdf", "png")),
    }  # fmt: skip


def test_files_of_an_earlier_report_that_this_one_does_not_have_are_removed(tmp_path: Path) -> None:
    text = STUDY.replace("[1e-3, 0.1]", "[1e-4, 1e-3, 0.1]")
    for rates in (text, STUDY):
        table = make_table(tmp_path, rates)
        folder = write_report(table.study, table, tmp_path / "report").parent
        (folder / "figure-9-mine.svg").touch()
        names = {file.stem for file in folder.iterdir()}
        assert ("sensitivity" in names, "sensitivity-contrasts" in names) == (rates == text,) * 2
    assert "figure-9-mine" in names
    without = STUDY.replace("  learning_rate: [1e-3, 0.1]\n", "")
    table = make_table(tmp_path / "other", without)
    write_report(table.study, table, folder)
    assert sorted(file.name for file in folder.glob("figure-*.svg")) == [
        "figure-1-norm.svg", "figure-2-curves.svg", "figure-9-mine.svg"
    ]  # fmt: skip


def test_nothing_in_the_words_below_the_answers_is_an_element(tmp_path: Path) -> None:
    named = STUDY.replace("norm: [none, batch]", "norms: {none: {norm: none}, '<img>': {norm: batch}}")
    named = named.replace("- norm: [batch, none]", "- norms: ['<img>', none]")
    store = make_store(tmp_path)
    study = parse_study(named.encode(), name="s", path="s.yaml", overrides=["norms=none"])
    table = read_table(study, store, fingerprint)
    text = write_report(study, table, tmp_path / "report").with_suffix(".md").read_text()
    assert "norms: &lt;img> − none" in text
    assert "<img" not in text


def test_the_report_as_markdown_has_tables_that_line_up_and_shows_the_figures_beside_it(
    written: tuple[StudyTable, Path],
) -> None:
    table, path = written
    text = path.with_suffix(".md").read_text()
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (path.parent / name).exists()
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(blocks) >= 4
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    for record in table.contrasts:
        assert record.contrast.label in text


def test_the_page_is_well_formed_and_fetches_nothing(written: tuple[StudyTable, Path]) -> None:
    text = written[1].read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert page.fetched == []
    beside = {file.name for file in written[1].parent.iterdir()}
    for link in page.links:
        assert link == "data:," or link in beside or link.removeprefix("#") in page.ids, link
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in page.ids
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text


def test_the_page_can_be_read_without_seeing_it(written: tuple[StudyTable, Path]) -> None:
    text = written[1].read_text()
    page = Page(text)
    assert page.headings[0] == "h1"
    assert page.headings.count("h1") == 1
    assert page.tags.count("figure") == page.tags.count("figcaption") == text.count('role="img" aria-label="') == 3
    assert page.tags.count("table") == page.tags.count("caption")
    assert 'lang="en"' in text
    assert "norm batch: 94" in text or "norm batch: 95" in text  # the means, as the figure's text


def test_the_page_has_the_numbers_of_the_table(written: tuple[StudyTable, Path]) -> None:
    table, path = written
    text = path.read_text()
    for row in arm_rows(table):
        assert f"{100 * row['mean']:.2f}" in text
    for row in contrast_rows(table):
        assert f"{100 * row['difference']:+.2f}" in text.replace("&#43;", "+")
    assert (path.parent / "arms.csv").read_text() == to_csv(arm_rows(table))
    rows = list(csv.DictReader(io.StringIO((path.parent / "contrasts.csv").read_text())))
    assert [float(row["difference"]) for row in rows] == [row["difference"] for row in contrast_rows(table)]
    assert json.loads((path.parent / "results.json").read_text())["question"] == table.study.question


def test_the_page_says_how_to_make_it_again(written: tuple[StudyTable, Path]) -> None:
    text = written[1].read_text()
    assert "normlab run example.yaml" in text
    assert "network: 8K-2C2B-10D" in text
    assert "0123456789ab" in text


def test_a_report_can_be_written_again_over_itself(written: tuple[StudyTable, Path]) -> None:
    table, path = written
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    write_report(table.study, table, path.parent)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    level = "\"'></svg><script>alert(3)</script>"
    text = STUDY.replace("Does batch normalization help?", f"'{evil}'")
    text = text.replace(
        "norm: [none, batch]\n  l", f"../up: {{{json.dumps(level)}: {{norm: none}}, b: {{norm: batch}}}}\n  l"
    )
    text = text.replace("- norm: [batch, none]", f"- ../up: [b, {json.dumps(level)}]")
    table = make_table(tmp_path, text)
    path = write_report(table.study, table, tmp_path / "report")
    page = Page(path.read_text())
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert page.tags.count("svg") == 3
    assert all(file.parent == path.parent for file in tmp_path.rglob("figure-*"))


def answer(folder: Path, accuracy: object, text: str = STUDY) -> list[str]:
    return answers(make_table(folder, text, accuracy))


ONE_RATE = STUDY.replace("[1e-3, 0.1]", "[1e-3]")


def test_an_interval_without_zero_is_higher_or_lower_by_so_much(tmp_path: Path) -> None:
    def clear(spec: TrialSpec) -> float:
        return (0.9 if spec.norm == "batch" else 0.8) + 0.01 * spec.seed

    assert answer(tmp_path / "up", clear, ONE_RATE) == [
        "Test accuracy, norm batch is better than none by 10.00 points [+7.73, +12.27] (n = 3 and 3)."
    ]
    reverse = ONE_RATE.replace("- norm: [batch, none]", "- norm: [none, batch]")
    assert answer(tmp_path / "down", clear, reverse) == [
        "Test accuracy, norm none is worse than batch by 10.00 points [-12.27, -7.73] (n = 3 and 3)."
    ]


def test_an_interval_with_zero_is_not_resolved_and_never_no_difference(tmp_path: Path) -> None:
    sentences = answer(tmp_path, lambda spec: 0.9 + 0.01 * spec.seed, ONE_RATE)
    assert sentences == [
        "Test accuracy, norm batch against none is not resolved at n = 3 and 3: +0.00 points [-2.27, +2.27]."
    ]


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (lambda spec: 0.9 if spec.seed == 0 else None, "cannot be said: n is too small (n = 1 and 1)"),
        (lambda spec: None, "cannot be said yet (n = 0 and 0)"),
        (lambda spec: math.nan, "neither arm has any spread to go by (n = 3 and 3, of which 3 and 3 diverged)"),
    ],
)
def test_too_little_to_go_by_is_said(tmp_path: Path, accuracy: object, expected: str) -> None:
    assert expected in answer(tmp_path, accuracy, ONE_RATE)[0]


def test_a_contrast_at_one_place_of_several_says_where_it_stands(tmp_path: Path) -> None:
    text = STUDY.replace("- norm: [batch, none]", "- {norm: [batch, none], at: {learning_rate: 0.1}}")
    (sentence,) = answer(tmp_path, lambda spec: 0.9 + 0.01 * spec.seed, text)
    assert sentence.startswith("Test accuracy, norm at learning rate 0.1: batch against none is not resolved at n = 3")


def test_runs_that_diverged_are_counted_beside_what_their_chance_is_taken_for(tmp_path: Path) -> None:
    def all_diverge(spec: TrialSpec) -> float:
        return 0.9 + 0.01 * spec.seed if spec.norm == "batch" else math.nan

    (sentence,) = answer(tmp_path / "one", all_diverge, ONE_RATE)
    assert sentence.endswith("(n = 3 and 3, of which 0 and 3 diverged).")
    table = make_table(tmp_path / "two", STUDY, all_diverge)
    assert "n = 3, of which 0 and 6 diverged)." in answers(table)[0]
    assert "Runs that diverged count as chance" in caveat(table)


def test_many_contrasts_of_one_pair_make_one_sentence(tmp_path: Path) -> None:
    (sentence,) = answer(tmp_path, lambda spec: noisy(spec) if spec.learning_rate > 0.05 else 0.9 + 0.01 * spec.seed)
    assert sentence.startswith(
        "Test accuracy, norm batch against none at 2 settings: better at learning rate 0.1 (by 8"
    )
    assert "not resolved at learning rate 0.001 (n = 3)" in sentence


def test_of_many_settings_that_are_all_alike_none_is_named_and_seeds_are_those_of_the_extremes(tmp_path: Path) -> None:
    rates = STUDY.replace("[1e-3, 0.1]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]")
    sentence, *_ = answer(tmp_path, lambda spec: 0.5 + 0.01 * spec.seed + 0.001 * noise(spec), rates)
    assert re.fullmatch(
        r"Test accuracy, norm batch against none at 9 settings: not resolved at each \(n = 3; about \d+ seeds would "
        r"settle the easiest, (about [\d,]+|more than 1,000) the hardest\)\.",
        sentence,
    )


def noise(spec: TrialSpec) -> float:
    """Other in each arm."""
    return spec.learning_rate * (spec.norm == "batch")


def test_equivalence_is_never_said_without_its_margin_nor_for_places_of_another(tmp_path: Path) -> None:
    wide = STUDY + "  - {norm: [batch, none], at: {learning_rate: 0.1}, margin: 5}\nmargin: 3\n"
    (sentence,) = answer(tmp_path, lambda spec: 0.9 + 0.001 * spec.seed, wide)
    assert "equivalent within ±3 points at learning rate 0.001 (n = 3)" in sentence
    assert "equivalent within ±5 points at learning rate 0.1 (n = 3)" in sentence


def test_how_much_wider_a_range_is_is_said_as_far_as_was_tried(tmp_path: Path) -> None:
    text = STUDY.replace("[1e-3, 0.1]", "[1e-4, 1e-3, 1e-2]")
    planned, flat = answer(tmp_path / "open", lambda spec: 0.9 + 0.001 * spec.seed, text)
    assert planned.startswith("Test accuracy, norm batch against none")
    assert flat.startswith(
        "Over learning rate, norm: batch − none (n = 3; exploratory, not corrected): usable range (within 5 points"
    )
    assert "of the best, as far as was tried) cannot be said to differ: +0 factors of ten" in flat
    hill = answer(tmp_path / "closed", lambda spec: 0.9 + 0.001 * spec.seed - 0.5 * (spec.learning_rate != 1e-3), text)
    assert "(within 5 points of the best) cannot be said to differ" in hill[1]


def test_a_line_is_wider_or_higher_only_where_its_interval_says_so(tmp_path: Path) -> None:
    text = STUDY.replace("[1e-3, 0.1]", "[1e-4, 1e-3, 1e-2]")

    def peaked(spec: TrialSpec) -> float:
        """With a norm all rates do, without one the middle one alone, and heights are those of chance."""
        lower = 0.0 if spec.norm == "batch" else (0.3 + 0.01 * spec.seed) * (spec.learning_rate != 1e-3)
        return 0.9 - lower + 0.02 * (spec.seed - 1) * (1 if spec.norm == "batch" else -1) * (spec.learning_rate == 1e-3)

    (sentence,) = (line for line in answer(tmp_path, peaked, text) if line.startswith("Over"))
    assert " is wider: +1" in sentence
    assert "on average is higher: +" in sentence
    one = answer(tmp_path / "one", peaked, text.replace("seeds: 3", "seeds: 1"))
    (sentence,) = (line for line in one if line.startswith("Over"))
    assert "cannot be said to differ: +1" in sentence
    assert "[" not in sentence


def test_of_many_pairs_of_lines_those_that_differ_are_put_into_words_and_the_rest_is_counted(tmp_path: Path) -> None:
    activations = "\n  activation: [relu, leaky_relu, tanh, elu, gelu, sigmoid]"
    text = STUDY.replace("[1e-3, 0.1]", f"[1e-4, 1e-3, 1e-2]{activations}")

    def higher(spec: TrialSpec) -> float:
        is_better = spec.norm == "batch" and spec.activation == "tanh"
        return 0.8 + 0.01 * spec.seed + 0.1 * is_better * (spec.learning_rate > 1e-3)

    lines = [line for line in answer(tmp_path, higher, text) if line.startswith("Over")]
    assert [re.split(r" \(| have", line)[0] for line in lines] == [
        "Over numeric factors, 1 of 6 pairs of lines",
        "Over learning rate, norm: batch − none at activation tanh",
    ]
    flat = answer(tmp_path / "flat", lambda spec: 0.8 + 0.01 * spec.seed, text.replace("seeds: 3", "seeds: 1"))
    (line,) = (line for line in flat if line.startswith("Over"))
    assert line.startswith("Over numeric factors, none of 6 pairs of lines")


def test_a_study_of_one_arm_answers_with_its_mean(tmp_path: Path) -> None:
    text = "question: What does it reach?\nbase: {data: digits, network: 8K-2C2B-10D, epochs: 2}\n"
    table = make_table(tmp_path, text, lambda spec: 0.9 + 0.01 * spec.seed)
    assert answers(table) == ["base: test accuracy 91.00 % [88.52, 93.48] at n = 3."]
    assert "The study compares nothing" in write_report(table.study, table, tmp_path / "report").read_text()


def test_an_empty_study_has_a_report_that_says_what_is_missing(tmp_path: Path) -> None:
    table = make_table(tmp_path, accuracy=lambda spec: None)
    text = write_report(table.study, table, tmp_path / "report").read_text()
    Page(text)
    assert "0 of 12 trials are done; 12 missing" in text
    assert "There is nothing to draw yet" in text


def test_exploratory_comparisons_are_called_so(tmp_path: Path) -> None:
    table = make_table(tmp_path, STUDY.partition("contrasts:")[0])
    assert "All comparisons are exploratory" in caveat(table)
    assert "corrected after Holm for the 4 comparisons" in caveat(table)
    assert "exploratory" not in caveat(make_table(tmp_path))


def test_what_went_wrong_is_listed_by_arm_and_reason(tmp_path: Path) -> None:
    study, store = make_study(), make_store(tmp_path)
    fill(store, study, noisy, skip={2})
    missing = read_table(study, store, fingerprint).arms[0].trials[2].trial.id
    store.record_failure(missing, "out of memory")
    rows = problem_rows(read_table(study, store, fingerprint))
    assert rows[0] == {
        "arm": "norm none, learning_rate 0.001", "state": "failed", "seeds": "2", "reason": "out of memory",
    }  # fmt: skip
    assert rows[1]["seeds"] == "0, 1"
    assert rows[1]["reason"] == "in epoch 3; counts as chance"


def test_settings_are_told_apart_by_whether_they_vary(tmp_path: Path) -> None:
    equal, varied = settings_rows(make_table(tmp_path))
    assert {row["setting"]: row["value"] for row in varied} == {"norm": "none, batch", "learning_rate": "0.001, 0.1"}
    values = {row["setting"]: row["value"] for row in equal}
    assert (values["network"], values["seeds"]) == ("8K-2C2B-10D", "0, 1, 2")
    assert values["norm_eps"] == "0.001 (in some arms without effect)"
    assert "beta1" in values
    assert "momentum" not in values  # of SGD, which no arm uses


def test_provenance_shows_distinct_values_and_bears_their_absence(tmp_path: Path) -> None:
    rows = {row["entry"]: row["value"] for row in provenance_rows(make_table(tmp_path))}
    assert rows["torch"] == "2.13.0"
    assert rows["started"] == "2026-01-01T10:00:00Z to 2026-01-03T10:00:00Z"
    assert rows["seconds"].startswith("18 in all; 1.5 a trial")
    assert rows["data fingerprint"] == "digits: fingerprint of digits"
    assert len(provenance_rows(make_table(tmp_path / "none", accuracy=lambda spec: None))) == 1


def test_the_commands_name_a_shipped_study_scale_and_overrides_safely_quoted() -> None:
    shipped = Study.load("quickstart", overrides=["epochs=2"])
    assert commands(shipped)[0] == "normlab run quickstart epochs=2"
    study = make_study(STUDY + "scales: {short: {epochs: 2}}\n")
    assert commands(study)[1] == "normlab report example.yaml --scale short"
    assert commands(replace(study, path="my study.yaml"))[1] == "normlab report 'my study.yaml' --scale short"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = make_table(tmp_path)
    with pytest.raises(UsageError, match=r"report .*cannot be written"):
        write_report(table.study, table, tmp_path / "file" / "report")


def test_inline_pictures_keep_their_references_apart() -> None:
    svg = '<?xml?><!DOCTYPE svg><svg ><metadata>x</metadata><g id="a" clip-path="url(#a)"/>'
    svg += '<use xlink:href="#a"/><image xlink:href="data:;,x" id="b"/></svg>'
    assert inline_svg(svg, "one", 'say "hi"') == (
        '<svg role="img" aria-label="say &#34;hi&#34;" ><g id="one-a" clip-path="url(#one-a)"/>'
        '<use xlink:href="#one-a"/><image xlink:href="data:;,x" id="one-b"/></svg>'
    )


@pytest.mark.fault(22)
def test_a_network_that_only_guesses_is_flagged_and_stays_in_its_arm(tmp_path: Path) -> None:
    table = make_table(tmp_path, accuracy=lambda spec: 0.11 if spec.seed == 1 else 0.9)
    rows = [
        row for row in problem_rows(table) if row["reason"] and "not shown to be better than chance" in row["reason"]
    ]
    assert {row["seeds"] for row in rows} == {"1"}
    assert {row["state"] for row in rows} == {"finished"}
    assert all(arm.mean is not None and arm.mean.n == len(arm.trials) for arm in table.arms)


@pytest.mark.fault(42)
def test_trials_made_by_other_versions_or_machines_are_said_to_be(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    assert "not all made alike" not in caveat(table)
    arm = table.arms[0]
    one = arm.trials[0]
    assert one.result is not None
    other = replace(one.result, provenance={**one.result.provenance, "torch": "2.12.0"})
    mixed = replace(table, arms=(replace(arm, trials=(replace(one, result=other), *arm.trials[1:])), *table.arms[1:]))
    assert "not all made alike: torch 2.12.0, 2.13.0; what differs may be due to that" in caveat(mixed)


def test_what_was_remarked_of_a_training_is_said_with_its_results(tmp_path: Path) -> None:
    base = "{data: digits, split: fraction, network: 4K-1C1B-10D, norm: batch, epochs: 2, train_images: 100}"
    study = parse_study(f"question: x?\nbase: {base}\nseeds: 2".encode(), name="s", path="s.yaml")
    store = Store(tmp_path / "store")
    run(study, store=store, workers=1, device="cpu")
    table = read_table(study, store, datasets.fingerprint)
    said = "norm_momentum 0.01: after the 14 steps of a training 87% of a moving average is still what it began with"
    write_report(study, table, tmp_path)
    assert f"\n- {said}; write at least 0.2, or train longer\n" in (tmp_path / "report.md").read_text()
    assert f"<li>{said};" in (tmp_path / "report.html").read_text()
    text = f"question: x?\nbase: {base.replace('norm: batch, ', '')}\nfactors: {{norm: [none, batch]}}\nseeds: 2"
    two = parse_study(text.encode(), name="s", path="s.yaml")
    run(two, store=store, workers=1, device="cpu")
    (remark,) = remarks(read_table(two, store, datasets.fingerprint))
    assert remark.endswith("or train longer (norm batch)")
    assert "remarks" not in {row["entry"] for row in provenance_rows(table)}
