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
import torch.nn.functional as F

from normlab.batches import Images, as_images, draw_batches, examples_per_epoch, fetch
from normlab.checkpoint import TrainingState, load, save
from normlab.datasets.split import Split
from normlab.evaluate import Evaluation, confident_mistakes, evaluate, evaluate_other_statistics
from normlab.graphs import Replayed, cuda_recorder
from normlab.network import Network, build_network
from normlab.norms.renorm import ramp_for
from normlab.notation import dropout_rates
from normlab.optim import Optimizer
from normlab.probes import gradient_spread, watched_channels
from normlab.randomness import begin
from normlab.result import Details
from normlab.schedules import learning_rates
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
    waits = device.type != "cuda"  # a GPU is given one step after the other, and asked nothing before an epoch ends
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
        state, within = _initial_state(ids, training_step.network, train_set), {}
    glance = partial(Progress, total_images=total_images, resumed_images=state.images)
    latest = glance(done_images=state.images, loss=None, accuracy=state.accuracy)
    began -= state.seconds
    last_report, last_save, evaluation = 0.0, time.monotonic(), None
    measured: dict[str, list[float | None]] = {}

    def sign_of_life(*_: object) -> None:
        """Repeats the latest glance while something takes long, such as an evaluation."""
        nonlocal last_report
        if time.monotonic() - last_report > PROGRESS_SECONDS:
            last_report = time.monotonic()
            report(latest)

    training_step.network.register_forward_pre_hook(sign_of_life)
    run: Callable[..., tuple[torch.Tensor, ...]] = training_step if waits else training_step.as_graph()

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
        rates_ST = rates_TS[state.members].T
        rates = rates_ST.tolist() if waits else torch.from_numpy(rates_ST).to(device)
        losses_T = torch.zeros(len(some), dtype=torch.float64, device=device)
        correct_T = torch.zeros(len(some), dtype=torch.int64, device=device)
        first, seen = state.steps - state.epoch * steps_per_epoch, state.seen
        if first:  # the middle of an epoch, from a checkpoint
            losses_T.copy_(within["losses"])
            correct_T.copy_(within["correct"])
            for generator, name in _generators(network):
                generator.set_state(within[name])
        for index_TB, warps_TB4 in draw_batches(train_set, some, epoch, skip=first):
            size = index_TB.shape[1]
            loss_T, hits_T = run(index_TB, warps_TB4, rates[state.steps])
            losses_T += loss_T * size
            correct_T += hits_T
            seen += size
            state.steps += 1
            state.images += size * len(specs)
            if time.monotonic() - last_report > PROGRESS_SECONDS:
                last_report = time.monotonic()
                loss = float(losses_T.mean()) / seen if waits else latest.loss
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
                evaluation = evaluate(network, test_set, autocast=training_step.autocast)
                measured["dead_channels"] = _finite_all(dead())
            state.accuracy = float(evaluation.accuracy.mean())
        for place, trial in enumerate(state.members):
            if state.diverged_epochs[trial] is not None:
                continue
            loss = float(losses_T[place]) / seen
            if not math.isfinite(loss) or not _all_finite(network, place):
                state.diverged_epochs[trial] = epoch
                continue
            rate = rates_TS[trial, state.steps - 1]
            row = (epoch, loss, int(correct_T[place]) / seen, *_at(evaluation, place), rate)
            measured_now = {name: _finite(value) for name, value in zip(CURVES, row, strict=True)}
            for name, value in measured_now.items():
                state.curves[trial][name].append(value)
            on_epoch(trial, measured_now)
        if epoch == spec.epochs or None not in state.diverged_epochs:
            break

        living = [trial for trial in state.members if state.diverged_epochs[trial] is None]
        if 2 * len(living) <= len(state.members):  # the others cost as much and mean nothing any more
            places = [state.members.index(trial) for trial in living]
            wider, training_step = training_step, make_step(living)
            take_over(wider, training_step, places)
            training_step.network.register_forward_pre_hook(sign_of_life)
            run = training_step if waits else training_step.as_graph()
            state.members = living
        state.epoch, state.seen = epoch, 0
        pause()

    network, autocast = training_step.network, training_step.autocast
    others = evaluate_other_statistics(network, train_set, test_set, batch_size=spec.batch_size, autocast=autocast)
    measured |= {f"test_accuracy_{name}": other.accuracy.tolist() for name, other in others.items()}
    measured |= {"gradient_spread": _finite_all(gradient_spread(network, train_set))}
    outcomes, seconds = [], time.monotonic() - began
    for trial, (curves, diverged_epoch) in enumerate(zip(state.curves, state.diverged_epochs, strict=True)):
        outcome = Outcome(images=state.images // len(specs), seconds=seconds, diverged_epoch=diverged_epoch)
        outcome.metrics["num_test"] = len(test_set)
        outcome.details = Details(curves=curves, classes=split.classes)
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


class Step:
    """One training step of T trials: fetch, forward, loss, backward, update. Owns the place of the network, its
    optimizer and the generators of its dropout masks."""

    def __init__(self, specs: Sequence[TrialSpec], network: Network, data: Images) -> None:
        self._specs, self._data, device = specs, data, data.labels.device
        self.network = network.to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = Optimizer(network, specs)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=specs[0].precision == "bfloat16")
        for dropout in network.dropouts():
            dropout.generators = [torch.Generator(device) for _ in specs]

    def begin(self, epoch: int) -> None:
        """Dropout masks are from now on those of an epoch."""
        for dropout in self.network.dropouts():
            for spec, generator in zip(self._specs, dropout.generators, strict=True):
                assert generator is not None
                begin(generator, spec.seed, "dropout", epoch)

    def __call__(
        self, index_TB: torch.Tensor, warps_TB4: torch.Tensor | None, rates_T: Sequence[float] | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch, as `draw_batches` has it, and learning rates [T] → mean loss [T] and correct answers [T]."""
        x, labels_BT = fetch(self._data, index_TB, warps_TB4)
        self.optimizer.zero_grad()
        with self.autocast:
            logits = self.network(x)
        logits_BKT = (
            logits.to(torch.promote_types(logits.dtype, torch.float32))
            .view(len(x), self.network.num_trials, -1)
            .transpose(1, 2)
        )
        loss_T = F.cross_entropy(logits_BKT, labels_BT, reduction="none").mean(0)
        loss_T.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(rates_T)
        return loss_T.detach(), (logits_BKT.detach().argmax(1) == labels_BT).sum(0)

    def as_graph(self) -> Replayed:
        """The same step for a GPU, whose learning rates are a tensor there."""
        return Replayed(self, cuda_recorder([generator for generator, _ in _generators(self.network)]))


def make_network(specs: Sequence[TrialSpec], data: Images, total_steps: int) -> Network:
    """The initialized network of a cohort."""
    spec = specs[0]
    settings: dict[str, object] = {"eps": spec.norm_eps, "momentum": [s.norm_momentum for s in specs]}
    if spec.norm == "renorm" and spec.renorm_schedule == "fraction":
        settings["schedule"] = ramp_for(total_steps)
    network = build_network(
        spec.network,
        norm=spec.norm,
        norm_position=spec.norm_position,
        norm_dense=spec.norm_dense,
        norm_settings=settings,
        activation=spec.activation,
        slope=[s.slope for s in specs],
        conv_bias=spec.conv_bias,
        in_channels=data.channels,
        image_size=data.size,
        num_trials=len(specs),
        seed=[s.seed for s in specs],
    )
    for position, dropout in enumerate(network.dropouts()):
        dropout.rates = tuple(dropout_rates(s.network)[position] for s in specs)
    return network


@torch.no_grad()
def take_over(wider: Step, narrower: Step, places: Sequence[int]) -> None:
    """Puts the trials at some places of a step, with statistics and moments, into a new one of these alone."""

    def share(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0:  # a counter of all
            return tensor
        parts = tensor.chunk(wider.network.num_trials)
        return torch.cat([parts[place] for place in places])

    narrower.network.load_state_dict({name: share(value) for name, value in wider.network.state_dict().items()})
    for name, tensors in wider.optimizer.moments.items():
        for own, tensor in zip(narrower.optimizer.moments[name], tensors, strict=True):
            own.copy_(share(tensor))
    narrower.optimizer.steps = wider.optimizer.steps


def weights_of(network: Network, trial: int) -> dict[str, torch.Tensor]:
    """The parameters and buffers of one trial, as those of an ordinary network; references until they are saved."""
    share = {}
    for name, value in network.state_dict().items():
        share[name] = value if value.dim() == 0 else value.chunk(network.num_trials)[trial]
    return share


def _place(split: Split, spec: TrialSpec, device: torch.device) -> tuple[Images, Images]:
    reference = split.train_images
    train_set = as_images(reference, split.train_labels, pixels=spec.pixels, reference=reference, device=device)
    test_set = as_images(split.test_images, split.test_labels, pixels=spec.pixels, reference=reference, device=device)
    return train_set, test_set


def _generators(network: Network) -> Iterator[tuple[torch.Generator, str]]:
    """The generators of dropout masks, each with a name."""
    for layer, dropout in enumerate(network.dropouts()):
        for trial, generator in enumerate(dropout.generators):
            if generator is not None:
                yield generator, f"dropout.{layer}.{trial}"


def _within_epoch(network: Network, losses_T: torch.Tensor, correct_T: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of an epoch under way."""
    return {"losses": losses_T, "correct": correct_T} | {n: g.get_state() for g, n in _generators(network)}


def _initial_state(ids: list[str], network: Network, train_set: Images) -> TrainingState:
    return TrainingState(
        ids=ids,
        members=list(range(len(ids))),
        diverged_epochs=[None for _ in ids],
        curves=[{name: [] for name in CURVES} for _ in ids],
        measured={"gradient_spread_initial": _finite_all(gradient_spread(network, train_set))},
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
