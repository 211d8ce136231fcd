"""Operations bound by memory, in as few passes over it as can be: what norms are made of, with the rectifier before
or after them, pooling, and both ends of a step: inputs from pixels, losses from logits.

On a CPU, in float32 and bfloat16, compiled kernels do the work (`kernels`); elsewhere torch's own operations do.
Inputs are [N, C] or [N, C, H, W]; what is per channel is [C], in float32 where the input is bfloat16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from normlab.graphs import launch

kernels: Any
try:
    from normlab import kernels
except ImportError:  # numba does not exist for every Python and platform
    kernels = None

LIKE = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0)}


@dataclass(frozen=True)
class Rectifiers:
    """Negative slopes [C] of a leaky ReLU before a norm and of one after it; None where there is none."""

    before: torch.Tensor | None = None
    after: torch.Tensor | None = None


PLAIN = Rectifiers()


def is_compiled(x: torch.Tensor, statistic: torch.Tensor) -> bool:
    """Whether the kernels serve an input and what a norm keeps of it."""
    return kernels is not None and x.device.type == "cpu" and x.dtype in LIKE and statistic.dtype == torch.float32


def moments(x: torch.Tensor, like: torch.Tensor, rectifiers: Rectifiers = PLAIN) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance a channel, of the type of `like` and outside the graph."""
    x = x.detach()
    if is_compiled(x, like):
        x = in_rows(x)
        mean_C, var_C = torch.empty_like(like), torch.empty_like(like)
        launch(kernels.moments, LIKE[x.dtype], x, *_shape(x), rectifiers.before, mean_C, var_C)
        return mean_C, var_C
    var_C, mean_C = torch.var_mean(_rectify(x, rectifiers.before).to(like.dtype), _dims(x), correction=0)
    return mean_C, var_C


@torch.no_grad()
def move(average_C: torch.Tensor, value_C: torch.Tensor, share: float | torch.Tensor, factor: float = 1.0) -> None:
    """A moving average takes a share, one or one a channel, of a new value times a factor, in place."""
    if is_compiled(average_C, value_C) and average_C.dtype == torch.float32:
        launch(kernels.move, average_C, value_C, float(factor), *_shares(share, average_C), len(average_C))
    else:
        average_C.lerp_(value_C * factor, share.to(average_C) if isinstance(share, torch.Tensor) else share)


def _shares(share: float | torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor | None, float]:
    """A share a channel, or one for all, as the kernels take them."""
    return (share.to(like), 0.0) if isinstance(share, torch.Tensor) else (None, float(share))


