"""What a figure shows, as plain data, between `figures`, which chooses it, and `drawing`, which draws it.

It stands alone, so that a process that draws starts without reading statistics.
"""

from dataclasses import dataclass

MAX_SERIES = 7  # as many as can be told apart
MAX_PANELS = 12  # chosen: what fits a page and still can be read


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm in a figure, at the place `x` of its level."""

    x: int
    n: int
    scores: tuple[float, ...]  # of the trials that ended, by seed
    diverged: tuple[float, ...]  # chance, once for each trial that diverged
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Series:
    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True, kw_only=True)
class FactorFigure:
    """The data of a factor's figure. `positions` are the levels' places on the axis; it is logarithmic if `log`."""

    factor: str
    x_label: str
    y_label: str
    ticks: tuple[str, ...]
    positions: tuple[float, ...]
    numeric: bool
    log: bool
    chance: float | None  # None where the arms' numbers of classes differ
    panels: tuple[Panel, ...]
    level: float
    left_out: str  # in words; empty where all arms are drawn

    def points(self) -> list[Point]:
        return [point for panel in self.panels for series in panel.series for point in series.points]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy over epochs: mean, lowest and highest of the runs, those that diverged counted as chance."""

    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ArmCurves:
    name: str
    n: int
    train: Curve
    test: Curve
    chance: float  # as a fraction, where a run that diverged stands
    diverged_at: tuple[int, ...]  # epochs
    damaged: tuple[str, ...]  # the ids of runs that are left out


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    title: str
    arms: tuple[ArmCurves, ...]


@dataclass(frozen=True, kw_only=True)
class CurveFigure:
    panels: tuple[CurvePanel, ...]
    names: tuple[str, ...]  # of the series, in the order of their colours
    dropout: bool  # whether any network has it
    damaged: int  # trials whose curves cannot be drawn
    left_out: str
