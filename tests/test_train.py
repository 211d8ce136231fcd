"""Training against a plain PyTorch loop, and fused training against training alone."""

import dataclasses
import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch

from normlab.batches import Images, as_images, draw_batches, training_batches
from normlab.network import Network
from normlab.randomness import torch_generator
from normlab.step import Step, make_network
from normlab.train import Outcome, train
from normlab.trial import ActivationKind, NormKind, OptimizerKind, TrialSpec, make_spec
from tests.reference import plain

CPU = torch.device("cpu")
NETWORK = "4K-2C2B-6D-Dropout0.5-3D"


@dataclasses.dataclass
class FakeSplit:
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...] = ("a", "b", "c")


def make_split(train: int = 50, test: int = 20, channels: int = 1) -> Any:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, train + test)
    images = generator.integers(0, 200, (train + test, 8, 8, channels)) + 20 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    return FakeSplit(images[:train], labels[:train], images[train:], labels[train:])


def spec(**settings: Any) -> TrialSpec:
    base = {"data": "x", "network": NETWORK, "norm": "batch", "epochs": 1, "batch_size": 8, "optimizer": "adam"}
    return make_spec(base | settings)


def images_of(split: Any) -> Images:
    return as_images(split.train_images, split.train_labels, pixels="unit", reference=split.train_images, device=CPU)


def losses_of(specs: list[TrialSpec], split: Any) -> tuple[torch.Tensor, Network]:
    """Losses [steps, T] of one epoch and the trained network."""
    data = images_of(split)
    network = make_network(specs, data, 100)
    step = Step(specs, network, data)
    network.train()
    step.begin(1)
    rates = [s.learning_rate for s in specs]
    losses = [step(*batch, torch.tensor(rates, dtype=torch.float64))[0] for batch in draw_batches(data, specs, 1)]
    return torch.stack(losses), network


# Every norm in both places with three optimizers and activations, and every other optimizer and activation.
PLAIN = [
    (norm, position, *others)
    for norm, position in itertools.product(sorted(plain.NORMS), ["before_activation", "after_activation"])
    for others in (("adam", "leaky_relu"), ("sgd", "relu"), ("adamw", "tanh"))
]
PLAIN += [("batch", "before_activation", "adam_keras", activation) for activation in sorted(plain.ACTIVATIONS)]
PLAIN += [("none", "before_activation", "adam_keras", "leaky_relu")]


@pytest.mark.parametrize(("norm", "position", "optimizer", "activation"), PLAIN)
def test_one_trial_follows_the_plain_loop(
    norm: str, position: str, optimizer: str, activation: str, float64: None
) -> None:
    assert plain.NORMS.keys() == set(get_args(NormKind))
    assert plain.ACTIVATIONS.keys() == set(get_args(ActivationKind))
    assert {kind for _, _, kind, _ in PLAIN} == set(get_args(OptimizerKind))
    # A bias before a norm has no true gradient: what Adam makes of its rounding evaluation sees, and training does not.
    is_idle = norm != "none" and optimizer != "sgd"
    assert follow_plain_loop(1e-9, norm, position, optimizer, activation) < (1e-2 if is_idle else 1e-5)


@pytest.mark.parametrize("norm", sorted(plain.NORMS))
def test_in_float32_one_trial_follows_the_plain_loop_to_a_thousandth(norm: str) -> None:
    assert follow_plain_loop(1e-3, norm, "before_activation", "sgd", "leaky_relu") < 1e-2


def follow_plain_loop(tolerance: float, norm: str, position: str, optimizer: str, activation: str) -> float:
    """Losses of an epoch within a tolerance; the largest difference of logits in its end."""
    decay = 0.01 if norm == "none" else 0.0
    trial = spec(
        norm=norm, norm_position=position, optimizer=optimizer, activation=activation, weight_decay=decay, seed=3
    )
    split = make_split()
    losses, trained = losses_of([trial], split)

    generator = torch_generator(3, "dropout", 1)
    masks = ((torch.rand(n, 6, generator=generator) >= 0.5) * 2.0 for n in [8] * 6 + [2])
    judge = plain.network(norm, position == "before_activation", activation, masks)
    ours = list(make_network([trial], images_of(split), 100).parameters())
    with torch.no_grad():
        for theirs, start in zip(judge.parameters(), ours, strict=True):
            theirs.copy_(start)
    batches = [(x, y[:, 0]) for x, y in training_batches(images_of(split), [trial], 1)]
    expected = plain.train(judge, plain.optimizer(optimizer, judge, trial.learning_rate, decay), batches)
    assert losses[:, 0].tolist() == pytest.approx(expected, rel=tolerance)
    x = images_of(split).inputs(torch.arange(20)[None])
    return float((trained.eval()(x) - judge.eval()(x)).detach().abs().max())


