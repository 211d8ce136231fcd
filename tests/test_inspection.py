"""A look into one trial: numbers that agree with its record, and pictures of the right images."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normlab.errors import UsageError
from normlab.inspection import (
    class_rows,
    draw_confusion,
    draw_mistakes,
    find_trial,
    load_split_of,
    load_trial,
    macro_accuracy,
    write_inspection,
)
from normlab.result import Details, Mistake, Result
from normlab.store import Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TRIAL = (
    "data=digits",
    "split=fraction",
    "network=4K-1C1B-10D",
    "norm=none",
    "epochs=1",
    "learning_rate=1e-3",
    "seed=0",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one trial of the digits, trained for an epoch by the command line."""
    folder = tmp_path_factory.mktemp("inspection")
    command = [sys.executable, "-m", "normlab", "train", *TRIAL, "--store", str(folder / "store")]
    subprocess.run(command, check=True, capture_output=True)
    return Store(folder / "store")


@pytest.fixture(scope="module")
def trial(store: Store) -> tuple[Result, Details]:
    return load_trial(store, store.ids()[0])


def test_a_trial_is_found_by_any_part_of_its_id_that_no_other_has(store: Store) -> None:
    (whole,) = store.ids()
    for part in (whole, whole[:12], whole[-12:]):
        assert find_trial(store, part) == whole
    with pytest.raises(UsageError, match=f"there is none with that in its id.*{whole}"):
        find_trial(store, "nothing-like-it")


def test_a_part_of_several_ids_names_them_and_an_empty_store_says_so(store: Store, tmp_path: Path) -> None:
    for name in ("digits-a-1", "digits-b-2"):
        (tmp_path / "trials" / name).mkdir(parents=True)
    with pytest.raises(UsageError, match="2 trials have that in their ids; write more of it: digits-a-1, digits-b-2"):
        find_trial(Store(tmp_path), "digits")
    with pytest.raises(UsageError, match="holds no finished trial yet"):
        find_trial(Store(tmp_path / "empty"), "digits")


def test_a_trial_without_predictions_says_why(store: Store, trial: tuple[Result, Details], tmp_path: Path) -> None:
    result = trial[0]
    other = Store(tmp_path / "store")
    other.require_writable()
    other.save(replace(result, status="diverged", diverged_epoch=3, details=Details()))
    with pytest.raises(UsageError, match="diverged in epoch 3"):
        load_trial(other, result.id)
    (other.root / "trials" / result.id / "result.json").write_text("{}")
    with pytest.raises(UsageError, match="is damaged"):
        load_trial(other, result.id)


def test_classes_add_up_to_the_accuracy_of_the_trial(trial: tuple[Result, Details]) -> None:
    result, details = trial
    rows = class_rows(details)
    assert sum(row["images"] for row in rows) == result.metrics["num_test"]
    assert sum(row["right"] for row in rows) / result.metrics["num_test"] == result.metrics["test_accuracy"]
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)
    assert all(row["taken for"] != row["class"] for row in rows)


def test_the_mean_over_classes_weighs_classes_alike_and_leaves_out_empty_ones() -> None:
    details = Details(classes=("a", "b", "c"), confusion=[[90, 10, 0], [5, 5, 0], [0, 0, 0]])
    assert macro_accuracy(details) == pytest.approx((0.9 + 0.5) / 2)
    rows = class_rows(details)
    assert (rows[1]["taken for"], rows[1]["times"], rows[2]["accuracy"]) == ("a", 5, None)
    # Wilson's interval of 5 in 10, by hand: (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n) = 0.5 ± 0.26341
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx((0.23659, 0.76341), abs=1e-5)


def test_the_pictures_of_mistakes_are_the_images_the_record_names(trial: tuple[Result, Details]) -> None:
    result, details = trial
    split = load_split_of(result.spec)
    assert all(split.test_labels[mistake.image] == mistake.true for mistake in details.mistakes)
    figure = draw_mistakes(result, details, split)
    for axes, mistake in zip(figure.axes, details.mistakes, strict=False):
        drawn = np.asarray(axes.images[0].get_array())
        assert np.array_equal(drawn, split.test_images[mistake.image].squeeze())
        assert details.classes[mistake.true] in axes.get_title("left")


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_confusion_matrix_is_drawn_for_few_and_for_many_classes(trial: tuple[Result, Details], classes: int) -> None:
    confusion = (np.eye(classes, dtype=int) * 7 + 1).tolist()
    details = Details(classes=tuple(f"class {i}" for i in range(classes)), confusion=confusion)
    axes = draw_confusion(trial[0], details).axes[0]
    assert len(axes.texts) == (classes**2 if classes <= 20 else 0)
    assert len(axes.get_xticks()) <= 50


def test_without_its_data_a_trial_still_shows_its_confusion(trial: tuple[Result, Details], tmp_path: Path) -> None:
    result, details = trial
    elsewhere = replace(result, spec=result.spec.model_copy(update={"data_fingerprint": "another"}))
    written, why = write_inspection(elsewhere, details, tmp_path / "out")
    assert [path.name for path in written] == ["classes.csv", "confusion.svg", "confusion.png"]
    assert "not what the trial saw" in why
    written, why = write_inspection(result, details, tmp_path / "all")
    assert why == ""
    assert {path.name for path in written} >= {"mistakes.svg", "mistakes.png"}
    assert "no mistakes are on record" in write_inspection(result, replace(details, mistakes=[]), tmp_path / "none")[1]


def test_records_keep_their_mistakes_through_the_store(trial: tuple[Result, Details]) -> None:
    assert trial[1].mistakes
    assert isinstance(trial[1].mistakes[0], Mistake)


def test_inspect_prints_classes_and_needs_no_torch(store: Store, here: Run) -> None:
    done = here("inspect", store.ids()[0][-12:], "--store", store.root, "--json")
    tree: dict[str, Any] = json.loads(done.stdout)
    assert tree["macro_accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in tree["by_class"]]))
    code = (
        "import sys; from normlab.cli import commands\n"
        f"commands.main(['inspect', {store.ids()[0]!r}, '--store', {str(store.root)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "95% Wilson interval" in shown
    assert here("inspect", "nonsense", "--store", store.root).returncode == 2
