"""Probes: measurements of a network beside its accuracy. They leave weights, statistics and random numbers alone.

Each returns one number a trial, of T trials. The layers they look at are the weighted ones that an activation follows.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from normlab.batches import Images
from normlab.cohort import Convolution, Linear
from normlab.evaluate import image_order, plain_training_mode
from normlab.functional import raise_peaks
from normlab.network import Network

PROBE_PIXELS = 250 * 32 * 32  # of a batch whose activations are kept for the backward pass
GPU_PROBES = 8  # chosen: times as many on a GPU, some 11 GB of the base network
MIN_IMAGES = 16  # however large: no more memory than a step of training with the usual batch
CACHED_NUMBERS = 1 << 16  # chosen
VANISHED = 38.0  # decades of float32's normal numbers: the spread where some layer's gradient is exactly zero


@contextmanager
def watched_channels(network: Network) -> Iterator[Callable[[], list[float]]]:
    """While a network is evaluated: the share of channels and dense units whose input to the activation has not been
    above zero for any image yet. A ReLU there gives zero and passes no gradient; a leaky one is merely linear (Lu et
    al. 2020)."""
    highest: dict[str, torch.Tensor] = {}

    def look(name: str, inputs: torch.Tensor) -> None:
        if name not in highest:
            dtype = torch.promote_types(inputs.dtype, torch.float32)
            highest[name] = torch.full((inputs.shape[1],), -math.inf, dtype=dtype, device=inputs.device)
        raise_peaks(inputs, highest[name])

    def dead() -> list[float]:
        if not highest:  # nothing is activated
            return [math.nan] * network.num_trials
        dead_TC = torch.cat([(peak <= 0).view(network.num_trials, -1) for peak in highest.values()], dim=1)
        return dead_TC.double().mean(1).tolist()

    activations = {name: module for name, module in network.named_children() if name.endswith("_activation")}
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
        for name, module in activations.items()
    ]
    with _removed(hooks):
        yield dead


@torch.enable_grad()
def gradient_spread(network: Network, train: Images) -> list[float]:
    """Decades between the largest and the smallest gradient over depth: log10 of the ratio of the root mean squares
    of ∂L/∂h, h the output of a weighted layer, on one batch of training images (250 of 32×32 pixels, fewer of larger
    ones) with batch statistics, without dropout.

    0 where gradients neither vanish nor explode over depth (after Glorot & Bengio 2010, fig. 7; Yang et al. 2019).
    At most `VANISHED`, which it is where a layer gets no gradient at all; NaN where one is not finite, or
    no layer is hidden.
    """
    index = image_order(train)[: _num_images(train)]
    outputs: list[torch.Tensor] = []
    layers = [module for module in network.children() if isinstance(module, Convolution | Linear)][:-1]
    if not layers:
        return [math.nan] * network.num_trials

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        outputs.append(output if output.requires_grad else output.requires_grad_())

    with (
        plain_training_mode(network),
        _frozen(network),
        _removed([layer.register_forward_hook(keep) for layer in layers]),
    ):
        logits = network(train.inputs(index.expand(network.num_trials, -1)))
        logits_BKT = logits.view(len(index), network.num_trials, -1).transpose(1, 2)
        labels_BT = train.labels[index][:, None].expand(-1, network.num_trials)
        loss = F.cross_entropy(logits_BKT, labels_BT, reduction="none").mean(0).sum()
        gradients = torch.autograd.grad(loss, outputs)
    sizes_LT = torch.stack([_root_mean_squares(gradient, network.num_trials) for gradient in gradients])
    return [_decades(sizes) for sizes in sizes_LT.T.tolist()]


def trials_at_once(train: Images) -> int:
    """How many trials `gradient_spread` should be asked for together: it keeps the activations of a batch of
    each, gigabytes of eight trials with images of 32×32."""
    pixels = PROBE_PIXELS * (GPU_PROBES if train.labels.is_cuda else 1)
    return max(1, pixels // (_num_images(train) * train.image_size**2))


def _num_images(train: Images) -> int:
    return min(len(train), max(MIN_IMAGES, PROBE_PIXELS // train.image_size**2))


@contextmanager
def _frozen(network: Network) -> Iterator[None]:
    """Parameters ask for no gradients, which are a third of a backward pass."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _root_mean_squares(gradient: torch.Tensor, trials: int) -> torch.Tensor:
    """Of [N, T·C] or [N, T·C, H, W], by trial: [T]; a part at a time, which the caches hold in float64."""
    by_trial = gradient.movedim(1, -1)
    by_trial = by_trial.reshape(-1, trials, by_trial.shape[-1] // trials)
    totals = torch.zeros(trials, dtype=torch.float64, device=gradient.device)
    for part in torch.split(by_trial, max(1, CACHED_NUMBERS // by_trial[0].numel())):
        totals += part.double().square().sum((0, 2))
    return (totals * trials / gradient.numel()).sqrt()


def _decades(sizes: list[float]) -> float:
    if not all(map(math.isfinite, sizes)):
        return math.nan
    if min(sizes) == 0:
        return VANISHED
    return min(math.log10(max(sizes) / min(sizes)), VANISHED)


@contextmanager
def _removed(hooks: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Hooks that are gone afterwards."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
