"""Places in a figure of panels: nothing leaves it, nothing lies on another text, and equal things stand in one line."""

import itertools
import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from normlab.drawing import draw_curves, draw_factor
from normlab.figure_data import ArmCurves, Curve, CurveFigure, CurvePanel, FactorFigure, Panel, Point, Series
from normlab.panels import CHARACTER, Axis, fit_labels, grid_shape, number_axis, wrapped

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing")  # as `picture` does: a level may be in any script
LONG = "learning rate 0.001, batch size 16, activation leaky_relu, norm position before_activation, copies 3"
WORDY = ("before the activation and the dropout", "after the activation and before the dropout", "off")


def factor_data(
    levels: tuple[str, ...], *, panels: int = 1, series: int = 2, numeric: bool = False, log: bool = False,
    title: str = "batch size", y_label: str = "test accuracy (%)", spread: float = 0.05, name: str = "norm",
) -> FactorFigure:  # fmt: skip
    def point(i: int) -> Point:
        mean = 0.7 + spread * i / len(levels)
        scores = (mean - spread, mean, mean + spread)
        return Point(x=i, n=3, scores=scores, diverged=(0.1,), mean=mean, low=mean - spread, high=mean + spread)

    points = tuple(point(i) for i in range(len(levels)))
    lines = tuple(Series(name=f"{name} {i}", points=points) for i in range(series))
    return FactorFigure(
        factor="learning_rate", x_label="learning rate (log scale)", y_label=y_label, ticks=levels,
        positions=tuple(map(float, levels)) if numeric else tuple(map(float, range(len(levels)))), numeric=numeric,
        log=log, chance=0.1, panels=tuple(Panel(title=f"{title} {i}", series=lines) for i in range(panels)), level=0.95,
        left_out="",
    )  # fmt: skip


def curve_data(epochs: int, *, panels: int = 1, series: int = 2) -> CurveFigure:
    values = tuple(i / epochs for i in range(epochs))
    curve = Curve(epochs=tuple(range(1, epochs + 1)), mean=values, lowest=values, highest=values)
    names = tuple(f"norm {i}" for i in range(series))
    arms = tuple(
        ArmCurves(name=name, n=3, train=curve, test=curve, chance=0.1, diverged_at=(1,), damaged=()) for name in names
    )
    found = tuple(CurvePanel(title=f"batch size {i}", arms=arms) for i in range(panels))
    return CurveFigure(panels=found, names=names, dropout=True, damaged=0, left_out="")


def flat_curves() -> CurveFigure:
    curve = Curve(epochs=(1, 2), mean=(0.10000000000000002, 0.1), lowest=(0.1, 0.1), highest=(0.1, 0.1))
    arms = (ArmCurves(name="", n=3, train=curve, test=curve, chance=0.1, diverged_at=(), damaged=()),)
    return CurveFigure(panels=(CurvePanel(title="", arms=arms),), names=("",), dropout=False, damaged=0, left_out="")


def texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    FigureCanvasAgg(figure).draw()
    return [(t, t.get_window_extent()) for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


NUMBERS = ("0.00025", "0.01", "0.123456")
FIGURES = {
    "one panel": lambda: draw_factor(factor_data(("none", "batch"))),
    "a hair's breadth": lambda: draw_factor(factor_data(("none", "batch"), panels=3, spread=1e-5)),
    "wordy levels": lambda: draw_factor(factor_data(WORDY)),
    "wordy levels beside each other": lambda: draw_factor(factor_data(WORDY, panels=5)),
    "a number": lambda: draw_factor(factor_data(NUMBERS, panels=12, series=7, numeric=True, log=True)),
    "many numbers": lambda: draw_factor(factor_data(tuple(f"{i}e-4" for i in range(1, 40)), numeric=True)),
    "one number by two names": lambda: draw_factor(factor_data(("1", "1.0"), numeric=True)),
    "an unfilled row": lambda: draw_factor(factor_data(("4", "8", "16"), panels=7, numeric=True)),
    "wordy levels in an unfilled row": lambda: draw_factor(factor_data(WORDY, panels=7)),
    "numbers in an unfilled row": lambda: draw_factor(
        factor_data(NUMBERS, panels=11, series=7, numeric=True, log=True)
    ),
    "a name in capitals": lambda: draw_factor(factor_data(("WMQ" * 8, "ДО АКТИВАЦИИ" * 2, "off"))),
    "titles in capitals": lambda: draw_factor(
        factor_data(("none", "batch"), panels=12, title="NORM MEAN_ONLY, BATCH WMW 16 MMMM")
    ),
    "titles in Cyrillic": lambda: draw_factor(
        factor_data(("none", "batch"), panels=6, title="НОРМАЛИЗАЦИЯ ДО АКТИВАЦИИ ШИРОКАЯ")
    ),
    "titles without blanks": lambda: draw_factor(
        factor_data(("none", "batch"), panels=12, title="正規化活性化の前 学習率 大きい値設定")
    ),
    "a legend in Cyrillic": lambda: draw_factor(factor_data(("none", "batch"), series=4, name="НОРМА ДО АКТИВАЦИИ")),
    "a legend of wide names": lambda: draw_factor(factor_data(("none", "batch"), series=5, name="正規化活性化の前")),
    "curves that differ by rounding": lambda: draw_curves(flat_curves()),
    "long titles": lambda: draw_factor(factor_data(("none", "batch"), panels=12, title=LONG)),
    "a long label": lambda: draw_factor(factor_data(("none", "batch"), panels=6, y_label=f"{LONG} (%)")),
    "curves": lambda: draw_curves(curve_data(60)),
    "curves of an epoch": lambda: draw_curves(curve_data(1, series=1)),
    "curves in panels": lambda: draw_curves(curve_data(250, panels=12, series=7)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_all_text_lies_within_the_figure_and_none_on_another(name: str) -> None:
    figure = FIGURES[name]()
    found = texts(figure)
    whole = figure.bbox.padded(1)
    for text, box in found:
        assert Bbox.union([whole, box]).get_points() == pytest.approx(whole.get_points()), text
    level = [(text, box) for text, box in found if text.get_rotation() in (0, 90)]  # turned ones lie side by side
    for (text, box), (other, its_box) in itertools.combinations(level, 2):
        assert Bbox.intersection(box.padded(-1), its_box.padded(-1)) is None, (text, other)


@pytest.mark.parametrize("name", FIGURES)
def test_text_lies_on_no_panel_and_panels_are_of_one_size(name: str) -> None:
    figure = FIGURES[name]()
    found = texts(figure)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for box in boxes:
        assert (box.width, box.height) == pytest.approx((boxes[0].width, boxes[0].height))
        for text, its_box in found:
            assert Bbox.intersection(box.padded(-1), its_box) is None, text


@pytest.mark.parametrize("name", ["wordy levels beside each other", "wordy levels in an unfilled row"])
def test_turned_labels_cross_no_panel_and_no_text_that_is_level(name: str) -> None:
    figure = FIGURES[name]()
    found = texts(figure)
    others = [box for text, box in found if text.get_rotation() in (0, 90)]
    others += [axes.get_window_extent() for axes in figure.axes]
    turned = [box for text, box in found if text.get_rotation() not in (0, 90)]
    assert turned
    for box in turned:  # along the middle of the text, from its lower left to its upper right end
        for share in np.linspace(0.05, 0.95, 19):
            at = box.x0 + share * box.width, box.y0 + share * box.height
            assert not any(other.contains(*at) for other in others)


def test_a_users_own_style_changes_no_figure() -> None:
    plain = [axes.get_position().bounds for axes in FIGURES["one panel"]().axes]
    with mpl.rc_context({"axes.grid": True, "axes.labelsize": 30, "figure.autolayout": True, "legend.borderpad": 5}):
        figure = FIGURES["one panel"]()
        assert figure.get_layout_engine() is None
        assert not figure.axes[0].xaxis.get_gridlines()[0].get_visible()
        assert figure.axes[0].xaxis.label.get_fontsize() == 9
        assert [axes.get_position().bounds for axes in figure.axes] == plain


def test_nothing_of_the_first_and_last_number_is_cut_off() -> None:
    figure = draw_factor(factor_data(NUMBERS, panels=5, series=7, numeric=True, log=True))
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        ends = axes.get_window_extent()
        for line in axes.lines[3:]:  # but the grid and chance
            places = line.get_transform().transform(line.get_xydata())[:, 0]
            assert ends.x0 < np.nanmin(places) < np.nanmax(places) < ends.x1


def test_only_outer_panels_have_ticks_and_all_have_the_grid() -> None:
    figure = draw_curves(curve_data(10, panels=4))
    assert [axes.xaxis.get_visible() for axes in figure.axes] == [False, False, True, True]
    assert [axes.yaxis.get_visible() for axes in figure.axes] == [True, False, True, False]
    for axes in figure.axes:
        assert axes.get_xlim() == figure.axes[0].get_xlim()
        across, along = (np.asarray(line.get_xydata()) for line in axes.lines[:2])
        assert across[across[:, 1] == 0, 0].tolist() == list(figure.axes[3].get_xticks())
        assert along[along[:, 0] == 0, 1].tolist() == list(figure.axes[0].get_yticks())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.5, 1.5), (77.31, 77.33), (-3.0, 103.0), (0.0, 1e-6), (1.0, 300.0)])
