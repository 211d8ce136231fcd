"""Batch normalization (Ioffe & Szegedy 2015), with or without the scale γ."""

import torch
import torch.nn.functional as F
from torch import nn

from normlab.norms.statistics import StatisticsNorm


class BatchNorm(StatisticsNorm):
    """y = γ (x − μ_B) / √(σ_B² + ε) + β per channel, statistics over batch and positions.

    The batch is normalized by its biased variance; the moving variance averages the unbiased one, as PyTorch and the
    fused layer of tf.keras do. In inference the moving averages take the place of μ_B and σ_B².
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, num_features: int, *, eps: float, momentum: float, scale: bool) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
