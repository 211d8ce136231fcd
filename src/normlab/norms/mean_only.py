"""Mean-only batch normalization (Salimans & Kingma 2016, section 4): the mean is removed, the scale is left alone."""

import torch
from torch import nn

from normlab.functional import PLAIN, Rectifiers, center, moments, transform
from normlab.norms.statistics import StatisticsNorm


class MeanOnlyBatchNorm(StatisticsNorm):
    """y = x − μ_B + β per channel; in inference the moving average takes the place of μ_B.

    The original pairs it with weight normalization; alone it has no control of scale, in activations or gradients.
    """

    running_mean: torch.Tensor

    def __init__(self, num_features: int, *, momentum: float | torch.Tensor) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))

    def forward(self, x: torch.Tensor, rectifiers: Rectifiers = PLAIN) -> torch.Tensor:
        if not self.training:
            one_C = torch.ones_like(self.running_mean)
            return transform(x, one_C, self.bias - self.running_mean, rectifiers=rectifiers)
        mean_C, _ = moments(x, self.running_mean, rectifiers)
        self.move(self.running_mean, mean_C)
        return center(x, mean_C, self.bias, rectifiers=rectifiers)
