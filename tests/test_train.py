"""Training against a plain PyTorch loop, and fused training against training alone."""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normlab.batches import Images, as_images, draw_batches, training_batches
from normlab.network import Network
from normlab.randomness import torch_generator
from normlab.step import Step, make_network, take_over
from normlab.train import Outcome, train
from normlab.trial import ActivationKind, NormKind, TrialSpec, make_spec
from tests.reference import plain

CPU = torch.device("cpu")
NETWORK = "4K-2C2B-6D-Dropout0.5-3D"


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


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


@pytest.mark.parametrize("norm", sorted(plain.NORMS))
@pytest.mark.parametrize("position", ["before_activation", "after_activation"])
@pytest.mark.parametrize(("optimizer", "activation"), [("adam", "leaky_relu"), ("sgd", "relu"), ("adamw", "tanh")])
def test_one_trial_follows_the_plain_loop(
    norm: str, position: str, optimizer: str, activation: str, float64: None
) -> None:
    trial = spec(norm=norm, norm_position=position, optimizer=optimizer, activation=activation, seed=3)
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
    expected = plain.train(judge, plain.optimizer(optimizer, judge, trial.learning_rate), batches)
    assert losses[:, 0].tolist() == pytest.approx(expected, rel=1e-9)

    x = images_of(split).inputs(torch.arange(20)[None])
    assert torch.allclose(trained.eval()(x), judge.eval()(x), atol=1e-6)


def test_each_layer_of_dropout_has_masks_of_its_own_and_the_first_those_of_the_epoch() -> None:
    trial = spec(network="4K-1C1B-8D-Dropout0.5-8D-Dropout0.5-4D", seed=3)
    data = images_of(make_split())
    step = Step([trial], make_network([trial], data, 1), data)
    step.begin(2)
    first, second = (dropout.generators[0] for dropout in step.network.dropouts())
    assert first is not None
    assert second is not None
    assert torch.equal(first.get_state(), torch_generator(3, "dropout", 2).get_state())
    assert not torch.equal(first.get_state(), second.get_state())


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


def has_idle_bias(trial: TrialSpec) -> bool:
    """A bias before a norm has no true gradient (nor before a ReLU that passes a whole batch to a norm), and Adam turns
    its rounding noise into steps of the learning rate: training does not see it, inference with averages does."""
    return trial.norm != "none" and trial.optimizer != "sgd" and (trial.conv_bias or trial.norm_dense)


def assert_fused_equals_alone(specs: list[TrialSpec], tolerance: float) -> None:
    split = make_split()
    fused, together = losses_of(specs, split)
    x = images_of(split).inputs(torch.arange(20).expand(len(specs), -1))
    logits = together.eval()(x).view(20, len(specs), 3)
    for trial, alone_spec in enumerate(specs):
        alone, network = losses_of([alone_spec], split)
        assert torch.allclose(fused[:, trial], alone[:, 0], rtol=tolerance, atol=tolerance)
        if has_idle_bias(alone_spec):
            continue
        single = network.eval()(images_of(split).inputs(torch.arange(20)[None]))
        assert torch.allclose(logits[:, trial], single, rtol=100 * tolerance, atol=100 * tolerance)


KINDS = list(get_args(NormKind))
# Where the noise of an idle bias stays out of training: not where unclipped corrections bring it in, nor where it moves
# the input of an activation over its kink.
HARMLESS = [(norm, "before_activation") for norm in KINDS if norm != "renorm_unclipped"]


