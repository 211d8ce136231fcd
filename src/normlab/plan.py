"""The plan of a study: its trials, which of them are finished, whether the rest can be trained, and what that costs."""

import functools
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from normlab import datasets
from normlab.datasets.split import split_sizes
from normlab.errors import UsageError
from normlab.grid import Arm, Trial, trials_by_arm
from normlab.notation import forward_macs, layer_shapes, num_classes, parse_notation
from normlab.store import State, Store
from normlab.study import Study
from normlab.trial import KEEPS_AVERAGES, NEEDS_TWO_VALUES, SETTINGS, TrialSpec, examples_per_epoch

EVALUATION_BATCH = 250  # images of each trial, where statistics are recomputed and on a GPU
TRAINING_PASSES = 3  # the backward pass costs about twice the forward one
FLOPS_PER_MAC = 2
RENORM_START = 5_000  # steps: of `RampedClip`, which is not imported here, since it needs torch
START_SECONDS = 2.0  # about what passes before workers train: torch is imported, and kernels are loaded
MOST_LEFT = 0.05  # chosen: of what a moving average began with, at the end of a training


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All trials of a study, each once, one seed of every arm before the second of any."""

    arms: tuple[tuple[Arm, tuple[Trial, ...]], ...]
    trials: tuple[Trial, ...]
    states: Mapping[str, State]
    reasons: Mapping[str, str]  # of failed and damaged trials
    flops: Mapping[str, float]  # of training, by trial
    remarks: Mapping[str, tuple[str, ...]]  # what may not be meant though it is allowed, by trial
    dropped: tuple[str, ...] = ()  # contrasts that were planned, and whose arms are not there

    def missing(self) -> tuple[Trial, ...]:
        """What a run has to train: failed trials and damaged records are tried again."""
        return tuple(trial for trial in self.trials if self.states[trial.id] in {"missing", "failed"})

    def said(self) -> tuple[str, ...]:
        """The contrasts that are not there, and the remarks on what a run has to train, each once."""
        dropped = [f"planned, but not among these levels: {contrast}" for contrast in self.dropped]
        remarks = dict.fromkeys(remark for trial in self.missing() for remark in self.remarks[trial.id])
        return (*dropped, *remarks)

    def count(self, state: State) -> int:
        return sum(found == state for found in self.states.values())


def make_plan(study: Study, store: Store) -> Plan:
    """Looks every trial up in the store, and checks that each could be trained on its data."""
    with _placed(study):
        by_arm = wanted_trials(study, store)
    # Where seeds are added, arms may have different numbers of them.
    rounds = itertools.zip_longest(*(row for _, row in by_arm))
    unique = {trial.id: trial for row in rounds for trial in row if trial is not None}
    states, reasons = look_up(store, unique)
    flops: dict[str, float] = {}
    remarks: dict[str, tuple[str, ...]] = {}
    describe = functools.cache(datasets.describe)
    for _, row in by_arm:  # its trials differ by seed alone
        spec = row[0].spec
        with _placed(study):
            info = describe(spec.data, image_size=spec.image_size)
            images = _checked_images(spec, info)
            cost = training_flops(spec, images, info.channels, info.image_size)
        said = tuple(_remarks(spec, spec.epochs * math.ceil(examples_per_epoch(spec, images) / spec.batch_size)))
        flops |= {trial.id: cost for trial in row}
        remarks |= {trial.id: said for trial in row}
    return Plan(
        arms=by_arm,
        trials=tuple(unique.values()),
        states=states,
        reasons=reasons,
        flops=flops,
        remarks=remarks,
        dropped=study.dropped_contrasts,
    )


def refreshed(plan: Plan, store: Store) -> Plan:
    """The same trials with their present states; what was finished is not looked at again."""
    unfinished = {t.id: t for t in plan.trials if plan.states[t.id] not in {"finished", "diverged"}}
    states, reasons = look_up(store, unfinished)
    return replace(plan, states={**plan.states, **states}, reasons=reasons)


def wanted_trials(study: Study, store: Store) -> tuple[tuple[Arm, tuple[Trial, ...]], ...]:
    """The trials of each arm that a study asks for now: all of them, or, where it adds seeds until its contrasts are
    resolved, those of its present look."""
    if not study.looks:
        return trials_by_arm(study, datasets.fingerprint)
    from normlab.table import read_table

    table = read_table(study, store, datasets.fingerprint)
    return tuple((record.arm, tuple(t.trial for t in record.trials)) for record in table.arms)


def merge_plans(plans: Sequence[Plan], first: Collection[str] = ()) -> Plan:
    """Several studies as one plan, most informative first: one seed of everything before the second of anything, in
    each round the trials whose ids are in `first`, and then whatever costs least."""
    flops = {trial_id: cost for plan in plans for trial_id, cost in plan.flops.items()}
    unique = {trial.id: trial for plan in plans for trial in plan.trials}
    ordered = sorted(unique.values(), key=lambda t: (t.spec.seed, t.id not in first, flops[t.id]))
    return Plan(
        arms=tuple(pair for plan in plans for pair in plan.arms),
        trials=tuple(ordered),
        states={trial_id: state for plan in plans for trial_id, state in plan.states.items()},
        reasons={trial_id: reason for plan in plans for trial_id, reason in plan.reasons.items()},
        flops=flops,
        remarks={trial_id: said for plan in plans for trial_id, said in plan.remarks.items()},
    )


def look_up(store: Store, unique: Mapping[str, Trial]) -> tuple[dict[str, State], dict[str, str]]:
    """The state of each trial, and the reasons of those that failed or whose record is damaged."""
    states: dict[str, State] = {}
    reasons = store.failures(unique)
    for trial_id in unique:
        try:
            result = store.load(trial_id)
        except ValueError as error:
            states[trial_id], reasons[trial_id] = "failed", str(error)
            continue
        if result is not None:
            states[trial_id] = result.status
        elif store.is_claimed(trial_id):
            states[trial_id] = "running"
        else:
            states[trial_id] = "failed" if trial_id in reasons else "missing"
    return states, reasons


def training_flops(spec: TrialSpec, num_train: int, channels: int, image_size: int) -> float:
    """Floating-point operations of a whole training: convolutions and dense layers, forward and backward."""
    macs = forward_macs(spec.network, channels, image_size)
    return float(FLOPS_PER_MAC * TRAINING_PASSES * macs * examples_per_epoch(spec, num_train) * spec.epochs)


def training_bytes(spec: TrialSpec, channels: int, image_size: int) -> float:
    """Memory that one trial of a cohort needs, roughly: weights, gradients and moments; what the layers of a batch
    keep for the backward pass; and the two largest maps of a batch of evaluation."""
    rows = list(layer_shapes(parse_notation(spec.network), channels, image_size))
    weights = sum(row.weights + row.biases for row in rows)
    maps = [math.prod(row.shape) for row in rows]
    return 4.0 * (4 * weights + 3 * spec.batch_size * sum(maps) + 2 * EVALUATION_BATCH * max(maps))


@contextmanager
def _placed(study: Study) -> Iterator[None]:
    """Puts the place in front of a complaint that begins with its setting's name."""
    try:
        yield
    except UsageError as error:
        key = re.split(r"\W", str(error), maxsplit=1)[0]
        raise UsageError(study.where(key if key in SETTINGS else "data") + str(error)) from None


