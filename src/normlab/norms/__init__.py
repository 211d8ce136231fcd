"""Normalization layers over T·C channels: the same module serves one network or T trained together.

Each takes [N, T·C] or [N, T·C, H, W] and has, where its kind has them, `weight` (γ) and `bias` (β) of T·C elements and
moving averages as buffers. A layer that keeps moving averages inherits from `StatisticsNorm`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from normlab.errors import UsageError, unknown
from normlab.norms.batch import BatchNorm
from normlab.norms.mean_only import MeanOnlyBatchNorm
from normlab.norms.renorm import BatchRenorm, RampedClip, fixed_clip
from normlab.norms.statistics import StatisticsNorm

__all__ = ["NORMS", "BatchNorm", "BatchRenorm", "MeanOnlyBatchNorm", "RampedClip", "StatisticsNorm", "build_norm"]

Share = float | torch.Tensor


def _none(num_features: int, **_: Any) -> nn.Module:
    return nn.Identity()


def _batch(num_features: int, *, eps: float, momentum: Share) -> nn.Module:
    return BatchNorm(num_features, eps=eps, momentum=momentum, scale=True)


def _batch_no_gamma(num_features: int, *, eps: float, momentum: Share) -> nn.Module:
    return BatchNorm(num_features, eps=eps, momentum=momentum, scale=False)


def _mean_only(num_features: int, *, eps: float, momentum: Share) -> nn.Module:
    return MeanOnlyBatchNorm(num_features, momentum=momentum)


def _renorm(
    num_features: int,
    *,
    eps: float,
    momentum: Share,
    r_max: float | None = None,
    d_max: float | None = None,
    schedule: RampedClip | None = None,
) -> nn.Module:
    if (r_max is None) != (d_max is None) or (r_max is not None and schedule is not None):
        raise UsageError("norm renorm: give r_max and d_max together, or a schedule, or neither (Ioffe's schedule)")
    clip = fixed_clip(r_max, d_max) if r_max is not None and d_max is not None else schedule or RampedClip()
    return BatchRenorm(num_features, eps=eps, momentum=momentum, clip=clip)


def _renorm_unclipped(num_features: int, *, eps: float, momentum: Share) -> nn.Module:
    return BatchRenorm(num_features, eps=eps, momentum=momentum, clip=fixed_clip(float("inf"), float("inf")))


NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": _none,
    "batch": _batch,
    "batch_no_gamma": _batch_no_gamma,
    "mean_only": _mean_only,
    "renorm": _renorm,
    "renorm_unclipped": _renorm_unclipped,
}


def build_norm(
    kind: str,
    num_features: int,
    *,
    num_trials: int = 1,
    eps: float = 1e-3,
    momentum: float | Sequence[float] = 0.01,
    **settings: Any,
) -> nn.Module:
    """A normalization layer of a kind in `NORMS` for `num_trials` × `num_features` channels.

    `momentum` is the share of the new batch in a moving average (PyTorch's sense; Keras's is one minus it), one for
    all trials or one a trial. `renorm`
    also takes `r_max` and `d_max`, fixed clips, or `schedule`, a `RampedClip`; without either it follows Ioffe 2017.
    """
    if kind not in NORMS:
        raise UsageError(unknown("norm", kind, NORMS))
    share: float | torch.Tensor
    if isinstance(momentum, Sequence):
        share = torch.tensor(momentum).repeat_interleave(num_features) if len(set(momentum)) > 1 else momentum[0]
    else:
        share = momentum
    return NORMS[kind](num_trials * num_features, eps=eps, momentum=share, **settings)
