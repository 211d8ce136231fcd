"""Learning-rate schedules as plain arrays: one factor of the learning rate for each step of a training."""

from collections.abc import Callable

import numpy as np

from normlab.trial import TrialSpec

Factors = np.ndarray  # float64 [steps]


def _constant(spec: TrialSpec, steps: np.ndarray, steps_per_epoch: int) -> Factors:
    return np.ones(len(steps))


def _step(spec: TrialSpec, steps: np.ndarray, steps_per_epoch: int) -> Factors:
    """From each point of `step_at` on, its factor; points below 1 are fractions of the training, others epochs."""
    total = spec.epochs * steps_per_epoch
    starts = [round(at * total if at < 1 else at * steps_per_epoch) for at in spec.step_at]
    return np.array((1.0, *spec.step_factors))[np.searchsorted(starts, steps, side="right")]


def _cosine(spec: TrialSpec, steps: np.ndarray, steps_per_epoch: int) -> Factors:
    """From 1 after the warm-up to 0 after the last step (Loshchilov & Hutter 2017, eq. 5, without restarts)."""
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    span = max(spec.epochs * steps_per_epoch - warmup, 1)
    return 0.5 * (1 + np.cos(np.pi * np.clip((steps - warmup) / span, 0, 1)))


SCHEDULES: dict[str, Callable[[TrialSpec, np.ndarray, int], Factors]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
}


def learning_rates(spec: TrialSpec, steps_per_epoch: int) -> np.ndarray:
    """The learning rate of every step, float64 [epochs · steps_per_epoch]; warm-up rises linearly from one step's
    share to the full rate and multiplies the schedule."""
    steps = np.arange(spec.epochs * steps_per_epoch)
    factors = SCHEDULES[spec.schedule](spec, steps, steps_per_epoch)
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    if warmup:
        factors = factors * np.minimum((steps + 1) / warmup, 1)
    return spec.learning_rate * factors
