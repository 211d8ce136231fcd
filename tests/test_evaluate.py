"""Evaluation: the same answer whatever the batch, and statistics that are what they are called."""

import numpy as np
import pytest
import torch

from normlab.batches import Images, as_images
from normlab.evaluate import evaluate, evaluate_other_statistics, recompute_statistics
from normlab.network import Network, build_network
from normlab.trial import KEEPS_AVERAGES

OFF = torch.autocast("cpu", torch.bfloat16, enabled=False)


def images(count: int = 301) -> Images:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = generator.integers(0, 5, count)
    return as_images(pixels, labels, pixels="unit", reference=pixels, device=torch.device("cpu"))


def network(**settings: object) -> Network:
    return build_network("4K-1C2B-5D", image_size=8, **{"norm": "batch", **settings}).eval()


def test_the_batch_size_of_an_evaluation_changes_nothing() -> None:
    data, model = images(), network()
    results = [evaluate(model, data, autocast=OFF, batch_size=size) for size in (7, 100, 1000)]
    for other in results[1:]:
        assert torch.equal(other.confusion, results[0].confusion)
        assert other.loss.item() == pytest.approx(results[0].loss.item(), rel=1e-6)


def test_accuracy_loss_and_confusion_agree_with_the_logits() -> None:
    data, model = images(), network()
    found = evaluate(model, data, autocast=OFF)
    logits = model(data.inputs(torch.arange(len(data))[None]))
    assert found.accuracy.item() == (logits.argmax(1) == data.labels).double().mean().item()
    assert found.loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, data.labels).item(), rel=1e-6)
    assert found.confusion[0].sum(1).tolist() == torch.bincount(data.labels, minlength=5).tolist()


def test_recomputed_statistics_are_those_of_the_training_images() -> None:
    data, model = images(500), network()
    for norm in model.norms():
        norm.train()
    recompute_statistics(model, data, autocast=OFF)
    x = model.block1_convolution1(data.inputs(torch.arange(500)[None]))
    norm = model.norms()[0]
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, x.var((0, 2, 3)), rtol=0.02)


def test_a_small_last_batch_counts_for_no_more_than_its_images_in_recomputed_statistics() -> None:
    data, model = images(252), network(norm="mean_only")  # batches of 250 and of 2
    for norm in model.norms():
        norm.train()
    recompute_statistics(model, data, autocast=OFF)
    x = model.block1_convolution1(data.inputs(torch.arange(252)[None]))
    assert torch.allclose(model.norms()[0].running_mean, x.mean((0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("norm", sorted(KEEPS_AVERAGES))
def test_looking_at_other_statistics_leaves_the_network_as_it_was(norm: str) -> None:
    data, model = images(), network(norm=norm)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = [(n.momentum, n.training, getattr(n, "clip", None)) for n in model.norms()]
    assert set(evaluate_other_statistics(model, data, data, batch_size=100, autocast=OFF)) == {"recomputed", "batch"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [(n.momentum, n.training, getattr(n, "clip", None)) for n in model.norms()] == attributes


@pytest.mark.parametrize("norm", ["batch", "renorm"])
def test_evaluations_by_the_batch_are_replayed_as_they_are_run(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = images(200), network(norm=norm, num_trials=2)
    replayed = evaluate_other_statistics(model, data, data, batch_size=10, autocast=OFF)["batch"]
    monkeypatch.setattr("normlab.evaluate.Replayed", lambda function, record: function)
    run = evaluate_other_statistics(model, data, data, batch_size=10, autocast=OFF)["batch"]
    assert torch.equal(replayed.loss, run.loss)
    assert torch.equal(replayed.confidence, run.confidence)


def test_untrained_averages_are_wrong_and_recomputed_ones_are_close_to_the_batchs() -> None:
    data = images(1000)
    found = evaluate_other_statistics(network(), data, data, batch_size=500, autocast=OFF)
    moving = evaluate(network(), data, autocast=OFF)
    assert found["recomputed"].loss.item() == pytest.approx(found["batch"].loss.item(), rel=0.01)
    assert moving.loss.item() != pytest.approx(found["batch"].loss.item(), rel=0.01)


def test_a_last_batch_of_one_image_joins_its_neighbour() -> None:
    data = images(101)
    model = network(norm="batch").train()
    assert int(evaluate(model, data, autocast=OFF, batch_size=50).confusion.sum()) == 101
