"""Steps that are recorded once and replayed: on the CPU with a recorder that stands in for CUDA's, on a GPU with it."""

from collections.abc import Callable, Sequence

import pytest
import torch

from normlab import train
from normlab.batches import as_images, draw_batches
from normlab.graphs import WARM_UP, Function, Replayed
from normlab.step import Step, make_network
from normlab.trial import TrialSpec

from .test_train import make_split, spec


def stand_in(
    function: Function, inputs: Sequence[torch.Tensor | None]
) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
    """Does what a CUDA graph does: works on the recorded inputs, and leaves its outputs always in the same place."""
    outputs: list[torch.Tensor] = []

    def replay() -> None:
        found = function(*inputs)
        for own, value in zip(outputs, found, strict=True):
            own.copy_(value)

    shapes = torch.zeros(inputs[2].shape), torch.zeros(inputs[2].shape, dtype=torch.int64)
    outputs.extend(shapes)
    return replay, tuple(outputs)


def trained(specs: list[TrialSpec], device: torch.device, as_graph: bool, recorder: object = None) -> torch.Tensor:
    """Losses of two epochs, [steps, T], with learning rates that change at every step."""
    split = make_split()
    data = as_images(split.train_images, split.train_labels, pixels="unit", reference=split.train_images, device=device)
    step = Step(specs, make_network(specs, data, 100), data)
    step.network.train()
    run = Replayed(step, recorder) if recorder else step.as_graph() if as_graph else step
    losses: list[torch.Tensor] = []
    for epoch in (1, 2):
        step.begin(epoch)
        for batch in draw_batches(data, specs, epoch):
            rates = [s.learning_rate / (1 + len(losses)) for s in specs]
            given = torch.tensor(rates, dtype=torch.float64, device=device) if as_graph else rates
            losses.append(run(*batch, given)[0].cpu().clone())
    return torch.stack(losses)


CASES = [
    {"optimizer": optimizer, "norm": norm, "augment": augment}
    for optimizer, norm, augment in (
        ("adam_keras", "batch", "none"), ("adam", "renorm", "on_the_fly"), ("adamw", "mean_only", "copies"),
        ("sgd", "none", "none"),
    )
]  # fmt: skip


@pytest.mark.parametrize("settings", CASES)
def test_a_replayed_step_trains_as_one_that_is_run_the_last_batch_and_learning_rates_included(
    settings: dict[str, str],
) -> None:
    specs = [
        spec(**settings, seed=seed, learning_rate=0.01 * (seed + 1), norm_momentum=0.1 / (1 + seed))
        for seed in range(3)
    ]
    cpu = torch.device("cpu")
    assert torch.allclose(trained(specs, cpu, True, stand_in), trained(specs, cpu, False), rtol=1e-5)


def test_what_is_replayed_reads_what_it_is_given_now_and_other_shapes_are_run_as_they_are() -> None:
    seen: list[int] = []

    def double(x: torch.Tensor, y: torch.Tensor | None, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(x))
        return x.sum() * z, (x.sum() * z).long()

    run = Replayed(double, stand_in)
    z = torch.ones(1)
    for call in range(WARM_UP + 3):
        assert float(run(torch.full((4,), float(call)), None, z)[0]) == 4 * call
    assert float(run(torch.ones(3), None, z)[0]) == 3
    assert float(run(torch.full((4,), 9.0), None, 2 * z)[0]) == 72
    assert seen == [4] * (WARM_UP + 3) + [3, 4]


def test_a_step_reads_nothing_of_what_lies_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [spec(optimizer="adam_keras", norm="renorm", seed=seed, norm_momentum=0.1 * (1 + seed)) for seed in (1, 2)]
    whole_step = Step.__call__

    def refuse(tensor: torch.Tensor, *_: object) -> None:
        raise AssertionError("a GPU would have to be waited for")

    def watched(self: Step, *inputs: object) -> tuple[torch.Tensor, ...]:
        with monkeypatch.context() as patch:
            for name in ("item", "__float__", "__int__", "__bool__", "tolist", "cpu", "numpy"):
                patch.setattr(torch.Tensor, name, refuse)
            return whole_step(self, *inputs)

    monkeypatch.setattr(Step, "__call__", watched)
    trained(specs, torch.device("cpu"), True, stand_in)
    with pytest.raises(AssertionError, match="waited"):
        trained(specs, torch.device("cpu"), False)  # where learning rates are numbers, the count of steps is read


@pytest.mark.gpu
@pytest.mark.parametrize("settings", CASES)
def test_a_cuda_graph_trains_as_steps_that_are_launched_one_by_one(settings: dict[str, str]) -> None:
    specs = [spec(**settings, seed=seed, learning_rate=0.01 * (seed + 1)) for seed in range(3)]
    gpu = torch.device("cuda")
    assert torch.allclose(trained(specs, gpu, True), trained(specs, gpu, False), rtol=1e-3)


@pytest.mark.gpu
def test_on_a_gpu_training_ends_where_it_does_on_a_cpu() -> None:
    trial = spec(network="8K-2C2B-6D-3D", epochs=2, norm="batch")
    found = [train.train([trial], make_split(), device=torch.device(device))[0] for device in ("cpu", "cuda")]
    assert found[0].details.curves["train_loss"] == pytest.approx(found[1].details.curves["train_loss"], rel=1e-2)
