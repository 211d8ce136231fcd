"""Steps as graphs, recorded once and replayed: launching hundreds of small operations costs more than they do.

On a GPU CUDA records. On a CPU this module does, below autograd: what was computed, and where in memory.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Function = Callable[..., tuple[torch.Tensor, ...]]
# Does the function's work on these inputs, and returns what does it again and the outputs it leaves each time in the
# same place.
Record = Callable[[Function, Sequence[torch.Tensor | None]], tuple[Callable[[], None], tuple[torch.Tensor, ...]]]

Shapes = tuple[torch.Size | None, ...]

WARM_UP = 3  # calls that are run as they are, in which libraries choose their algorithms and allocate what they keep


class Replayed:
    """A function of tensors that is run as it is a few times, then recorded and from then on replayed.

    The first shape of inputs that comes more than `WARM_UP` times is recorded; others, such as that of an epoch's last
    batch, are run as they are. What a replay returns is overwritten by the next. The function must do the same work
    every time, and wait for no result of it.
    """

    def __init__(self, function: Function, record: Record) -> None:
        self._function, self._record, self._calls = function, record, Counter[Shapes]()
        self._inputs: Sequence[torch.Tensor | None] = ()
        self._replay: Callable[[], None] | None = None
        self._outputs: tuple[torch.Tensor, ...] = ()

    def __call__(self, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        shapes = _shapes(inputs)
        self._calls[shapes] += 1
        if self._calls[shapes] <= WARM_UP or (self._replay is not None and shapes != _shapes(self._inputs)):
            return self._function(*inputs)
        if self._replay is None:
            self._inputs = [None if given is None else given.clone() for given in inputs]
            self._replay, self._outputs = self._record(self._function, self._inputs)
            return self._outputs
        for own, given in zip(self._inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self._replay()
        return self._outputs


def _shapes(inputs: Iterable[torch.Tensor | None]) -> Shapes:
    return tuple(None if given is None else given.shape for given in inputs)


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
        graph.replay()  # nothing was computed yet
        return graph.replay, outputs

    return record


def cpu_recorder(
    function: Function, inputs: Sequence[torch.Tensor | None]
) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
    """Records torch's operations and what is launched by `launch`."""
    with _Recording() as recording:
        outputs = function(*inputs)
    return recording.replay, outputs


def launch(kernel: Callable[..., None], *arguments: Any) -> None:
    """Calls a compiled kernel with tensors, of which it is given the addresses, 0 for none, and numbers, which are the
    same in every step. Recorded are the addresses: parameters and buffers may be written to, but not replaced."""
    given = tuple(_address(argument) if type(argument) in _BY_ADDRESS else argument for argument in arguments)
    kernel(*given)
    if _recordings:
        _recordings[-1].calls.append((kernel, given, {}))


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


_BY_ADDRESS = (torch.Tensor, torch.nn.Parameter, type(None))
_recordings: list["_Recording"] = []
_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
_EMPTY = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.empty_strided,
          torch.ops.aten.new_empty, torch.ops.aten.new_empty_strided}  # fmt: skip
_REFUSED = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view}
_COPY = {torch.ops.aten.clone, torch.ops.aten._to_copy}
_OF_RESULT = ("dtype", "layout", "device", "pin_memory")  # which a variant reads from the tensor it writes to


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operations and writes down what computes them again into the same memory.

    Empty tensors come from memory that is used again once nobody holds it, as an allocator would, but stays the
    recording's own: an address that was given to a kernel is good for as long as the recording is held.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self.memory: dict[int, list[torch.UntypedStorage]] = {}  # by size in bytes

    def __enter__(self) -> Self:
        _recordings.append(self)
        return cast(Self, super().__enter__())  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        _recordings.remove(self)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """To keep torch's compiler from this class, torch would import it: a second or more in every process."""
        return False

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        if _REFUSED.intersection(operation.tags) and not _is_by_number(operation, arguments):
            raise RuntimeError(f"{operation} cannot be recorded: what follows depends on what it finds")
        found = operation(*arguments, **(named or {}))
        if operation.overloadpacket in _EMPTY:
            return self._in_own_memory(found)
        schema = operation._schema
        if any(argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments):
            assert all(result.alias_info is not None for result in schema.returns), (
                f"{operation} returns new tensors too"
            )
            self.calls.append((operation, arguments, named or {}))
        elif _is_new(found, arguments):
            self.calls.append(_into(found, operation, arguments, named or {}))
        return found

    @torch.no_grad()
    def replay(self) -> None:
        """Computes everything again, where it was."""
        for call, arguments, named in self.calls:
            call(*arguments, **named)

    def _in_own_memory(self, empty: torch.Tensor) -> torch.Tensor:
        kept = self.memory.setdefault(empty.untyped_storage().nbytes(), [])
        for storage in kept:
            if torch._C._storage_Use_Count(storage._cdata) == 1:  # nobody else holds it
                return empty.set_(storage, 0, empty.shape, empty.stride())
        kept.append(empty.untyped_storage())
        return empty


def _is_by_number(operation: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether elements are picked by their numbers, and not by a mask."""
    return operation.overloadpacket is torch.ops.aten.index and all(
        index.dtype not in (torch.bool, torch.uint8) for index in _tensors(arguments[1])
    )


def _into(found: Any, operation: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> _Call:
    """A call that leaves the results of an operation in the tensors that were found: the operation's own variant for
    that, where it has one."""
    if operation.overloadpacket in _COPY:
        return torch.ops.aten.copy_.default, (found, arguments[0]), {}
    if isinstance(found, torch.Tensor):
        wanted = [(argument.name, str(argument.type)) for argument in operation._schema.arguments]
        for name in operation.overloadpacket.overloads():
            variant = getattr(operation.overloadpacket, name)
            given = variant._schema.arguments
            inputs = [(argument.name, str(argument.type)) for argument in given if not argument.is_out]
            outputs = [argument.name for argument in given if argument.is_out]
            if len(outputs) == 1 and [some for some in wanted if some in inputs or some[0] not in _OF_RESULT] == inputs:
                known = {name: value for name, value in named.items() if name in dict(inputs)}
                return variant, arguments, {**known, outputs[0]: found}

    def copied() -> None:
        again = operation(*arguments, **named)
        for own, value in zip(_tensors(found), _tensors(again), strict=True):
            own.copy_(value)

    return copied, (), {}


def _tensors(found: Any) -> list[torch.Tensor]:
    return [
        value for value in (found if isinstance(found, list | tuple) else [found]) if isinstance(value, torch.Tensor)
    ]


def _is_new(found: Any, arguments: Any) -> bool:
    """Whether an operation computed tensors, and did not only look at those it was given in another way."""
    given = {tensor.untyped_storage().data_ptr() for tensor in _tensors(arguments)}
    return any(tensor.untyped_storage().data_ptr() not in given for tensor in _tensors(found))
