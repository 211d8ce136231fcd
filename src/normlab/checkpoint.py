"""Checkpoints: where the training of a cohort stands at the end of an epoch, to go on from there bit for bit.

    FOLDER/000012/state.safetensors     weights, statistics and counters of norms, moments of the optimizer
    FOLDER/000012/progress.json         the rest, `TrainingState`, with the SHA-256 of the tensors

The number is that of the epoch. The last two are kept, and the newest that is whole counts. Generators need no place
here: randomness is drawn anew from (seed, epoch) at the start of each epoch.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict

from normlab.network import Network
from normlab.optim import Optimizer
from normlab.result import sha256
from normlab.store import write_folder

KEPT = 2  # the newest, and one to fall back on


class TrainingState(BaseModel):
    """What training knows at the end of an epoch, beside its tensors; lists have one entry a trial."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[1] = 1
    ids: list[str]
    epoch: int = 0  # finished ones
    steps: int = 0
    images: int = 0  # trained, of all trials together
    seconds: float = 0.0  # of training, in all processes that had a part in it
    accuracy: float | None = None  # of the last test evaluation, mean over the trials
    diverged_epochs: list[int | None]
    curves: list[dict[str, list[float | None]]]
    measured: dict[str, list[float | None]]  # before the first step; None where it is not finite
    tensors_sha256: str = ""


def save(folder: Path, network: Network, optimizer: Optimizer, state: TrainingState) -> None:
    """Writes the checkpoint of `state.epoch`, whole or not at all, then removes what it makes superfluous."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= _moments(optimizer)
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    progress = state.model_copy(update={"tensors_sha256": sha256(content)}).model_dump_json(indent=1)
    final = folder / f"{state.epoch:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)  # one that could not be read, or training would not have come here again
    write_folder(final, {"state.safetensors": content, "progress.json": progress.encode()})
    useful = [path for path in _newest_first(folder) if path <= final][:KEPT]
    for path in folder.iterdir():
        if path not in useful:
            shutil.rmtree(path, ignore_errors=True)


def load(folder: Path, ids: Sequence[str], network: Network, optimizer: Optimizer) -> TrainingState | None:
    """Puts a new network and optimizer where the newest whole checkpoint of exactly these trials left them.

    A checkpoint that is damaged, of other trials, or does not fit the network is passed over; where none is left,
    nothing is touched and the answer is None.
    """
    for path in _newest_first(folder):
        try:
            state = TrainingState.model_validate_json((path / "progress.json").read_bytes())
            content = (path / "state.safetensors").read_bytes()
        except (OSError, ValueError):
            continue
        if state.ids != list(ids) or state.tensors_sha256 != sha256(content):
            continue
        tensors = safetensors.torch.load(content)
        weights = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        moments = {name: t for name, t in tensors.items() if name.startswith("optimizer.")}
        if _shapes(weights) == _shapes(network.state_dict()) and _shapes(moments) == _shapes(_moments(optimizer)):
            network.load_state_dict(weights)
            for name, moment in _moments(optimizer).items():
                moment.copy_(moments[name])
            optimizer.steps = state.steps
            return state
    return None


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
