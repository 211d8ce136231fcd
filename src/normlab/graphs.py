"""Steps as CUDA graphs: on a GPU hundreds of small kernels cost more to launch one by one than to run."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

Function = Callable[..., tuple[torch.Tensor, ...]]
# Records the function's work on these inputs, without its results counting yet, and returns what does it again, and
# the outputs it leaves each time in the same place.
Record = Callable[[Function, Sequence[torch.Tensor | None]], tuple[Callable[[], None], tuple[torch.Tensor, ...]]]

WARM_UP = 3  # calls that are run as they are, in which libraries choose their algorithms and allocate what they keep


class Replayed:
    """A function of tensors that is run as it is a few times, then recorded and from then on replayed.

    Inputs of other shapes than the recorded ones, such as the last batch of an epoch, are run as they are. Outputs are
    overwritten by the next call. The function must do the same work every time, and wait for no result of it.
    """

    def __init__(self, function: Function, record: Record) -> None:
        self._function, self._record, self._calls = function, record, 0
        self._inputs: Sequence[torch.Tensor | None] = ()
        self._replay: Callable[[], None] | None = None
        self._outputs: tuple[torch.Tensor, ...] = ()

    def __call__(self, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        self._calls += 1
        if self._replay is None and self._calls > WARM_UP:
            self._inputs = [None if given is None else given.clone() for given in inputs]
            self._replay, self._outputs = self._record(self._function, self._inputs)
        if self._replay is None or _shapes(inputs) != _shapes(self._inputs):
            return self._function(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self._replay()
        return self._outputs


def _shapes(inputs: Iterable[torch.Tensor | None]) -> list[torch.Size | None]:
    return [None if given is None else given.shape for given in inputs]


def cuda_recorder(generators: Iterable[torch.Generator]) -> Record:
    """Records as CUDA graphs what draws from these generators, which go on from where they are at each replay."""

    def record(
        function: Function, inputs: Sequence[torch.Tensor | None]
    ) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
        graph: Any = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            outputs = function(*inputs)
        return graph.replay, outputs

    return record
