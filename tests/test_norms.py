"""Norms against the golden vectors of independent implementations, in float64, and against their own invariants."""

from pathlib import Path

import numpy as np
import pytest
import torch

from normlab.norms import NORMS, BatchRenorm, StatisticsNorm, build_norm
from normlab.trial import KEEPS_AVERAGES

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-9


def channels_first(array: np.ndarray) -> torch.Tensor:
    """[N, ..., C] → [N, C, ...] in float64."""
    return torch.from_numpy(np.moveaxis(np.asarray(array, np.float64), -1, 1).copy())


def close(actual: torch.Tensor, expected: np.ndarray, name: str) -> None:
    wanted = channels_first(expected) if expected.ndim > 1 else torch.from_numpy(np.asarray(expected, np.float64))
    difference = (actual.detach() - wanted).abs().max().item()
    assert difference <= TOLERANCE, f"{name}: {difference:.2e}"


INPUTS, EXPECTED = np.load(GOLDEN / "batch_renorm_inputs.npz"), np.load(GOLDEN / "batch_renorm_expected.npz")
RENORM_CASES = sorted({key.split("/")[0] for key in INPUTS.files})


@pytest.mark.parametrize("case", RENORM_CASES)
def test_renorm_follows_ioffes_algorithm_step_by_step(case: str) -> None:
    get = lambda name: INPUTS[f"{case}/{name}"]  # noqa: E731
    momentum, renorm_momentum, eps, scale, center = get("hyper")
    assert momentum == renorm_momentum
    layer = build_norm("renorm", get("x").shape[-1], eps=eps, momentum=1 - momentum, r_max=1.0, d_max=0.0).double()
    assert isinstance(layer, BatchRenorm)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(get("gamma").astype(np.float64)) if scale else torch.ones(1))
        layer.bias.copy_(torch.from_numpy(get("beta").astype(np.float64)) if center else torch.zeros(1))
    for step in range(get("x").shape[0]):
        _, r_max, d_max = get("clips_rmin_rmax_dmax")[step]
        if np.isnan(r_max):
            r_max = d_max = np.inf
        clip = build_norm("renorm", 1, r_max=float(r_max), d_max=float(d_max))
        assert isinstance(clip, BatchRenorm)
        layer.clip = clip.clip
        layer.train()
        layer.zero_grad()
        x = channels_first(get("x")[step]).requires_grad_()
        y = layer(x)
        (y * channels_first(get("dy")[step])).sum().backward()
        want = {key.split("/")[2]: EXPECTED[key] for key in EXPECTED.files if key.startswith(f"{case}/step{step}/")}
        assert x.grad is not None
        close(y, want["y"], "y")
        close(x.grad, want["dx"], "dx")
        if scale:
            assert layer.weight.grad is not None
            close(layer.weight.grad, want["dgamma"], "dgamma")
        if center:
            assert layer.bias.grad is not None
            close(layer.bias.grad, want["dbeta"], "dbeta")
        close(layer.running_mean, want["moving_mean"], "moving_mean")
        close(layer.running_std, want["moving_stddev"], "moving_stddev")
        layer.eval()
        close(layer(channels_first(get("x_infer"))), want["y_infer"], "y_infer")


@pytest.mark.parametrize("case", ["conv", "dense_batch2"])
def test_mean_only_removes_the_mean_and_nothing_else(case: str) -> None:
    data = np.load(GOLDEN / "mean_only_and_running_variance.npz")
    get = lambda name: data[f"meanonly/{case}/{name}"]  # noqa: E731
    layer = build_norm("mean_only", get("x").shape[-1], momentum=1 - float(get("momentum"))).double()
    with torch.no_grad():
        layer.bias.copy_(torch.from_numpy(get("beta")))
    for step in range(3):
        layer.train()
        layer.zero_grad()
        x = channels_first(get("x")[step]).requires_grad_()
        y = layer(x)
        (y * channels_first(get("dy")[step])).sum().backward()
        assert x.grad is not None
        close(y, get(f"step{step}/y"), "y")
        close(x.grad, get(f"step{step}/dx"), "dx")
        close(layer.bias.grad, get(f"step{step}/dbeta"), "dbeta")
        close(layer.running_mean, get(f"step{step}/moving_mean"), "moving_mean")
        layer.eval()
        close(layer(channels_first(get("x_infer"))), get(f"step{step}/y_infer"), "y_infer")


