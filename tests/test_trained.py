"""A trained network out of the store: it classifies as it did when it was tested, and what is not there is said."""

from pathlib import Path

import pytest
import torch

import normlab as api
from normlab import datasets
from normlab.batches import as_images
from normlab.datasets.split import split_images
from normlab.store import Store
from tests.conftest import Run

SETTINGS = ["data=digits", "split=fraction", "network=4K-2C2B-8D-Dropout0.5-10D", "epochs=2", "norm=batch",
            "norm_eps=0.1", "activation=prelu_elementwise", "norm_momentum=0.1"]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, normlab: Run) -> Store:
    assert normlab("train", *SETTINGS, "--store", tmp_path / "trained").returncode == 0
    return Store(tmp_path / "trained")


def test_a_trained_network_is_as_good_as_when_it_was_tested(store: Store) -> None:
    (trial_id,) = store.ids()
    result = store.load(trial_id)
    assert result is not None
    split = split_images(datasets.load("digits"), split="fraction")
    test = as_images(
        split.test_images, split.test_labels, pixels="unit", reference=split.train_images, device=torch.device("cpu")
    )
    with torch.no_grad():
        logits = api.load_network(trial_id, store=store)(test.inputs(torch.arange(len(test))[None]))
    accuracy = (logits.argmax(1) == test.labels).double().mean()
    assert float(accuracy) == result.metrics["test_accuracy"]


def test_weights_that_are_not_there_or_damaged_are_said(store: Store, normlab: Run, tmp_path: Path) -> None:
    with pytest.raises(api.UsageError, match="has no such result"):
        api.load_network("nobody", store=store)
    study = tmp_path / "study.yaml"
    base = ", ".join(text.replace("=", ": ") for text in SETTINGS[:-1])
    study.write_text(f"question: any\nbase: {{{base}}}\nfactors: {{norm_momentum: [0.1]}}\nseeds: 1\n")
    bare = Store(tmp_path / "bare")
    assert "note" not in normlab("run", study, "--store", bare.root).stderr
    (trial_id,) = bare.ids()
    with pytest.raises(api.UsageError, match="its weights were not kept; train it in another store with"):
        api.load_network(trial_id, store=bare)
    again = normlab("run", study, "--store", bare.root, "--save-weights")
    assert "note: weights: 1 finished trial has none" in again.stderr
    (trial_id,) = store.ids()
    path = store.root / "trials" / trial_id / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(api.UsageError, match="is damaged: its SHA-256"):
        api.load_network(trial_id, store=store)
    path.unlink()
    with pytest.raises(api.UsageError, match="is damaged: No such file"):
        api.load_network(trial_id, store=store)
    path.with_name("result.json").write_text("{}")
    with pytest.raises(api.UsageError, match="is damaged"):
        api.load_network(trial_id, store=store)
