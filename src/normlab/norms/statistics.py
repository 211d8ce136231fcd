"""What norms with moving averages share, so that an evaluation can ask any of them for other statistics."""

from collections.abc import Callable
from typing import Self, cast

import torch
from torch import nn

from normlab.functional import PLAIN, Rectifiers, move


class StatisticsNorm(nn.Module):
    """A norm that uses a batch's statistics in training and moving averages of them in inference.

    `momentum` is the share of the new batch, one for all or one a channel; an evaluation may change it for a while: 0
    leaves the averages as they are, 1 makes them the statistics of the last batch.
    """

    momentum: float | torch.Tensor

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Where the module goes, a momentum for each channel goes with it; it is a setting, and not of the state."""
        if isinstance(self.momentum, torch.Tensor):
            self.momentum = fn(self.momentum)
        return cast(Self, super()._apply(fn, recurse))  # type: ignore[no-untyped-call]

    def forward(self, x: torch.Tensor, rectifiers: Rectifiers = PLAIN) -> torch.Tensor:
        """[N, C] or [N, C, H, W] → the same, with a leaky ReLU before or after the norm where one is given."""
        raise NotImplementedError

    def plain(self) -> None:
        """From now on training passes normalize by the batch alone, without corrections towards the averages."""

    def averages(self) -> list[torch.Tensor]:
        """The moving averages [C] themselves."""
        return [buffer for name, buffer in self.named_buffers() if name.startswith("running_")]

    def move(self, average_C: torch.Tensor, value_C: torch.Tensor, factor: float = 1.0) -> None:
        """A moving average takes its share of a new value times a factor."""
        move(average_C, value_C, self.momentum, factor)
