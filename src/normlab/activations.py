"""Activations over T·C channels. Most are torch's own; those with slopes know about trials."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from normlab.errors import UsageError, unknown
from normlab.functional import prelu

PRELU_SLOPE = 0.25  # He et al. 2015, and PyTorch's default
PRELU_ELEMENTWISE_SLOPE = 0.0  # Keras's default


class LeakyReLU(nn.Module):
    """x for x > 0, else s·x, with a slope s for each of T trials of C channels; 0 makes a ReLU. Beside a norm it is
    computed by the norm, in the same pass (see `Network`)."""

    slope_C: torch.Tensor

    def __init__(self, slopes: Sequence[float], num_features: int) -> None:
        super().__init__()
        self.slope = slopes[0] if len(set(slopes)) == 1 else None
        slope_T = torch.tensor(slopes, dtype=torch.float64).to(torch.get_default_dtype())
        self.register_buffer("slope_C", slope_T.repeat_interleave(num_features), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.slope is not None:
            return F.leaky_relu(x, self.slope)
        return F.prelu(x, self.slope_C.to(x.dtype))


class PReLU(nn.Module):
    """max(x, 0) + a·min(x, 0) with one learned slope a channel (He et al. 2015)."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_features,), PRELU_SLOPE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return prelu(x, self.weight)


class ElementwisePReLU(nn.Module):
    """PReLU with one learned slope for every element of the map, as Keras has it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full(shape, PRELU_ELEMENTWISE_SLOPE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return prelu(x, self.weight)


Builder = Callable[[tuple[int, ...], Sequence[float]], nn.Module]

ACTIVATIONS: dict[str, Builder] = {
    "relu": lambda shape, slopes: LeakyReLU([0.0] * len(slopes), shape[0]),
    "leaky_relu": lambda shape, slopes: LeakyReLU(slopes, shape[0]),
    "prelu": lambda shape, slopes: PReLU(len(slopes) * shape[0]),
    "prelu_elementwise": lambda shape, slopes: ElementwisePReLU((len(slopes) * shape[0], *shape[1:])),
    "sigmoid": lambda shape, slopes: nn.Sigmoid(),
    "tanh": lambda shape, slopes: nn.Tanh(),
    "elu": lambda shape, slopes: nn.ELU(),
    "gelu": lambda shape, slopes: nn.GELU(),
    "silu": lambda shape, slopes: nn.SiLU(),
}


def build_activation(kind: str, shape: tuple[int, ...], slopes: Sequence[float]) -> nn.Module:
    """An activation on one trial's `shape`, (C, H, W) or (F,), for as many trials as there are `slopes`."""
    if kind not in ACTIVATIONS:
        raise UsageError(unknown("activation", kind, ACTIVATIONS))
    return ACTIVATIONS[kind](shape, slopes)