@torch.no_grad()
def renorm_kernel(
    moments_2C: tuple[torch.Tensor, torch.Tensor],
    averages_2C: tuple[torch.Tensor, torch.Tensor],
    steps: torch.Tensor,
    ramp: Sequence[float],
    share: float | torch.Tensor,
    *,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """r and d of batch renormalization as `BatchRenorm` computes them, of mean and variance of a batch, where these are
    compiled; moves the averages and the steps on. `ramp` has the fields of `RampedClip`."""
    mean_C, var_C = moments_2C
    r_C, d_C = torch.empty_like(mean_C), torch.empty_like(mean_C)
    given = (*averages_2C, steps, *map(float, ramp), *_shares(share, mean_C))
    launch(kernels.renorm, mean_C, var_C, float(eps), *given, r_C, d_C, len(mean_C))
    return r_C, d_C


def normalize(
    x: torch.Tensor,
    mean_C: torch.Tensor,
    var_C: torch.Tensor,
    weight_C: torch.Tensor | None,
    bias_C: torch.Tensor,
    *,
    eps: float,
    rectifiers: Rectifiers = PLAIN,
) -> torch.Tensor:
    """(v − mean) / √(var + eps) · weight + bias, where mean and var are the `moments` of x: its gradient goes
    through them too (Ioffe & Szegedy 2015, section 3)."""
    if is_compiled(x, mean_C):
        return _Normalize.apply(x, weight_C, bias_C, mean_C, var_C, eps, rectifiers)  # type: ignore[no-any-return, no-untyped-call]
    if weight_C is None and x.is_cuda:  # where its backward pass has no gradient for a bias that stands alone
        weight_C = torch.ones_like(bias_C)
    v = _rectify(x, rectifiers.before)
    return _rectify(F.batch_norm(v, None, None, weight_C, bias_C, True, 0.0, eps), rectifiers.after)


def center(
    x: torch.Tensor, mean_C: torch.Tensor, bias_C: torch.Tensor, *, rectifiers: Rectifiers = PLAIN
) -> torch.Tensor:
    """v − mean + bias, where mean is that of x: its gradient goes through it too."""
    if is_compiled(x, mean_C):
        return _Normalize.apply(x, None, bias_C, mean_C, mean_C, None, rectifiers)  # type: ignore[no-any-return, no-untyped-call]
    v = _rectify(x, rectifiers.before)
    own_mean_C = v.mean(_dims(v), dtype=mean_C.dtype)
    return _rectify(v + along(bias_C - own_mean_C, v), rectifiers.after)


def transform(x: torch.Tensor, a_C: torch.Tensor, b_C: torch.Tensor, *, rectifiers: Rectifiers = PLAIN) -> torch.Tensor:
    """a·v + b: a norm in inference."""
    if is_compiled(x, a_C) and not torch.is_grad_enabled():
        x = in_rows(x)
        y = torch.empty_like(x)
        launch(kernels.transform, LIKE[x.dtype], x, *_shape(x), rectifiers.before, a_C, b_C, rectifiers.after, y)
        return y
    v = _rectify(x, rectifiers.before)
    return _rectify((v * along(a_C, v) + along(b_C, v)).to(x.dtype), rectifiers.after)


def prelu(x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """x for x > 0, else slope · x; slopes are learned, [C], or one for every element of a map, [C, H, W]."""
    if is_compiled(x, slopes):
        return _PReLU.apply(x, slopes)  # type: ignore[no-any-return, no-untyped-call]
    slopes = slopes if slopes.dim() > 1 else along(slopes, x)
    return torch.where(x > 0, x, x * slopes.to(x.dtype))


@torch.no_grad()
def raise_peaks(x: torch.Tensor, peaks_C: torch.Tensor) -> None:
    """Replaces peaks a channel by higher ones of x, in place."""
    if is_compiled(x, peaks_C):
        x = in_rows(x)
        launch(kernels.raise_peaks, LIKE[x.dtype], x, *_shape(x), peaks_C)
    else:
        torch.maximum(peaks_C, x.amax(_dims(x)).to(peaks_C.dtype), out=peaks_C)


def scaled(images: torch.Tensor, index_TB: torch.Tensor, scale_C: torch.Tensor, offset_C: torch.Tensor) -> torch.Tensor:
    """scale · pixel + offset of T trials' batches of images [N, H, W, C] uint8, [B, T·C, H, W], in rows."""
    (trials, batch), (height, width, channels) = index_TB.shape, images.shape[1:]
    if is_compiled(scale_C, offset_C):
        x = empty_rows((batch, trials * channels, height, width), scale_C.dtype)
        sizes = (trials, batch, height * width, channels)
        launch(kernels.scale_pixels, images, index_TB.contiguous(), *sizes, scale_C, offset_C, x)
        return x
    pixels = images[index_TB.flatten()].view(trials, batch, height, width, channels)
    x = pixels.permute(1, 2, 3, 0, 4).to(scale_C.dtype)  # [B, H, W, T, C]
    x = torch.addcmul(offset_C, x, scale_C)
    return x.reshape(batch, height, width, trials * channels).permute(0, 3, 1, 2)


def cross_entropy(logits_BTK: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean cross-entropy of each trial, and how many of its answers are correct: both [T]."""
    if is_compiled(logits_BTK, logits_BTK):
        return _CrossEntropy.apply(logits_BTK, labels_BT)  # type: ignore[no-any-return, no-untyped-call]
    logits_BKT = logits_BTK.transpose(1, 2)
    loss_T = F.cross_entropy(logits_BKT, labels_BT, reduction="none").mean(0)
    return loss_T, (logits_BKT.detach().argmax(1) == labels_BT).sum(0)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BTK: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits_BTK, (batch, trials, classes) = logits_BTK.contiguous(), logits_BTK.shape
        loss_T, hits_T = logits_BTK.new_empty(trials), labels_BT.new_empty(trials)
        gradient_BTK = torch.empty_like(logits_BTK)
        inputs = (logits_BTK, labels_BT.T.contiguous(), batch, trials, classes)
        launch(kernels.cross_entropy, *inputs, loss_T, hits_T, gradient_BTK)
        ctx.save_for_backward(gradient_BTK)
        ctx.mark_non_differentiable(hits_T)
        return loss_T, hits_T

    @staticmethod
    def backward(ctx: Any, of_loss_T: torch.Tensor, _: object) -> tuple[torch.Tensor | None, ...]:
        (gradient_BTK,) = ctx.saved_tensors
        return gradient_BTK * of_loss_T[:, None], None


def max_pool(x: torch.Tensor) -> torch.Tensor:
    """Maxima of 2×2 squares: [N, C, H, W] → [N, C, H//2, W//2]."""
    if kernels is not None and x.device.type == "cpu" and x.dtype in LIKE:
        return _MaxPool.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.max_pool2d(x, 2)


class _MaxPool(torch.autograd.Function):
    """Torch keeps eight bytes for the place of each maximum, this one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = in_rows(x)
        images, channels, height, width = ctx.shape = x.shape
        y = empty_rows((images, channels, height // 2, width // 2), x.dtype)
        winner = empty_rows(y.shape, torch.uint8)
        sizes = (images, height, width, channels)
        launch(kernels.pool, LIKE[x.dtype], x, *sizes, y, winner)
        ctx.save_for_backward(winner)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (winner,), gradient = ctx.saved_tensors, in_rows(gradient)
        images, channels, height, width = ctx.shape
        out = empty_rows(ctx.shape, gradient.dtype)
        sizes = (images, height, width, channels)
        launch(kernels.pool_adjoint, LIKE[gradient.dtype], gradient, winner, *sizes, out)
        return out


class _PReLU(torch.autograd.Function):
    """Torch sums the gradients of slopes over images in passes of their own, in another order of memory."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        x, in_order = in_rows(x), slopes.movedim(0, -1).contiguous()
        y = torch.empty_like(x)
        launch(kernels.prelu, LIKE[x.dtype], x, x.numel() // slopes.numel(), slopes.numel(), in_order, y)
        ctx.save_for_backward(x, in_order)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (x, slopes), gradient = ctx.saved_tensors, in_rows(gradient)
        out, of_slopes = torch.empty_like(x), torch.empty_like(slopes)
        inputs = (LIKE[x.dtype], x, gradient, x.numel() // slopes.numel(), slopes.numel(), slopes)
        launch(kernels.prelu_adjoint, *inputs, out, of_slopes)
        return out, of_slopes.movedim(-1, 0).contiguous()


class _Normalize(torch.autograd.Function):
    """y = rectify((v − mean) · scale · weight + bias), where scale is 1 / √(var + eps), or 1 where eps is None."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_C: torch.Tensor | None,
        bias_C: torch.Tensor,
        mean_C: torch.Tensor,
        var_C: torch.Tensor,
        eps: float | None,
        rectifiers: Rectifiers,
    ) -> torch.Tensor:
        x = in_rows(x)
        y, vectors_5C = torch.empty_like(x), mean_C.new_empty(5, len(mean_C))
        given = (mean_C, var_C, weight_C, bias_C, eps or 0.0, int(eps is not None))
        sizes = (LIKE[x.dtype], x, *_shape(x))
        launch(kernels.normalize, *sizes, rectifiers.before, *given, rectifiers.after, vectors_5C, y)
        ctx.save_for_backward(x, mean_C, vectors_5C)
        ctx.has_weight, ctx.divides, ctx.rectifiers = weight_C is not None, int(eps is not None), rectifiers
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, mean_C, vectors_5C = ctx.saved_tensors
        gradient, before, after = in_rows(gradient), ctx.rectifiers.before, ctx.rectifiers.after
        out, of_weight_C, of_bias_C = torch.empty_like(x), torch.empty_like(mean_C), torch.empty_like(mean_C)
        inputs = (LIKE[x.dtype], x, gradient, *_shape(x), before, mean_C, vectors_5C, ctx.divides, after)
        launch(kernels.normalize_adjoint, *inputs, out, of_weight_C, of_bias_C)
        return out, of_weight_C if ctx.has_weight else None, of_bias_C, None, None, None, None


def empty_rows(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Without content, in the same layout as `in_rows`."""
    return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)


def in_rows(x: torch.Tensor) -> torch.Tensor:
    """With the channels next to each other in memory."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def _shape(x: torch.Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[1], x.shape[1]


def _rectify(x: torch.Tensor, slopes_C: torch.Tensor | None) -> torch.Tensor:
    return x if slopes_C is None else F.prelu(x, slopes_C.to(x.dtype))


def along(vector_C: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A vector of channels that broadcasts against x."""
    return vector_C.view(1, -1, *(1 for _ in range(x.dim() - 2)))


def _dims(x: torch.Tensor) -> list[int]:
    return [0, *range(2, x.dim())]
