"""A study: one question in one small YAML file, read into a frozen `Study`.

The file is dumb on purpose: names, numbers and lists, YAML 1.2 (so that `1e-3` is a number and `off` a word), no
aliases, no tags, no interpolation. Whatever is wrong with it becomes one line with file, line, key and what to write.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from normlab.errors import UsageError, nearest, unknown
from normlab.grid import arms, without_arms
from normlab.strict_yaml import MAX_BYTES, Value, read_yaml
from normlab.trial import SETTINGS, allowed, in_yaml, is_active, make_spec

MAX_SEEDS = MAX_LEVELS = 1_000  # far above any real study
USABLE_WITHIN = 5.0  # chosen: percentage points; the difference between a recipe that works and one that does not
MAX_LABEL = 60  # characters of a level's name: it stands in legends and tables

KEYS = ("question", "base", "factors", "vary", "seeds", "contrasts", "margin", "usable_within", "scales")


@dataclass(frozen=True, kw_only=True)
class Level:
    """A value of a factor: its label in tables, and the settings it stands for."""

    label: str
    settings: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Factor:
    name: str
    levels: tuple[Level, ...]

    def level(self, label: str) -> Level:
        return next(level for level in self.levels if level.label == label)


@dataclass(frozen=True, kw_only=True)
class ContrastSpec:
    """Level `first` of `factor` minus level `second`, at each combination of the other factors that `at` allows."""

    factor: str
    first: str
    second: str
    at: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    margin: float | None = None  # percentage points below which a difference does not matter
    best: str | None = None  # a factor at whose best level each of the two stands, chosen on seeds of its own


@dataclass(frozen=True, kw_only=True)
class Study:
    name: str
    question: str
    base: Mapping[str, Value]
    factors: tuple[Factor, ...]
    vary: Literal["grid", "one-at-a-time"]
    seeds: tuple[int, ...]  # all that there may be
    first_seeds: int | None  # how many of them come first, where more follow only until the contrasts are resolved
    contrasts: tuple[ContrastSpec, ...]
    margin: float | None = None  # of those that are compared where none is named, in percentage points
    scales: Mapping[str, Mapping[str, Any]]
    scale: str | None  # the one that was applied
    usable_within: float = USABLE_WITHIN  # percentage points below the best at which a level is still usable
    overrides: tuple[str, ...] = ()  # those given by hand on top of it, as `key=value`
    source: str = ""  # the file's text
    path: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)  # of the file, by dotted path

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds an arm at which a study that adds them is looked at: the first, then about half as many
        again each time, up to all; empty where all come at once."""
        looks = [self.first_seeds] if self.first_seeds is not None else []
        while looks and looks[-1] < len(self.seeds):
            looks.append(min(len(self.seeds), max(looks[-1] + 1, round(1.6 * looks[-1]))))
        return tuple(looks)

    @property
    def dropped_contrasts(self) -> tuple[str, ...]:
        """Planned contrasts whose arms are not there, as where a scale or an override took a level away, such as
        `norm: batch − none at learning_rate 0.01`."""
        return tuple(
            f"{c.factor}: {c.first} − {c.second}"
            + (f", each at its own best {c.best}" if c.best else "")
            + "".join(f" at {factor} {' or '.join(labels)}" for factor, labels in c.at.items())
            for c in without_arms(self)
        )

    def where(self, key: str) -> str:
        """`study.yaml:7: `, the place that gave a setting its value; as exact as is known."""
        if any(text.partition("=")[0].strip() == key for text in self.overrides):
            return f"override '{key}': "
        for place in (f"scales.{self.scale}.{key}", f"factors.{key}", f"base.{key}"):
            if place in self.lines:
                return f"{self.path}:{self.lines[place]}: "
        return f"{self.path}: " if self.path else ""

    @staticmethod
    def load(study: str | Path, *, scale: str | None = None, overrides: Sequence[str] = ()) -> "Study":
        """Reads a study by its file or by the name of a shipped one (`normlab studies` lists them).

        `scale` names a set of overrides in the file; where the file has scales, the first is the default. `overrides`
        are `key=value` texts: a setting, `seeds`, or a factor with one or several levels (`norm=batch,none`).
        """
        path = find_study(str(study))
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"study {path}: cannot be read ({error.strerror})") from None
        return parse_study(raw, name=path.stem, path=str(path), scale=scale, overrides=overrides)


