"""Checkpoints: where the training of a cohort stands between two steps, to go on from there bit for bit.

    FOLDER/0000001200/state.safetensors     weights, statistics and counters of norms, moments of the optimizer; within
                                            an epoch its sums so far and the states of dropout's generators
    FOLDER/0000001200/progress.json         the rest, `TrainingState`, with the SHA-256 of the tensors and
                                            its own

The number is that of the steps done. The last two are kept, and the newest that is whole counts. Order and augmentation
need no place here: they are drawn anew from (seed, epoch).
"""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from normlab.files import write_folder
from normlab.network import Network
from normlab.optim import Optimizer
from normlab.result import sha256
from normlab.step import named_generators

KEPT = 2  # the newest, and one to fall back on


class TrainingState(BaseModel):
    """What training knows between two steps, beside its tensors; lists have one entry a trial."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[3] = 3
    made_by: str = ""  # versions: others may compute other numbers
    ids: list[str]
    members: list[int]  # the trials that are still trained; others have diverged
    epoch: int = 0  # finished ones
    steps: int = 0
    seen: int = 0  # images of the epoch under way, of one trial
    images: int = 0  # trained, of all trials together
    seconds: float = 0.0  # of training, in all processes that had a part in it
    accuracy: float | None = None  # of the last test evaluation, mean over the trials
    diverged_epochs: list[int | None]
    curves: list[dict[str, list[float | None]]]
    measured: dict[str, list[float | None]]  # before the first step; None where it is not finite
    tensors_sha256: str = ""
    sha256: str = ""  # of all that stands above


class Trained(Protocol):
    """What training changes."""

    network: Network
    optimizer: Optimizer


Step = TypeVar("Step", bound=Trained)


def save(folder: Path, step: Trained, state: TrainingState, within: Mapping[str, torch.Tensor]) -> None:
    """Writes the checkpoint of `state.steps`, whole or not at all, then removes what it makes superfluous. `within` are
    the tensors of an epoch under way."""
    tensors = {f"network.{name}": tensor for name, tensor in step.network.state_dict().items()}
    tensors |= _moments(step.optimizer) | {f"epoch.{name}": tensor for name, tensor in within.items()}
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    progress = sealed(state, content)
    final = folder / f"{state.steps:010d}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)  # one that could not be read, or training would not have come here again
    write_folder(final, {"state.safetensors": content, "progress.json": progress.encode()})
    useful = [path for path in _newest_first(folder) if path <= final][:KEPT]
    for path in folder.iterdir():
        if path not in useful:
            shutil.rmtree(path, ignore_errors=True)


def load(
    folder: Path,
    ids: Sequence[str],
    make: Callable[[Sequence[int]], Step],
    warn: Callable[[str], None] = lambda text: None,
    fits: Callable[[TrainingState], bool] = lambda state: True,
) -> tuple[Step, TrainingState, dict[str, torch.Tensor]] | None:
    """Puts a new network and optimizer, made for those of the trials that are still trained, where the newest whole
    checkpoint of exactly these trials left them; returns them, the state, and the tensors of the epoch under way.

    A checkpoint that is damaged, of other trials, of other versions, or does not fit the network or, as `fits` says,
    the training, is passed over, and `warn` told why; where none is left, nothing is touched and the answer is None.
    """
    for path in _newest_first(folder):
        try:
            state = TrainingState.model_validate_json((path / "progress.json").read_bytes())
            content = (path / "state.safetensors").read_bytes()
            if state.sha256 != _digest(state):
                raise ValueError("progress.json does not have the SHA-256 that stands in it")
            if state.tensors_sha256 != sha256(content):
                raise ValueError("the tensors do not have the SHA-256 that was written down")
            if state.made_by != made_by():
                raise ValueError(f"it was made by {state.made_by}, and this is {made_by()}")
            if state.ids != list(ids):
                raise ValueError("it is of other trials")
            if int(path.name) != state.steps or not fits(state):
                raise ValueError("it is of no step of this training")
            step = make(state.members)
            tensors = safetensors.torch.load(content)
            weights, moments, within = (_part(tensors, part) for part in ("network.", "optimizer.", "epoch."))
            if _shapes(weights) != _shapes(step.network.state_dict()) or _shapes(moments) != _shapes(
                _part(_moments(step.optimizer), "optimizer.")
            ):
                raise ValueError("it does not fit the network, as after a change of the code")
            states = {name: generator.get_state() for generator, name in named_generators(step.network)}
            if within and _shapes(within | states) != _shapes(within):
                raise ValueError("its random numbers are those of another kind of device")
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            reason = (
                "progress.json cannot be read" if isinstance(error, ValidationError) else " ".join(str(error).split())
            )
            warn(f"checkpoint {path} is passed over: {reason}")
            continue
        step.network.load_state_dict(weights)
        for name, moment in _part(_moments(step.optimizer), "optimizer.").items():
            moment.copy_(moments[name])
        step.optimizer.steps = state.steps
        return step, state, within
    return None


def sealed(state: TrainingState, content: bytes) -> str:
    """The text of progress.json beside these tensors."""
    whole = state.model_copy(update={"made_by": made_by(), "tensors_sha256": sha256(content)})
    return whole.model_copy(update={"sha256": _digest(whole)}).model_dump_json(indent=1)


@functools.cache
def made_by() -> str:
    return f"normlab {metadata.version('normlab')}, torch {torch.__version__}"


def _digest(state: TrainingState) -> str:
    return sha256(state.model_copy(update={"sha256": ""}).model_dump_json().encode())


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*"), reverse=True)


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _moments(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"optimizer.{index}.{name}": tensor
        for name, tensors in optimizer.moments.items()
        for index, tensor in enumerate(tensors)
    }
