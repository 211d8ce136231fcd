"""Figures: what is drawn is data that can be checked; the drawing is stable, bounded and takes any text."""

import io
import math
import re
import zlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fontTools.subset import Options
from PIL import Image

from normlab.drawing import draw_curves, draw_factor
from normlab.errors import UsageError
from normlab.figure_data import MAX_PANELS, FactorFigure, Series
from normlab.figures import curve_figure, factor_figure
from normlab.pictures import picture
from normlab.table import DamagedWarning, StudyTable, read_table
from normlab.trial import TrialSpec
from tests.test_table import STUDY, fill, fingerprint, make_store, make_study, noisy

THREE = STUDY.replace("0.1]", "0.1]\n  batch_size: [4, 16, 64]")


def make_table(folder: Path, text: str = STUDY, accuracy: object = noisy) -> StudyTable:
    study, store = make_study(text), make_store(folder)
    fill(store, study, accuracy)
    return read_table(study, store, fingerprint)


def test_a_figure_holds_every_seed_mean_and_interval_of_its_arms(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    data = factor_figure(table, "learning_rate")
    assert [series.name for series in data.panels[0].series] == ["norm none", "norm batch"]
    point = data.panels[0].series[1].points[0]
    assert point.scores == tuple(table.arms[2].scores.values())
    assert table.arms[2].mean is not None
    assert (point.mean, point.low, point.high, point.n) == (
        table.arms[2].mean.mean, table.arms[2].mean.low, table.arms[2].mean.high, 3,
    )  # fmt: skip
    assert (data.x_label, data.y_label, data.chance) == ("learning rate (log scale)", "test accuracy (%)", 0.1)


def test_diverged_trials_are_drawn_apart_at_chance(tmp_path: Path) -> None:
    point = factor_figure(make_table(tmp_path), "learning_rate").panels[0].series[0].points[1]
    assert (point.scores, point.diverged, point.mean, point.low) == ((), (0.1, 0.1, 0.1), 0.1, None)


@pytest.mark.parametrize(
    ("levels", "log", "numeric"),
    [("[1e-3, 0.1]", True, True), ("[0.01, 0.02, 0.05]", False, True), ("[0.01]", False, False)],
)
def test_the_axis_is_logarithmic_where_numbers_span_more_than_a_decade(
    tmp_path: Path, levels: str, log: bool, numeric: bool
) -> None:
    data = factor_figure(make_table(tmp_path, STUDY.replace("[1e-3, 0.1]", levels)), "learning_rate")
    assert (data.log, data.numeric) == (log, numeric)


def test_words_make_a_categorical_axis(tmp_path: Path) -> None:
    data = factor_figure(make_table(tmp_path), "norm")
    assert (data.numeric, data.ticks, data.positions) == (False, ("none", "batch"), (0.0, 1.0))


def test_numbers_stand_in_their_order_whatever_that_of_the_file(tmp_path: Path) -> None:
    data = factor_figure(make_table(tmp_path, STUDY.replace("[1e-3, 0.1]", "[0.01, 0.1, 0.001]")), "learning_rate")
    assert data.positions == (0.001, 0.01, 0.1)
    assert [p.x for p in data.panels[0].series[0].points] == [0, 1, 2]


def test_a_third_factor_becomes_panels_and_the_categorical_one_the_series(tmp_path: Path) -> None:
    data = factor_figure(make_table(tmp_path, THREE), "learning_rate")
    assert [panel.title for panel in data.panels] == ["batch size 4", "batch size 16", "batch size 64"]
    assert all([series.name for series in panel.series] == ["norm none", "norm batch"] for panel in data.panels)
    assert len(data.points()) == 12


def test_beyond_the_last_panel_the_figure_says_what_it_leaves_out(tmp_path: Path) -> None:
    many = ", ".join(str(size) for size in range(2, 2 + MAX_PANELS + 3))
    data = factor_figure(make_table(tmp_path, STUDY.replace("[1e-3, 0.1]", f"[0.01]\n  batch_size: [{many}]")), "norm")
    assert len(data.panels) == MAX_PANELS
    assert data.left_out == f"the first {MAX_PANELS} of {MAX_PANELS + 3} panels; the table has all arms"


def test_one_factor_at_a_time_draws_each_factor_along_its_own_line(tmp_path: Path) -> None:
    table = make_table(tmp_path, THREE.replace("base:", "vary: one-at-a-time\nbase:"))
    assert len(table.arms) == 5
    data = factor_figure(table, "batch_size")
    assert [[p.x for p in series.points] for panel in data.panels for series in panel.series] == [[0, 1, 2]]


def test_curves_are_means_over_seeds_with_their_range(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    arm = curve_figure(table).panels[0].arms[1]
    results = [record.result for record in table.arms[2].trials if record.result]
    runs = [details.curves["test_accuracy"] for result in results if (details := table.details(result))]
    last = [run[-1] or 0.0 for run in runs]
    assert arm.test.epochs == (1, 2, 3, 4)
    assert arm.test.mean[-1] == pytest.approx(sum(last) / 3)
    assert (arm.test.lowest[-1], arm.test.highest[-1]) == (min(last), max(last))


def test_a_trial_that_diverged_counts_as_chance_in_the_curves_from_then_on(tmp_path: Path) -> None:
    def one_diverges(spec: TrialSpec) -> float:
        return math.nan if spec.seed == 0 else 0.9

    arm = curve_figure(make_table(tmp_path, accuracy=one_diverges)).panels[0].arms[0]
    assert arm.diverged_at == (3,)
    assert arm.test.lowest[2:] == (0.1, 0.1)
    assert arm.test.mean[3] == pytest.approx((0.1 + 2 * arm.test.highest[3]) / 3)


def test_a_damaged_trial_that_two_arms_share_is_left_out_once(tmp_path: Path) -> None:
    text = STUDY.replace("norm: [none, batch]", "activation: [relu, leaky_relu]")
    text = text.replace("learning_rate: [1e-3, 0.1]", "slope: [0.1, 0.2]").partition("contrasts")[0]
    table = make_table(tmp_path, text)
    assert len(table.arms) == 4
    shared = table.arms[0].trials[0].trial.id
    assert shared in {record.trial.id for record in table.arms[1].trials}
    (tmp_path / "store" / "trials" / shared / "details.json").write_text("{}")
    with pytest.warns(DamagedWarning, match=shared):
        assert curve_figure(table).damaged == 1


def test_epochs_without_an_evaluation_are_left_out_of_the_test_curve(tmp_path: Path) -> None:
    text = STUDY.replace("epochs: 4", "epochs: 4, evaluate_every: 2")
    arm = curve_figure(make_table(tmp_path, text)).panels[0].arms[0]
    assert (arm.test.epochs, arm.train.epochs) == ((2, 4), (1, 2, 3, 4))


def test_a_figure_is_drawn_to_the_same_bytes_each_time_with_its_text_as_text(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    data = factor_figure(table, "learning_rate")
    first, second = (picture(draw_factor(data), ".svg") for _ in range(2))
    assert first == second
    text = " ".join(ElementTree.fromstring(first).itertext())
    for phrase in ("norm batch, n = 3", "mean with 95% t interval", "chance, 10 %", "diverged", "test accuracy (%)"):
        assert phrase in text


def test_the_dots_of_thousands_of_seeds_are_one_path_a_line_and_all_of_them_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = factor_figure(make_table(tmp_path), "norm")
    few = picture(draw_factor(data), ".svg").decode()
    monkeypatch.setattr("normlab.drawing.MAX_MARKERS", 5)
    many = picture(draw_factor(data), ".svg").decode()
    seeds = sum(len(point.scores) for point in data.points())
    strokes = re.findall(r'<path d="([^"]*)"[^>]*stroke-linecap: round', many)
    assert sum(stroke.count("M") for stroke in strokes) == seeds
    assert few.count("<use") - many.count("<use") == seeds
    assert many.count("<text") == few.count("<text") > 5


@pytest.mark.parametrize("factor", ["norm", "learning_rate"])
def test_the_dots_of_thousands_of_seeds_look_like_those_of_few(
    factor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = factor_figure(make_table(tmp_path), factor)
    few = picture(draw_factor(data), ".png")
    monkeypatch.setattr("normlab.drawing.MAX_MARKERS", 0)
    pixels = [np.asarray(Image.open(io.BytesIO(p))).astype(int) for p in (few, picture(draw_factor(data), ".png"))]
    different = np.abs(pixels[0] - pixels[1]).max(axis=2) > 64  # beyond the shade of an edge
    assert (pixels[0] != pixels[1]).sum() > 0
    assert different.mean() < 1e-4


def test_every_dot_of_three_thousand_is_drawn_also_where_many_lie_in_one_place(tmp_path: Path) -> None:
    data = factor_figure(make_table(tmp_path), "learning_rate")
    (panel,) = data.panels
    many = replace(panel.series[0].points[0], scores=tuple(round(0.3 + i % 997 / 2000, 2) for i in range(3000)))
    figure = replace(data, panels=(replace(panel, series=(Series(name="many", points=(many,)),)),))
    (path,) = re.findall(r'<path d="([^"]*)"[^>]*stroke-linecap: round', picture(draw_factor(figure), ".svg").decode())
    assert path.count("M") == path.count("L") == 3000


def test_a_line_without_a_run_is_no_dot_among_thousands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = factor_figure(make_table(tmp_path), "learning_rate")
    (panel,) = data.panels
    bare = replace(data, panels=(replace(panel, series=(panel.series[0], Series(name="nothing", points=()))),))
    monkeypatch.setattr("normlab.drawing.MAX_MARKERS", 0)
    assert picture(draw_factor(bare), ".svg").count(b"stroke-linecap: round") == 1


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_pictures_come_as_the_kind_that_was_asked_for(tmp_path: Path, suffix: str, start: bytes) -> None:
    figure = draw_curves(curve_figure(make_table(tmp_path)))
    content = picture(figure, suffix)
    assert content.startswith(start)
    assert content == picture(figure, suffix)


def test_the_font_in_a_pdf_holds_its_letters_and_no_tables_for_placing_them(tmp_path: Path) -> None:
    before = vars(Options())
    content = picture(draw_factor(factor_figure(make_table(tmp_path), "norm")), ".pdf")
    assert vars(Options()) == before  # others in this process may want them
    streams = re.findall(rb"(?<!end)stream\n(.*?)\nendstream", content, re.DOTALL)
    (font,) = [font for font in map(zlib.decompress, streams) if b"glyf" in font[:300]]
    assert not any(table in font[:300] for table in (b"GDEF", b"GPOS", b"GSUB"))


def test_another_kind_of_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown kind of picture '\.gif'.*\.svg"):
        picture(draw_factor(factor_figure(make_table(tmp_path), "norm")), ".gif")


def test_text_of_any_kind_is_drawn_as_it_is(tmp_path: Path) -> None:
    text = STUDY.replace("norm: [none, batch]\n  l", "norms: {'$\\frac{': {norm: none}, '<b>層&': {norm: batch}}\n  l")
    table = make_table(tmp_path, text.replace("- norm: [batch, none]", "- norms: ['<b>層&', '$\\frac{']"))
    svg = picture(draw_factor(factor_figure(table, "norms")), ".svg")
    drawn = " ".join(ElementTree.fromstring(svg).itertext())
    assert "$\\frac{" in drawn
    assert "<b>層&" in drawn


def test_an_empty_or_half_empty_study_can_be_drawn(tmp_path: Path) -> None:
    def half(spec: TrialSpec) -> float | None:
        return 0.9 if spec.norm == "batch" and spec.seed == 0 else None

    for accuracy in (half, lambda spec: None):
        table = make_table(tmp_path, accuracy=accuracy)
        assert picture(draw_factor(factor_figure(table, "norm")), ".svg")
        assert picture(draw_curves(curve_figure(table)), ".svg")


def test_figure_data_without_chance_are_drawn(tmp_path: Path) -> None:
    fields = vars(factor_figure(make_table(tmp_path), "norm")) | {"chance": None}
    assert picture(draw_factor(FactorFigure(**fields)), ".svg")