def shipped_studies() -> dict[str, Path]:
    """The studies that come with normlab, by name: `quickstart`, `paper/learning-rate`, …"""
    root = Path(__file__).parent / "studies"
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}


def find_study(text: str) -> Path:
    if Path(text).is_file():
        return Path(text)
    shipped = shipped_studies()
    by_stem = {name.rsplit("/", 1)[-1]: path for name, path in shipped.items()}
    if found := shipped.get(text) or by_stem.get(text):
        return found
    if Path(text).is_dir():
        raise UsageError(f"study '{text}': it is a folder; write a study's file, or one of: {', '.join(shipped)}")
    if text.endswith((".yaml", ".yml")):
        beside = [path.name for path in Path(text).parent.glob("*.y*ml")] if Path(text).parent.is_dir() else []
        raise UsageError(f"study '{text}': there is no such file{nearest(Path(text).name, beside)}; "
                         f"shipped: {', '.join(shipped)}")  # fmt: skip
    raise UsageError(
        f"study '{text}': neither a file nor a shipped study{nearest(text, by_stem)}; shipped: {', '.join(shipped)}"
    )


def parse_study(raw: bytes, *, name: str, path: str, scale: str | None = None, overrides: Sequence[str] = ()) -> Study:
    """Reads a study from the bytes of its file."""
    tree = read_yaml(raw, path)
    reader = _Reader(tree.value, tree.lines, path)
    study = reader.study(name, raw.decode())
    _require_effect(study, reader)
    study = dataclasses.replace(study, contrasts=tuple(reader.contrasts(study.factors)))
    scaled = {name: _scaled(study, name, reader) for name in study.scales}  # all, so that a fault waits in none
    if scale is not None or scaled:
        chosen = scale if scale is not None else next(iter(scaled))
        if chosen not in scaled:
            known = unknown("scale", chosen, scaled) if scaled else f"scale '{chosen}': the study has none"
            raise UsageError(f"{path}: {known}")
        study = scaled[chosen]
    by_hand = read_overrides(overrides)
    for key, value in by_hand.items():
        study = _override(study, key, value, f"override '{key}': ")
    study = dataclasses.replace(study, overrides=tuple(overrides))
    if study.first_seeds is not None and any(contrast.best for contrast in study.contrasts):
        raise UsageError(
            f"{study.where('seeds')}seeds: a contrast with 'best' chooses levels on half of the seeds, so that their "
            "number has to be fixed; write seeds: 10"
        )
    if study.first_seeds is not None:
        require_contrasts(study)
    _check_settings(study, reader)
    _require_use(study, {key: study.where(key) for key in by_hand if key in study.base})
    return study


def require_contrasts(study: Study) -> None:
    """Raises UsageError where there is nothing that could be resolved."""
    if not study.contrasts:
        raise UsageError(
            f"{study.path}: adding seeds until contrasts are resolved needs contrasts that the study names before it "
            "runs, such as contrasts: [norm: [batch, none]]"
        )


def _scaled(study: Study, scale: str, reader: "_Reader") -> Study:
    """The study at one of its scales."""
    for key, value in study.scales[scale].items():
        study = _override(study, key, value, reader.where(f"scales.{scale}.{key}"))
    study = dataclasses.replace(study, scale=scale)
    _check_settings(study, reader)
    _require_use(study, {key: study.where(key) for key in study.scales[scale] if key in study.base})
    return study


