"""Batch normalization (Ioffe & Szegedy 2015), with or without the scale γ."""

import torch
from torch import nn

from normlab.functional import PLAIN, Rectifiers, moments, normalize, transform
from normlab.norms.statistics import StatisticsNorm


class BatchNorm(StatisticsNorm):
    """y = γ (x − μ_B) / √(σ_B² + ε) + β per channel, statistics over batch and positions.

    The batch is normalized by its biased variance; the moving variance averages the unbiased one, as PyTorch and the
    fused layer of tf.keras do. In inference the moving averages take the place of μ_B and σ_B².
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, num_features: int, *, eps: float, momentum: float | torch.Tensor, scale: bool) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: torch.Tensor, rectifiers: Rectifiers = PLAIN) -> torch.Tensor:
        if not self.training:
            scale_C = (self.running_var + self.eps).rsqrt()
            a_C = scale_C if self.weight is None else scale_C * self.weight
            return transform(x, a_C, self.bias - self.running_mean * a_C, rectifiers=rectifiers)
        mean_C, var_C = moments(x, self.running_mean, rectifiers)
        count = x.numel() // x.shape[1]
        self.move(self.running_mean, mean_C)
        self.move(self.running_var, var_C, count / max(count - 1, 1))
        return normalize(x, mean_C, var_C, self.weight, self.bias, eps=self.eps, rectifiers=rectifiers)
