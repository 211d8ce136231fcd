"""A trial: one training run, wholly described by a frozen `TrialSpec`, and the id under which its result is stored.

The fields of `TrialSpec` are the settings a study file may use; their defaults live here and nowhere else. A setting
that has no effect beside the others (the slope of a ReLU, the ε of a norm that is absent) takes no part in the id,
and neither does one that has its default. So a default may never change its meaning: FORMAT_VERSION would have to.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from normlab.datasets.split import parse_split
from normlab.errors import UsageError, nearest, unknown
from normlab.notation import parse_notation

FORMAT_VERSION = 1

NormKind = Literal["none", "batch", "batch_no_gamma", "mean_only", "renorm", "renorm_unclipped"]
ActivationKind = Literal[
    "relu", "leaky_relu", "prelu", "prelu_elementwise", "sigmoid", "tanh", "elu", "gelu", "silu"
]  # fmt: skip
OptimizerKind = Literal["adam_keras", "adam", "adamw", "sgd"]
ScheduleKind = Literal["constant", "step", "cosine"]

# Norms whose statistics need at least two values a channel: with one, the variance of a batch is 0/0 or 0.
NEEDS_TWO_VALUES = frozenset({"batch", "batch_no_gamma", "renorm", "renorm_unclipped"})
# Norms that infer with moving averages, so that there are other statistics to evaluate them with.
KEEPS_AVERAGES = frozenset({"batch", "batch_no_gamma", "mean_only", "renorm", "renorm_unclipped"})


def _number(value: object) -> object:
    """A list of points may hold fractions written as such, `1/3`, which no decimal number equals."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,6}/[1-9]\d{0,5}", value):
        return float(Fraction(value))
    return value


def _as_tuple(value: object) -> object:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = [value]
    return tuple(_number(v) for v in value) if isinstance(value, list | tuple) else value


Numbers = Annotated[tuple[Annotated[float, Field(gt=0, le=100_000)], ...], BeforeValidator(_as_tuple)]


