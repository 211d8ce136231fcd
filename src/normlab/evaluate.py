"""Evaluation of a network of T trials on a test set, with moving averages or with other statistics of the norms."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from normlab.batches import Images
from normlab.graphs import Function, Replayed, cpu_recorder
from normlab.network import Network
from normlab.plan import EVALUATION_BATCH
from normlab.randomness import numpy_generator
from normlab.result import Mistake

CACHED_PIXELS = 64 * 32 * 32  # of all trials together
MISTAKES = 25  # kept of each trial: a page of pictures
RECOMPUTE_IMAGES = 4_000  # 10³ to 10⁴ images are enough to recompute statistics (PreciseBN; Wu & Johnson 2021)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Of T trials on N images: mean cross-entropy [T], accuracy as a fraction [T], counts [T, K, K] of (true,
    predicted), and of each image the predicted class [N, T] and its probability [N, T], in the order of the set."""

    loss: torch.Tensor
    accuracy: torch.Tensor
    confusion: torch.Tensor
    predicted: torch.Tensor
    confidence: torch.Tensor


@torch.no_grad()
def evaluate(
    network: Network,
    data: Images,
    *,
    autocast: torch.autocast,
    batch_size: int | None = None,
    shuffle: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Runs the network as it stands, in training or inference mode, over all images; `alive` is called with each batch.
    `shuffle` mixes the classes within batches, by a fixed order, where a batch's statistics matter; there `batch_size`
    does, too."""
    trials, classes, device = network.num_trials, network.num_classes, data.labels.device
    order = image_order(data) if shuffle else torch.arange(len(data), device=device)

    def log_probabilities(index: torch.Tensor) -> tuple[torch.Tensor]:
        with autocast:
            logits = network(data.inputs(index.expand(trials, -1)))
        logits_BTK = logits.to(torch.promote_types(logits.dtype, torch.float32)).view(len(index), trials, classes)
        return (F.log_softmax(logits_BTK, dim=2),)

    run = _replayed(log_probabilities, data)
    losses = torch.zeros(trials, dtype=torch.float64, device=device)
    predicted = torch.empty(len(data), trials, dtype=torch.int64, device=device)
    confidence = torch.empty(len(data), trials, device=device)
    for index in split_batches(order, batch_size or _batch_size(data, trials)):
        alive()
        (found_BTK,) = run(index)
        labels_BT = data.labels[index][:, None].expand(-1, trials)
        losses -= found_BTK.gather(2, labels_BT[..., None]).sum((0, 2))
        highest, predicted[index] = found_BTK.max(2)
        confidence[index] = highest.exp().to(confidence.dtype)
    cell = (torch.arange(trials, device=device) * classes + data.labels[:, None]) * classes + predicted
    confusion = torch.bincount(cell.flatten(), minlength=trials * classes * classes).view(trials, classes, classes)
    accuracy = confusion.diagonal(dim1=1, dim2=2).sum(1).double() / len(data)
    return Evaluation(
        loss=losses / len(data), accuracy=accuracy, confusion=confusion, predicted=predicted, confidence=confidence
    )


def _replayed(function: Function, data: Images) -> Function:
    """On a CPU, where recording pays also for a few batches."""
    return function if data.labels.is_cuda else Replayed(function, cpu_recorder)


def _batch_size(data: Images, trials: int) -> int:
    """Of each trial, where it makes no difference to results: on a CPU what the caches hold, whose steps are replayed
    and cost no more for being many."""
    return EVALUATION_BATCH if data.labels.is_cuda else max(1, CACHED_PIXELS // data.image_size**2 // trials)


def confident_mistakes(evaluation: Evaluation, data: Images, trial: int) -> list[Mistake]:
    """The images a trial got wrong with the highest probability, surest first: at most `MISTAKES` of them."""
    predicted, confidence = evaluation.predicted[:, trial], evaluation.confidence[:, trial]
    wrong = (predicted != data.labels).nonzero()[:, 0]
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MISTAKES]]
    return [
        Mistake(image=int(i), true=int(data.labels[i]), predicted=int(predicted[i]), confidence=float(confidence[i]))
        for i in surest
    ]


def evaluate_other_statistics(
    network: Network,
    train: Images,
    test: Images,
    *,
    batch_size: int,
    autocast: torch.autocast,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, Evaluation]:
    """Evaluations with statistics `recomputed` over training images (PreciseBN) and with those of the test `batch`,
    of the size used in training. Empty where no norm keeps statistics. The network is left as it was."""
    if not network.norms():
        return {}
    with plain_training_mode(network):
        batch = evaluate(network, test, autocast=autocast, batch_size=batch_size, shuffle=True, alive=alive)
        recompute_statistics(network, train, autocast=autocast, alive=alive)
        network.eval()
        recomputed = evaluate(network, test, autocast=autocast, alive=alive)
    return {"recomputed": recomputed, "batch": batch}


@torch.no_grad()
def recompute_statistics(
    network: Network, train: Images, *, autocast: torch.autocast, alive: Callable[[], None] = lambda: None
) -> None:
    """Replaces moving averages by means of the batch statistics over training images, each batch by its number of them,
    without augmentation."""

    def collect(index: torch.Tensor) -> tuple[torch.Tensor]:
        with autocast:
            return (network(train.inputs(index.expand(network.num_trials, -1))),)

    for norm in network.norms():
        norm.momentum = 1.0  # an average is that of the last batch alone
    averages = [average for norm in network.norms() for average in norm.averages()]
    totals = [torch.zeros_like(average, dtype=torch.float64) for average in averages]
    batches = split_batches(image_order(train)[:RECOMPUTE_IMAGES], EVALUATION_BATCH)
    run = _replayed(collect, train)
    for index in batches:
        alive()
        run(index)
        for total, average in zip(totals, averages, strict=True):
            total += len(index) * average.double()
    for total, average in zip(totals, averages, strict=True):
        average.copy_(total / sum(map(len, batches)))


def image_order(data: Images) -> torch.Tensor:
    """A fixed order of a set's images that mixes its classes, int64 [N]."""
    return torch.from_numpy(numpy_generator(0, "evaluation order").permutation(len(data))).to(data.labels.device)


def split_batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Batches of an order; a last one of a single image, whose statistics would be degenerate, joins its neighbour."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


@contextmanager
def plain_training_mode(network: Network) -> Iterator[None]:
    """Norms normalize by the batch alone and keep their averages, dropout stays off. What a norm holds, its averages,
    counters, momentum, clip and mode, is restored at the end."""
    states = [copy.deepcopy(norm.state_dict()) for norm in network.norms()]
    before = [(norm, dict(vars(norm))) for norm in network.norms()]
    network.eval()
    for norm, _ in before:
        norm.train()
        norm.plain()
        norm.momentum = 0.0
    try:
        yield
    finally:
        for (norm, attributes), state in zip(before, states, strict=True):
            vars(norm).update(attributes)
            norm.load_state_dict(state)
