"""Probes: what they say of networks whose answer is known, and that they leave no trace."""

import math

import pytest
import torch

from normlab.batches import Images
from normlab.evaluate import evaluate
from normlab.network import Network, build_network
from normlab.norms import NORMS
from normlab.probes import VANISHED, gradient_spread, watched_channels
from normlab.train import train
from tests.test_evaluate import images
from tests.test_train import CPU, make_split, spec


def dead_channels(network: Network, data: Images) -> list[float]:
    """With batches as they come, and so small that most are replayed."""
    found = []
    for batch_size in (None, 7):
        with watched_channels(network) as dead:
            evaluate(network.eval(), data, autocast=torch.autocast("cpu", enabled=False), batch_size=batch_size)
            found.append(dead())
    assert found[0] == found[1]
    return found[0]


def test_channels_that_no_image_excites_are_dead() -> None:
    model = build_network("4K-2C1B-6D-5D", image_size=8, norm="none", activation="relu")
    with torch.no_grad():
        for layer in (model.block1_convolution1, model.block1_convolution2, model.dense1):
            layer.weight.abs_()
            layer.bias.fill_(1.0)
        assert dead_channels(model, images()) == [0.0]
        model.block1_convolution2.bias[1] = -1e6
        model.dense1.bias[:2] = -1e6
    assert dead_channels(model, images()) == [3 / 14]


def test_each_trial_of_a_cohort_has_its_own_dead_channels() -> None:
    model = build_network("4K-1C1B-6D-5D", image_size=8, norm="none", activation="relu", num_trials=2)
    with torch.no_grad():
        model.block1_convolution1.weight.abs_()
        model.dense1.weight.abs_()
        model.dense1.bias[6:] = -1e6  # all six units of the second trial
    assert dead_channels(model, images()) == [0.0, 0.6]


def test_the_spread_of_gradients_is_the_ratio_of_their_sizes_over_depth() -> None:
    """With an identity as activation, h₁ → relu → h₂: scaling the second layer by c scales ∂L/∂h₁ by c."""
    model = build_network("4K-1C1B-6D-5D", image_size=8, norm="none", activation="leaky_relu", slope=1.0)
    with torch.no_grad():
        model.dense2.weight.mul_(1e-3)  # logits near zero, so that ∂L/∂logits hardly depends on the scale below
        before = gradient_spread(model, images())[0]
        model.dense1.weight.mul_(1e-4)
    assert gradient_spread(model, images())[0] - before == pytest.approx(4, abs=0.01)


def test_a_network_without_a_hidden_layer_is_trained_and_has_no_probes() -> None:
    (outcome,) = train([spec(network="3D")], make_split(), device=CPU)
    assert 0 <= outcome.metrics["test_accuracy"] <= 1
    assert not {"dead_channels", "gradient_spread", "gradient_spread_initial"} & outcome.metrics.keys()


def test_a_layer_without_a_gradient_has_vanished_and_one_without_a_number_has_no_spread() -> None:
    model = build_network("4K-1C1B-6D-5D", image_size=8, norm="none", activation="relu")
    with torch.no_grad():
        model.dense1.bias.fill_(-1e6)
        assert gradient_spread(model, images()) == [VANISHED]
    broken = build_network("4K-1C1B-6D-5D", image_size=8, norm="none")
    with torch.no_grad():
        broken.dense2.weight.fill_(float("nan"))
    assert math.isnan(gradient_spread(broken, images())[0])


@pytest.mark.parametrize("norm", NORMS)
def test_probing_leaves_no_trace(norm: str) -> None:
    model = build_network("4K-2C2B-6D-Dropout0.5-5D", image_size=8, norm=norm, num_trials=2).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    assert gradient_spread(model, images()) == gradient_spread(model, images())
    dead_channels(model, images())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("norm", ["none", "renorm"])
def test_probes_of_a_fused_trial_are_those_of_it_alone(norm: str) -> None:
    specs = [spec(norm=norm, seed=seed, learning_rate=rate, activation="relu") for seed, rate in ((1, 1e-4), (2, 1e-3))]
    together = train(specs, make_split(), device=CPU)
    for one, outcome in zip(specs, together, strict=True):
        alone = train([one], make_split(), device=CPU)[0].metrics
        for name in ("dead_channels", "gradient_spread", "gradient_spread_initial"):
            assert outcome.metrics[name] == pytest.approx(alone[name], rel=1e-2)


def test_the_surest_mistakes_are_kept_surest_first() -> None:
    split = make_split(50, 60)
    outcome = train([spec(epochs=1)], split, device=CPU)[0]
    assert outcome.details is not None
    mistakes = outcome.details.mistakes
    wrong = 60 - sum(row[k] for k, row in enumerate(outcome.details.confusion))
    assert len(mistakes) == min(wrong, 25)
    assert [m.confidence for m in mistakes] == sorted((m.confidence for m in mistakes), reverse=True)
    assert all(m.true == split.test_labels[m.image] != m.predicted for m in mistakes)
