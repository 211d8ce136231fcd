"""The compiled kernels against torch's own operations, over shapes that do not fit their blocks."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from llvmlite.binding import get_host_cpu_features

from normlab import convolution, direct, functional, shallow, tiles, vectors, winograd
from normlab.cohort import Linear
from normlab.convolution import WAYS, convolve, fastest_way
from normlab.functional import (
    LIKE,
    Rectifiers,
    center,
    in_rows,
    is_compiled,
    max_pool,
    moments,
    move,
    normalize,
    prelu,
    raise_peaks,
    transform,
)
from normlab.graphs import launch
from normlab.network import build_network
from normlab.norms.renorm import PLAIN, BatchRenorm, RampedClip, fixed_clip
from normlab.trial import KEEPS_AVERAGES
from normlab.vectors import EIGHT, SIXTEEN

SHAPES = [(2, 1), (7, 3), (300, 5), (3, 16, 4, 4), (5, 130, 3, 3), (65, 8, 8, 8), (2, 3, 1, 1)]
# A gradient that is rounded to bfloat16 on the way, as torch's between two operations is, cannot agree better.
ERROR = {torch.float32: 2e-5, torch.bfloat16: 4e-2}
RECTIFIERS = {"none": (None, None), "before": (0.3, None), "after": (None, 0.01), "both": (0.0, 0.2)}


def channels(value: float | None, count: int) -> torch.Tensor | None:
    return None if value is None else torch.full((count,), value)


def results(
    apply: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, g: torch.Tensor
) -> list[torch.Tensor]:
    """Output and gradients of an operation of an input, a weight and a bias."""
    leaf = x.clone().requires_grad_()
    weight = torch.linspace(-1, 2, x.shape[1]).requires_grad_()
    bias = torch.linspace(0.5, -0.5, x.shape[1]).requires_grad_()
    y = apply(leaf, weight, bias)
    gradients = torch.autograd.grad(y, (leaf, weight, bias), g, allow_unused=True)
    return [y.detach(), *(found for found in gradients if found is not None)]


@pytest.mark.parametrize("step", [0, 4_999, 12_345, 50_000])
@pytest.mark.parametrize("clip", [RampedClip(), fixed_clip(math.inf, math.inf), PLAIN])
@pytest.mark.parametrize("momentum", [0.01, torch.linspace(0, 1, 5)])
def test_the_corrections_of_renorm_are_those_of_torch(
    momentum: float | torch.Tensor, clip: RampedClip, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn((40, 5), generator=torch.Generator().manual_seed(step)) * torch.tensor([1, 3, 0.3, 1e-9, 10.0])

    def train() -> list[torch.Tensor]:
        norm = BatchRenorm(5, eps=1e-3, momentum=momentum, clip=clip)
        norm.num_steps.fill_(step)
        return [*(norm(x + shift).detach() for shift in (0.0, 2.0)), *(b.clone() for b in norm.buffers())]

    ours = train()
    monkeypatch.setattr(functional, "kernels", None)
    for found, expected in zip(ours, train(), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("by", ["channel", "element"])
def test_a_learned_slope_computes_what_torch_does(
    by: str, shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    sizes = shape[1:] if by == "element" else shape[1:2]

    def of(x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        slopes = torch.linspace(-0.5, 1, torch.Size(sizes).numel()).view(sizes).requires_grad_()
        y = prelu(leaf, slopes)
        return [y.detach(), *torch.autograd.grad(y, (leaf, slopes), g)]

    ours = of(x, g)
    assert ours[2].is_contiguous()
    monkeypatch.setattr(functional, "kernels", None)
    for found, expected in zip(ours, of(x.float(), g.float()), strict=True):
        assert torch.allclose(found.float(), expected, atol=ERROR[dtype] * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("rectifiers", RECTIFIERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["normalize", "center"])
def test_the_kernels_compute_what_torch_does(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype, rectifiers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 2 + 0.7).to(dtype)
    g = torch.randn(shape, generator=generator).to(dtype)
    pair = Rectifiers(*(channels(slope, shape[1]) for slope in RECTIFIERS[rectifiers]))
    average = torch.zeros(shape[1])

    def apply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        mean, var = moments(x, average, pair)
        if kind == "center":
            return center(x, mean, bias, rectifiers=pair)
        return normalize(x, mean, var, weight, bias, eps=1e-3, rectifiers=pair)

    assert is_compiled(x, average)
    ours, own = results(apply, x, g), moments(x, average, pair)
    monkeypatch.setattr(functional, "kernels", None)
    assert not is_compiled(x, average)
    # In float32 throughout: torch rounds to bfloat16 between its operations, the kernels do so once, at the end.
    exact, reference = x.float(), g.float()
    for found, expected in zip(own, moments(exact, average, pair), strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    for found, expected in zip(ours, results(apply, exact, reference), strict=True):
        scale = max(1.0, float(expected.abs().max()))
        assert float((found.float() - expected).abs().max()) <= ERROR[dtype] * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_in_inference_is_one_affine_map(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x, a, b = torch.randn(6, 5, 4, 4).to(dtype), torch.randn(5), torch.randn(5)
    pair = Rectifiers(after=torch.full((5,), 0.1))
    with torch.no_grad():
        ours = transform(x, a, b, rectifiers=pair)
        monkeypatch.setattr(functional, "kernels", None)
        theirs = transform(x.float(), a, b, rectifiers=pair).to(dtype)
    assert torch.allclose(ours.float(), theirs.float(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (3, 5, 7, 9), (2, 16, 8, 8), (1, 200, 5, 4)])
def test_pooling_and_its_gradient_equal_torchs_ties_included(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randint(-3, 4, shape).to(dtype)
    outputs, gradients = [], []
    for pool in (max_pool, lambda x: F.max_pool2d(x, 2)):
        leaf = x.clone().requires_grad_()
        y = pool(leaf)
        outputs.append(y)
        gradients.append(torch.autograd.grad((y * torch.arange(y.numel()).view(y.shape)).sum(), leaf)[0])
    assert torch.equal(*outputs)
    assert torch.equal(*gradients)


def test_the_maximum_of_what_is_no_number_is_none() -> None:
    x = torch.tensor([[[[1.0, 2.0], [float("nan"), 3.0]]]])
    assert max_pool(x).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.9, 1.0, (0.0, 0.3, 1.0)])
def test_a_moving_average_takes_its_share_and_nothing_or_all_exactly(
    share: float | tuple[float, ...], dtype: torch.dtype
) -> None:
    average, value = torch.tensor([1e7, -2.0, 1e7], dtype=dtype), torch.tensor([0.125, 3.0, 0.125], dtype=dtype)
    moved, shares = average.clone(), torch.tensor(share, dtype=dtype)
    move(moved, value, share if isinstance(share, float) else shares, 2.0)
    exact = average.double() + shares.double() * (2 * value.double() - average.double())
    assert torch.allclose(moved.double(), exact, rtol=1e-6)
    assert torch.equal(moved[shares.expand(3) == 1], 2 * value[shares.expand(3) == 1])
    assert torch.equal(moved[shares.expand(3) == 0], average[shares.expand(3) == 0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("trials", [1, 3])
def test_inputs_are_scaled_pixels_of_each_trials_own_images(
    trials: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randint(256, (20, 5, 7, channels), dtype=torch.uint8)
    index, scale, offset = torch.randint(20, (trials, 4)), torch.rand(channels), torch.randn(channels)
    ours = functional.scaled(images, index, scale, offset)
    monkeypatch.setattr(functional, "kernels", None)
    theirs = functional.scaled(images, index, scale, offset)
    expected = images[index[-1, 2]].permute(2, 0, 1) * scale[:, None, None] + offset[:, None, None]
    rounding = 255 * torch.finfo(torch.float32).eps  # of a product, which the offset may be the opposite of
    assert torch.allclose(ours[2, -channels:], expected, rtol=1e-6, atol=rounding)
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=rounding)
    assert ours.shape == (4, trials * channels, 5, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_of_each_trial_its_hits_and_its_gradient_are_those_of_torch(dtype: torch.dtype) -> None:
    logits = (10 * torch.randn(6, 3, 5, dtype=dtype)).requires_grad_()
    labels = torch.randint(5, (6, 3))
    losses, hits = functional.cross_entropy(logits, labels)
    expected = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(0)
    gradients = [torch.autograd.grad(loss @ torch.arange(3.0, dtype=dtype), logits)[0] for loss in (losses, expected)]
    assert torch.allclose(losses, expected, rtol=1e-5)
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-7)
    assert hits.tolist() == (logits.argmax(2) == labels).sum(0).tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_makes_its_own_trials_loss_so_and_no_other(bad: float) -> None:
    logits = torch.randn(4, 2, 3)
    logits[2, 0, 1] = bad
    losses, _ = functional.cross_entropy(logits.requires_grad_(), torch.zeros(4, 2, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert not losses[0].isfinite()
    assert losses[1].isfinite()
    assert gradient[:, 1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_peaks_are_the_maxima_of_all_that_was_shown(dtype: torch.dtype) -> None:
    batches = [torch.randn(5, 3, 4, 2).to(dtype) - 3, torch.randn(7, 3).to(dtype) - 3]
    batches[1][2, 1] = float("nan")
    peaks = torch.full((3,), -float("inf"), dtype=torch.promote_types(dtype, torch.float32))
    for x in batches:
        raise_peaks(x, peaks)
    expected = torch.stack([batches[0].amax((0, 2, 3)), batches[1].amax(0)]).amax(0)
    assert torch.equal(peaks.nan_to_num(), expected.to(peaks.dtype).nan_to_num())
    assert peaks[1].isnan()


def test_what_was_compiled_is_made_anew_when_what_it_is_made_of_changes(tmp_path: Path) -> None:
    source = Path(vectors.__file__).read_text()
    (tmp_path / "kernel.py").write_text(
        "from vectors import FLOAT, compiled, size_of\n\n@compiled\ndef size():\n    return size_of(FLOAT)\n"
    )

    def size() -> int:
        command = [sys.executable, "-c", "import kernel; print(kernel.size())"]
        return int(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)

    (tmp_path / "vectors.py").write_text(source)
    assert size() == 4
    assert list(tmp_path.glob("__pycache__/kernel.size*.nbc"))
    changed = source.replace("like.bitwidth // 8", "like.bitwidth // 4")
    (tmp_path / "vectors.py").write_text(changed + "# longer: Python compares size and second, not content\n")
    assert size() == 8


def test_moments_keep_their_digits_far_from_zero() -> None:
    x = 10_000 + torch.randn(4096, 4)
    mean, var = moments(x, torch.zeros(4))
    assert torch.allclose(mean.double(), x.double().mean(0), rtol=1e-7)
    assert torch.allclose(var.double(), x.double().var(0, correction=0), rtol=1e-4)


def test_what_is_not_finite_stays_so() -> None:
    x = torch.zeros(16, 2)
    x[3, 0] = float("nan")
    mean, var = moments(x, torch.zeros(2))
    assert mean.isnan().tolist() == [True, False]
    assert var.isnan().tolist() == [True, False]
    y = normalize(x, mean, var, None, torch.zeros(2), eps=1e-3, rectifiers=Rectifiers(after=torch.zeros(2)))
    assert y[:, 0].isnan().all()
    assert (y[:, 1] == 0).all()


@pytest.mark.parametrize("rows", [1, 4, 7])
@pytest.mark.parametrize(("trials", "inputs", "outputs"), [(1, 16, 5), (3, 100, 24), (2, 9, 1)])
def test_a_dense_layer_of_few_rows_is_that_of_many(rows: int, trials: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weights = [torch.randn(outputs, inputs, generator=generator) for _ in range(trials)]
    layer = Linear(weights)
    torch.nn.init.normal_(layer.bias, generator=generator)
    x, g = (torch.randn(rows, trials * size, generator=generator) for size in (inputs, outputs))
    found = []
    for repeats in (1, 20):  # of a batch: with as many rows a library multiplies
        leaf = x.repeat(repeats, 1).requires_grad_()
        y = layer(leaf)
        gradients = torch.autograd.grad(y, (leaf, layer.weight, layer.bias), g.repeat(repeats, 1))
        found.append([y[:rows], gradients[0][:rows], gradients[1] / repeats, gradients[2] / repeats])
        assert ("_Small" in type(y.grad_fn).__name__) == (repeats == 1)
    for small, large in zip(*found, strict=True):
        assert torch.allclose(small, large, rtol=1e-5, atol=1e-5)


# images, trials, channels, filters, height, width: whole tiles and parts of them, channels that fill no vector
CONVOLUTIONS = [
    (2, 1, 8, 8, 8, 8), (2, 1, 3, 16, 32, 32), (3, 2, 3, 8, 5, 7), (2, 3, 16, 24, 14, 9), (2, 1, 11, 8, 6, 6),
    (1, 2, 32, 16, 1, 1), (5, 1, 1, 64, 28, 28), (7, 2, 64, 40, 4, 4), (3, 2, 64, 40, 16, 16),
]  # fmt: skip
# those of which pairs of bfloat16 are multiplied, where the processor does
IN_PAIRS = [
    (2, 2, 16, 16, 9, 7),
    (2, 2, 32, 48, 9, 7),
    (2, 1, 64, 32, 24, 22),
    (1, 2, 32, 64, 1, 1),
    (7, 1, 64, 96, 8, 8),
]
in_pairs = pytest.mark.skipif(
    not get_host_cpu_features().get("avx512bf16"),
    reason="this processor does not multiply pairs of bfloat16 (AVX512_BF16)",
)
# those that are computed on tiles, where the processor has any: bands of one image, of many and of a part of one
ON_TILES = [
    (2, 1, 16, 16, 32, 32), (3, 1, 64, 64, 8, 8), (2, 2, 32, 16, 16, 16), (2, 3, 48, 16, 7, 5), (1, 1, 16, 32, 1, 1),
    (2, 2, 16, 48, 3, 9), (1, 1, 32, 64, 70, 41), (1, 1, 16, 16, 3, 2500), (130, 1, 16, 16, 8, 8),
    (3, 1, 3, 16, 32, 32), (2, 2, 1, 32, 8, 8), (2, 3, 3, 16, 9, 5), (5, 1, 5, 32, 70, 33),
]  # fmt: skip
on_tiles = pytest.mark.skipif(
    not tiles.has_tiles(), reason="this processor has no tiles for bfloat16 (AMX), or no use of them"
)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What multiplies pairs does so on vectors, also where that is not the fastest."""
    monkeypatch.setattr(convolution, "has_tiles", lambda: False)
    monkeypatch.setattr(winograd, "multiplies_pairs", lambda: True)


