"""The result of a trial: what was measured, with the spec that was trained and where it came from.

A result is two JSON files a person can read: `result.json`, small, with the spec, the final metrics, the provenance,
the SHA-256 of the other and its own; and `details.json` with what grows: the curves and the confusion matrix.
"""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from normlab.trial import TrialSpec

FORMATS = (1, 2)  # that can be read; since 2 a result has its own SHA-256
MEASURED = ("seconds", "images_per_second", "flops", "joules", "cohort_size", "workers", "threads")  # of its provenance
LARGEST = 1e300  # of a number that can still be added up and squared in part

Status = Literal["finished", "diverged"]


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A test image that was taken for another class: its place in the test split, both classes by their place in
    `classes`, and the probability of the predicted one."""

    image: int
    true: int
    predicted: int
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a result holds beyond its final metrics.

    `curves` maps a name to one value per entry of `curves["epoch"]` (epochs finished; None where it was not measured):
    train_loss and train_accuracy (running, dropout on), test_loss, test_accuracy, learning_rate. `confusion` counts
    test images, rows the true class, columns the predicted one. `mistakes` are the surest ones, surest first.
    """

    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    confusion: list[list[int]] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished or diverged trial.

    `metrics` holds, at the end of the last epoch: test_accuracy and test_loss, with the moving averages of a norm that
    keeps any; test_accuracy_recomputed (statistics recomputed over training images) and test_accuracy_batch (those of
    the test batch) where it does; train_loss, train_accuracy; num_test; and what `probes.py` measures: dead_channels,
    gradient_spread, and gradient_spread_initial before the first step. Accuracies and shares are fractions of 1.
    A diverged trial has no final metrics but num_test; its curves stop at `diverged_epoch`.
    """

    id: str
    spec: TrialSpec
    status: Status
    metrics: Mapping[str, float]
    diverged_epoch: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict, compare=False)  # of a stored one: the SHA-256 of the others
    details: Details | None = None  # None when it was not asked for

    @property
    def has_details(self) -> bool:
        """Whether a stored one holds more than its metrics."""
        return "details.json" in self.files


def details_to_json(details: Details) -> str:
    """One part a line, for there are many of them. Raises ValueError where a number is none."""
    parts = vars(details) | {"mistakes": [vars(mistake) for mistake in details.mistakes]}
    lines = [f' "{key}": {json.dumps(part, ensure_ascii=False, allow_nan=False)}' for key, part in parts.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def details_from_json(text: str) -> Details:
    """Raises ValueError where a part is missing or strange."""
    try:
        read = _StoredDetails.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"a part of it is missing or strange ({_fault(error)})") from None
    if text.count(":") != len(read.model_fields_set) + len(read.curves) + len(fields(Mistake)) * len(read.mistakes):
        _parse(text)  # more than one for each key that was read: a key may stand twice
    lengths = {len(curve) for curve in read.curves.values()}
    if len(lengths) > 1 or (read.curves and "epoch" not in read.curves) or None in read.curves.get("epoch", []):
        raise ValueError("its curves do not have a value for each epoch")
    size = len(read.classes)
    if read.confusion and [len(row) for row in read.confusion] != [size] * size:
        raise ValueError(f"its confusion matrix is not one of {size} classes")
    if any(min(row) < 0 for row in read.confusion):
        raise ValueError("its confusion matrix has counts below 0")
    if any(not (0 <= m.true < size and 0 <= m.predicted < size and m.image >= 0) for m in read.mistakes):
        raise ValueError(f"a mistake is of none of the {size} classes")
    return Details(
        curves=read.curves,
        classes=tuple(read.classes),
        confusion=read.confusion,
        mistakes=read.mistakes,
    )


def result_to_json(result: Result, files: Mapping[str, str]) -> str:
    """`files` maps the name of each further file of the result to its SHA-256."""
    tree = {
        "format": FORMATS[-1],
        "id": result.id,
        "status": result.status,
        "metrics": result.metrics,
        "diverged_epoch": result.diverged_epoch,
        "spec": result.spec.model_dump(mode="json"),
        "provenance": result.provenance,
        "files": files,
    }
    text = _laid_out(tree)
    return f'{text.removesuffix(_END)}{_SEAL}{sha256(text.encode())}"{_END}'


def result_from_json(text: str) -> Result:
    """The result without its details. Raises ValueError where it is not one of ours."""
    body = _unsealed(text)
    tree = _parse_quickly(body) if body else _parse(text)
    if not isinstance(tree, dict) or tree.get("format") not in FORMATS:
        raise ValueError(f"written in {_written_in(tree)}; this one reads the formats {_words(FORMATS)}")
    try:
        if tree["format"] > 1 and not body and not _has_digest(tree, tree.pop("sha256")):
            raise ValueError(
                "its content does not have the SHA-256 that stands in it: it was edited by hand, or damaged"
            )
        _require_sense(tree)
        return Result(
            id=tree["id"],
            spec=_spec(tree["spec"]),
            status=tree["status"],
            metrics={name: float(value) for name, value in tree["metrics"].items()},
            diverged_epoch=tree["diverged_epoch"],
            provenance=tree["provenance"],
            files=dict(tree["files"]),
        )
    except KeyError as error:
        raise ValueError(f"the key {error} is missing") from None
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value is not of its kind ({error})") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


class _StoredDetails(BaseModel):
    """`Details` as they may stand in a file, whoever wrote it."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    curves: dict[str, list[int | float | None]]
    classes: list[str]
    confusion: list[list[int]]
    mistakes: list[Mistake] = []  # none in older ones


