"""Steps that are recorded once and replayed, on the CPU and on a GPU."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from normlab import graphs, train
from normlab.batches import as_images, draw_batches
from normlab.graphs import WARM_UP, Replayed, cpu_recorder
from normlab.step import Step, make_network
from normlab.trial import TrialSpec

from .test_train import make_split, spec

READING = ("item", "__float__", "__int__", "__bool__", "tolist", "cpu", "numpy")  # for each a GPU is waited for


def trained(specs: list[TrialSpec], device: torch.device, replayed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and correct answers of two epochs, [steps, T], with learning rates that change at every step."""
    split = make_split()
    data = as_images(split.train_images, split.train_labels, pixels="unit", reference=split.train_images, device=device)
    step = Step(specs, make_network(specs, data, 100), data)
    step.network.train()
    run = step.runner() if replayed else step
    found: list[list[torch.Tensor]] = []
    for epoch in (1, 2):
        step.begin(epoch)
        for batch in draw_batches(data, specs, epoch):
            rates = [s.learning_rate / (1 + len(found)) for s in specs]
            given = torch.tensor(rates, dtype=torch.float64, device=device)
            found.append([value.cpu().clone() for value in run(*batch, given)])
    losses, hits = zip(*found, strict=True)
    return torch.stack(losses), torch.stack(hits)


