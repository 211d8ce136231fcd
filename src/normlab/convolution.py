"""Convolutions of T trials at once: compiled on a CPU (`winograd`, `direct`, `shallow`), on a GPU in the way that is
fastest for a shape."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from normlab.functional import LIKE, along, empty_rows, in_rows
from normlab.graphs import launch

direct: Any
shallow: Any
winograd: Any
try:
    from normlab import direct, shallow, winograd
    from normlab.tiles import has_tiles
except ImportError:  # numba does not exist for every Python and platform
    direct = shallow = winograd = None

MOST_PAIRS = 2**17  # of channels: with more, weights laid out anew leave the caches, and oneDNN is as fast

Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, int], torch.Tensor]


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, trials: int) -> torch.Tensor:
    """T convolutions 3×3 of stride 1, padded with zeros: [N, T·C, H, W] and [T·K, C, 3, 3] → [N, T·K, H, W]."""
    if trials > 1 and x.device.type == "cuda":
        return WAYS[fastest_way(x, weight, trials)](x, weight, bias, trials)
    filters, channels = weight.shape[0] // trials, weight.shape[1]
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    fits = filters % 8 == 0 and (channels % 8 == 0 or not x.requires_grad) and channels * filters <= MOST_PAIRS
    fits = fits and len(x) > 0 and dtype in LIKE and weight.dtype == torch.float32
    if winograd is not None and x.device.type == "cpu" and fits:
        return _Compiled.apply(x.to(dtype), weight, bias, trials)  # type: ignore[no-any-return, no-untyped-call]
    return _grouped(x, weight, bias, trials)


class _Compiled(torch.autograd.Function):
    """The gradient of an input is the convolution of the output's with the weights turned by 180°."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, trials: int
    ) -> torch.Tensor:
        x, weight, ctx.trials, ctx.has_bias = in_rows(x), in_rows(weight), trials, bias is not None
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias, len(weight), trials)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight), trials, gradient = ctx.saved_tensors, ctx.trials, in_rows(gradient)
        images, width, *size = x.shape
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _convolve(gradient, weight, None, width, trials, turned=True)
        if not ctx.needs_input_grad[1]:
            return of_input, None, None, None
        of_weight, of_bias = torch.empty_like(weight), weight.new_empty(len(weight))
        channels, filters = width // trials, len(weight) // trials
        sizes = (images, *size, trials, channels, filters)
        kernels, types, num_scratch = _gradient_kernels(x.dtype, images, size, channels, filters)
        scratch = weight.new_empty(num_scratch)
        launch(kernels.weight_gradient, *types, x, gradient, of_weight, of_bias, scratch, *sizes)
        return of_input, of_weight, of_bias if ctx.has_bias else None, None


def _convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: int, trials: int, turned: bool = False
) -> torch.Tensor:
    (images, width, *size), y = x.shape, empty_rows((len(x), out, *x.shape[2:]), x.dtype)
    channels, filters = width // trials, out // trials
    sizes = (images, *size, trials, channels, filters)
    kernels, types, num_scratch = _kernels(x.dtype, images, size, channels, filters)
    scratch = weight.new_empty(num_scratch)
    launch(kernels.convolve, *types, x, weight, bias, y, scratch, *sizes, int(turned))
    return y


def _kernels(
    dtype: torch.dtype, images: int, size: Sequence[int], channels: int, filters: int
) -> tuple[Any, tuple[Any, ...], int]:
    """The module that convolves, numbers of the types that its kernels are compiled for, and how many floats they need
    beside what they are given."""
    if dtype == torch.bfloat16 and direct.fits(channels, filters) and has_tiles():
        return direct, (), direct.scratch_floats(images, *size, channels, filters)
    types = LIKE[dtype], winograd.lanes_for(channels, filters), winograd.kind_for(LIKE[dtype], channels, filters)
    return winograd, types, winograd.scratch_floats(channels, filters)


def _gradient_kernels(
    dtype: torch.dtype, images: int, size: Sequence[int], channels: int, filters: int
) -> tuple[Any, tuple[Any, ...], int]:
    """The same for the gradient of weights."""
    kernels, types, num_scratch = _kernels(dtype, images, size, channels, filters)
    if kernels is winograd and channels <= shallow.MOST:
        return shallow, types[:2], shallow.scratch_floats(size[1], channels, filters)
    return kernels, types, num_scratch


def _grouped(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, trials: int) -> torch.Tensor:
    return F.conv2d(x, weight, bias, padding=1, groups=trials)


def _separate(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, trials: int) -> torch.Tensor:
    """One convolution a trial."""
    biases = [None] * trials if bias is None else bias.chunk(trials)
    parts = zip(x.chunk(trials, 1), weight.chunk(trials), biases, strict=True)
    return torch.cat([F.conv2d(in_rows(some), own, b, padding=1) for some, own, b in parts], 1)


def _as_products(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, trials: int) -> torch.Tensor:
    """A batch of matrix products, of the 9·C inputs of each pixel with the weights."""
    images, _, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).view(images, height + 2, width + 2, trials, -1)
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    x_TMI = torch.stack(taps, 4).permute(3, 0, 1, 2, 4, 5).reshape(trials, images * height * width, -1)
    weight_TIK = weight.reshape(trials, -1, *weight.shape[1:]).permute(0, 3, 4, 2, 1).flatten(1, 3)
    y = (x_TMI @ weight_TIK.to(x.dtype)).view(trials, images, height, width, -1)
    y = y.permute(1, 0, 4, 2, 3).flatten(1, 2)
    y = y if bias is None else y + along(bias, y).to(y.dtype)
    return y.contiguous(memory_format=torch.channels_last)


WAYS: dict[str, Way] = {"grouped": _grouped, "separate": _separate, "products": _as_products}
_known: dict[object, str] = {}


def fastest_way(x: torch.Tensor, weight: torch.Tensor, trials: int) -> str:
    """The name in `WAYS` of the one that trains fastest on a shape, timed once in this process. Without gradients, as
    in evaluations, the one last chosen for such layers."""
    layer = (x.shape[1:], x.dtype, weight.shape, trials, torch.is_autocast_enabled(x.device.type))
    if not torch.is_grad_enabled():
        return _known.get(layer, "grouped")
    if (len(x), *layer) not in _known:
        own = (x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_())
        _known[(len(x), *layer)] = min(WAYS, key=lambda way: _seconds(WAYS[way], *own, trials))
    _known[layer] = _known[(len(x), *layer)]
    return _known[layer]


def _seconds(way: Way, x: torch.Tensor, weight: torch.Tensor, trials: int) -> float:
    """Of five passes forward and backward; infinite where the memory does not suffice."""
    wait: Callable[[], None] = torch.cuda.synchronize if x.is_cuda else lambda: None
    try:
        for repeats in (2, 5):  # the first ones choose algorithms
            wait()
            started = time.perf_counter()
            for _ in range(repeats):
                y = way(x, weight, None, trials)
                torch.autograd.grad(y, (x, weight), torch.ones_like(y))
            wait()
    except RuntimeError:  # out of memory, in one word or another
        return math.inf
    return time.perf_counter() - started
