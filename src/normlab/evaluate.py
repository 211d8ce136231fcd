"""Evaluation of a network of T trials on a test set, with moving averages or with other statistics of the norms."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from normlab.batches import Images
from normlab.network import Network
from normlab.randomness import numpy_generator

EVALUATION_BATCH = 250  # chosen: large enough that a bigger one is no faster, small enough for the cache
RECOMPUTE_IMAGES = 10_000  # 10³ to 10⁴ images are enough to recompute statistics (PreciseBN; Wu & Johnson 2021)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Of T trials: mean cross-entropy [T], accuracy as a fraction [T], counts [T, K, K] of (true, predicted)."""

    loss: torch.Tensor
    accuracy: torch.Tensor
    confusion: torch.Tensor


@torch.no_grad()
def evaluate(
    network: Network,
    data: Images,
    *,
    autocast: torch.autocast,
    batch_size: int = EVALUATION_BATCH,
    shuffle: bool = False,
) -> Evaluation:
    """Runs the network as it stands, in training or inference mode, over all images. `shuffle` mixes the classes
    within batches, by a fixed order, where a batch's statistics matter."""
    trials, classes, device = network.num_trials, network.num_classes, data.labels.device
    order = torch.arange(len(data), device=device)
    if shuffle:
        order = torch.from_numpy(numpy_generator(0, "evaluation order").permutation(len(data))).to(device)
    losses = torch.zeros(trials, dtype=torch.float64, device=device)
    cells = torch.zeros(trials * classes * classes, dtype=torch.int64, device=device)
    trial_offset = torch.arange(trials, device=device) * classes * classes
    for index in _split(order, batch_size):
        labels_B = data.labels[index]
        with autocast:
            logits = network(data.inputs(index.expand(trials, -1)))
        logits_BTK = logits.to(torch.promote_types(logits.dtype, torch.float32)).view(len(index), trials, classes)
        labels_BT = labels_B[:, None].expand(-1, trials)
        losses += F.cross_entropy(logits_BTK.transpose(1, 2), labels_BT, reduction="none").sum(0)
        cell = trial_offset + labels_BT * classes + logits_BTK.argmax(2)
        cells += torch.bincount(cell.flatten(), minlength=len(cells))
    confusion = cells.view(trials, classes, classes)
    accuracy = confusion.diagonal(dim1=1, dim2=2).sum(1).double() / len(data)
    return Evaluation(loss=losses / len(data), accuracy=accuracy, confusion=confusion)


def evaluate_other_statistics(
    network: Network, train: Images, test: Images, *, batch_size: int, autocast: torch.autocast
) -> dict[str, Evaluation]:
    """Evaluations with statistics `recomputed` over training images (PreciseBN) and with those of the test `batch`,
    of the size used in training. Empty where no norm keeps statistics. The network is left as it was."""
    if not network.norms():
        return {}
    state = copy.deepcopy(network.state_dict())
    with _plain_training_mode(network):
        _set_momentum(network, 0.0)
        batch = evaluate(network, test, autocast=autocast, batch_size=batch_size, shuffle=True)
        recompute_statistics(network, train, autocast=autocast)
    network.eval()
    recomputed = evaluate(network, test, autocast=autocast)
    network.load_state_dict(state)
    return {"recomputed": recomputed, "batch": batch}


@torch.no_grad()
def recompute_statistics(network: Network, train: Images, *, autocast: torch.autocast) -> None:
    """Replaces moving averages by plain means of the batch statistics over training images, without augmentation."""
    order = torch.from_numpy(numpy_generator(0, "evaluation order").permutation(len(train))[:RECOMPUTE_IMAGES])
    for k, index in enumerate(_split(order.to(train.labels.device), EVALUATION_BATCH), start=1):
        _set_momentum(network, 1 / k)
        with autocast:
            network(train.inputs(index.expand(network.num_trials, -1)))


def _split(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Batches of an order; a last one of a single image, whose statistics would be degenerate, joins its neighbour."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


@contextmanager
def _plain_training_mode(network: Network) -> Iterator[None]:
    """Norms normalize by the batch alone, dropout stays off; momenta, clips and modes are restored."""
    before = [(norm, dict(vars(norm))) for norm in network.norms()]
    network.eval()
    for norm, _ in before:
        norm.train()
        norm.plain()
    try:
        yield
    finally:
        for norm, attributes in before:
            vars(norm).update(attributes)


def _set_momentum(network: Network, momentum: float) -> None:
    for norm in network.norms():
        norm.momentum = momentum