# --- the schema -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    """Turns the tree of a file into a `Study`, knowing the line of every key."""

    tree: Mapping[str, Any]
    lines: Mapping[str, int]
    path: str

    def where(self, place: str) -> str:
        while place and place not in self.lines:
            place = place.rpartition(".")[0]
        return f"{self.path}:{self.lines.get(place, 1)}: "

    def study(self, name: str, source: str) -> Study:
        for key in self.tree:
            if key in SETTINGS and key != "seed":
                raise UsageError(
                    f"{self.where(key)}'{key}' is a setting; write it below base, or its levels below factors"
                )
            if key not in KEYS:
                raise UsageError(
                    f"{self.where(key)}unknown key '{key}'{nearest(key, KEYS)}; allowed: {', '.join(KEYS)}"
                )
        for key in ("question", "base"):
            if key not in self.tree:
                raise UsageError(f"{self.path}: the key '{key}' is missing; a study needs question and base")
        question, vary = self.tree["question"], self.tree.get("vary", "grid")
        if not isinstance(question, str):
            raise UsageError(f"{self.where('question')}question: given {in_yaml(question)}; write a sentence")
        if vary not in ("grid", "one-at-a-time"):
            raise UsageError(f"{self.where('vary')}{unknown('vary', str(vary), ('grid', 'one-at-a-time'))}")
        base = self.settings("base", self.tree["base"])
        factors = self.factors(base)
        return Study(
            name=name,
            question=" ".join(question.split()),
            base=base,
            factors=factors,
            vary=vary,
            **read_seeds(self.tree.get("seeds", 3), self.where("seeds")),
            contrasts=(),  # read once the levels are known to be valid
            margin=self.points("margin", self.tree.get("margin")),
            usable_within=self.points("usable_within", self.tree.get("usable_within")) or USABLE_WITHIN,
            scales=self.scales(),
            scale=None,
            source=source,
            path=self.path,
            lines=self.lines,
        )

    def mapping(self, place: str, value: Any, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UsageError(f"{self.where(place)}{place}: given {in_yaml(value)}; write {what}")
        return value

    def settings(self, place: str, value: Any) -> dict[str, Value]:
        settings = self.mapping(place, value, "settings as 'key: value' lines")
        for key in settings:
            _require_setting(key, self.where(f"{place}.{key}"))
        return settings

    def factors(self, base: Mapping[str, Value]) -> tuple[Factor, ...]:
        tree = self.mapping("factors", self.tree.get("factors", {}), "factors as 'setting: [level, level]' lines")
        factors = []
        for name, levels in tree.items():
            if isinstance(levels, dict):
                for label, settings in levels.items():
                    self.settings(f"factors.{name}.{label}", settings)
            factors.append(make_factor(name, levels, self.where(f"factors.{name}")))
        owner: dict[str, str] = {}
        for factor in factors:
            for key in sorted({key for level in factor.levels for key in level.settings}):
                if key in owner:
                    raise UsageError(
                        f"{self.where(f'factors.{factor.name}')}factors '{owner[key]}' and '{factor.name}' both set "
                        f"'{key}'; let one of them do it"
                    )
                if key in base:
                    raise UsageError(
                        f"{self.where(f'base.{key}')}base.{key} is also varied by the factor '{factor.name}'; remove "
                        "it from the base"
                    )
                owner[key] = factor.name
        return tuple(factors)

    def contrasts(self, factors: tuple[Factor, ...]) -> list[ContrastSpec]:
        tree = self.tree.get("contrasts", [])
        if not isinstance(tree, list):
            raise UsageError(f"{self.where('contrasts')}contrasts: write a list, such as '- norm: [batch, none]'")
        found = [self.contrast(f"contrasts.{i}", item, factors) for i, item in enumerate(tree)]
        for i, one in enumerate(found):
            for other in found[:i]:
                same = (one.factor, one.at, one.best) == (other.factor, other.at, other.best)
                if same and {one.first, one.second} == {other.first, other.second}:
                    place = self.where(f"contrasts.{i}")
                    raise UsageError(f"{place}{one.first} and {one.second} are compared twice; remove one contrast")
        return found

    def contrast(self, place: str, item: Any, factors: tuple[Factor, ...]) -> ContrastSpec:
        tree = self.mapping(place, item, "a contrast as 'factor: [level, level]'")
        by_name = {factor.name: factor for factor in factors}
        keys = [key for key in tree if key not in ("at", "margin", "best")]
        if len(keys) != 1:
            raise UsageError(f"{self.where(place)}a contrast compares one factor; given {', '.join(keys) or 'none'}")
        name = keys[0]
        labels = self.labels(f"{place}.{name}", name, tree[name], by_name)
        if len(labels) != 2 or labels[0] == labels[1]:
            raise UsageError(f"{self.where(place)}{name}: a contrast names two levels, as in '{name}: [first, second]'")
        at = self.mapping(f"{place}.at", tree.get("at", {}), "levels of the other factors, as 'factor: level'")
        if name in at:
            raise UsageError(f"{self.where(place)}at: '{name}' is what the contrast compares")
        places = {other: self.labels(f"{place}.at.{other}", other, level, by_name) for other, level in at.items()}
        where = f"{place}.margin" if "margin" in tree else "margin"
        margin = self.points(where, tree.get("margin", self.tree.get("margin")))
        best = tree.get("best")
        if best is not None and (not isinstance(best, str) or best not in by_name or best == name or best in at):
            others = [other for other in by_name if other != name and other not in at]
            raise UsageError(
                f"{self.where(f'{place}.best')}best: given '{label_of(best)}'; write another factor that 'at' does not "
                f"fix{': ' + ', '.join(others) if others else '; there is none'}"
            )
        if best is not None and self.tree.get("vary") == "one-at-a-time":
            raise UsageError(
                f"{self.where(f'{place}.best')}best: needs every level of {best} at both; write vary: grid"
            )
        return ContrastSpec(factor=name, first=labels[0], second=labels[1], at=places, margin=margin, best=best)

    def points(self, place: str, value: Any) -> float | None:
        """Percentage points of accuracy, as written at a place of the file; None where there is nothing."""
        return None if value is None else read_points(place.rpartition(".")[2], value, self.where(place))

    def labels(self, place: str, name: str, given: Any, factors: Mapping[str, Factor]) -> tuple[str, ...]:
        if name not in factors:
            raise UsageError(f"{self.where(place)}{unknown('factor', name, factors)}")
        known = [level.label for level in factors[name].levels]
        labels = tuple(label_of(value) for value in (given if isinstance(given, list) else [given]))
        for label in labels:
            if label not in known:
                raise UsageError(f"{self.where(place)}{unknown(f'level of {name}', label, known)}")
        return labels

    def scales(self) -> dict[str, dict[str, Any]]:
        tree = self.mapping("scales", self.tree.get("scales", {}), "scales as 'name: {setting: value}'")
        for name in tree:  # it becomes part of a folder's name
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", name):
                raise UsageError(
                    f"{self.where('scales')}scale {name!r}: write letters, digits, '.', '_' and '-', up to 40"
                )
        return {name: self.mapping(f"scales.{name}", scale, "{setting: value}") for name, scale in tree.items()}


def read_points(key: str, value: Any, where: str = "") -> float:
    """Percentage points of accuracy."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100:
        raise UsageError(
            f"{where}{key}: {in_yaml(value)}; allowed: percentage points of accuracy, above 0 and below 100, "
            "such as 0.5"
        )
    return float(value)


def make_factor(name: str, levels: Any, where: str) -> Factor:
    """A factor: levels that are values of the setting of its name, or a mapping of names to the settings they mean."""
    values = list(levels) if isinstance(levels, list | dict) else [levels]
    if not 1 <= len(values) <= MAX_LEVELS:
        raise UsageError(f"{where}{name}: given {len(values)} levels; between 1 and {MAX_LEVELS:,} are allowed")
    if isinstance(levels, dict):
        for label, settings in levels.items():
            if not label.strip() or not label.isprintable() or len(label) > MAX_LABEL:
                raise UsageError(
                    f"{where}{name}: the level {label[:80]!r}: write a name of at most {MAX_LABEL} letters"
                )
            if not isinstance(settings, dict) or not settings:
                raise UsageError(f"{where}{name}: the level '{label}' must map settings to values; given {settings!r}")
            for key in settings:
                _require_setting(key, f"{where}{name}: ")
        named = tuple(Level(label=label, settings=settings) for label, settings in levels.items())
        return _distinct(Factor(name=name, levels=named), where)
    if name not in SETTINGS:
        hint = f"{_nearest_setting(name)}; a factor that is not a setting maps each level to settings"
        raise UsageError(f"{where}factor '{name}' is not a setting{hint}")
    if name == "seed":
        raise UsageError(f"{where}'seed' is not a factor; write seeds: 5")
    read = tuple(Level(label=label_of(value), settings={name: value}) for value in values)
    return _distinct(Factor(name=name, levels=read), where)


def label_of(value: Any) -> str:
    """How a value stands in tables and on axes: `0.001`, `1e-05`, `batch`, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(map(label_of, value))
    return str(value)


def read_seeds(value: Any, where: str) -> dict[str, Any]:
    """`5` means the seeds 0 to 4; a list is taken as it is; `3..20` means three, and more of up to 20 where contrasts
    are not resolved."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SEEDS:
        return {"seeds": tuple(range(value)), "first_seeds": None}
    if isinstance(value, str) and (ends := re.fullmatch(r"([0-9]{1,6})\.\.([0-9]{1,6})", value)):
        first, most = int(ends[1]), int(ends[2])
        if 2 <= first < most <= MAX_SEEDS:
            return {"seeds": tuple(range(most)), "first_seeds": first}
    if isinstance(value, list) and 1 <= len(value) <= MAX_SEEDS:
        whole = [seed for seed in value if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32]
        if len(set(whole)) == len(value):
            return {"seeds": tuple(whole), "first_seeds": None}
    raise UsageError(
        f"{where}seeds: given {value!r}; allowed: a number from 1 to {MAX_SEEDS:,}, a list of distinct seeds from 0 to "
        f"{2**32 - 1:,}, or 3..20 (three, and up to 20 until the contrasts are resolved)"
    )


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping, each value read as a study file would."""
    if isinstance(overrides, str):  # of which each letter would be one
        raise UsageError(f"overrides: they are a list; write [{overrides!r}]")
    read = {}
    for text in overrides:
        if not isinstance(text, str):
            raise UsageError(f"override {text!r}: write it as a text, such as 'epochs=5'")
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not key or not value or value.strip().endswith(","):
            raise UsageError(f"override '{text}': write key=value, such as epochs=5 or norm=batch,none")
        if key in read:
            raise UsageError(f"override '{key}': it stands twice; several levels go into one, such as norm=batch,none")
        wrapped = value if value.lstrip().startswith("[") or "," not in value else f"[{value}]"
        try:
            read[key] = read_yaml(f"value: {wrapped}".encode(), f"override '{key}'").value["value"]
        except UsageError:
            if not value.endswith(":") and ": " not in value:
                raise
            read[key] = value  # a colon is no mapping here
    return read


def single_trial(overrides: Sequence[str]) -> Study:
    """A study of one arm and one seed, from settings written as `key=value`."""
    settings = read_overrides(overrides)
    seed = settings.pop("seed", 0)
    make_spec({**settings, "seed": seed}, lambda key: f"override '{key}': " if key in settings else "")
    return Study(
        name="trial", question="What does this trial reach?", base=settings, factors=(), vary="grid", seeds=(seed,),
        first_seeds=None, contrasts=(), scales={}, scale=None,
    )  # fmt: skip


def _distinct(factor: Factor, where: str) -> Factor:
    labels = [level.label for level in factor.levels]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"{where}{factor.name}: the level '{twice}' stands twice")
    return factor