def test_ticks_are_round_numbers_within_the_ends_with_as_many_digits_as_they_need(
    ends: tuple[float, float], whole: bool
) -> None:
    axis = number_axis("", 112, ends, 18, whole=whole)
    assert all(ends[0] <= tick <= ends[1] for tick in axis.ticks)
    assert list(map(float, axis.labels)) == pytest.approx(list(axis.ticks))
    if whole and math.floor(ends[1]) >= math.ceil(ends[0]):
        assert 1 <= len(axis.ticks) <= 7
        assert all(float(tick).is_integer() for tick in axis.ticks)
    elif not whole:
        assert 2 <= len(axis.ticks) <= 7
        assert len(set(axis.labels)) == len(axis.labels)


def test_a_value_moved_by_points_lies_there() -> None:
    for axis in (
        Axis(words="", length=100, ends=(2.0, 7.0)),
        Axis(words="", length=100, ends=(1e-4, 0.1), log=True),
    ):
        value = axis.ends[0] * 1.5
        before, after = axis.places([value, axis.moved(value, 12)])
        assert after - before == pytest.approx(12)


def test_a_level_stays_with_its_factor_where_there_is_room() -> None:
    width = 27 * CHARACTER
    assert wrapped("learning rate 0.01, batch size 16", width) == "learning rate 0.01,\nbatch size 16"
    assert wrapped("norm none, batch size 16, rate 0.01", width) == "norm none, batch size 16,\nrate 0.01"
    whole = "norm position before_activation, a, network 16K-4C3B-256D-10D"
    assert " ".join(wrapped(whole, width).split()) == whole
    assert wrapped("", width) == ""


def test_labels_that_would_touch_are_wrapped_then_turned_then_thinned() -> None:
    assert fit_labels(["a", "b"], [0, 50], 100) == ([0, 1], ["a", "b"], False)
    _, labels, turned = fit_labels(["before the activation", "after the activation"], [0, 110], 220)
    assert (labels, turned) == (["before the\nactivation", "after the\nactivation"], False)
    assert fit_labels(["before the activation"] * 2, [0, 40], 80)[2]
    keep, _, turned = fit_labels([str(i) for i in range(100)], [2.0 * i for i in range(100)], 300)
    assert turned
    assert keep == list(range(0, 100, 7))


def test_labels_that_would_touch_those_of_the_next_panel_are_turned() -> None:
    assert not fit_labels(["0.00025", "0.1"], [10, 100], 150)[2]
    assert fit_labels(["0.00025", "0.1"], [10, 100], 110)[2]


def test_panels_fill_their_grid() -> None:
    shapes = {n: grid_shape(n) for n in range(1, 25)}
    assert all(columns * rows >= n > columns * (rows - 1) for n, (columns, rows) in shapes.items())
    assert (shapes[1], shapes[4], shapes[10], shapes[12]) == ((1, 1), (2, 2), (5, 2), (4, 3))