class TrialSpec(BaseModel):
    """Every setting that can change the result of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Data
    data: str = Field(min_length=1, max_length=300, description="digits, cifar10, or folder:NAME")
    data_fingerprint: str = Field(default="", description="of the source; filled in, never written by hand")
    image_size: int | None = Field(default=None, ge=1, le=1024, description="pixels; for folders, which are resized")
    split: str = Field(default="official", description="official, holdout-N or fraction")
    test_fraction: float = Field(default=0.2, gt=0, lt=1, description="share of test images, for split: fraction")
    split_seed: int = Field(default=0, ge=0, lt=2**32, description="of the split, the same for all arms and seeds")
    train_images: int | None = Field(default=None, ge=1, description="a stratified subset of the training images")
    test_images: int | None = Field(default=None, ge=1, description="a stratified subset of the test images")
    pixels: Literal["unit", "standardized"] = Field(
        default="unit", description="x/255, or that standardized per channel over the training images"
    )
    # Network
    network: str = Field(max_length=200, description="such as 64K-4C3B-256D-Dropout0.5-10D")
    norm: NormKind = Field(default="none", description="the normalization layer")
    norm_position: Literal["before_activation", "after_activation"] = Field(default="before_activation")
    norm_dense: bool = Field(default=False, description="also normalize the hidden dense layers")
    norm_eps: float = Field(default=1e-3, gt=0, le=1, description="ε added to the variance")
    norm_momentum: float = Field(default=0.01, gt=0, le=1, description="share of the new batch in a moving average")
    renorm_schedule: Literal["steps", "fraction"] = Field(
        default="steps", description="Ioffe's ramp, batch norm until step 5,000; or in proportion to this training"
    )
    activation: ActivationKind = Field(default="leaky_relu")
    slope: float = Field(default=0.01, ge=0, lt=1, description="of leaky_relu below zero")
    conv_bias: bool = Field(default=True, description="whether convolutions have a bias")
    # Training
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(default=16, ge=1, le=65_536)
    optimizer: OptimizerKind = Field(default="adam_keras")
    learning_rate: float = Field(default=1e-3, gt=0, le=100)
    beta1: float = Field(default=0.9, ge=0, lt=1, description="of Adam")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="of Adam")
    optimizer_eps: float = Field(default=1e-7, gt=0, le=1, description="of Adam")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    nesterov: bool = Field(default=False, description="of SGD")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="L2 for adam and sgd, decoupled for adamw")
    schedule: ScheduleKind = Field(default="constant", description="of the learning rate")
    step_at: Numbers = Field(
        default=(1 / 3, 1 / 2, 2 / 3, 5 / 6),
        description="finished epochs (≥ 1) or fractions of the training (< 1; 1/3 may be written)",
    )
    step_factors: Numbers = Field(default=(0.5, 0.1, 0.05, 0.01), description="of the learning rate from each on")
    warmup_epochs: float = Field(default=0.0, ge=0, description="of linear warm-up, before the schedule takes over")
    augment: Literal["none", "copies", "on_the_fly"] = Field(default="none")
    copies: int = Field(default=3, ge=2, le=100, description="size of the augmented set, the original included")
    rotation_degrees: float = Field(default=70.0, ge=0, le=180, description="uniform in ± this")
    shift_fraction: float = Field(default=0.1, ge=0, le=1, description="of the image's size, uniform in ± this")
    horizontal_flip: bool = Field(default=True, description="with probability one half")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="on a GPU float32 multiplies in TF32"
    )
    evaluate_every: int = Field(default=1, ge=1, description="epochs between test evaluations; the last always counts")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of initialization, order, dropout and augmentation")

    @field_validator("network")
    @classmethod
    def _network_parses(cls, text: str) -> str:
        parse_notation(text)
        return text

    @field_validator("split")
    @classmethod
    def _split_parses(cls, text: str) -> str:
        parse_split(text)
        return text

    @model_validator(mode="after")
    def _fields_agree(self) -> "TrialSpec":
        if len(self.step_at) != len(self.step_factors):
            raise UsageError(f"step_at has {len(self.step_at)} points and step_factors {len(self.step_factors)} values")
        points = [_epoch(at, self.epochs) for at in self.step_at]
        if self.schedule == "step" and points != sorted(set(points)):
            raise UsageError(f"step_at {list(self.step_at)} must rise from point to point")
        if self.schedule == "step" and points and points[-1] >= self.epochs:
            raise UsageError(
                f"step_at {self.step_at[-1]:g} lies past the last of {self.epochs} epochs; write fractions"
            )
        if self.warmup_epochs > self.epochs:
            raise UsageError(f"warmup_epochs {self.warmup_epochs:g} exceeds epochs {self.epochs}")
        return self


def _epoch(point: float, epochs: int) -> float:
    return point * epochs if point < 1 else point


SETTINGS: tuple[str, ...] = tuple(name for name in TrialSpec.model_fields if name != "data_fingerprint")

# When a setting has an effect; a setting that is not named here always has one.
_ACTIVE: dict[str, Callable[[TrialSpec], bool]] = {
    "test_fraction": lambda s: s.split == "fraction",
    "norm_position": lambda s: s.norm != "none",
    "norm_dense": lambda s: s.norm != "none",
    "norm_eps": lambda s: s.norm not in {"none", "mean_only"},
    "norm_momentum": lambda s: s.norm != "none",
    "renorm_schedule": lambda s: s.norm == "renorm",
    "slope": lambda s: s.activation == "leaky_relu",
    "beta1": lambda s: s.optimizer != "sgd",
    "beta2": lambda s: s.optimizer != "sgd",
    "optimizer_eps": lambda s: s.optimizer != "sgd",
    "momentum": lambda s: s.optimizer == "sgd",
    "nesterov": lambda s: s.optimizer == "sgd",
    "step_at": lambda s: s.schedule == "step",
    "step_factors": lambda s: s.schedule == "step",
    "copies": lambda s: s.augment == "copies",
    "rotation_degrees": lambda s: s.augment != "none",
    "shift_fraction": lambda s: s.augment != "none",
    "horizontal_flip": lambda s: s.augment != "none",
}


def is_active(spec: TrialSpec, setting: str) -> bool:
    """Whether a setting has any effect beside the others of this trial."""
    return setting not in _ACTIVE or _ACTIVE[setting](spec)


def identity(spec: TrialSpec) -> dict[str, Any]:
    """What the id is made of: the active settings that differ from their defaults, the data, the format's version."""
    fields = TrialSpec.model_fields
    settings = spec.model_dump(mode="json")
    kept = {
        name: value
        for name, value in settings.items()
        if is_active(spec, name) and (fields[name].is_required() or getattr(spec, name) != fields[name].default)
    }
    return {"format": FORMAT_VERSION, **kept}


def trial_id(spec: TrialSpec) -> str:
    """A readable name and 12 hex digits of the SHA-256 of the spec's identity; safe as a folder's name."""
    return trial_ids(spec, [spec.seed])[0]