def _require_setting(key: str, where: str) -> None:
    if key == "seed":
        raise UsageError(f"{where}'seed' is not a setting of an arm; write seeds: [3] beside base, or seeds: 5")
    if key not in SETTINGS:
        raise UsageError(f"{where}unknown setting '{key}'{_nearest_setting(key)}")


def _nearest_setting(key: str) -> str:
    return f"{nearest(key, SETTINGS)}; 'normlab settings' lists them"


def _override(study: Study, key: str, value: Any, where: str) -> Study:
    """A study with one thing replaced: the seeds, a factor's levels, or a setting of the base."""
    if key == "seeds":
        return dataclasses.replace(study, **read_seeds(value, where))
    for factor in study.factors:
        if factor.name == key:
            levels = _choose_levels(factor, value, where)
            replaced = tuple(levels if other is factor else other for other in study.factors)
            return dataclasses.replace(study, factors=replaced)
        if any(key in level.settings for level in factor.levels):
            raise UsageError(f"{where}'{key}' is varied by the factor '{factor.name}'; choose its levels instead")
    if key == "seed":
        raise UsageError(f"{where}a study has seeds; write seeds=1 for one, or seeds=[{value}] for that very one")
    if key in KEYS:
        raise UsageError(f"{where}'{key}' is no setting; write it into the study's file, beside base")
    if key not in SETTINGS:
        known = [*(factor.name for factor in study.factors), "seeds", *SETTINGS]
        raise UsageError(f"{where}unknown setting '{key}'{nearest(key, known)}; 'normlab settings' lists them")
    return dataclasses.replace(study, base={**study.base, key: value})