def test_standardized_pixels_have_mean_zero_and_deviation_one_and_a_constant_channel_is_zero() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 4, 4, 3), dtype=np.uint8)
    pixels[..., 2] = 17
    images = as_images(pixels, np.zeros(700), pixels="standardized", reference=pixels, device=CPU)
    unit = pixels[..., :2] / 255
    x = images.inputs(torch.arange(700)[None]).double()
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert x.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert (1 / (255 * images.scale[:2].double())).tolist() == pytest.approx(unit.std((0, 1, 2)).tolist(), rel=1e-6)


def test_the_deviation_of_as_many_pixels_as_cifar10_has_is_theirs() -> None:
    few = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 2), dtype=np.uint8)
    many = np.broadcast_to(few, (200_000, 16, 16, 2))
    images = as_images(few, np.zeros(1), pixels="standardized", reference=many, device=CPU)
    assert (1 / (255 * images.scale.double())).tolist() == pytest.approx((few / 255).std((0, 1, 2)).tolist(), rel=1e-6)


def test_every_image_is_seen_once_an_epoch_and_the_last_partial_batch_is_kept() -> None:
    data = images_of(make_split())
    sizes = [len(x) for x, _ in training_batches(data, [spec()], 1)]
    assert sizes == [8] * 6 + [2]
    labels = torch.cat([y[:, 0] for _, y in training_batches(data, [spec()], 1)])
    assert torch.equal(labels.sort().values, data.labels.sort().values)


def test_fixed_copies_triple_the_set_and_do_not_change_from_epoch_to_epoch() -> None:
    data = images_of(make_split())
    trial = spec(augment="copies")
    epochs = [torch.cat([x for x, _ in training_batches(data, [trial], epoch)]) for epoch in (1, 2)]
    assert len(epochs[0]) == 3 * len(data)
    sums = [epoch.double().sum((1, 2, 3)).sort().values for epoch in epochs]
    assert torch.allclose(sums[0], sums[1], atol=1e-9)


def test_augmentation_on_the_fly_changes_from_epoch_to_epoch() -> None:
    data = images_of(make_split())
    trial = spec(augment="on_the_fly")
    sums = [
        torch.cat([x for x, _ in training_batches(data, [trial], epoch)]).sum((1, 2, 3)).sort().values
        for epoch in (1, 2)
    ]
    assert not torch.allclose(sums[0], sums[1])


def one(**settings: Any) -> Outcome:
    return train([spec(**settings)], make_split(), device=CPU)[0]


def test_the_same_spec_gives_the_same_numbers_bit_for_bit() -> None:
    first, second = one(epochs=2, seed=1), one(epochs=2, seed=1)
    assert first.metrics == second.metrics
    assert first.details == second.details
    assert one(epochs=2, seed=2).metrics != first.metrics


def test_training_learns_what_can_be_learned() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = np.zeros((300, 8, 8, 1), np.uint8)
    images[np.arange(300), :, labels * 2, 0] = 200
    images += generator.integers(0, 50, images.shape, dtype=np.uint8)
    split: Any = FakeSplit(images[:200], labels[:200], images[200:], labels[200:])
    outcome = train([spec(epochs=10, network="4K-1C1B-3D")], split, device=CPU)[0]
    assert outcome.metrics["test_accuracy"] > 0.95
    assert outcome.metrics["test_accuracy_recomputed"] > 0.95


def test_bfloat16_trains_close_to_float32() -> None:
    full, half = one(epochs=1), one(epochs=1, precision="bfloat16")
    assert half.metrics["train_loss"] == pytest.approx(full.metrics["train_loss"], rel=0.05)
    assert half.metrics != full.metrics


def test_other_statistics_are_measured_where_a_norm_keeps_any_and_leave_the_network_as_it_was() -> None:
    with_norm, without = one(norm="batch"), one(norm="none")
    assert {"test_accuracy_recomputed", "test_accuracy_batch"} <= with_norm.metrics.keys()
    assert not {"test_accuracy_recomputed", "test_accuracy_batch"} & without.metrics.keys()


def test_confusion_counts_every_test_image_once() -> None:
    outcome = one(epochs=1)
    assert outcome.details is not None
    confusion = np.array(outcome.details.confusion)
    assert confusion.sum() == 20
    assert np.trace(confusion) / 20 == pytest.approx(outcome.metrics["test_accuracy"])


def test_a_dead_norm_momentum_is_seen_in_inference() -> None:
    """Forgetting the moving average is invisible in training and ruins inference."""
    fresh = one(epochs=3, norm_momentum=1e-6)
    assert fresh.metrics["test_loss"] != pytest.approx(one(epochs=3, norm_momentum=0.1).metrics["test_loss"], rel=0.01)
