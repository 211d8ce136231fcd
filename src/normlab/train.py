"""Training: T ≥ 1 trials of one shape as one program, from specs and a split of images to what was measured.

The loop is the ordinary one: fetch, forward, loss, backward, update, and measurements at the end of an epoch. Trials
share a network's kind, batch size and number of steps; seeds, learning rates, schedules, slopes, dropout rates and
weight decays are their own.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from normlab.batches import Images, as_images, draw_batches
from normlab.checkpoint import TrainingState, load
from normlab.datasets.split import Split
from normlab.evaluate import Evaluation, confident_mistakes, evaluate, evaluate_other_statistics
from normlab.graphs import Replayed
from normlab.network import Network
from normlab.probes import gradient_spread, trials_at_once, watched_channels
from normlab.result import Details
from normlab.schedules import learning_rates
from normlab.step import Step, make_network, named_generators, take_over, weights_of
from normlab.trial import TrialSpec, examples_per_epoch, trial_id
from normlab.watch import Progress, Watch


@dataclass(kw_only=True)
class Outcome:
    """What training measured of one trial."""

    metrics: dict[str, float] = field(default_factory=dict)
    images: int = 0  # trained, all epochs together
    seconds: float = 0.0  # of training, of the whole cohort
    diverged_epoch: int | None = None
    details: Details | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Cohort:
    """What is trained together, from the first step to the last."""

    specs: Sequence[TrialSpec]
    train_set: Images
    test_set: Images

    @property
    def images_per_epoch(self) -> int:
        """Of one trial."""
        return examples_per_epoch(self.specs[0], len(self.train_set))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.images_per_epoch / self.specs[0].batch_size)

    @cached_property
    def rates_TS(self) -> np.ndarray:  # noqa: N802 - axes, as in the names of tensors
        """Learning rates by trial and step."""
        return np.stack([learning_rates(spec, self.steps_per_epoch) for spec in self.specs])

    def make_step(self, members: Sequence[int]) -> Step:
        """Of these trials of the cohort: those that have diverged may have left it."""
        some = [self.specs[trial] for trial in members]
        return Step(some, make_network(some, self.train_set, self.steps_per_epoch * some[0].epochs), self.train_set)


CURVES = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate")


def train(
    specs: Sequence[TrialSpec],
    split: Split,
    *,
    device: torch.device,
    report: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[int, Mapping[str, float | None]], None] = lambda trial, row: None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    deadline: float | None = None,
    is_over: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda text: None,
) -> list[Outcome]:
    """Trains the trials of one cohort and returns their outcomes in the same order.

    `on_epoch` hears of each trial's place in the cohort and what its curves gained, at the end of every epoch.
    A trial whose loss is not finite at the end of an epoch has diverged: its curves stop there, its metrics stay
    empty, and its neighbours go on as if it had not. Once half of a cohort has, the rest goes on without them; such a
    trial has no weights in the end.

    With a folder for a `checkpoint`, training goes on where one of exactly these trials left off, and saves one between
    two steps when the last is `checkpoint_seconds` old; `warn` hears of those that are damaged or cannot be saved.
    Raises Stopped, after a save, when the `deadline` is over, in seconds since 1970, or `is_over` says so, but not
    before a step is done.
    """
    began, spec = time.monotonic(), specs[0]
    cohort = _place(specs, split, device)
    step, state, within = _begun(cohort, checkpoint, warn)
    watch = Watch(
        state=state, total_images=cohort.images_per_epoch * spec.epochs * len(specs), began=began - state.seconds,
        report=report, checkpoint=checkpoint, checkpoint_seconds=checkpoint_seconds, deadline=deadline, is_over=is_over,
        warn=warn,
    )  # fmt: skip
    run, evaluation = step.runner(), None
    measured: dict[str, list[float | None]] = {}
    for epoch in range(state.epoch + 1, spec.epochs + 1):
        losses, accuracies = _train_epoch(cohort, step, run, state, within, watch)
        evaluation = None
        if epoch % spec.evaluate_every == 0 or epoch == spec.epochs:
            step.network.eval()
            with watched_channels(step.network) if epoch == spec.epochs else nullcontext(list) as dead:
                evaluation = evaluate(step.network, cohort.test_set, autocast=step.autocast, alive=watch.alive)
                measured["dead_channels"] = _finite_all(dead())
            state.accuracy = float(evaluation.accuracy.mean())
        for trial, row in _ended(state, step.network, epoch, losses, accuracies, evaluation):
            row["learning_rate"] = float(cohort.rates_TS[trial, state.steps - 1])
            for name, value in row.items():
                state.curves[trial][name].append(value)
            on_epoch(trial, row)
        if epoch == spec.epochs or None not in state.diverged_epochs:
            break
        living = [trial for trial in state.members if state.diverged_epochs[trial] is None]
        if 2 * len(living) <= len(state.members):  # the others cost as much and mean nothing any more
            step = _narrowed(cohort, step, state, living)
            run = step.runner()
        state.epoch, state.seen = epoch, 0
        watch.pause(step)

    del run  # and the memory of its replays
    measured |= _other_accuracies(step, cohort, watch.alive)
    measured["gradient_spread"] = _finite_all(_gradient_spread(step, cohort, state.members, watch.alive))
    outcomes = _outcomes(state, step.network, cohort.test_set, evaluation, measured, split.classes)
    for outcome in outcomes:
        outcome.seconds = time.monotonic() - watch.began
    return outcomes


# --- where it begins --------------------------------------------------------------------------------------------------


def _place(specs: Sequence[TrialSpec], split: Split, device: torch.device) -> _Cohort:
    pixels, reference = specs[0].pixels, split.train_images
    train_set = as_images(reference, split.train_labels, pixels=pixels, reference=reference, device=device)
    test_set = as_images(split.test_images, split.test_labels, pixels=pixels, reference=reference, device=device)
    return _Cohort(specs=specs, train_set=train_set, test_set=test_set)


def _begun(
    cohort: _Cohort, checkpoint: Path | None, warn: Callable[[str], None]
) -> tuple[Step, TrainingState, Mapping[str, torch.Tensor]]:
    """The step, the state and what there is of the epoch under way: of a checkpoint, or of the beginning."""
    ids, members = [trial_id(spec) for spec in cohort.specs], range(len(cohort.specs))
    if checkpoint and (found := load(checkpoint, ids, cohort.make_step, warn, partial(_is_between_steps, cohort))):
        return found
    step = cohort.make_step(members)
    return step, _initial_state(ids, _gradient_spread(step, cohort, members)), {}


def _initial_state(ids: list[str], spread: Sequence[float]) -> TrainingState:
    return TrainingState(
        ids=ids,
        members=list(range(len(ids))),
        diverged_epochs=[None for _ in ids],
        curves=[{name: [] for name in CURVES} for _ in ids],
        measured={"gradient_spread_initial": _finite_all(spread)},
    )


def _is_between_steps(cohort: _Cohort, state: TrainingState) -> bool:
    """Whether a state is one that this training passes through before its end."""
    specs, first = cohort.specs, state.steps - state.epoch * cohort.steps_per_epoch
    return (
        0 <= state.epoch < specs[0].epochs
        and 0 <= first < cohort.steps_per_epoch
        and state.seen == first * specs[0].batch_size
        and state.images == (state.epoch * cohort.images_per_epoch + state.seen) * len(specs)
        and bool(state.members)
        and state.members == sorted(set(state.members) & set(range(len(specs))))
        and all(d is not None or t in state.members for t, d in enumerate(state.diverged_epochs))
        and len(state.curves) == len(state.diverged_epochs) == len(specs)
        and all(set(curves) == set(CURVES) and len(set(map(len, curves.values()))) == 1 for curves in state.curves)
        and all(len(values) == len(specs) for values in state.measured.values())
    )


# --- an epoch ---------------------------------------------------------------------------------------------------------


def _train_epoch(
    cohort: _Cohort,
    step: Step,
    run: Replayed,
    state: TrainingState,
    within: Mapping[str, torch.Tensor],
    watch: Watch,
) -> tuple[list[float], list[float]]:
    """What is left of the epoch after `state.epoch`, of which a checkpoint held `within`. Returns its mean training
    loss and accuracy by trial of the network."""
    epoch, device, some = state.epoch + 1, cohort.train_set.labels.device, [cohort.specs[t] for t in state.members]
    step.network.train()
    step.begin(epoch)
    rates_ST = torch.from_numpy(cohort.rates_TS[state.members].T).to(device)
    losses_T = torch.zeros(len(some), dtype=torch.float64, device=device)
    correct_T = torch.zeros(len(some), dtype=torch.int64, device=device)
    first = state.steps - state.epoch * cohort.steps_per_epoch
    if first:  # the middle of an epoch, from a checkpoint
        losses_T.copy_(within["losses"])
        correct_T.copy_(within["correct"])
        for generator, name in named_generators(step.network):
            generator.set_state(within[name])

    def under_way() -> dict[str, torch.Tensor]:
        """What a checkpoint holds of this epoch."""
        states = {name: generator.get_state() for generator, name in named_generators(step.network)}
        return {"losses": losses_T, "correct": correct_T} | states

    def mean_loss() -> float | None:
        """Of the trials that have one: what diverged may be a neighbour for long."""
        known = losses_T[losses_T.isfinite()]
        return float(known.mean()) / state.seen if len(known) else None

    for index_TB, warps_TB4 in draw_batches(cohort.train_set, some, epoch, skip=first):
        loss_T, hits_T = run(index_TB, warps_TB4, rates_ST[state.steps])
        losses_T += loss_T * index_TB.shape[1]
        correct_T += hits_T
        state.seen += index_TB.shape[1]
        state.steps += 1
        state.images += index_TB.shape[1] * len(cohort.specs)
        # A GPU is given one step after the other, and asked nothing before an epoch ends.
        watch.alive(None if losses_T.is_cuda else mean_loss)
        if state.steps < epoch * cohort.steps_per_epoch:
            watch.pause(step, under_way)
    watch.loss = mean_loss()
    return (losses_T / state.seen).tolist(), (correct_T.double() / state.seen).tolist()


def _narrowed(cohort: _Cohort, wider: Step, state: TrainingState, living: list[int]) -> Step:
    """A step of the living alone, which goes on from where they are; they are the members from now on."""
    step = cohort.make_step(living)
    take_over(wider, step, [state.members.index(trial) for trial in living])
    state.members = living
    return step


# --- what it measured -------------------------------------------------------------------------------------------------


def _ended(
    state: TrainingState,
    network: Network,
    epoch: int,
    losses: Sequence[float],
    accuracies: Sequence[float],
    evaluation: Evaluation | None,
) -> Iterator[tuple[int, dict[str, float | None]]]:
    """What an epoch measured of each trial that is still trained; one that has diverged in it is marked instead."""
    for place, trial in enumerate(state.members):
        if state.diverged_epochs[trial] is not None:
            continue
        if not math.isfinite(losses[place]) or not _all_finite(network, place):
            state.diverged_epochs[trial] = epoch
            continue
        row = (epoch, losses[place], accuracies[place], *_at(evaluation, place))
        yield trial, {name: _finite(value) for name, value in zip(CURVES, row, strict=False)}


def _all_finite(network: Network, trial: int) -> bool:
    """Whether weights and statistics of a trial are: the last update of an epoch may have ruined them."""
    return all(bool(value.isfinite().all()) for value in weights_of(network, trial).values())


def _at(evaluation: Evaluation | None, trial: int) -> tuple[float | None, float | None]:
    if evaluation is None:
        return None, None
    return float(evaluation.loss[trial]), float(evaluation.accuracy[trial])


def _finite(value: float | None) -> float | None:
    """A number that JSON can hold; a test loss may overflow where the training loss did not."""
    return None if value is None or not math.isfinite(value) else float(value)


def _finite_all(values: Sequence[float]) -> list[float | None]:
    return [_finite(value) for value in values]


def _gradient_spread(
    step: Step, cohort: _Cohort, members: Sequence[int], alive: Callable[[], None] = lambda: None
) -> list[float]:
    """Of the trials of a step, which are these members of the cohort; few at once where a batch's activations are
    large."""
    train_set, at_once = cohort.train_set, trials_at_once(cohort.train_set)
    if len(members) <= at_once:
        return gradient_spread(step.network, train_set)
    spreads = []
    for first in range(0, len(members), at_once):
        alive()
        places = range(first, min(first + at_once, len(members)))
        some = cohort.make_step([members[place] for place in places])
        take_over(step, some, places)
        spreads += gradient_spread(some.network, train_set)
    return spreads


def _other_accuracies(step: Step, cohort: _Cohort, alive: Callable[[], None]) -> dict[str, list[float | None]]:
    """Test accuracies with other statistics than the moving averages, by trial of the network."""
    others = evaluate_other_statistics(
        step.network, cohort.train_set, cohort.test_set, batch_size=cohort.specs[0].batch_size, autocast=step.autocast,
        alive=alive,
    )  # fmt: skip
    return {f"test_accuracy_{name}": _finite_all(other.accuracy.tolist()) for name, other in others.items()}


def _outcomes(
    state: TrainingState,
    network: Network,
    test_set: Images,
    evaluation: Evaluation | None,
    measured: Mapping[str, Sequence[float | None]],
    classes: tuple[str, ...],
) -> list[Outcome]:
    """Of all trials of a cohort, in its order."""
    outcomes = []
    for trial, (curves, diverged_epoch) in enumerate(zip(state.curves, state.diverged_epochs, strict=True)):
        outcome = Outcome(images=state.images // len(state.curves), diverged_epoch=diverged_epoch)
        outcome.metrics["num_test"] = len(test_set)
        outcome.details = Details(curves=curves, classes=classes)
        if trial in state.members:
            place = state.members.index(trial)
            outcome.weights = weights_of(network, place)
            if diverged_epoch is None:
                assert evaluation is not None
                finals = {name: values[trial] for name, values in state.measured.items()}
                finals |= {name: values[place] for name, values in measured.items()}
                _finish(outcome, place, evaluation, finals, test_set)
        outcomes.append(outcome)
    return outcomes


def _finish(
    outcome: Outcome, place: int, evaluation: Evaluation, measured: dict[str, float | None], test_set: Images
) -> None:
    """Fills in the final metrics and details of a trial that did not diverge, by its place in the network."""
    assert outcome.details is not None
    curves = outcome.details.curves
    finals = {"train_loss": curves["train_loss"][-1], "train_accuracy": curves["train_accuracy"][-1]}
    finals |= dict(zip(("test_loss", "test_accuracy"), _at(evaluation, place), strict=True)) | measured
    outcome.metrics |= {name: value for name, value in finals.items() if value is not None and math.isfinite(value)}
    outcome.details = replace(
        outcome.details,
        confusion=evaluation.confusion[place].tolist(),
        mistakes=confident_mistakes(evaluation, test_set, place),
    )
