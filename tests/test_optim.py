"""Optimizers against golden trajectories and a whole network trained by Keras."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normlab.network import build_network
from normlab.optim import OPTIMIZERS, Optimizer
from normlab.trial import make_spec

GOLDEN = np.load(Path(__file__).parent / "golden" / "keras_adam_and_end_to_end.npz")


# Keras holds its hyper-parameters in float32, so its trajectory is exact to 1e-8 only.
@pytest.mark.parametrize(
    ("kind", "trajectory", "error"), [("adam_keras", "keras", 1e-8), ("adam", "pytorch_form", 1e-12)]
)
def test_adam_follows_the_golden_trajectory(kind: str, trajectory: str, error: float) -> None:
    spec = make_spec({"data": "x", "network": "2D", "epochs": 1, "optimizer": kind})
    module = nn.ParameterList([nn.Parameter(torch.from_numpy(GOLDEN["adam/w0"].copy()))])
    optimizer = Optimizer(module, [spec])
    for gradient, expected in zip(GOLDEN["adam/grads"], GOLDEN[f"adam/trajectory_{trajectory}"], strict=True):
        module[0].grad = torch.from_numpy(gradient.copy())
        optimizer.step(torch.tensor([float(GOLDEN["adam/lr"])], dtype=torch.float64))
        assert module[0].detach().numpy() == pytest.approx(expected, rel=error)


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_a_trial_of_three_is_updated_as_if_alone(kind: str) -> None:
    specs = [
        make_spec(
            {"data": "x", "network": "2D", "epochs": 1, "optimizer": kind, "weight_decay": decay}
            | ({"momentum": 0.5, "nesterov": True} if kind == "sgd" else {"beta2": 0.9})
        )
        for decay in (0.0, 0.1, 0.01)
    ]
    start, gradients = torch.randn(6, 2, dtype=torch.float64), torch.randn(4, 6, 2, dtype=torch.float64)
    rates = torch.tensor([0.1, 0.01, 0.5], dtype=torch.float64)
    fused = nn.ParameterList([nn.Parameter(start.clone())])
    optimizer = Optimizer(fused, specs)
    for gradient in gradients:
        fused[0].grad = gradient.clone()
        optimizer.step(rates)
    for trial, spec in enumerate(specs):
        alone = nn.ParameterList([nn.Parameter(start.chunk(3)[trial].clone())])
        optimizer = Optimizer(alone, [spec])
        for gradient in gradients:
            alone[0].grad = gradient.chunk(3)[trial].clone()
            optimizer.step(rates[trial : trial + 1])
        assert torch.equal(fused[0].chunk(3)[trial], alone[0])


CASES = [
    ("norm_act", "none", "none", {}),
    ("norm_act", "bn", "batch", {}),
    ("norm_act", "bn_scale_false", "batch_no_gamma", {}),
    ("norm_act", "renorm_default", "renorm_unclipped", {}),
    ("act_norm", "none", "none", {}),
    ("act_norm", "bn_scale_false", "batch_no_gamma", {}),
    ("act_norm", "renorm_clip", "renorm", {"r_max": 3.0, "d_max": 5.0}),
]


@pytest.mark.parametrize(("order", "case", "norm", "clips"), CASES)
def test_a_small_network_trains_as_in_keras(order: str, case: str, norm: str, clips: dict[str, float]) -> None:
    """conv 3×3 of 4 – norm / LeakyReLU – max-pool – dense 10, three steps of Keras's Adam."""
    network = build_network(
        "4K-1C1B-10D",
        norm=norm,
        norm_position="before_activation" if order == "norm_act" else "after_activation",
        image_size=8,
        norm_settings=clips,
    )
    convolution, dense = network.block1_convolution1, network.dense1
    assert isinstance(convolution, nn.Module)
    with torch.no_grad():
        convolution.weight.copy_(torch.from_numpy(GOLDEN["e2e/conv_kernel_HWIO"].transpose(3, 2, 0, 1).copy()))
        convolution.bias.copy_(torch.from_numpy(GOLDEN["e2e/conv_bias"]))
        dense.weight.copy_(_dense(GOLDEN["e2e/dense_kernel"]))
    spec = make_spec({"data": "x", "network": "2D", "epochs": 1, "optimizer": "adam_keras"})
    optimizer = Optimizer(network, [spec])
    losses = []
    for x, y in zip(GOLDEN["e2e/x"], GOLDEN["e2e/y"], strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())), torch.from_numpy(y))
        loss.backward()
        optimizer.step(torch.tensor([1e-2], dtype=torch.float64))
        losses.append(loss.item())
    tolerance = 1e-3 if "renorm" in case else 1e-4
    get = lambda name: GOLDEN[f"e2e/{order}/{case}/{name}"]  # noqa: E731
    assert losses == pytest.approx(get("loss").tolist(), rel=tolerance)
    kernel = convolution.weight.detach().numpy().transpose(2, 3, 1, 0)
    assert np.abs(kernel - get("c_kernel")).max() < tolerance * 10
    network.eval()
    logits = network(torch.from_numpy(GOLDEN["e2e/x_infer"].transpose(0, 3, 1, 2).copy()))
    assert np.abs(logits.detach().numpy() - get("logits_infer")).max() < 0.02


def _dense(kernel: np.ndarray) -> torch.Tensor:
    """Keras's [H·W·C, K] to our [K, C·H·W]."""
    return torch.from_numpy(kernel.reshape(4, 4, 4, 10).transpose(3, 2, 0, 1).reshape(10, 64).copy())
