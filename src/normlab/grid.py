"""From a study to its arms and trials: the full grid, or one factor at a time around the first levels. Pure."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normlab.errors import UsageError
from normlab.trial import TrialSpec, make_spec, trial_ids

if TYPE_CHECKING:  # a study checks itself against its own grid
    from normlab.study import ContrastSpec, Factor, Study

MAX_ARMS = 20_000


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One combination of levels. Its trials differ only by seed."""

    levels: Mapping[str, str]  # factor → label
    settings: Mapping[str, Any]  # all but seed and data fingerprint

    @property
    def label(self) -> str:
        return ", ".join(f"{factor} {level}" for factor, level in self.levels.items()) or "base"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two arms of a study, the first minus the second. `planned` if the study file named it.

    With `best`, the name of another factor, each arm stands for the best of its levels: the arms here are only those
    of its first level until results choose others.
    """

    first: Arm
    second: Arm
    factor: str
    planned: bool
    margin: float | None = None  # as a fraction of 1: a smaller difference does not matter
    best: str | None = None

    @property
    def label(self) -> str:
        return self.label_without(self.best) + (f", each at its own best {self.best}" if self.best else "")

    @property
    def place(self) -> dict[str, str]:
        """The levels of the other factors, at which both arms stand."""
        return {f: level for f, level in self.first.levels.items() if f not in (self.factor, self.best)}

    @property
    def question(self) -> tuple[object, ...]:
        """What it shares with any other that asks the same, in whichever direction."""
        levels = frozenset({self.first.levels[self.factor], self.second.levels[self.factor]})
        return self.factor, levels, tuple(self.place.items()), self.best

    def label_without(self, factor: str | None) -> str:
        """The label, with nothing said of one of the other factors."""
        a, b = self.first.levels[self.factor], self.second.levels[self.factor]
        others = ", ".join(f"{f} {level}" for f, level in self.place.items() if f != factor)
        return f"{self.factor}: {a} − {b}" + (f" at {others}" if others else "")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A spec with its id, and the seed under which its arm counts it."""

    id: str
    spec: TrialSpec


def arms(study: "Study") -> tuple[Arm, ...]:
    """All combinations of levels, the last factor turning fastest; or the first levels and each other level alone."""
    sizes = [len(factor.levels) for factor in study.factors]
    count = 1
    for size in sizes:
        count *= size
    if study.vary == "grid" and count > MAX_ARMS:
        raise UsageError(f"study {study.name}: the grid has {count:,} arms; at most {MAX_ARMS:,} are allowed")
    if study.vary == "grid":
        indices: Iterator[tuple[int, ...]] = itertools.product(*map(range, sizes))
    else:
        indices = _one_at_a_time(sizes)
    return tuple(_arm(study, index) for index in indices)


def numeric_levels(factor: "Factor") -> dict[str, float]:
    """The numbers that a factor's labels stand for; empty where one of them is none."""
    numbers = {level.label: as_number(level.label) for level in factor.levels}
    known = {label: number for label, number in numbers.items() if number is not None}
    return known if len(known) == len(numbers) else {}


def as_number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def trials_by_arm(study: "Study", fingerprint: Callable[[str], str]) -> tuple[tuple[Arm, tuple[Trial, ...]], ...]:
    """Every arm with its trials, one a seed. `fingerprint` tells the identity of a data set by its name."""
    once = functools.cache(fingerprint)
    return tuple((arm, _trials(study, arm, once)) for arm in arms(study))


def _trials(study: "Study", arm: Arm, fingerprint: Callable[[str], str]) -> tuple[Trial, ...]:
    print_ = fingerprint(str(arm.settings["data"]))
    first = make_spec({**arm.settings, "seed": study.seeds[0], "data_fingerprint": print_})
    ids = zip(study.seeds, trial_ids(first, study.seeds), strict=True)  # seeds were checked with the study
    return tuple(Trial(id=id_, spec=first.model_copy(update={"seed": seed})) for seed, id_ in ids)


def contrasts(study: "Study") -> tuple[Contrast, ...]:
    """The contrasts named in the study; without any whose levels are there, each level of each factor against its
    first, as exploratory."""
    everything = arms(study)
    # Where two contrasts of a study meet in the same arms, the one that fixes more factors counts; of equals the later.
    named = [(len(one.at), pair) for one in study.contrasts for pair in _named_pairs(study, one, everything)]
    kept = {pair.question: pair for _, pair in sorted(named, key=lambda one: one[0])}
    if kept:
        return tuple(kept[key] for key in dict.fromkeys(pair.question for _, pair in named))
    found: list[Contrast] = []
    margin = None if study.margin is None else study.margin / 100
    for factor in study.factors:
        first, *others = factor.levels
        for other in others:
            found += _pairs(everything, factor.name, other.label, first.label, {}, planned=False, margin=margin)
    return tuple(found)


def without_arms(study: "Study") -> list["ContrastSpec"]:
    """The contrasts named in the study of which no pair of arms is there, or no choice of a level for each."""
    everything = arms(study)
    return [named for named in study.contrasts if not any(_named_pairs(study, named, everything))]


def _named_pairs(study: "Study", named: "ContrastSpec", everything: tuple[Arm, ...]) -> Iterator[Contrast]:
    at = dict(named.at)
    if named.best is not None:  # one contrast for all levels of that factor
        levels = next(f for f in study.factors if f.name == named.best).levels
        if len(levels) == 1:
            return
        at[named.best] = (levels[0].label,)
    margin = None if named.margin is None else named.margin / 100
    for pair in _pairs(everything, named.factor, named.first, named.second, at, planned=True, margin=margin):
        yield replace(pair, best=named.best)


def _pairs(
    everything: tuple[Arm, ...],
    factor: str,
    first: str,
    second: str,
    at: Mapping[str, tuple[str, ...]],
    *,
    planned: bool,
    margin: float | None = None,
) -> Iterator[Contrast]:
    by_levels = {tuple(sorted(arm.levels.items())): arm for arm in everything}
    for arm in everything:
        if arm.levels[factor] == first and all(arm.levels[f] in labels for f, labels in at.items()):
            partner = by_levels.get(tuple(sorted({**arm.levels, factor: second}.items())))
            if partner is not None:
                yield Contrast(first=arm, second=partner, factor=factor, planned=planned, margin=margin)


def _one_at_a_time(sizes: list[int]) -> Iterator[tuple[int, ...]]:
    yield (0,) * len(sizes)
    for position, size in enumerate(sizes):
        for level in range(1, size):
            yield tuple(level if i == position else 0 for i in range(len(sizes)))


def _arm(study: "Study", index: tuple[int, ...]) -> Arm:
    settings: dict[str, Any] = dict(study.base)
    levels = {}
    for factor, i in zip(study.factors, index, strict=True):
        settings |= factor.levels[i].settings
        levels[factor.name] = factor.levels[i].label
    return Arm(levels=levels, settings=settings)
