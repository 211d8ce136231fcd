"""A trial in a cohort is the trial alone: its start, batches and masks to the bit, its losses and evaluations within
rounding."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normlab.batches import as_images, draw_batches, training_batches
from normlab.convolution import WAYS
from normlab.evaluate import Evaluation, evaluate, evaluate_other_statistics
from normlab.randomness import torch_generator
from normlab.schedules import learning_rates
from normlab.step import Step, make_network, take_over
from normlab.train import train
from normlab.trial import ActivationKind, NormKind, OptimizerKind, TrialSpec
from tests.test_train import CPU, NETWORK, images_of, losses_of, make_split, spec

# How far the losses of an epoch, each as a share of itself, may lie apart: README and docs/performance.md name these.
TOLERANCES = {"float64": 1e-7, "float32": 1e-3, "bfloat16": 2e-2}
NORMS, ACTIVATIONS, OPTIMIZERS = (list(get_args(kind)) for kind in (NormKind, ActivationKind, OptimizerKind))
POSITIONS = ["before_activation", "after_activation"]
# Every norm in both places, every activation, every optimizer.
KINDS = [
    (norm, position, ACTIVATIONS[i % len(ACTIVATIONS)], OPTIMIZERS[(i + i // 4) % len(OPTIMIZERS)])
    for i, (norm, position) in enumerate(itertools.product(NORMS, POSITIONS))
]


def has_idle_bias(trial: TrialSpec) -> bool:
    """A bias before a norm has no true gradient (nor before a ReLU that passes a whole batch to a norm), and Adam turns
    its rounding noise into steps of the learning rate: training does not see it, inference with averages does."""
    return trial.norm != "none" and trial.optimizer != "sgd" and (trial.conv_bias or trial.norm_dense)


def eight(**shared: Any) -> list[TrialSpec]:
    """Trials that differ in all that may differ in a cohort."""
    return [
        spec(
            **shared,
            network=f"8K-2C2B-6D-Dropout{(0.5, 0.2, 0)[seed % 3]}-3D",
            seed=seed,
            learning_rate=(1e-4, 1e-3, 1e-2)[seed % 3],
            schedule=("constant", "step", "cosine")[seed // 3],
            slope=(0.01, 0.3)[seed % 2],
            norm_momentum=(0.01, 0.2)[seed // 4],
            weight_decay=(0.0, 0.01)[seed // 2 % 2],
            momentum=(0.9, 0.5)[seed % 2],
            nesterov=seed // 2 % 2 == 0,
            beta1=(0.9, 0.8)[seed // 4],
            beta2=(0.999, 0.99)[seed % 2],
        )
        for seed in range(8)
    ]


def follow(specs: Sequence[TrialSpec]) -> tuple[torch.Tensor, dict[str, Evaluation]]:
    """Losses [steps, T] of an epoch, and what is measured in its end with each kind of statistics."""
    split = make_split()
    data, test = (
        images_of(split),
        as_images(split.test_images, split.test_labels, pixels="unit", reference=split.train_images, device=CPU),
    )
    step = Step(specs, make_network(specs, data, 100), data)
    step.network.train()
    step.begin(1)
    rates_ST = torch.from_numpy(np.stack([learning_rates(s, 7) for s in specs], axis=1))
    losses = [step(*batch, rates)[0] for batch, rates in zip(draw_batches(data, specs, 1), rates_ST, strict=True)]
    step.network.eval()
    found = {"moving": evaluate(step.network, test, autocast=step.autocast)}
    found |= evaluate_other_statistics(step.network, data, test, batch_size=8, autocast=step.autocast)
    return torch.stack(losses).double(), found


def assert_fused_equals_alone(specs: Sequence[TrialSpec], tolerance: float, trials: Sequence[int]) -> None:
    together, evaluations = follow(specs)
    for trial in trials:
        alone, own = follow([specs[trial]])
        assert torch.allclose(together[:, trial], alone[:, 0], rtol=tolerance, atol=tolerance)
        assert evaluations.keys() == own.keys()
        for kind, evaluation in evaluations.items():
            if kind == "moving" and has_idle_bias(specs[trial]):
                continue
            loss, expected = float(evaluation.loss[trial]), float(own[kind].loss[0])
            assert loss == pytest.approx(expected, rel=10 * tolerance, abs=10 * tolerance), kind
            moved = int((evaluation.confusion[trial] - own[kind].confusion[0]).abs().sum()) // 2
            assert moved <= round(100 * tolerance), kind  # of 20 images


@pytest.fixture(params=TOLERANCES)
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "float64":
        torch.set_default_dtype(torch.float64)
    yield request.param
    torch.set_default_dtype(torch.float32)


def in_precision(precision: str) -> dict[str, str]:
    """The setting; float64 is torch's default type."""
    return {"precision": "float32" if precision == "float64" else precision}