def convolved(images: int, trials: int, channels: int, filters: int, height: int, width: int) -> list[torch.Tensor]:
    """Inputs, weights, biases and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((images, trials * channels, height, width), (trials * filters, channels, 3, 3), (trials * filters,),
              (images, trials * filters, height, width))  # fmt: skip
    return [torch.randn(shape, generator=generator) for shape in shapes]


def is_untouched(memory: torch.Tensor, guard: int, before: float) -> bool:
    """Whether the ends of memory are still as they were."""
    ends = torch.cat([memory[:guard], memory[-guard:]])
    return torch.equal(ends.nan_to_num(7.0), torch.full_like(ends, before).nan_to_num(7.0))


def gradients_of(y: torch.Tensor, leaves: list[torch.Tensor], g: torch.Tensor) -> list[torch.Tensor]:
    return [y.detach(), *torch.autograd.grad(y, [leaf for leaf in leaves if leaf.requires_grad], g)]


@pytest.mark.parametrize("shape", CONVOLUTIONS + IN_PAIRS)
def test_a_convolution_and_its_gradients_are_those_of_torch_in_float64(shape: tuple[int, ...]) -> None:
    trials, channels = shape[1:3]
    *leaves, g = convolved(*shape)
    exact = [leaf.double() for leaf in leaves]
    for leaf in (*leaves[channels % 8 > 0 :], *exact[channels % 8 > 0 :]):
        leaf.requires_grad_()
    y = convolve(*leaves, trials=trials)
    assert type(y.grad_fn).__name__ == "_CompiledBackward"
    ours = gradients_of(y, leaves, g)
    theirs = gradients_of(F.conv2d(*exact, padding=1, groups=trials), exact, g.double())
    for found, expected in zip(ours, theirs, strict=True):
        assert float((found - expected).abs().max()) <= 3e-5 * float(expected.abs().max())


@pytest.mark.parametrize("shape", CONVOLUTIONS + IN_PAIRS)
def test_a_convolution_in_bfloat16_is_that_in_float32_rounded_once_at_its_end(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "multiplies_pairs", lambda: False)
    monkeypatch.setattr(convolution, "has_tiles", lambda: False)
    trials, channels = shape[1:3]
    x, weight, bias, g = convolved(*shape)
    x, g = x.bfloat16(), g.bfloat16()

    def all_of(x: torch.Tensor, g: torch.Tensor, precision: torch.autocast) -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_(channels % 8 == 0), weight.clone().requires_grad_(), bias.clone()]
        with precision:
            y = convolve(*leaves, trials=trials)
        return gradients_of(y, leaves, g)

    rounded = all_of(x.float(), g, torch.autocast("cpu", torch.bfloat16))  # as images are, which come in float32
    ours = all_of(x, g, torch.autocast("cpu", torch.bfloat16))
    theirs = all_of(x.float(), g.float(), torch.autocast("cpu", enabled=False))
    assert [tensor.dtype for tensor in ours[:-1]] == [torch.bfloat16] * (len(ours) - 1)
    assert ours[-1].dtype == torch.float32  # of the weights
    for found, again, expected in zip(ours, rounded, theirs, strict=True):
        assert torch.equal(found, expected.to(found.dtype))
        assert torch.equal(again.to(found.dtype), found)


def in_bfloat16(shape: tuple[int, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A convolution and its gradients under autocast, and what they are in float64, the bias's included."""
    x, weight, bias, g = convolved(*shape)
    leaves = [x.relu().bfloat16(), weight, bias]
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(*leaves, trials=shape[1])
    expected = F.conv2d(*exact, padding=1, groups=shape[1])
    return gradients_of(y, leaves, g.bfloat16()), gradients_of(expected, exact, g.bfloat16().double())