def _checked_images(spec: TrialSpec, info: datasets.DataInfo) -> int:
    """Raises UsageError where a spec cannot be trained on its data; else the number of its training images."""
    num_train, _ = split_sizes(
        info,
        split=spec.split,
        test_fraction=spec.test_fraction,
        train_images=spec.train_images,
        test_images=spec.test_images,
    )
    layers = parse_notation(spec.network)
    if num_classes(layers) != len(info.classes):
        better = spec.network.rpartition("-")[0] + f"-{len(info.classes)}D"
        raise UsageError(
            f"network '{spec.network}' has {num_classes(layers)} outputs, but {spec.data} has "
            f"{len(info.classes)} classes; write {better}, or {spec.network}-{len(info.classes)}D with one layer more"
        )
    examples = examples_per_epoch(spec, num_train)
    if spec.batch_size > examples:
        raise UsageError(
            f"batch_size {spec.batch_size} exceeds the {examples:,} training images; write at most {examples}"
        )
    _require_two_values(spec, examples, info.channels, info.image_size)
    return num_train


def _remarks(spec: TrialSpec, steps: int) -> Iterator[str]:
    """What a training of so many steps will not show, though its settings are allowed."""
    if spec.norm == "renorm" and spec.renorm_schedule == "steps" and steps <= RENORM_START:
        yield (
            f"norm renorm: it is batch norm until step {RENORM_START:,}, and a training has {steps:,}; write "
            "renorm_schedule: fraction, which fits the ramp to the training"
        )
    left, enough = (1 - spec.norm_momentum) ** steps, 1 - MOST_LEFT ** (1 / steps)
    if spec.norm in KEEPS_AVERAGES and left > MOST_LEFT:
        yield (
            f"norm_momentum {spec.norm_momentum:g}: after the {steps:,} steps of a training {left:.0%} of a moving "
            f"average is still what it began with; write at least {math.ceil(100 * enough) / 100:g}, or train longer"
        )


