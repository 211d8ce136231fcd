"""Mean-only batch normalization (Salimans & Kingma 2016, section 4): the mean is removed, the scale is left alone."""

import torch
from torch import nn

from normlab.norms.statistics import StatisticsNorm


class MeanOnlyBatchNorm(StatisticsNorm):
    """y = x − μ_B + β per channel; in inference the moving average takes the place of μ_B.

    The original pairs it with weight normalization; alone it has no control of scale, in activations or gradients.
    """

    running_mean: torch.Tensor

    def __init__(self, num_features: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dims = [0, *range(2, x.dim())]
        if self.training:
            mean_C = x.mean(dims, dtype=self.running_mean.dtype)
            self.running_mean.lerp_(mean_C.detach(), self.momentum)
        else:
            mean_C = self.running_mean
        shift_C = (self.bias - mean_C).to(x.dtype)
        return x + shift_C.view(1, -1, *(1 for _ in dims[1:]))
