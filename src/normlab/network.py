"""From the notation to a network of T trials: layer records + norm + activation → nn.Module, initialized.

Weights are Glorot uniform (Glorot & Bengio 2010, eq. 16) and biases zero, each weighted layer drawn from its own
generator of (seed, position), so that arms which share a layer's shape share its initial weights.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from normlab.activations import LeakyReLU, build_activation
from normlab.cohort import Convolution, Dropout, Flatten, Linear, MaxPool
from normlab.errors import UsageError, unknown
from normlab.functional import Rectifiers, is_compiled
from normlab.norms import StatisticsNorm, build_norm
from normlab.notation import LayerShape, layer_shapes, num_classes, parse_notation
from normlab.randomness import torch_generator

POSITIONS = ("before_activation", "after_activation")


class Network(nn.Sequential):
    """[N, T·C, H, W] → logits [N, T·K]. With `num_trials` = 1 it is an ordinary network."""

    num_trials: int
    num_classes: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Layer by layer; a norm and a rectifier beside it together, where that is one pass over memory."""
        layers = list(self.children())
        while layers:
            first, second = layers[0], layers[1] if len(layers) > 1 else None
            match first, second:
                case (StatisticsNorm(), LeakyReLU()) if _is_one_pass(x, first, second):
                    x = first(x, Rectifiers(after=second.slope_C))
                    del layers[:2]
                case (LeakyReLU(), StatisticsNorm()) if _is_one_pass(x, second, first):
                    x = second(x, Rectifiers(before=first.slope_C))
                    del layers[:2]
                case _:
                    x = first(x)
                    del layers[0]
        return x

    def norms(self) -> list[StatisticsNorm]:
        """The layers that keep moving averages."""
        return [module for module in self.modules() if isinstance(module, StatisticsNorm)]

    def dropouts(self) -> list[Dropout]:
        return [module for module in self.modules() if isinstance(module, Dropout)]


def build_network(
    notation: str,
    *,
    norm: str = "batch",
    norm_position: str = "before_activation",
    activation: str = "leaky_relu",
    in_channels: int = 3,
    image_size: int = 32,
    num_trials: int = 1,
    conv_bias: bool = True,
    norm_dense: bool = False,
    seed: int | Sequence[int] = 0,
    slope: float | Sequence[float] = 0.01,
    norm_settings: dict[str, Any] | None = None,
) -> Network:
    """A network for square images of `image_size` pixels.

    `seed` and `slope` (of leaky_relu) may be one value, for all trials, or one a trial; a single `seed` of several
    trials counts up. `norm_settings` go to `build_norm`.
    """
    if norm_position not in POSITIONS:
        raise UsageError(unknown("norm_position", norm_position, POSITIONS))
    seeds = [seed + trial for trial in range(num_trials)] if isinstance(seed, int) else list(seed)
    slopes = [float(slope)] * num_trials if isinstance(slope, int | float) else list(slope)
    if len(seeds) != num_trials or len(slopes) != num_trials:
        raise UsageError(f"num_trials is {num_trials}, but {len(seeds)} seeds and {len(slopes)} slopes were given")
    records = parse_notation(notation)
    rows = list(layer_shapes(records, in_channels, image_size))

    def after(row: LayerShape, with_norm: bool) -> list[tuple[str, nn.Module]]:
        """The norm and the activation that follow a weighted layer, in their order."""
        stack = [(f"{row.name}_activation", build_activation(activation, row.shape, slopes))]
        if with_norm and norm != "none":
            layer = build_norm(norm, row.shape[0], num_trials=num_trials, **(norm_settings or {}))
            stack.insert(0 if norm_position == "before_activation" else 1, (f"{row.name}_norm", layer))
        return stack

    if norm == "none":
        build_norm(norm, 1)  # the name is checked even where no layer needs it
    layers: list[tuple[str, nn.Module]] = []
    features, channels, weighted = 0, in_channels, 0
    for row in rows:
        match row.kind:
            case "convolution":
                shape = (row.shape[0], channels, 3, 3)
                layers.append((row.name, Convolution(_glorot(shape, seeds, weighted), bias=conv_bias)))
                layers += after(row, True)
                channels = row.shape[0]
            case "pool":
                layers.append((row.name, MaxPool()))
            case "flatten":
                layers.append((row.name, Flatten()))
                features = row.shape[0]
            case "dense":
                layers.append((row.name, Linear(_glorot((row.shape[0], features), seeds, weighted))))
                features = row.shape[0]
                if row is not rows[-1]:
                    layers += after(row, norm_dense)
            case "dropout":
                layers.append((row.name, Dropout([row.rate] * num_trials)))
        weighted += row.weights > 0
    network = Network(OrderedDict(layers))
    network.num_trials, network.num_classes = num_trials, num_classes(records)
    return network


def _is_one_pass(x: torch.Tensor, norm: StatisticsNorm, activation: LeakyReLU) -> bool:
    """Not where a hook wants to see what passes between the two."""
    hooks = (norm._forward_hooks, norm._forward_pre_hooks, activation._forward_hooks, activation._forward_pre_hooks)
    return is_compiled(x, norm.get_buffer("running_mean")) and not any(hooks)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _glorot(shape: tuple[int, ...], seeds: Sequence[int], position: int) -> list[torch.Tensor]:
    """Uniform in ±√(6 / (fan_in + fan_out)), one tensor a seed."""
    receptive = math.prod(shape[2:])
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * receptive))
    draw: Callable[[int], torch.Tensor] = lambda seed: torch.empty(shape).uniform_(  # noqa: E731
        -bound, bound, generator=torch_generator(seed, "initialization", position)
    )
    return [draw(seed) for seed in seeds]
