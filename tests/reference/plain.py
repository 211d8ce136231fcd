"""One trial, written as anyone would: torch.nn layers, torch.optim, a loop over batches. Nothing of normlab.

Slow and obvious on purpose: it is the judge of the fused training. It is handed what is random: the initial weights,
the batches and the dropout masks.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn


class MeanOnly(nn.Module):
    running_mean: torch.Tensor

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dims = (0, 2, 3) if x.dim() == 4 else (0,)
        shape = (1, -1, 1, 1) if x.dim() == 4 else (1, -1)
        mean = x.mean(dims) if self.training else self.running_mean
        if self.training:
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean.detach()
        return x - mean.view(shape) + self.bias.view(shape)


class BatchWithoutGamma(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(x)
        return y + self.bias.view(1, -1, 1, 1)


class Renorm(nn.Module):
    """Ioffe 2017 as printed, with fixed clips."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, channels: int, momentum: float, eps: float, r_max: float, d_max: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.momentum, self.eps, self.r_max, self.d_max = momentum, eps, r_max, d_max
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dims = (0, 2, 3) if x.dim() == 4 else (0,)

        def view(v: torch.Tensor) -> torch.Tensor:
            return v.view(1, -1, *(1 for _ in dims[1:]))

        if not self.training:
            return (x - view(self.mean)) / view(self.std) * view(self.weight) + view(self.bias)
        mean = x.mean(dims)
        std = (x.var(dims, correction=0) + self.eps).sqrt()
        r = (std / self.std).clamp(1 / self.r_max, self.r_max).detach()
        d = ((mean - self.mean) / self.std).clamp(-self.d_max, self.d_max).detach()
        self.mean = self.mean + self.momentum * (mean.detach() - self.mean)
        self.std = self.std + self.momentum * (std.detach() - self.std)
        return ((x - view(mean)) / view(std) * view(r) + view(d)) * view(self.weight) + view(self.bias)


class MaskedDropout(nn.Module):
    """Dropout with the masks it is handed, in order; each already divided by the share that is kept."""

    def __init__(self, masks: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.masks = iter(masks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * next(self.masks) if self.training else x


class ElementwisePReLU(nn.Module):
    """PReLU with a slope for every element, as Keras has it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0) + self.weight * x.clamp(max=0)


NORMS = {
    "none": lambda c: [],
    "batch": lambda c: [nn.BatchNorm2d(c, eps=1e-3, momentum=0.01)],
    "batch_no_gamma": lambda c: [BatchWithoutGamma(c)],
    "mean_only": lambda c: [MeanOnly(c, 0.01)],
    "renorm_unclipped": lambda c: [Renorm(c, 0.01, 1e-3, float("inf"), float("inf"))],
    "renorm": lambda c: [Renorm(c, 0.01, 1e-3, 1.0, 0.0)],  # the first 5,000 steps of the ramp
}
ACTIVATIONS = {
    "relu": lambda shape: nn.ReLU(),
    "leaky_relu": lambda shape: nn.LeakyReLU(0.01),
    "prelu": lambda shape: nn.PReLU(shape[0]),
    "prelu_elementwise": ElementwisePReLU,
    "sigmoid": lambda shape: nn.Sigmoid(),
    "tanh": lambda shape: nn.Tanh(),
    "elu": lambda shape: nn.ELU(),
    "gelu": lambda shape: nn.GELU(),
    "silu": lambda shape: nn.SiLU(),
}


def network(norm: str, before: bool, activation: str, masks: Iterable[torch.Tensor]) -> nn.Sequential:
    """4K-2C2B-6D-Dropout0.5-3D on 8×8 images of one channel."""
    layers: list[nn.Module] = []
    channels = 1
    for width, size in ((4, 8), (8, 4)):
        for _ in range(2):
            norms, activations = NORMS[norm](width), [ACTIVATIONS[activation]((width, size, size))]
            layers += [nn.Conv2d(channels, width, 3, padding=1)]
            layers += norms + activations if before else activations + norms
            channels = width
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(32, 6), ACTIVATIONS[activation]((6,)), MaskedDropout(masks), nn.Linear(6, 3)]
    return nn.Sequential(*layers)


class KerasAdam(torch.optim.Optimizer):
    """Adam as Keras has it: ε is added to √v before its bias is corrected. Weight decay is added to the gradient."""

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay})
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            rate = group["lr"] * (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
            for p in group["params"]:
                state, gradient = self.state[p], p.grad + group["weight_decay"] * p
                state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
                state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
                p -= rate * state["m"] / (state["v"].sqrt() + 1e-7)


def optimizer(kind: str, model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    match kind:
        case "adam_keras":
            return KerasAdam(model.parameters(), learning_rate, weight_decay)
        case "adam":
            return torch.optim.Adam(model.parameters(), learning_rate, eps=1e-7, weight_decay=weight_decay)
        case "adamw":
            return torch.optim.AdamW(model.parameters(), learning_rate, eps=1e-7, weight_decay=weight_decay)
        case "sgd":
            return torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9, weight_decay=weight_decay)
    raise ValueError(kind)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> list[float]:
    """The loss of every batch before its update."""
    model.train()
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
