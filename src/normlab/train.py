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
from functools import partial
from pathlib import Path

import numpy as np
import torch

from normlab.batches import Images, as_images, draw_batches, examples_per_epoch
from normlab.checkpoint import TrainingState, load, save
from normlab.datasets.split import Split
from normlab.evaluate import Evaluation, confident_mistakes, evaluate, evaluate_other_statistics
from normlab.network import Network
from normlab.probes import gradient_spread, trials_at_once, watched_channels
from normlab.result import Details
from normlab.schedules import learning_rates
from normlab.step import Step, make_network, named_generators, take_over, weights_of
from normlab.trial import TrialSpec, trial_id


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A glance at a running cohort: images trained of all, and the latest loss and accuracy, means over its trials."""

    done_images: int
    total_images: int
    resumed_images: int  # of those done, what an earlier process did
    loss: float | None  # None before there is one in this process
    accuracy: float | None  # of the last test evaluation


@dataclass(kw_only=True)
class Outcome:
    """What training measured of one trial."""

    metrics: dict[str, float] = field(default_factory=dict)
    images: int = 0  # trained, all epochs together
    seconds: float = 0.0  # of training, of the whole cohort
    diverged_epoch: int | None = None
    details: Details | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


class Stopped(Exception):  # noqa: N818 - not an error: the time was over
    """Training stopped between two steps because of its deadline; its checkpoint, if any, holds what was done."""


CURVES = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate")
PROGRESS_SECONDS = 0.5


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
    train_set, test_set = _place(split, spec, device)
    steps_per_epoch = math.ceil(examples_per_epoch(spec, len(train_set)) / spec.batch_size)
    rates_TS = np.stack([learning_rates(s, steps_per_epoch) for s in specs])
    total_images = examples_per_epoch(spec, len(train_set)) * spec.epochs * len(specs)
    ids = [trial_id(s) for s in specs]

    def make_step(members: Sequence[int]) -> Step:
        """Of these trials of the cohort: those that have diverged may have left it."""
        some = [specs[trial] for trial in members]
        return Step(some, make_network(some, train_set, steps_per_epoch * spec.epochs), train_set)

    fits = partial(_is_between_steps, specs=specs, num_images=len(train_set), steps_per_epoch=steps_per_epoch)
    resumed = load(checkpoint, ids, make_step, warn, fits) if checkpoint else None
    if resumed is not None:
        training_step, state, within = resumed
    else:
        training_step = make_step(range(len(specs)))
        state, within = _initial_state(ids, _gradient_spread(training_step, train_set, make_step)), {}
    glance = partial(Progress, total_images=total_images, resumed_images=state.images)
    latest = glance(done_images=state.images, loss=None, accuracy=state.accuracy)
    began -= state.seconds
    last_report, last_save, evaluation = 0.0, time.monotonic(), None
    measured: dict[str, list[float | None]] = {}

    def sign_of_life() -> None:
        """Repeats the latest glance while something takes long, such as an evaluation."""
        nonlocal last_report
        if time.monotonic() - last_report > PROGRESS_SECONDS:
            last_report = time.monotonic()
            report(latest)

    run = training_step.runner()

    def pause(within: Callable[[], dict[str, torch.Tensor]] = dict) -> None:
        """Saves where training stands, and within an epoch, if that is due, and stops it if its time is over."""
        nonlocal last_save
        now, stop = time.monotonic(), is_over() or (deadline is not None and time.time() > deadline)
        state.seconds = now - began
        if checkpoint and (stop or now - last_save >= checkpoint_seconds):
            try:
                save(checkpoint, training_step, state, within())
            except OSError as error:  # a full disk costs the way back, not the training
                warn(f"checkpoint {checkpoint}: cannot be written ({error.strerror}); training goes on without it")
            last_save = time.monotonic()
        if stop:
            raise Stopped

    for epoch in range(state.epoch + 1, spec.epochs + 1):
        network, some = training_step.network, [specs[trial] for trial in state.members]
        network.train()
        training_step.begin(epoch)
        rates_ST = torch.from_numpy(rates_TS[state.members].T).to(device)
        losses_T = torch.zeros(len(some), dtype=torch.float64, device=device)
        correct_T = torch.zeros(len(some), dtype=torch.int64, device=device)
        first, seen = state.steps - state.epoch * steps_per_epoch, state.seen
        if first:  # the middle of an epoch, from a checkpoint
            losses_T.copy_(within["losses"])
            correct_T.copy_(within["correct"])
            for generator, name in named_generators(network):
                generator.set_state(within[name])
        for index_TB, warps_TB4 in draw_batches(train_set, some, epoch, skip=first):
            size = index_TB.shape[1]
            loss_T, hits_T = run(index_TB, warps_TB4, rates_ST[state.steps])
            losses_T += loss_T * size
            correct_T += hits_T
            seen += size
            state.steps += 1
            state.images += size * len(specs)
            if time.monotonic() - last_report > PROGRESS_SECONDS:
                last_report = time.monotonic()
                # A GPU is given one step after the other, and asked nothing before an epoch ends.
                loss = latest.loss if losses_T.is_cuda else float(losses_T.mean()) / seen
                latest = glance(done_images=state.images, loss=loss, accuracy=state.accuracy)
                report(latest)
            if state.steps < epoch * steps_per_epoch:
                state.seen = seen
                pause(partial(_within_epoch, network, losses_T, correct_T))

        latest = glance(done_images=state.images, loss=float(losses_T.mean()) / seen, accuracy=state.accuracy)
        evaluation = None
        if epoch % spec.evaluate_every == 0 or epoch == spec.epochs:
            network.eval()
            with watched_channels(network) if epoch == spec.epochs else nullcontext(list) as dead:
                evaluation = evaluate(network, test_set, autocast=training_step.autocast, alive=sign_of_life)
                measured["dead_channels"] = _finite_all(dead())
            state.accuracy = float(evaluation.accuracy.mean())
        losses, accuracies = (losses_T / seen).tolist(), (correct_T.double() / seen).tolist()
        for trial, row in _ended(state, network, epoch, losses, accuracies, evaluation):
            row["learning_rate"] = float(rates_TS[trial, state.steps - 1])
            for name, value in row.items():
                state.curves[trial][name].append(value)
            on_epoch(trial, row)
        if epoch == spec.epochs or None not in state.diverged_epochs:
            break

        living = [trial for trial in state.members if state.diverged_epochs[trial] is None]
        if 2 * len(living) <= len(state.members):  # the others cost as much and mean nothing any more
            places = [state.members.index(trial) for trial in living]
            narrower = make_step(living)
            take_over(training_step, narrower, places)
            training_step = narrower
            run = training_step.runner()
            state.members = living
        state.epoch, state.seen = epoch, 0
        pause()

    del run  # and the memory of its replays
    measured |= _other_accuracies(training_step, train_set, test_set, spec.batch_size, sign_of_life)
    members = state.members
    measured["gradient_spread"] = _finite_all(
        _gradient_spread(training_step, train_set, lambda at: make_step([members[place] for place in at]), sign_of_life)
    )
    outcomes = _outcomes(state, training_step.network, test_set, evaluation, measured, split.classes)
    for outcome in outcomes:
        outcome.seconds = time.monotonic() - began
    return outcomes


def _place(split: Split, spec: TrialSpec, device: torch.device) -> tuple[Images, Images]:
    reference = split.train_images
    train_set = as_images(reference, split.train_labels, pixels=spec.pixels, reference=reference, device=device)
    test_set = as_images(split.test_images, split.test_labels, pixels=spec.pixels, reference=reference, device=device)
    return train_set, test_set


def _within_epoch(network: Network, losses_T: torch.Tensor, correct_T: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of an epoch under way."""
    return {"losses": losses_T, "correct": correct_T} | {n: g.get_state() for g, n in named_generators(network)}