@pytest.mark.parametrize("network", ["4K-1C1B-Dropout0.5-3D", "4K-1C1B-Dropout0.2-6D-3D"])
def test_dropout_of_maps_is_the_same_in_a_cohort_as_alone(network: str, float64: None) -> None:
    split = make_split()
    specs = [spec(network=network, seed=seed) for seed in range(3)]
    together, _ = losses_of(specs, split)
    for trial, one in enumerate(specs):
        assert torch.allclose(together[:, trial], losses_of([one], split)[0][:, 0], rtol=1e-9)
        assert len(train([one], split, device=CPU)) == 1


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_trial_in_a_cohort_follows_the_losses_it_has_alone(data: st.DataObject, float64: None) -> None:
    shared: dict[str, Any] = {
        "norm": data.draw(st.sampled_from(KINDS)),
        "norm_position": data.draw(st.sampled_from(["before_activation", "after_activation"])),
        "norm_dense": data.draw(st.booleans()),
        "activation": data.draw(st.sampled_from(get_args(ActivationKind))),
        "optimizer": data.draw(st.sampled_from(["adam", "adam_keras", "adamw", "sgd"])),
        "augment": data.draw(st.sampled_from(["none", "copies", "on_the_fly"])),
        "conv_bias": data.draw(st.booleans()),
    }
    if has_idle_bias(spec(**shared)) and (shared["norm"], shared["norm_position"]) not in HARMLESS:
        shared |= {"conv_bias": False, "norm_dense": False}
    specs = [
        spec(
            **shared,
            seed=data.draw(st.integers(0, 5)),
            learning_rate=data.draw(st.sampled_from([1e-4, 1e-3, 1e-2])),
            slope=data.draw(st.sampled_from([0.01, 0.3])),
            network=NETWORK.replace("0.5", data.draw(st.sampled_from(["0", "0.2", "0.5"]))),
            norm_momentum=data.draw(st.sampled_from([0.01, 0.2])),
            weight_decay=data.draw(st.sampled_from([0.0, 0.01])),
        )
        for _ in range(data.draw(st.integers(2, 8)))
    ]
    assert_fused_equals_alone(specs, 1e-7)


def test_in_float32_a_cohort_of_eight_follows_alone_to_a_thousandth() -> None:
    assert_fused_equals_alone([spec(seed=seed, learning_rate=1e-3) for seed in range(8)], 1e-3)


def test_the_initial_weights_in_a_cohort_are_exactly_those_alone() -> None:
    data = images_of(make_split())
    specs = [spec(seed=seed) for seed in (4, 0, 7)]
    together = dict(make_network(specs, data, 1).named_parameters())
    for trial, alone_spec in enumerate(specs):
        for name, alone in make_network([alone_spec], data, 1).named_parameters():
            assert torch.equal(together[name].chunk(3)[trial], alone), name


@pytest.mark.parametrize("augment", ["none", "copies", "on_the_fly"])
def test_the_batches_in_a_cohort_are_exactly_those_alone(augment: str) -> None:
    data = images_of(make_split(channels=3))
    specs = [spec(seed=seed, augment=augment) for seed in (4, 0)]
    alone = [list(training_batches(data, [s], 2)) for s in specs]
    for number, (x, y) in enumerate(training_batches(data, specs, 2)):
        for trial in range(2):
            assert torch.equal(x.chunk(2, dim=1)[trial], alone[trial][number][0])
            assert torch.equal(y[:, trial], alone[trial][number][1][:, 0])


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


@pytest.mark.parametrize("optimizer", ["adam_keras", "sgd"])
def test_trials_that_leave_a_cohort_go_on_as_if_they_had_stayed(optimizer: str, float64: None) -> None:
    specs = [spec(optimizer=optimizer, norm="renorm", seed=seed, learning_rate=0.01 * (1 + seed)) for seed in range(4)]
    data, places = images_of(make_split()), [0, 2]
    wide = Step(specs, make_network(specs, data, 100), data)
    narrow_specs = [specs[place] for place in places]
    narrow = Step(narrow_specs, make_network(narrow_specs, data, 100), data)

    def losses(step: Step, some: list[TrialSpec], epoch: int) -> torch.Tensor:
        step.network.train()
        step.begin(epoch)
        batches = draw_batches(data, some, epoch)
        rates_T = torch.tensor([s.learning_rate for s in some], dtype=torch.float64)
        return torch.stack([step(*batch, rates_T)[0] for batch in batches])

    losses(wide, specs, 1)
    take_over(wide, narrow, places)
    stayed, left = losses(wide, specs, 2), losses(narrow, narrow_specs, 2)
    assert torch.allclose(stayed[:, places], left, rtol=1e-9)


def test_a_trial_that_diverges_says_when_and_leaves_its_neighbours_alone() -> None:
    specs = [
        spec(norm="none", optimizer="sgd", learning_rate=rate, epochs=5, slope=0.3, network="4K-2C2B-6D-3D")
        for rate in (0.01, 100.0)
    ]
    healthy, diverged = train(specs, make_split(), device=CPU)
    assert diverged.diverged_epoch is not None
    assert "test_accuracy" not in diverged.metrics
    assert healthy.diverged_epoch is None
    alone = train(specs[:1], make_split(), device=CPU)[0]
    assert healthy.metrics == pytest.approx(alone.metrics, rel=1e-4)
    assert diverged.details is not None
    assert len(diverged.details.curves["epoch"]) == diverged.diverged_epoch - 1


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