def _choose_levels(factor: Factor, value: Any, where: str) -> Factor:
    """New levels for a factor: any values where it is a setting, some of its named levels, or new ones with names."""
    if isinstance(value, dict):
        return make_factor(factor.name, value, where)
    values = value if isinstance(value, list) else [value]
    known = {level.label: level for level in factor.levels}
    if all(label_of(v) in known for v in values) and values:
        return _distinct(Factor(name=factor.name, levels=tuple(known[label_of(v)] for v in values)), where)
    if any(set(level.settings) != {factor.name} for level in factor.levels):
        word = next(label_of(v) for v in values if label_of(v) not in known)
        raise UsageError(where + unknown(f"level of {factor.name}", word, known))
    return make_factor(factor.name, value, where)


def _check_settings(study: Study, reader: _Reader) -> None:
    """Validates the base with the first level of every factor, then each further level alone: a fault has one place."""
    firsts: dict[str, Any] = {}
    for factor in study.factors:
        firsts |= factor.levels[0].settings
    base = {**study.base, **firsts}
    overridden = {text.partition("=")[0] for text in study.overrides}
    scaled = study.scales.get(study.scale or "", {})

    def where(key: str) -> str:
        if key in overridden:
            return f"override '{key}': "
        if key in scaled:
            return reader.where(f"scales.{study.scale}.{key}")
        return reader.where(f"factors.{key}" if key in firsts and key not in study.base else f"base.{key}")

    make_spec(base, where)
    for factor in study.factors:
        for level in factor.levels[1:]:
            make_spec({**base, **level.settings}, functools.partial(_fixed, study.where(factor.name)))


def _fixed(place: str, key: str) -> str:
    return place


def _require_effect(study: Study, reader: _Reader) -> None:
    """A setting that no arm uses is a misunderstanding: nothing is silently ignored."""
    places = {key: f"base.{key}" for key in study.base}
    for factor in study.factors:
        places |= {key: f"factors.{factor.name}" for level in factor.levels for key in level.settings}
    _check_settings(study, reader)
    _require_use(study, {key: reader.where(place) for key, place in places.items()})


def _require_use(study: Study, places: Mapping[str, str]) -> None:
    """Raises UsageError where no arm uses one of these settings; each with the place where it stands."""
    pending = dict(places)
    for arm in arms(study) if pending else ():
        spec = make_spec(arm.settings)
        pending = {key: place for key, place in pending.items() if not is_active(spec, key)}
        if not pending:
            return
    for key, place in sorted(pending.items()):
        raise UsageError(f"{place}{key} has no effect in any arm of this study; remove it ({key}: {allowed(key)})")