def trial_ids(spec: TrialSpec, seeds: Sequence[int]) -> list[str]:
    """The ids of a spec under other seeds than its own."""
    words = (spec.data.removeprefix("folder:"), spec.network, spec.norm, f"lr{spec.learning_rate:g}")
    slug = "-".join(re.sub(r"[^A-Za-z0-9.-]+", "_", word).strip("._-") for word in words)
    shared = {name: value for name, value in identity(spec).items() if name != "seed"}
    # Written once for all seeds: in JSON, a quote that is not escaped can only begin a key here.
    before, _, after = _canonical(shared | {"seed": 0}).partition('"seed": 0')
    found = []
    for seed in seeds:
        is_default = seed == TrialSpec.model_fields["seed"].default
        text = _canonical(shared) if is_default else f'{before}"seed": {seed:d}{after}'
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        found.append(f"{slug[:80]}-b{spec.batch_size}-s{seed}-{digest}")
    return found


def _canonical(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, sort_keys=True, allow_nan=False)


def make_spec(settings: Mapping[str, Any], where: Callable[[str], str] = lambda key: "") -> TrialSpec:
    """Validates settings; the first fault becomes one `UsageError` with key, value, allowed range and nearest spelling.

    `where(key)` may add the place, such as `study.yaml:12: `, in front.
    """
    for key in settings:
        if key not in SETTINGS and key != "data_fingerprint":
            raise UsageError(f"{where(key)}unknown setting '{key}'{nearest(key, SETTINGS)}; see: normlab settings")
    try:
        return TrialSpec.model_validate(dict(settings))
    except ValidationError as error:
        fault = error.errors()[0]
        # A fault between settings has no place; its sentence begins with the one to blame.
        key = str(fault["loc"][0]) if fault["loc"] else fault["msg"].removeprefix("Value error, ").split()[0]
        raise UsageError(where(key) + _explain(key, fault["type"], fault["msg"], fault["input"])) from None


def examples_per_epoch(spec: TrialSpec, num_images: int) -> int:
    """Images in an epoch: fixed copies multiply the set."""
    return num_images * (spec.copies if spec.augment == "copies" else 1)


def allowed(setting: str) -> str:
    """The allowed values of a setting in words, such as `a number > 0 and ≤ 100`."""
    field = TrialSpec.model_fields[setting]
    if choices := _choices(field.annotation):
        return "one of " + ", ".join(choices)
    text = "integer" if "int" in str(field.annotation) else "number" if field.annotation is float else "word"
    words = {"integer": "a whole number", "number": "a number", "word": "a word"}[text]
    if field.annotation is bool:
        words = "true or false"
    if setting in {"step_at", "step_factors"}:
        words = "a list of numbers > 0"
    bounds = []
    for rule in field.metadata:
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if (limit := getattr(rule, name, None)) is not None:
                bounds.append(f"{sign} {limit:,}" if isinstance(limit, int) else f"{sign} {limit:g}")
    return f"{words} {' and '.join(bounds)}".strip()


def _choices(annotation: Any) -> list[str]:
    return [a for a in get_args(annotation) if isinstance(a, str)]


def _explain(key: str, kind: str, message: str, given: Any) -> str:
    choices = _choices(TrialSpec.model_fields[key].annotation) if key in TrialSpec.model_fields else []
    if kind == "value_error":  # from our own checks: the sentence is complete, but for the key
        text = message.removeprefix("Value error, ")
        return text if not key or text.startswith(key) else f"{key}: {text}"
    if kind == "missing":
        example = {"network": ", such as 16K-3C2B-64D-10D", "data": ", such as digits"}.get(key, "")
        return f"'{key}' is missing; write {key}: {allowed(key)}{example}"
    if isinstance(given, str) and "," in given and all(part.strip() in choices for part in given.split(",")):
        return f"{key}: given {given!r}; several levels stand in brackets under factors, [{given}]"
    if choices and isinstance(given, str):
        return f"{key}: {unknown('value', given, choices)}"
    if given is None and "none" in choices:
        return f"{key}: given nothing (YAML's null); write the word none"
    hint = ""
    if isinstance(given, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", given):
        hint = " (it is a text, written in quotes?)"
    if isinstance(given, str) and re.fullmatch(r"\d+,\d+", given, re.ASCII):
        hint = f" (with a point: {given.replace(',', '.')})"
    return f"{key}: given {in_yaml(given)}{hint}; allowed: {allowed(key)}"


def in_yaml(value: Any) -> str:
    """A value in the words of the file it came from."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)