@in_pairs
@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("shape", IN_PAIRS)
def test_a_convolution_whose_pairs_are_multiplied_errs_by_less_than_a_hundredth(shape: tuple[int, ...]) -> None:
    for found, expected in zip(*in_bfloat16(shape), strict=True):
        error = (found.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error < 1e-2


@in_pairs
@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("shape", IN_PAIRS)
def test_what_is_multiplied_in_pairs_is_rounded_to_bfloat16_once_and_its_sums_are_not(shape: tuple[int, ...]) -> None:
    trials, _, filters, height, width = shape[1:]
    x, weight, bias, _ = convolved(*shape)
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(x, weight, bias, trials)

    def sandwich(left: list[list[float]], inner: torch.Tensor, right: list[list[float]]) -> torch.Tensor:
        return torch.tensor(left).double() @ inner.double() @ torch.tensor(right).double().T

    def rounded(exact: torch.Tensor) -> torch.Tensor:
        return exact.float().bfloat16().double()

    rows, columns = -(-height // 4) * 2, -(-width // 4)  # of tiles of 2×4
    padded = F.pad(x.bfloat16(), (1, 4 * columns - width + 1, 1, 2 * rows - height + 1))
    tiles = padded.unfold(2, 4, 2).unfold(3, 6, 4).unflatten(1, (trials, -1))
    inputs = rounded(sandwich(winograd.UP_BT, tiles, winograd.PAIR_BT))
    weights = rounded(sandwich(winograd.UP_G, weight.unflatten(0, (trials, filters)), winograd.PAIR_G))
    made = sandwich(winograd.UP_AT, torch.einsum("ntcijpq,tkcpq->ntkijpq", inputs, weights), winograd.PAIR_AT)
    expected = made.transpose(4, 5).reshape(len(x), trials * filters, 2 * rows, 4 * columns)[..., :height, :width]
    expected = expected + bias[:, None, None]
    assert torch.allclose(y.double(), expected, rtol=2**-8, atol=1e-3 * float(expected.abs().max()))


@on_tiles
@pytest.mark.parametrize("shape", ON_TILES)
def test_a_convolution_on_tiles_is_the_direct_sum_of_rounded_weights(shape: tuple[int, ...]) -> None:
    trials, channels = shape[1:3]
    x, weight, bias, g = convolved(*shape)
    leaves, exact = [x.bfloat16(), weight, bias], [x.bfloat16().double(), weight.bfloat16().double(), bias.double()]
    for leaf in (*leaves[channels < 16 :], *exact[channels < 16 :]):
        leaf.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(*leaves, trials=trials)
    g = g.bfloat16()
    found = gradients_of(y, leaves, g)
    expected = gradients_of(F.conv2d(*exact, padding=1, groups=trials), exact, g.double())
    square = torch.eye(64, dtype=torch.bfloat16)
    assert torch.equal(square @ square, square)  # a library that uses tiles too finds them free
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        is_rounded = number < len(found) - 2  # weights and biases have their gradients in float32
        assert ours.dtype == (torch.bfloat16 if is_rounded else torch.float32)
        assert torch.allclose(ours.double(), theirs, rtol=2**-8 if is_rounded else 1e-5, atol=1e-5 * theirs.abs().max())


@on_tiles
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 16, 1, 1), (1, 1, 2, 16, 5, 1), (2, 1, 4, 48, 1, 9), (1, 1, 256, 16, 4, 4), (1, 1, 16, 256, 4, 4),
     (1, 1, 80, 48, 3, 2600), (3, 2, 16, 16, 9, 9)],
)  # fmt: skip
def test_what_is_computed_on_tiles_stays_within_its_scratch_and_reads_nothing_of_what_was_there(
    shape: tuple[int, ...],
) -> None:
    images, trials, channels, filters, height, width = shape
    x, weight, bias, g = convolved(*shape)
    x, g = (in_rows(tensor.bfloat16()) for tensor in (x, g))
    weight = in_rows(weight)
    needed, guard, found = direct.scratch_floats(images, height, width, channels, filters), 4096, []
    sizes = (images, height, width, trials, channels, filters)
    for before in (0.0, math.nan):
        memory = torch.full((needed + 2 * guard,), before)
        scratch = memory[guard:-guard]
        y, of_weight, of_bias = torch.empty_like(g), torch.empty_like(weight), torch.empty_like(bias)
        launch(direct.convolve, x, weight, bias, y, scratch, *sizes, 0)
        scratch.fill_(before)
        launch(direct.weight_gradient, x, g, of_weight, of_bias, scratch, *sizes)
        assert is_untouched(memory, guard, before)
        found.append((y, of_weight, of_bias))
    for clean, dirty in zip(*found, strict=True):
        assert torch.equal(clean, dirty)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [(2, 1, 3, 16, 32, 32), (1, 1, 1, 8, 1, 1), (3, 2, 3, 64, 9, 7), (2, 3, 4, 24, 17, 5), (2, 2, 2, 40, 8, 1)],
)  # fmt: skip
def test_the_gradient_of_few_channels_errs_by_rounding_and_reads_and_writes_nothing_but_its_own(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images, trials, channels, filters, height, width = shape
    x, weight, bias, g = convolved(*shape)
    x, g, weight = in_rows(x.to(dtype)), in_rows(g.to(dtype)), in_rows(weight)
    guard, found = 1024, []
    sizes = (images, height, width, trials, channels, filters)
    types = LIKE[dtype], winograd.lanes_for(channels, filters)
    for before in (0.0, math.nan):
        of_weight, of_bias = torch.empty_like(weight), torch.empty_like(bias)
        memory = [torch.full((count + 2 * guard,), before, dtype=kind) for count, kind in (
            (x.numel(), dtype), (g.numel(), dtype), (shallow.scratch_floats(width, channels, filters), torch.float32)
        )]  # fmt: skip
        own = [guarded[guard:-guard] for guarded in memory]
        for values, given in zip(own, (x, g), strict=False):
            values.copy_(given.permute(0, 2, 3, 1).flatten())
        launch(shallow.weight_gradient, *types, *own[:2], of_weight, of_bias, own[2], *sizes)
        for guarded in memory:
            assert is_untouched(guarded, guard, before)
        found.append((of_weight, of_bias))
    exact = [leaf.double().requires_grad_() for leaf in (weight, bias)]
    y = F.conv2d(x.double(), *exact, padding=1, groups=trials)
    for clean, dirty, expected in zip(*found, torch.autograd.grad(y, exact, g.double()), strict=True):
        assert torch.equal(clean, dirty)
        assert float((clean - expected).abs().max()) <= 1e-6 * float(expected.abs().max())


def test_the_gradient_of_few_channels_loses_no_digits_in_large_images() -> None:
    x, g = torch.rand(1, 3, 224, 224), torch.full((1, 16, 224, 224), 0.1)
    weight, bias = torch.zeros(16, 3, 3, 3, requires_grad=True), torch.zeros(16, requires_grad=True)
    found = torch.autograd.grad(convolve(x, weight, bias, 1), (weight, bias), g)
    exact = [leaf.detach().double().requires_grad_() for leaf in (weight, bias)]
    expected = torch.autograd.grad(F.conv2d(x.double(), *exact, padding=1), exact, g.double())
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours / theirs - 1).abs().max()) < 2e-5  # 5e-4 if a whole image were summed in float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_few_channels_is_summed_directly_where_there_are_no_tiles(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "has_tiles", lambda: False)
    chosen = [convolution._gradient_kernels(dtype, 2, (8, 8), channels, 16)[0] for channels in (1, 3, 4, 5)]
    assert chosen == [shallow, shallow, shallow, winograd]


