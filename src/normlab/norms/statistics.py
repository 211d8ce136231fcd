"""What norms with moving averages share, so that an evaluation can ask any of them for other statistics."""

from torch import nn


class StatisticsNorm(nn.Module):
    """A norm that uses a batch's statistics in training and moving averages of them in inference.

    `momentum` is the share of the new batch; an evaluation may change it for a while: 0 leaves the averages as they
    are, 1/k in the k-th of a series of batches makes them plain means over the series.
    """

    momentum: float

    def plain(self) -> None:
        """From now on training passes normalize by the batch alone, without corrections towards the averages."""