def _require_two_values(spec: TrialSpec, examples: int, channels: int, image_size: int) -> None:
    """A norm that divides by a batch's deviation needs two values a channel, in the last, smaller batch too."""
    if spec.norm not in NEEDS_TWO_VALUES:
        return
    rows = list(layer_shapes(parse_notation(spec.network), channels, image_size))
    normalized = [row for row in rows[:-1] if row.kind == "convolution" or (row.kind == "dense" and spec.norm_dense)]
    smallest = examples % spec.batch_size or spec.batch_size
    for row in normalized:
        if smallest * math.prod(row.shape[1:]) < 2:
            which = "each batch" if smallest == spec.batch_size else f"the last of an epoch's {examples:,} images"
            raise UsageError(
                f"batch_size {spec.batch_size} leaves norm {spec.norm} one value a channel in {row.name} "
                f"({which} makes a batch of {smallest}), and it needs two; change batch_size or train_images"
            )


def estimate_seconds(
    missing: Sequence[Trial], flops: Mapping[str, float], rate: Callable[[TrialSpec], float], workers: int
) -> float:
    """Seconds to train what is missing: FLOPs over the rate, in FLOP/s, that one worker reaches on each shape."""
    seconds = [flops[trial.id] / rate(trial.spec) for trial in missing]
    return max(sum(seconds) / workers, max(seconds, default=0.0))


def speed_class(spec: TrialSpec) -> tuple[object, ...]:
    """Trials of one class run at about one rate."""
    return (
        spec.data, spec.network, spec.norm, spec.activation, spec.batch_size, spec.precision, spec.image_size,
        spec.augment,
    )  # fmt: skip


def cohorts(missing: Sequence[Trial], size: Callable[[TrialSpec], int]) -> list[list[Trial]]:
    """Groups trials that may be trained as one program, at most `size` of their spec together and as evenly as can
    be, in the order of the plan.

    A pure function of what was missing and of the sizes: the same study, begun again, makes the same cohorts.
    """
    position = {trial.id: i for i, trial in enumerate(missing)}
    chunks = []
    for group in cohort_groups(missing):
        parts = math.ceil(len(group) / size(group[0].spec))
        bounds = [len(group) * part // parts for part in range(parts + 1)]
        chunks += [group[start:stop] for start, stop in itertools.pairwise(bounds)]
    return sorted(chunks, key=lambda chunk: position[chunk[0].id])


def cohort_groups(missing: Sequence[Trial]) -> list[list[Trial]]:
    """The trials that could share a cohort, were it large enough."""
    groups: dict[tuple[object, ...], list[Trial]] = {}
    for trial in missing:
        groups.setdefault(cohort_key(trial.spec), []).append(trial)
    return list(groups.values())


# What may differ between the trials of a cohort, with the rates of dropout; everything else must agree.
FREE_IN_COHORT = frozenset(
    {
        "seed", "learning_rate", "beta1", "beta2", "optimizer_eps", "momentum", "nesterov", "weight_decay", "schedule",
        "step_at", "step_factors", "warmup_epochs", "slope", "norm_momentum", "rotation_degrees", "shift_fraction",
        "horizontal_flip",
    }
)  # fmt: skip


def cohort_key(spec: TrialSpec) -> tuple[object, ...]:
    shared = {name: value for name, value in spec.model_dump().items() if name not in FREE_IN_COHORT}
    return tuple((shared | {"network": re.sub("Dropout[^-]*", "Dropout", spec.network)}).values())