def test_a_convolution_of_no_image_is_none() -> None:
    x, weight, bias, _ = convolved(0, 1, 16, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(x, weight.requires_grad_(), bias, trials=1).shape == (0, 16, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [shape for shape in CONVOLUTIONS + IN_PAIRS + ON_TILES if shape[1] > 1])
def test_the_convolutions_of_a_cohort_are_those_of_each_trial_alone_to_the_last_bit(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    trials, channels = shape[1:3]
    x, weight, bias, g = convolved(*shape)
    x, g = x.to(dtype), g.to(dtype)

    def all_of(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, g: torch.Tensor, trials: int
    ) -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_(channels % 8 == 0), weight.clone().requires_grad_(), bias.clone()]
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            return gradients_of(convolve(*leaves, trials=trials), leaves, g)

    together = all_of(x, weight, bias, g, trials)
    parts = zip(x.chunk(trials, 1), weight.chunk(trials), bias.chunk(trials), g.chunk(trials, 1), strict=True)
    alone = [all_of(*part, 1) for part in parts]
    for place, found in enumerate(together):
        along = 0 if place == len(together) - 1 else 1  # the last is the weights' gradient
        assert torch.equal(found, torch.cat([one[place] for one in alone], along))


@pytest.mark.parametrize("channels", [3, 16, 32])
def test_a_convolution_is_to_the_last_bit_the_same_whatever_vectors_it_is_computed_with(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias, g = convolved(3, 2, channels, 48, 9, 8)
    found = []
    for widest in (EIGHT, SIXTEEN):
        monkeypatch.setattr(winograd, "WIDEST", widest)
        leaves = [x.clone().requires_grad_(channels > 3), weight.clone().requires_grad_(), bias.clone()]
        found.append(gradients_of(convolve(*leaves, trials=2), leaves, g))
    for narrow, wide in zip(*found, strict=True):
        assert torch.equal(narrow, wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [(2, 1, 3, 8, 9, 7), (1, 2, 16, 24, 5, 5), (3, 1, 64, 40, 4, 9), (30, 1, 16, 16, 8, 8), (2, 2, 48, 80, 4, 4)],
)
def test_a_convolution_stays_within_its_scratch_and_reads_nothing_of_what_was_there(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images, trials, channels, filters, height, width = shape
    x, weight, bias, g = convolved(*shape)
    x, g, weight = in_rows(x.to(dtype)), in_rows(g.to(dtype)), in_rows(weight)
    like, guard, found = LIKE[dtype], 4096, []
    types = like, winograd.lanes_for(channels, filters), winograd.kind_for(like, channels, filters)
    sizes = (images, height, width, trials, channels, filters)
    for before in (0.0, math.nan):
        y, of_weight, of_bias = torch.empty_like(g), torch.empty_like(weight), torch.empty_like(bias)
        memory = torch.full((winograd.scratch_floats(channels, filters) + 2 * guard,), before)
        scratch = memory[guard:-guard]
        launch(winograd.convolve, *types, x, weight, bias, y, scratch, *sizes, 0)
        scratch.fill_(before)
        launch(winograd.weight_gradient, *types, x, g, of_weight, of_bias, scratch, *sizes)
        assert is_untouched(memory, guard, before)
        found.append((y, of_weight, of_bias))
    for clean, dirty in zip(*found, strict=True):
        assert torch.equal(clean, dirty)


ROUNDED = """
import sys, torch
from normlab import convolution, vectors
from normlab.functional import in_rows, transform
convolution.has_tiles = lambda: False  # on which weights are rounded, too
torch.set_grad_enabled(False)
assert vectors.widest() == vectors.EIGHT and not vectors.multiplies_pairs()
torch.manual_seed(0)
x, weight, bias = torch.randn(2, 3, 9, 7), torch.randn(16, 3, 3, 3), torch.randn(16)
h = torch.tensor([[1.00390625, 1.01171875, -3.4e38, 3.4e38], [float("nan"), float("inf"), 1e-37, 0.0]])
y = convolution.convolve(in_rows(x.bfloat16()), weight, bias, trials=1)
torch.save((y, transform(h.bfloat16(), torch.full((4,), 1.5), torch.zeros(4))), sys.argv[1])
"""


def test_a_processor_without_instructions_for_bfloat16_rounds_as_one_with_them(tmp_path: Path) -> None:
    saved = [tmp_path / name for name in ("here.pt", "there.pt")]
    others = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    here = "\n".join(line for line in ROUNDED.split("\n") if not line.startswith("assert"))
    for path, code, environment in zip(saved, (here, ROUNDED), (os.environ, others), strict=True):
        subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True)
    for ours, theirs in zip(*map(torch.load, saved), strict=True):
        assert torch.equal(ours.view(torch.int16), theirs.view(torch.int16))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [shape for shape in CONVOLUTIONS if shape[1] > 1])
def test_every_way_of_computing_a_fused_convolution_computes_the_same(way: str, shape: tuple[int, ...]) -> None:
    trials = shape[1]
    x, weight, bias, g = [tensor.double() for tensor in convolved(*shape)]
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias)]
    found = gradients_of(WAYS[way](x, weight, bias, trials), leaves, g)
    expected = gradients_of(F.conv2d(*leaves, padding=1, groups=trials), leaves, g)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_way_that_trains_fastest_is_timed_once_and_kept_for_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normlab.convolution._known", {})
    times = {"grouped": 3.0, "separate": 1.0, "products": 2.0}
    asked: list[str] = []

    def seconds(way: object, *_: object) -> float:
        asked.append(next(name for name in WAYS if WAYS[name] is way))
        return times[asked[-1]]

    monkeypatch.setattr("normlab.convolution._seconds", seconds)
    x, weight, *_ = convolved(2, 2, 8, 8, 4, 4)
    with torch.no_grad():
        assert fastest_way(x, weight, 2) == "grouped"
    assert [fastest_way(x, weight, 2) for _ in range(3)] == ["separate"] * 3
    with torch.no_grad():
        assert fastest_way(torch.cat([x, x]), weight, 2) == "separate"
    assert asked == list(WAYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "filters", "size"), [(3, 8, 7), (3, 16, 7), (16, 16, 7), (32, 16, 50)])
