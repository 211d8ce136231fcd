"""The result of a trial: what was measured, with the spec that was trained and where it came from.

A result is two JSON files a person can read: `result.json`, small, with the spec, the final metrics, the provenance,
the SHA-256 of the other and its own; and `details.json` with what grows: the curves and the confusion matrix.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from normlab.trial import TrialSpec

FORMATS = (1, 2)  # that can be read; since 2 a result has its own SHA-256

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
    details: Details | None = None  # None when it was not asked for


def details_to_json(details: Details) -> str:
    return _dump(asdict(details))


def details_from_json(text: str) -> Details:
    """Raises ValueError where a part is missing or strange."""
    tree = _parse(text)
    try:
        return Details(
            curves=tree["curves"],
            classes=tuple(tree["classes"]),
            confusion=tree["confusion"],
            mistakes=[Mistake(**mistake) for mistake in tree.get("mistakes", [])],  # none in what older code wrote
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a part of it is missing or strange ({error})") from None


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
    return _dump(tree | {"sha256": sha256(_dump(tree).encode())})


def result_from_json(text: str) -> tuple[Result, dict[str, str]]:
    """The result without its details, and the SHA-256 of its files. Raises ValueError where it is not one of ours."""
    tree = _parse(text)
    if not isinstance(tree, dict) or tree.get("format") not in FORMATS:
        raise ValueError(f"written in {_written_in(tree)}; this one reads the formats {_words(FORMATS)}")
    try:
        if tree["format"] > 1 and not _has_digest(text, tree, tree.pop("sha256")):
            raise ValueError(
                "its content does not have the SHA-256 that stands in it: it was edited by hand, or damaged"
            )
        if tree["status"] not in get_args(Status):
            raise ValueError(f"the status {tree['status']!r} is unknown")
        result = Result(
            id=tree["id"],
            spec=_spec(tree["spec"]),
            status=tree["status"],
            metrics={str(name): float(value) for name, value in tree["metrics"].items()},
            diverged_epoch=tree["diverged_epoch"],
            provenance=tree["provenance"],
        )
        return result, dict(tree["files"])
    except KeyError as error:
        raise ValueError(f"the key {error} is missing") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a value is not of its kind ({error})") from None


def _has_digest(text: str, tree: Mapping[str, Any], digest: object) -> bool:
    """Whether a result, as it is written without its own SHA-256, has that one. The text itself tells where it is as
    `result_to_json` made it, in a tenth of the time; one that a tool laid out anew is written again."""
    body, _, end = text.rpartition(',\n "sha256": "')
    if end == f'{digest}"\n}}\n' and sha256(f"{body}\n}}\n".encode()) == digest:
        return True
    return sha256(_dump(tree).encode()) == digest


def _spec(settings: dict[str, Any]) -> TrialSpec:
    """A stored spec; those that differ by seed alone are validated once."""
    seed = settings.get("seed")
    if type(seed) is not int or not 0 <= seed < 2**32:
        return TrialSpec.model_validate_json(json.dumps(settings))
    return _spec_of_json(json.dumps(settings | {"seed": 0})).model_copy(update={"seed": seed})


@functools.lru_cache(maxsize=4096)
def _spec_of_json(text: str) -> TrialSpec:
    return TrialSpec.model_validate_json(text)


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
        raise ValueError("it is nested beyond reason") from None


def _refuse(word: str) -> None:
    raise ValueError(f"it holds {word}, which is not JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a key stands twice in it")
    return tree


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_distinct)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _dump(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
