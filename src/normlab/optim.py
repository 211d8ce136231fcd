"""Optimizers over T trials: torch's fused kernels, called for the share of each trial, and Keras's form of Adam.

Each trial has its own learning rate, weight decay and moments; nothing is shared but the count of steps. The kernels
are called without torch.optim around them, whose bookkeeping a parameter takes longer than they do in small networks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from normlab.trial import TrialSpec

Tensors = tuple[torch.Tensor, ...]
# (spec, learning rate; the parameters, gradients and moments of one trial; the count of steps as a tensor)
Update = Callable[[TrialSpec, torch.Tensor, Tensors, Tensors, Sequence[Tensors], torch.Tensor], None]


def _adam(kernel: Callable[..., None]) -> Update:
    """Kingma & Ba 2015, algorithm 1; with decoupled weight decay (Loshchilov & Hutter 2019) by another kernel."""

    def update(
        spec: TrialSpec,
        learning_rate: torch.Tensor,
        parameters: Tensors,
        gradients: Tensors,
        moments: Sequence[Tensors],
        count: torch.Tensor,
    ) -> None:
        kernel(
            parameters, gradients, *moments, [], [count] * len(parameters),
            lr=learning_rate, beta1=spec.beta1, beta2=spec.beta2, weight_decay=spec.weight_decay,
            eps=spec.optimizer_eps, amsgrad=False, maximize=False,
        )  # fmt: skip

    return update


def _sgd(
    spec: TrialSpec,
    learning_rate: torch.Tensor,
    parameters: Tensors,
    gradients: Tensors,
    moments: Sequence[Tensors],
    count: torch.Tensor,
) -> None:
    """Momentum as PyTorch has it, v ← m·v + g and w ← w − lr·v, with Nesterov's w ← w − lr·(g + m·v) on request."""
    torch._fused_sgd_(
        parameters, gradients, moments[0] if spec.momentum else (),
        lr=learning_rate, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay,
        dampening=0.0, maximize=False, is_first_step=False,
    )  # fmt: skip


def _as_it_is(spec: TrialSpec, learning_rate: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return learning_rate


def _bias_corrected(spec: TrialSpec, learning_rate: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Keras adds ε to √v without its bias correction, in the form that Kingma & Ba 2015 give at the end of section 2:
    lr · √(1 − β2^t) / (1 − β1^t) is the rate of a kernel that corrects nothing."""
    return learning_rate * (1 - spec.beta2**step) ** 0.5 / (1 - spec.beta1**step)


@dataclass(frozen=True)
class _Kind:
    update: Update
    moments: tuple[str, ...]
    rate: Callable[[TrialSpec, torch.Tensor, torch.Tensor], torch.Tensor] = (
        _as_it_is  # for the kernel, of a learning rate at a step
    )
    corrects: bool = True  # whether the kernel corrects the bias of its moments, by the count of steps


OPTIMIZERS: dict[str, _Kind] = {
    "adam_keras": _Kind(_adam(torch._fused_adam_), ("exp_avg", "exp_avg_sq"), _bias_corrected, corrects=False),
    "adam": _Kind(_adam(torch._fused_adam_), ("exp_avg", "exp_avg_sq")),
    "adamw": _Kind(_adam(torch._fused_adamw_), ("exp_avg", "exp_avg_sq")),
    "sgd": _Kind(_sgd, ("momentum_buffer",)),
}


class Optimizer:
    """Updates a network of T trials by the settings of their specs, which share the optimizer's kind.

    `moments` holds what it remembers by name, a tensor for each of the network's parameters; `steps` counts updates.
    """

    def __init__(self, network: nn.Module, specs: Sequence[TrialSpec]) -> None:
        self._specs, self._kind = tuple(specs), OPTIMIZERS[specs[0].optimizer]
        self._parameters = tuple(network.parameters())
        self.moments = {
            name: tuple(torch.zeros_like(parameter, requires_grad=False) for parameter in self._parameters)
            for name in self._kind.moments
        }
        self._weights_of = self._by_trial(tuple(parameter.detach() for parameter in self._parameters))
        self._moments_of = list(zip(*(self._by_trial(tensors) for tensors in self.moments.values()), strict=True))
        self._count = torch.zeros((), device=self._parameters[0].device)
        self._kernel_count = self._count if self._kind.corrects else torch.full_like(self._count, math.inf)

    @property
    def steps(self) -> int:
        return int(self._count)

    @steps.setter
    def steps(self, count: int) -> None:
        self._count.fill_(count)

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rates_T: torch.Tensor) -> None:
        """One update with a learning rate for each trial, float64, of which nothing is read here."""
        self._count += 1
        count = self._count.double()
        gradients = []
        for parameter in self._parameters:
            gradient = parameter.grad
            assert gradient is not None
            if gradient.stride() != parameter.stride():  # the kernels walk through memory
                gradient = torch.empty_like(parameter).copy_(gradient)
            gradients.append(gradient)
        shares = zip(self._weights_of, self._by_trial(tuple(gradients)), self._moments_of, strict=True)
        for spec, learning_rate, (weights, own, moments) in zip(self._specs, rates_T, shares, strict=True):
            rate = self._kind.rate(spec, learning_rate, count)
            rate = rate.float() if rate.is_cuda else rate  # which the kernel wants there
            self._kind.update(spec, rate, weights, own, moments, self._kernel_count)

    def _by_trial(self, tensors: Tensors) -> list[Tensors]:
        """Views of each trial's share, flat as they lie in memory: the kernels would copy others first."""
        shapes = ((len(self._specs), tensor.numel() // len(self._specs)) for tensor in tensors)
        flat = (tensor.as_strided(shape, (shape[1], 1)) for tensor, shape in zip(tensors, shapes, strict=True))
        return list(zip(*(tensor.unbind() for tensor in flat), strict=True))