def test_a_convolution_uses_nothing_that_lies_beside_its_images_or_belongs_to_another_trial(
    channels: int, filters: int, size: int, dtype: torch.dtype
) -> None:
    x, weight, bias, g = convolved(2, 2, channels, filters, size, size)
    x, g, leaves = x.to(dtype), g.to(dtype), [weight.requires_grad_(), bias]
    memory = torch.full((x.numel() + 200,), float("nan"), dtype=dtype)
    inner = memory[100:-100].view(2, size, size, 2 * channels).permute(0, 3, 1, 2).copy_(x)

    def all_of(x: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = convolve(x, *leaves, trials=2)
        return gradients_of(y, leaves, g)

    for second in (slice(0, channels), slice(channels, 2 * channels)):  # and each trial after the other
        inner.copy_(x)
        inner[:, second] = float("inf")
        own = slice(filters, None) if second.start == 0 else slice(0, filters)
        (y, gradient), (y_alone, gradient_alone) = all_of(inner), all_of(x)
        assert torch.equal(y[:, own], y_alone[:, own])
        assert torch.equal(gradient[own], gradient_alone[own])
        others = y[:, :filters] if second.start == 0 else y[:, filters:]
        assert not others.isfinite().any()


@pytest.mark.parametrize("position", ["before_activation", "after_activation"])
@pytest.mark.parametrize("norm", sorted(KEEPS_AVERAGES))
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "prelu"])
def test_a_network_is_the_same_whether_norm_and_rectifier_are_one_pass_or_two(
    norm: str, position: str, activation: str
) -> None:
    def build() -> torch.nn.Module:
        return build_network(
            "8K-2C1B-8D-10D", norm=norm, norm_position=position, activation=activation, image_size=8,
            num_trials=2, slope=[0.01, 0.3], norm_dense=True,
        )  # fmt: skip

    together, apart = build(), build()
    seen = []
    for module in apart.children():
        module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    x = torch.randn(6, 6, 8, 8)
    for mode in (True, False):
        together.train(mode)
        apart.train(mode)
        losses = [network(x).square().mean() for network in (together, apart)]
        assert torch.allclose(losses[0], losses[1], rtol=1e-5)
        if mode:
            gradients = [
                torch.autograd.grad(loss, list(net.parameters()))
                for loss, net in zip(losses, (together, apart), strict=True)
            ]
            for ours, theirs in zip(*gradients, strict=True):
                assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    assert len(seen) == 2 * len(list(apart.children()))
