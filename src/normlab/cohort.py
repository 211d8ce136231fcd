"""Convolution, dense layer, pooling and dropout over T trials that are trained together as one program.

Activations flow as [N, T·C, H, W] and [N, T·F]. Every parameter's first dimension is T times that of one trial, so
that `p.chunk(T)` is the parameter by trial. With T = 1 each layer is the ordinary one, at no cost.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from normlab.convolution import convolve
from normlab.functional import max_pool
from normlab.graphs import launch

dense: Any
try:
    from normlab import dense
except ImportError:  # numba does not exist for every Python and platform
    dense = None


class Convolution(nn.Module):
    """T convolutions 3×3 of stride 1 and padding same: [N, T·C_in, H, W] → [N, T·C_out, H, W]."""

    def __init__(self, weights: Sequence[torch.Tensor], *, bias: bool) -> None:
        """`weights` are those of each trial, [C_out, C_in, 3, 3]; biases start at zero."""
        super().__init__()
        self.num_trials = len(weights)
        self.weight = nn.Parameter(torch.cat(list(weights)))
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[0], dtype=self.weight.dtype)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return convolve(x, self.weight, self.bias, trials=self.num_trials)


class Linear(nn.Module):
    """T dense layers: [N, T·F_in] → [N, T·F_out], in the precision of their weights also under autocast.

    A batch is small beside a weight of a dense layer: casting the weight, and its gradient, costs more than it saves.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        """`weights` are those of each trial, [F_out, F_in]; biases start at zero."""
        super().__init__()
        self.num_trials = len(weights)
        self.weight = nn.Parameter(torch.cat(list(weights)))
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[0], dtype=self.weight.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            if _is_small(x):
                return _Small.apply(x, self.weight, self.bias, self.num_trials)  # type: ignore[no-any-return, no-untyped-call]
            if self.num_trials == 1:
                return F.linear(x, self.weight, self.bias)
            x_TNF = x.view(x.shape[0], self.num_trials, -1).transpose(0, 1)
            weight_TOF = self.weight.view(self.num_trials, -1, self.weight.shape[1])
            y_TNO: torch.Tensor = _Products.apply(x_TNF, weight_TOF)  # type: ignore[no-untyped-call]
            return y_TNO.transpose(0, 1).reshape(x.shape[0], -1) + self.bias


def _is_small(x: torch.Tensor) -> bool:
    return dense is not None and x.device.type == "cpu" and x.dtype == torch.float32 and len(x) <= dense.ROWS


class _Small(torch.autograd.Function):
    """Dense layers of a few rows [N, T·F_in], compiled."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, trials: int) -> torch.Tensor:
        x, outputs, ctx.trials = x.contiguous(), len(weight) // trials, trials
        ctx.save_for_backward(x, weight)
        y = x.new_empty(len(x), len(weight))
        launch(dense.forward, x, weight, bias, len(x), trials, weight.shape[1], outputs, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight), gradient = ctx.saved_tensors, gradient.contiguous()
        sizes = (len(x), ctx.trials, weight.shape[1], len(weight) // ctx.trials)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.empty_like(x)
            launch(dense.input_gradient, gradient, weight, *sizes, of_x)
        if not ctx.needs_input_grad[1]:
            return of_x, None, None, None
        of_weight, of_bias = torch.empty_like(weight), weight.new_empty(len(weight))
        launch(dense.weight_gradient, x, gradient, *sizes, of_weight, of_bias)
        return of_x, of_weight, of_bias, None


class _Products(torch.autograd.Function):
    """x_TNF · weight_TOFᵀ → [T, N, O]. Autograd's own gradients of it are the transposed ones, which are slower."""

    @staticmethod
    def forward(ctx: Any, x_TNF: torch.Tensor, weight_TOF: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x_TNF, weight_TOF)
        return x_TNF @ weight_TOF.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient_TNO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x_TNF, weight_TOF = ctx.saved_tensors
        return gradient_TNO @ weight_TOF, gradient_TNO.transpose(1, 2) @ x_TNF


class Dropout(nn.Module):
    """Inverted dropout of each trial's features by its own rate and its own generator: [N, T·F] or
    [N, T·C, H, W] → the same.

    `generators` is set for the time of training; without them masks come from torch's global generator.
    """

    def __init__(self, rates: Sequence[float]) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.generators: Sequence[torch.Generator | None] = [None] * len(self.rates)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not any(self.rates):
            return x
        features = x.reshape(x.shape[0], len(self.rates), -1)  # of maps too, whose channels lie last in memory
        shape_NF = (features.shape[0], features.shape[2])
        masks = []
        for rate, generator in zip(self.rates, self.generators, strict=True):
            uniform_NF = torch.rand(shape_NF, generator=generator, device=x.device)
            masks.append((uniform_NF >= rate).to(x.dtype) * (1 / (1 - rate)))
        return (features * torch.stack(masks, dim=1)).view(x.shape)


class MaxPool(nn.Module):
    """The maximum of each 2×2 square: [N, T·C, H, W] → [N, T·C, H//2, W//2]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return max_pool(x)


class Flatten(nn.Module):
    """[N, T·C, H, W] → [N, T·C·H·W], channel by channel whatever the layout in memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)
