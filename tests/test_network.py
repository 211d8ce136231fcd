"""Networks: with one trial an ordinary module, with several each one by itself, and initial weights that pair arms."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from normlab import build_network, build_norm
from normlab.activations import ACTIVATIONS
from normlab.network import count_parameters
from normlab.norms import NORMS
from normlab.trial import ActivationKind, NormKind


def test_one_trial_is_an_ordinary_network_of_the_papers_shape() -> None:
    network = build_network("64K-4C3B-256D-Dropout0.5-10D")
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert count_parameters(network) == 3_745_994 + 3_584
    assert isinstance(build_norm("batch", 8).weight, nn.Parameter)
    assert build_norm("batch", 8).weight.shape == (8,)
    assert build_norm("batch", 8)(torch.rand(4, 8)).shape == (4, 8)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("norm", sorted(NORMS))
def test_every_norm_goes_with_every_activation_in_both_positions(norm: str, activation: str) -> None:
    for position in ("before_activation", "after_activation"):
        network = build_network(
            "4K-2C2B-6D-Dropout0.5-3D", norm=norm, norm_position=position, activation=activation,
            in_channels=1, image_size=8, num_trials=2, norm_dense=True,
        )  # fmt: skip
        y = network(torch.rand(5, 2, 8, 8))
        assert y.shape == (5, 6)
        y.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_every_name_that_a_study_may_write_has_a_layer_and_the_other_way_round() -> None:
    assert set(get_args(NormKind)) == set(NORMS)
    assert set(get_args(ActivationKind)) == set(ACTIVATIONS)


def test_a_trial_sees_only_its_own_inputs() -> None:
    network = build_network("4K-1C1B-6D-3D", in_channels=1, image_size=4, num_trials=3).eval()
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    network(x)[:, 3:6].sum().backward()
    assert x.grad is not None
    assert x.grad[:, 1].abs().sum() > 0
    assert x.grad[:, [0, 2]].abs().sum() == 0


def test_norm_and_activation_stand_in_the_order_asked_for() -> None:
    before = [name for name, _ in build_network("4K-1C1B-10D").named_children()]
    after = [name for name, _ in build_network("4K-1C1B-10D", norm_position="after_activation").named_children()]
    assert before[1:3] == ["block1_convolution1_norm", "block1_convolution1_activation"]
    assert after[1:3] == ["block1_convolution1_activation", "block1_convolution1_norm"]


def test_the_same_seed_gives_the_same_weights_in_every_arm_where_shapes_allow() -> None:
    base = dict(build_network("8K-2C2B-10D", norm="none", seed=3).named_parameters())
    for other in (
        build_network("8K-2C2B-10D", norm="batch", seed=3, activation="prelu"),
        build_network("8K-2C2B-10D", norm="none", seed=3, conv_bias=False),
        build_network("8K-2C3B-10D", norm="none", seed=3),
    ):
        for name, value in other.named_parameters():
            if (
                name in base
                and "convolution" in name
                and name.endswith("n1.weight")
                and value.shape == base[name].shape
            ):
                assert torch.equal(value, base[name]), name
    assert not torch.equal(build_network("8K-2C2B-10D", seed=4).dense1.weight, base["dense1.weight"])


def test_weights_are_glorot_uniform_and_biases_zero() -> None:
    network = build_network("64K-2C1B-256D-10D", norm="none")
    weight = network.block1_convolution2.weight
    bound = math.sqrt(6 / (9 * (64 + 64)))
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.99 * bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not network.dense1.bias.any()


def test_a_convolutions_bias_can_be_left_out() -> None:
    with_bias, without = (count_parameters(build_network("8K-2C1B-10D", conv_bias=b)) for b in (True, False))
    assert with_bias - without == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "bacth"}, "did you mean 'batch'"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"norm_position": "before"}, "did you mean 'before_activation'"),
        ({"num_trials": 2, "seed": [1]}, "1 seeds"),
    ],
)
def test_a_bad_argument_is_explained(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network("8K-1C1B-10D", **settings)