def test_batch_norm_equals_torchs_in_outputs_gradients_and_averages() -> None:
    data = np.load(GOLDEN / "norms_torch_timm.npz")
    want = lambda name: torch.from_numpy(data[f"torch_BatchNorm2d_eps1e-3_mom.01/{name}"])  # noqa: E731
    layer = build_norm("batch", 8).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(data["gamma"]))
        layer.bias.copy_(torch.from_numpy(data["beta"]))
    x = torch.from_numpy(data["x"]).double().requires_grad_()
    y = layer(x)
    (y * torch.from_numpy(data["dy"]).double()).sum().backward()
    for actual, name in [
        (y, "y"),
        (x.grad, "dx"),
        (layer.weight.grad, "d_weight"),
        (layer.bias.grad, "d_bias"),
        (layer.running_mean, "buf_running_mean"),
        (layer.running_var, "buf_running_var"),
    ]:
        assert (actual - want(name)).abs().max() <= TOLERANCE, name


def test_the_moving_variance_averages_the_unbiased_variance_of_the_batch() -> None:
    data = np.load(GOLDEN / "mean_only_and_running_variance.npz")
    layer = build_norm("batch", 3, momentum=1 - float(data["runvar/momentum_keras"])).double()
    layer(channels_first(data["runvar/x_nhwc"]))
    close(layer.running_var, data["runvar/torch"], "running_var")


def test_batch_no_gamma_divides_but_has_no_scale() -> None:
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    layer = build_norm("batch_no_gamma", 3).double()
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert torch.allclose(layer(x), build_norm("batch", 3).double()(x), atol=1e-12)


KEEPING = sorted(KEEPS_AVERAGES)


def test_the_norms_that_keep_averages_are_those_that_say_so() -> None:
    assert {kind for kind in NORMS if isinstance(build_norm(kind, 4), StatisticsNorm)} == KEEPS_AVERAGES


@pytest.mark.parametrize("kind", KEEPING)
def test_a_norm_of_three_trials_equals_three_norms(kind: str) -> None:
    torch.manual_seed(0)
    fused = build_norm(kind, 4, num_trials=3, momentum=0.3).double()
    alone = [build_norm(kind, 4, momentum=0.3).double() for _ in range(3)]
    for _ in range(3):
        x = torch.randn(6, 12, 2, 2, dtype=torch.float64)
        want = torch.cat([layer(part) for layer, part in zip(alone, x.chunk(3, dim=1), strict=True)], dim=1)
        assert torch.allclose(fused(x), want, atol=1e-12)
    fused.eval()
    want = torch.cat([layer.eval()(part) for layer, part in zip(alone, x.chunk(3, dim=1), strict=True)], dim=1)
    assert torch.allclose(fused(x), want, atol=1e-12)


@pytest.mark.fault(26)
@pytest.mark.fault(27)
@pytest.mark.parametrize("kind", KEEPING)
def test_a_constant_channel_and_a_large_offset_stay_finite(kind: str) -> None:
    x = torch.randn(4, 2, 3, 3) + 1000
    x[:, 1] = 7.0
    x.requires_grad_()
    layer = build_norm(kind, 2)
    y = layer(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if kind != "mean_only" and kind != "renorm_unclipped":
        assert y[:, 0].std().item() == pytest.approx(1, abs=0.1)  # centred before it was squared


@pytest.mark.parametrize("kind", [k for k in KEEPING if k != "mean_only"])
def test_a_dividing_norm_forgets_the_scale_of_its_input_and_mean_only_does_not(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    normalize = lambda z, k: build_norm(k, 3, eps=1e-12).double()(z)  # noqa: E731
    if kind != "renorm_unclipped":  # unclipped, the first step is the identity: averages start at 0 and 1
        assert torch.allclose(normalize(x, kind), normalize(5 * x, kind), atol=1e-9)
    assert not torch.allclose(normalize(x, "mean_only"), normalize(5 * x, "mean_only"), atol=1e-3)


def test_ioffes_ramp_starts_as_plain_batch_norm_and_opens_linearly() -> None:
    layer = build_norm("renorm", 1)
    assert isinstance(layer, BatchRenorm)
    at = lambda step: tuple(float(v) for v in layer.clip(torch.tensor(float(step))))  # noqa: E731
    assert at(0) == at(5_000) == (1.0, 0.0)
    assert at(22_500) == (2.0, pytest.approx(5 * 17_500 / 20_000))
    assert at(25_000)[1] == 5.0
    assert at(40_000) == at(10**6) == (3.0, 5.0)


def test_the_ramp_counts_training_passes_only() -> None:
    layer = build_norm("renorm", 2)
    x = torch.randn(4, 2)
    layer(x)
    layer.eval()(x)
    layer.train()(x)
    assert int(layer.num_steps) == 2


def test_an_unknown_norm_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'batch'"):
        build_norm("bacth", 3)