def _require_sense(tree: Mapping[str, Any]) -> None:
    """Raises ValueError where a result holds what no training can have measured, and reports would stumble over."""
    status, epoch, provenance, metrics = (tree[key] for key in ("status", "diverged_epoch", "provenance", "metrics"))
    if status not in get_args(Status):
        raise ValueError(f"the status {status!r} is unknown")
    if epoch is not None and (type(epoch) is not int or epoch < 1):
        raise ValueError(f"diverged_epoch is {epoch!r}; allowed: a number of epochs, or null")
    if (status == "diverged") != (epoch is not None):
        raise ValueError(f"the status is {status}, and diverged_epoch {epoch!r}")
    if not isinstance(provenance, dict) or not isinstance(metrics, dict):
        raise ValueError("its metrics or its provenance have no names")
    measured = [(name, provenance[name]) for name in MEASURED if name in provenance]
    for name, value in (*measured, *metrics.items()):
        if type(value) not in _NUMBERS or not -LARGEST < value < LARGEST:
            raise ValueError(f"its {name} is {value!r}; allowed: a number below {LARGEST:g}")
    for name, value in metrics.items():
        if "accuracy" in name and not 0 <= value <= 1:
            raise ValueError(f"its {name} is {value!r}; allowed: a share of 1")


def _fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc'][:3]))}: {fault['msg']}"[:200]


def _unsealed(text: str) -> str:
    """A result as `result_to_json` laid it out and sealed it, without its own SHA-256: nobody touched it since, and a
    quick reader will do. Empty for any other text."""
    body, _, end = text.rpartition(_SEAL)
    body += _END
    return body if end == f'{sha256(body.encode())}"{_END}' else ""


def _has_digest(tree: Mapping[str, Any], digest: object) -> bool:
    """Whether a result that a tool laid out anew has the SHA-256 that it was written with."""
    return sha256(_laid_out(tree).encode()) == digest


def _spec(settings: "dict[str, Any] | TrialSpec") -> TrialSpec:
    """A stored spec, as the members of an object, or read already."""
    return settings if isinstance(settings, TrialSpec) else TrialSpec.model_validate_json(json.dumps(settings))


@functools.lru_cache(maxsize=4096)
def _spec_of_text(members: str) -> TrialSpec:
    """Of a spec's members without its seed, which follows them."""
    return _spec(_parse(f'{{{members},"seed": 0}}'))


def _written_in(tree: Any) -> str:
    if not isinstance(tree, dict):
        return "no format"
    provenance = tree.get("provenance")
    version = provenance.get("normlab_version") if isinstance(provenance, dict) else None
    return f"format {tree.get('format')!r}" + (f" by normlab {version}" if version else "")


def _words(formats: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, formats[:-1]))} and {formats[-1]}"


def _parse(text: str) -> Any:
    """JSON as it is defined: no NaN or Infinity, no key twice, which Python's reader would let pass."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def _parse_quickly(text: str) -> Any:
    """What `_laid_out` wrote: each of its keys is followed by a colon and a blank, which stand nowhere else but in a
    text after an escaped quote: where there are as many of them as keys, none stands twice. What is laid out in any
    other way is read with care. The specs of trials that differ by seed alone, the last setting, are read once."""
    before, _, rest = text.partition('\n "spec": {')  # no line begins within a text of JSON
    spec, _, after = rest.partition("\n },")
    settings, _, seed = spec.rpartition(',\n  "seed": ')
    lifted = settings and _SEED.fullmatch(seed)
    tree = from_json(f'{before}\n "spec": 0,{after}', allow_inf_nan=False) if lifted else None
    if not isinstance(tree, dict) or tree.get("format") not in FORMATS or tree.get("spec") != 0 or int(seed) >= 2**32:
        return _parse(text)
    parts = [tree, *(part for part in tree.values() if isinstance(part, dict))]
    colons = before.count('": ') + after.count('": ') + 1
    is_ours = colons == sum(map(len, parts)) and sum("spec" in part for part in parts) == 1
    if not is_ours or _OTHER_LAYOUT.search(before) or _OTHER_LAYOUT.search(after):
        return _parse(text)
    return tree | {"spec": _spec_of_text(settings).model_copy(update={"seed": int(seed)})}


def _refuse(word: str) -> None:
    raise ValueError(f"it holds {word}, which is not JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a key stands twice in it")
    return tree


_SEAL, _END = ',\n "sha256": "', "\n}\n"  # around a result's own digest, as `_laid_out` lays it out
_NUMBERS = (float, int)  # and not bool, which is an int for Python
_TOO_DEEP = "it is nested beyond reason"
_SEED = re.compile("0|[1-9][0-9]{0,9}")
_OTHER_LAYOUT = re.compile(r'"(?:\s+:|:[^ ])')  # of a colon after a key
_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_distinct)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _laid_out(tree: Any) -> str:
    """JSON with one value a line. Raises ValueError where a number is none."""
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