def test_recording_imports_nothing_of_torchs_compiler() -> None:
    script = (
        "import sys, torch; from normlab.graphs import WARM_UP, Replayed, cpu_recorder\n"
        "run = Replayed(lambda x: (x * 2,), cpu_recorder)\n"
        "for _ in range(WARM_UP + 2): (found,) = run(torch.ones(3))\n"
        "assert found.tolist() == [2, 2, 2] and run._replay is not None\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


CASES = [
    {"optimizer": optimizer, "norm": norm, "augment": augment}
    for optimizer, norm, augment in (
        ("adam_keras", "batch", "none"), ("adam", "renorm", "on_the_fly"), ("adamw", "mean_only", "copies"),
        ("sgd", "none", "none"), ("adam_keras", "batch_no_gamma", "none"),
    )
] + [
    {"norm": "batch", "precision": "bfloat16", "norm_dense": True},
    *({"norm": "batch", "activation": activation} for activation in ("prelu", "prelu_elementwise", "elu", "gelu")),
]  # fmt: skip


@pytest.mark.parametrize("settings", CASES)
def test_a_replayed_step_trains_as_one_that_is_run_to_the_bit(settings: dict[str, str]) -> None:
    """Dropout, the last batch and learning rates included."""
    specs = [
        spec(**settings, seed=seed, learning_rate=0.01 * (seed + 1), norm_momentum=0.1 / (1 + seed))
        for seed in range(3)
    ]
    for found, expected in zip(
        *(trained(specs, torch.device("cpu"), replayed) for replayed in (True, False)), strict=True
    ):
        assert torch.equal(found, expected)


def test_what_is_replayed_reads_what_it_is_given_now_and_other_shapes_are_run_as_they_are() -> None:
    seen: list[int] = []

    def double(x: torch.Tensor, y: torch.Tensor | None, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(x))
        return x.sum() * z, (x.sum() * z).long()

    run = Replayed(double, cpu_recorder)
    z = torch.ones(1)
    for call in range(WARM_UP + 3):
        assert float(run(torch.full((4,), float(call)), None, z)[0]) == 4 * call
    assert float(run(torch.ones(3), None, z)[0]) == 3
    replayed = run(torch.full((4,), 9.0), None, 2 * z)
    assert (float(replayed[0]), int(replayed[1])) == (72, 72)
    assert seen == [4] * (WARM_UP + 1) + [3]


def sort_and_more(x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Operations of every kind: views, in place, of several results, without a variant that writes to a given tensor,
    constants, random numbers, other types, and memory that is let go of and used again."""
    values, order = x.sort(dim=1, descending=True)
    start = torch.zeros(3, 2)
    start[1:] += values.T[1:3, :2]
    start.mul_(torch.arange(2.0))
    noise = torch.rand(3, 2, generator=generator) + torch.full((2,), 0.5)
    for _ in range(3):
        noise = torch.empty_like(noise).copy_(noise * 2)
    wide = x.double().reshape(-1, 2).t().contiguous().to(memory_format=torch.contiguous_format)
    mean, spread = torch.var_mean(x, 0)
    return start, order[:, ::2], noise.softmax(0), wide.cumsum(1), mean, spread, F.pad(x, (1, 1)), x.new_ones(2)


def test_operations_of_every_kind_are_replayed_to_the_bit() -> None:
    found, expected = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    run = Replayed(lambda x: sort_and_more(x, found), cpu_recorder)
    for call in range(WARM_UP + 4):
        x = torch.randn(2, 6, generator=torch.Generator().manual_seed(call))
        for own, value in zip(run(x), sort_and_more(x, expected), strict=True):
            assert torch.equal(own, value)


def test_memory_of_a_replay_is_its_own_and_is_used_again_within_it() -> None:
    def chain(x: torch.Tensor) -> tuple[torch.Tensor]:
        for _ in range(10):
            x = torch.empty(len(x)).copy_(x).add_(1)
        return (x,)

    with graphs._Recording() as recording:
        chain(torch.ones(1000))
    assert [len(kept) for kept in recording.memory.values()] == [10]  # what is recorded holds its tensors
    with graphs._Recording() as recording:
        for _ in range(10):
            graphs.launch(lambda *_: None, torch.empty(1000), None, 3)
    assert [len(kept) for kept in recording.memory.values()] == [1]  # a kernel is given an address
    address = recording.calls[0][1][0]
    others = [torch.empty(1000) for _ in range(100)]
    assert address not in [other.data_ptr() for other in others]


def test_what_depends_on_a_result_is_not_recorded() -> None:
    """It would not be known to the replay."""
    x = torch.ones(2, 2)
    for look in (lambda: float(x.sum()), lambda: x[x > 0], lambda: x.nonzero(), lambda: x.t_()):
        with pytest.raises(RuntimeError, match="cannot be recorded"), graphs._Recording():
            look()
    assert not graphs._recordings


def test_the_shape_that_comes_often_is_recorded_and_not_the_one_that_comes_fourth() -> None:
    calls: list[int] = []

    def add_one(x: torch.Tensor) -> tuple[torch.Tensor]:
        calls.append(len(x))
        return (x + 1,)

    run = Replayed(add_one, cpu_recorder)
    for size in [8, 8, 8, 2, 8, 8, 8, 2, 8]:
        assert torch.equal(run(torch.ones(size))[0], torch.full((size,), 2.0))
    assert calls == [8, 8, 8, 2, 8, 2]


def test_a_step_reads_nothing_of_what_lies_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would have to be waited for, and on a CPU what was read would be replayed."""
    specs = [
        spec(optimizer="adam_keras", norm="renorm", augment="on_the_fly", seed=seed, norm_momentum=0.1 * (1 + seed))
        for seed in (1, 2)
    ]
    whole_step = Step.__call__

    def refuse(tensor: torch.Tensor, *_: object) -> None:
        raise AssertionError("a GPU would have to be waited for")

    def watched(self: Step, *inputs: object) -> tuple[torch.Tensor, ...]:
        with monkeypatch.context() as patch:
            for name in READING:
                patch.setattr(torch.Tensor, name, refuse)
            found = whole_step(self, *inputs)
            with pytest.raises(AssertionError, match="waited"):
                float(found[0].sum())
        return found

    draw = draw_batches

    def drawn(*inputs: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        batches = draw(*inputs)
        while True:
            with monkeypatch.context() as patch:
                for name in READING:
                    patch.setattr(torch.Tensor, name, refuse)
                if (batch := next(batches, None)) is None:
                    return
            yield batch

    monkeypatch.setattr(Step, "__call__", watched)
    monkeypatch.setattr(sys.modules[__name__], "draw_batches", drawn)
    trained(specs, torch.device("cpu"), False)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", CASES)
def test_a_cuda_graph_trains_as_steps_that_are_launched_one_by_one(settings: dict[str, str]) -> None:
    specs = [spec(**settings, seed=seed, learning_rate=0.01 * (seed + 1)) for seed in range(3)]
    gpu = torch.device("cuda")
    assert torch.allclose(trained(specs, gpu, True)[0], trained(specs, gpu, False)[0], rtol=1e-3)


@pytest.mark.gpu
def test_on_a_gpu_training_ends_where_it_does_on_a_cpu() -> None:
    trial = spec(network="8K-2C2B-6D-3D", epochs=2, norm="batch")
    found = [train.train([trial], make_split(), device=torch.device(device))[0] for device in ("cpu", "cuda")]
    assert found[0].details.curves["train_loss"] == pytest.approx(found[1].details.curves["train_loss"], rel=1e-2)
