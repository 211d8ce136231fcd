"""Optimizers over T trials: torch's fused kernels, one parameter group a trial, Keras's form of Adam added.

Each trial has its own learning rate, weight decay and moments; nothing is shared but the call.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from normlab.trial import TrialSpec

Group = dict[str, object]


def _adam_group(spec: TrialSpec) -> Group:
    return {"betas": (spec.beta1, spec.beta2), "eps": spec.optimizer_eps, "weight_decay": spec.weight_decay}


def _sgd_group(spec: TrialSpec) -> Group:
    return {"momentum": spec.momentum, "nesterov": spec.nesterov, "weight_decay": spec.weight_decay}


def _no_rescaling(spec: TrialSpec, step: int) -> float:
    return 1.0


def _keras_eps(spec: TrialSpec, step: int) -> float:
    """Keras adds ε to √v outside the bias correction (ε̂ of Kingma & Ba 2015, section 2); torch adds it to
    √(v / (1 − β2^t)). Torch's update with ε / √(1 − β2^t) is Keras's."""
    return 1 / math.sqrt(1 - spec.beta2**step)


@dataclass(frozen=True)
class _Kind:
    make: Callable[..., torch.optim.Optimizer]
    group: Callable[[TrialSpec], Group]
    eps_factor: Callable[[TrialSpec, int], float] = _no_rescaling


OPTIMIZERS: dict[str, _Kind] = {
    "adam_keras": _Kind(torch.optim.Adam, _adam_group, _keras_eps),
    "adam": _Kind(torch.optim.Adam, _adam_group),
    "adamw": _Kind(torch.optim.AdamW, _adam_group),
    "sgd": _Kind(torch.optim.SGD, _sgd_group),
}


class Optimizer:
    """Updates a network of T trials by the settings of their specs, which share the optimizer's kind."""

    def __init__(self, network: nn.Module, specs: Sequence[TrialSpec]) -> None:
        self._specs, self._kind, self.steps = tuple(specs), OPTIMIZERS[specs[0].optimizer], 0
        self._parameters = list(network.parameters())
        if len(specs) == 1:
            self._slices = [self._parameters]
        else:  # views of each trial's share; their gradients are set before every update
            chunks = [parameter.detach().chunk(len(specs)) for parameter in self._parameters]
            self._slices = [list(slices) for slices in zip(*chunks, strict=True)]
        groups = [
            {"params": slices, **self._kind.group(spec)} for slices, spec in zip(self._slices, specs, strict=True)
        ]
        self.inner = self._kind.make(groups, lr=0.0, fused=True)

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, learning_rates: Sequence[float]) -> None:
        """One update with a learning rate for each trial."""
        self.steps += 1
        if len(self._specs) > 1:
            for position, parameter in enumerate(self._parameters):
                assert parameter.grad is not None
                for slices, gradient in zip(self._slices, parameter.grad.chunk(len(self._specs)), strict=True):
                    slices[position].grad = gradient
        for group, spec, learning_rate in zip(self.inner.param_groups, self._specs, learning_rates, strict=True):
            group["lr"] = learning_rate
            if "eps" in group:
                group["eps"] = spec.optimizer_eps * self._kind.eps_factor(spec, self.steps)
        self.inner.step()
