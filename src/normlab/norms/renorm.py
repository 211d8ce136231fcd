"""Batch renormalization (Ioffe 2017, algorithms 1 and 2), clipped by a ramp, by constants, or not at all."""

import math
from dataclasses import astuple, dataclass

import torch
from torch import nn

from normlab.functional import PLAIN as NO_RECTIFIERS
from normlab.functional import Rectifiers, is_compiled, moments, normalize, renorm_kernel, transform
from normlab.norms.statistics import StatisticsNorm


@dataclass(frozen=True, kw_only=True)
class RampedClip:
    """r_max and d_max as functions of the training step: (1, 0), plain batch normalization, until `start`; then
    linear, to `r_max` at step `r_end` and `d_max` at step `d_end`. The defaults are Ioffe 2017, section 4.1."""

    start: float = 5_000
    r_end: float = 40_000
    d_end: float = 25_000
    r_max: float = 3.0
    d_max: float = 5.0

    def __call__(self, step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r_share = ((step - self.start) / (self.r_end - self.start)).clamp(0, 1)
        d_share = ((step - self.start) / (self.d_end - self.start)).clamp(0, 1)
        return 1 + (self.r_max - 1) * r_share, self.d_max * d_share


def fixed_clip(r_max: float, d_max: float) -> RampedClip:
    """The same clips from the first step on; infinite ones clip nothing."""
    return RampedClip(start=-2, r_end=-1, d_end=-1, r_max=r_max, d_max=d_max)


PLAIN = fixed_clip(1.0, 0.0)


def ramp_for(total_steps: int) -> RampedClip:
    """Ioffe's ramp as the same fractions of a training of `total_steps` that his steps are of the paper's own
    training (60 epochs of 45,000 images in batches of 16: 168,780 steps)."""
    unit = total_steps / 168_780
    return RampedClip(start=5_000 * unit, r_end=40_000 * unit, d_end=25_000 * unit)


class BatchRenorm(StatisticsNorm):
    """y = ((x − μ_B) / σ_B · r + d) γ + β with r = clip(σ_B / σ, 1/r_max, r_max), d = clip((μ_B − μ) / σ, ±d_max).

    σ_B = √(biased variance + ε); μ and σ are moving averages of the mean and of σ_B itself (not of the variance), from
    before the step, σ never taken below √ε; r and d are constants in the gradient. Inference: (x − μ) / σ · γ + β.
    """

    running_mean: torch.Tensor
    running_std: torch.Tensor
    num_steps: torch.Tensor

    def __init__(self, num_features: int, *, eps: float, momentum: float | torch.Tensor, clip: RampedClip) -> None:
        super().__init__()
        self.eps, self.momentum, self.clip = eps, momentum, clip
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_std", torch.ones(num_features))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.float64))

    def plain(self) -> None:
        self.clip = PLAIN

    def forward(self, x: torch.Tensor, rectifiers: Rectifiers = NO_RECTIFIERS) -> torch.Tensor:
        if not self.training:
            a_C = self.weight / self.running_std.clamp(min=math.sqrt(self.eps))
            return transform(x, a_C, self.bias - self.running_mean * a_C, rectifiers=rectifiers)
        mean_C, var_C = moments(x, self.running_mean, rectifiers)
        r_C, d_C = self._correct(mean_C, var_C)
        # The correction is affine per channel, so plain batch normalization carries it in its own γ and β.
        weight_C, bias_C = self.weight * r_C, self.weight * d_C + self.bias
        return normalize(x, mean_C, var_C, weight_C, bias_C, eps=self.eps, rectifiers=rectifiers)

    @torch.no_grad()
    def _correct(self, mean_C: torch.Tensor, var_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """r and d of a batch with these moments, per channel; then the moving averages and the step move on."""
        if is_compiled(mean_C, self.running_mean):
            averages = self.running_mean, self.running_std
            ramp = astuple(self.clip)
            return renorm_kernel((mean_C, var_C), averages, self.num_steps, ramp, self.momentum, eps=self.eps)
        std_C = (var_C + self.eps).sqrt()
        reference_C = self.running_std.clamp(min=math.sqrt(self.eps))
        r_max, d_max = (limit.to(std_C.dtype) for limit in self.clip(self.num_steps))
        r_C = (std_C / reference_C).clamp(1 / r_max, r_max)
        d_C = ((mean_C - self.running_mean) / reference_C).clamp(-d_max, d_max)
        self.move(self.running_mean, mean_C)
        self.move(self.running_std, std_C)
        self.num_steps += 1
        return r_C, d_C