def _initial_state(ids: list[str], spread: Sequence[float]) -> TrainingState:
    return TrainingState(
        ids=ids,
        members=list(range(len(ids))),
        diverged_epochs=[None for _ in ids],
        curves=[{name: [] for name in CURVES} for _ in ids],
        measured={"gradient_spread_initial": _finite_all(spread)},
    )


def _is_between_steps(
    state: TrainingState, *, specs: Sequence[TrialSpec], num_images: int, steps_per_epoch: int
) -> bool:
    """Whether a state is one that this training passes through before its end."""
    first = state.steps - state.epoch * steps_per_epoch
    return (
        0 <= state.epoch < specs[0].epochs
        and 0 <= first < steps_per_epoch
        and state.seen == first * specs[0].batch_size
        and state.images == (state.epoch * examples_per_epoch(specs[0], num_images) + state.seen) * len(specs)
        and bool(state.members)
        and state.members == sorted(set(state.members) & set(range(len(specs))))
        and all(d is not None or t in state.members for t, d in enumerate(state.diverged_epochs))
        and len(state.curves) == len(state.diverged_epochs) == len(specs)
        and all(set(curves) == set(CURVES) and len(set(map(len, curves.values()))) == 1 for curves in state.curves)
        and all(len(values) == len(specs) for values in state.measured.values())
    )


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
    step: Step,
    train_set: Images,
    make_step: Callable[[Sequence[int]], Step],
    alive: Callable[[], None] = lambda: None,
) -> list[float]:
    """Of all trials of a step, few at once where a batch's activations are large; `make_step` gives a step of the
    trials at some places."""
    at_once = trials_at_once(train_set)
    if step.network.num_trials <= at_once or train_set.labels.is_cuda:
        return gradient_spread(step.network, train_set)
    spreads = []
    for first in range(0, step.network.num_trials, at_once):
        alive()
        places = range(first, min(first + at_once, step.network.num_trials))
        some = make_step(places)
        take_over(step, some, places)
        spreads += gradient_spread(some.network, train_set)
    return spreads


def _other_accuracies(
    step: Step, train_set: Images, test_set: Images, batch_size: int, alive: Callable[[], None]
) -> dict[str, list[float | None]]:
    """Test accuracies with other statistics than the moving averages, by trial of the network."""
    others = evaluate_other_statistics(
        step.network, train_set, test_set, batch_size=batch_size, autocast=step.autocast, alive=alive
    )
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