@pytest.mark.parametrize(("norm", "position", "activation", "optimizer"), KINDS)
def test_a_trial_among_eight_follows_the_losses_and_has_the_evaluation_it_has_alone(
    precision: str, norm: str, position: str, activation: str, optimizer: str
) -> None:
    shared: dict[str, Any] = {"norm": norm, "norm_position": position, "activation": activation, "optimizer": optimizer}
    if has_idle_bias(spec(**shared)):
        shared["conv_bias"] = False
    specs = eight(**shared, **in_precision(precision))
    assert_fused_equals_alone(specs, TOLERANCES[precision], trials=(0, 3, 7))


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("norm", ["batch", "renorm"])
def test_so_it_is_with_what_a_gpu_computes_with(
    precision: str, way: str, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normlab.functional.kernels", None)
    monkeypatch.setattr("normlab.cohort.dense", None)
    monkeypatch.setattr(
        "normlab.cohort.convolve",
        lambda x, weight, bias, trials: WAYS[way if trials > 1 else "grouped"](x, weight, bias, trials),
    )
    specs = eight(norm=norm, conv_bias=False, **in_precision(precision))
    assert_fused_equals_alone(specs, TOLERANCES[precision], trials=(0, 7))


# Where the noise of an idle bias stays out of training: not where unclipped corrections bring it in, nor where it moves
# the input of an activation over its kink.
HARMLESS = [(norm, "before_activation") for norm in NORMS if norm != "renorm_unclipped"]


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_cohort_follows_the_losses_of_its_trials_alone(data: st.DataObject, float64: None) -> None:
    shared: dict[str, Any] = {
        "norm": data.draw(st.sampled_from(NORMS)),
        "norm_position": data.draw(st.sampled_from(POSITIONS)),
        "norm_dense": data.draw(st.booleans()),
        "activation": data.draw(st.sampled_from(ACTIVATIONS)),
        "optimizer": data.draw(st.sampled_from(OPTIMIZERS)),
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
    split = make_split()
    fused, together = losses_of(specs, split)
    x = images_of(split).inputs(torch.arange(20).expand(len(specs), -1))
    logits = together.eval()(x).view(20, len(specs), 3)
    for trial, alone_spec in enumerate(specs):
        alone, network = losses_of([alone_spec], split)
        assert torch.allclose(fused[:, trial], alone[:, 0], rtol=1e-7, atol=1e-7)
        if not has_idle_bias(alone_spec):
            single = network.eval()(images_of(split).inputs(torch.arange(20)[None]))
            assert torch.allclose(logits[:, trial], single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", ["4K-1C1B-Dropout0.5-3D", "4K-1C1B-Dropout0.2-6D-3D"])
def test_dropout_of_maps_is_the_same_in_a_cohort_as_alone(network: str, float64: None) -> None:
    split = make_split()
    specs = [spec(network=network, seed=seed) for seed in range(3)]
    together, _ = losses_of(specs, split)
    for trial, one in enumerate(specs):
        assert torch.allclose(together[:, trial], losses_of([one], split)[0][:, 0], rtol=1e-9)
        assert len(train([one], split, device=CPU)) == 1


# --- to the bit -------------------------------------------------------------------------------------------------------


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
    specs = [
        spec(seed=4, augment=augment),
        spec(seed=0, augment=augment, rotation_degrees=10, shift_fraction=0.3, horizontal_flip=False),
    ]
    alone = [list(training_batches(data, [s], 2)) for s in specs]
    for number, (x, y) in enumerate(training_batches(data, specs, 2)):
        for trial in range(2):
            assert torch.equal(x.chunk(2, dim=1)[trial], alone[trial][number][0])
            assert torch.equal(y[:, trial], alone[trial][number][1][:, 0])


def test_the_dropout_masks_in_a_cohort_are_exactly_those_alone() -> None:
    data = images_of(make_split())
    specs = [
        spec(network=f"4K-1C1B-8D-Dropout{rate}-8D-Dropout{rate}-4D", seed=seed)
        for seed, rate in ((4, 0.2), (0, 0.5), (7, 0.5))
    ]

    def masks(some: list[TrialSpec], epoch: int) -> list[torch.Tensor]:
        """Of each layer and batch, [B, T, F]."""
        step = Step(some, make_network(some, data, 1), data)
        step.network.train()
        step.begin(epoch)
        ones = [torch.ones(size, len(some) * 8) for size in (8, 8, 2)]
        return [layer(x).view(len(x), len(some), 8) for x in ones for layer in step.network.dropouts()]

    for epoch in (1, 2):
        together = masks(specs, epoch)
        for trial, one in enumerate(specs):
            for mask, alone in zip(together, masks([one], epoch), strict=True):
                assert torch.equal(mask[:, trial], alone[:, 0])
                assert set(alone.unique().tolist()) <= {0.0, 1.25 if trial == 0 else 2.0}


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


# --- trials that end early --------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trial_that_diverges_changes_no_bit_of_its_neighbours(norm: str, precision: str) -> None:
    """Until it gives up its place: in its first epoch, and in those before half of a cohort has ended."""
    network = "8K-2C2B-6D-3D"
    healthy = [
        spec(norm=norm, optimizer="sgd", precision=precision, epochs=3, seed=seed, learning_rate=0.01, network=network)
        for seed in range(3)
    ]
    wild = healthy[0].model_copy(update={"learning_rate": 1e30, "seed": 9})
    *beside, diverged = train([*healthy, wild], make_split(), device=CPU)
    *expected, _ = train([*healthy, wild.model_copy(update={"learning_rate": 1e-4})], make_split(), device=CPU)
    assert diverged.diverged_epoch is not None
    for one, other in zip(beside, expected, strict=True):
        assert one.metrics == other.metrics
        assert one.details == other.details


def test_a_trial_that_diverges_says_when_and_its_curves_end_there() -> None:
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
