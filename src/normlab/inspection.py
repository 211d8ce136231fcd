"""One finished trial: its confusion matrix, its accuracy by class, and its surest mistakes as pictures.

All of it was stored when the trial ended; only the pictures need the data set. Imports no torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from normlab import datasets
from normlab.datasets.split import Split, split_images
from normlab.errors import UsageError, nearest
from normlab.pictures import STYLE, picture
from normlab.result import Details, Result
from normlab.rows import to_csv
from normlab.stats import wilson_interval
from normlab.store import Store
from normlab.trial import TrialSpec
from normlab.wording import interval_words, percent

MAX_CELLS = 20  # classes up to which the cells of a confusion matrix bear their numbers
SHOWN = 5  # candidates in a message


def find_trial(store: Store, text: str) -> str:
    """The id of the one finished trial whose id holds `text`: all of it, its beginning, or the hash at its end."""
    ids = store.ids()
    if not ids:
        raise UsageError(f"store {store.root}: it holds no finished trial yet; `normlab run STUDY` makes some")
    found = [text] if text in ids else [known for known in ids if text in known]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"trial '{text}': there is none with that in its id{nearest(text, ids)}; {_some(ids)}")
    raise UsageError(f"trial '{text}': {len(found)} trials have that in their ids; write more of it: {_some(found)}")


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{', '.join(ids[:SHOWN])}{more}"


def load_trial(store: Store, text: str) -> tuple[Result, Details]:
    """A finished trial with its details. Raises UsageError where it diverged, is damaged, or is not there."""
    trial_id = find_trial(store, text)
    try:
        result = store.load(trial_id, details=True)
    except ValueError as error:
        raise UsageError(f"{error}; `normlab store check --repair` sets it aside, to be trained again") from None
    assert result is not None
    if result.status == "diverged":
        raise UsageError(f"trial {trial_id}: it diverged in epoch {result.diverged_epoch}, and predicts nothing")
    if result.details is None or not result.details.confusion:
        raise UsageError(f"trial {trial_id}: its record holds no predictions")
    return result, result.details


def class_rows(details: Details) -> list[dict[str, Any]]:
    """One row a class: test images, how many were right, that share with its 95 % Wilson interval (1927), and the class
    that its images were most often taken for."""
    rows = []
    for label, (name, counts) in enumerate(zip(details.classes, details.confusion, strict=True)):
        images, right = sum(counts), counts[label]
        interval = wilson_interval(right, images)
        others = [0 if other == label else count for other, count in enumerate(counts)]
        worst = int(np.argmax(others))
        rows.append(
            {
                "class": name,
                "images": images,
                "right": right,
                "accuracy": right / images if images else None,
                "low": interval[0] if interval else None,
                "high": interval[1] if interval else None,
                "taken for": details.classes[worst] if others[worst] else None,
                "times": others[worst],
            }
        )
    return rows


def macro_accuracy(details: Details) -> float:
    """The mean over classes of the share of their test images that were right: the paper's measure in §4.5."""
    return float(np.mean([row["accuracy"] for row in class_rows(details) if row["accuracy"] is not None]))


def class_words(details: Details) -> list[dict[str, Any]]:
    """The rows of classes for a terminal, accuracies in per cent."""
    return [
        {
            "class": row["class"],
            "images": row["images"],
            "accuracy (%)": None if row["accuracy"] is None else percent(row["accuracy"]),
            "95% Wilson interval": interval_words(row["low"], row["high"]),
            "most often taken for": None if row["taken for"] is None else f"{row['taken for']} ({row['times']})",
        }
        for row in class_rows(details)
    ]


def write_inspection(result: Result, details: Details, folder: Path) -> tuple[list[Path], str]:
    """Writes classes.csv, confusion.svg and .png, and mistakes.svg and .png. Returns what was written, and why there
    are no pictures of mistakes where there are none."""
    figures = {"confusion": draw_confusion(result, details)}
    why = ""
    if not details.mistakes:
        why = "no mistakes are on record: all answers were right, or an older version trained it"
    else:
        try:
            figures["mistakes"] = draw_mistakes(result, details, load_split_of(result.spec))
        except UsageError as error:  # such as data that is not here any more
            why = str(error)
    content = {"classes.csv": to_csv(class_rows(details)).encode()}
    content |= {f"{name}{kind}": picture(figure, kind) for name, figure in figures.items() for kind in (".svg", ".png")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in content], why


def load_split_of(spec: TrialSpec) -> Split:
    """The split of a trial, from the same data that it was trained on."""
    images = datasets.load(spec.data, image_size=spec.image_size)
    if images.fingerprint != spec.data_fingerprint:
        raise UsageError(f"data {spec.data}: it is not what the trial saw ({spec.data_fingerprint}); no pictures")
    return split_images(
        images,
        split=spec.split,
        test_fraction=spec.test_fraction,
        train_images=spec.train_images,
        test_images=spec.test_images,
        seed=spec.split_seed,
    )


def draw_confusion(result: Result, details: Details) -> Figure:
    """Rows are true classes, columns the predicted; shades are shares of a row, numbers in cells count images."""
    counts = np.array(details.confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(details.classes)
    inches = min(2.2 + 0.42 * size, 12.0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(inches + 1.2, inches), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
        every = max(1, size // 50)
        ticks = list(range(0, size, every))
        names = [name if len(name) <= 18 else f"{name[:17]}…" for name in details.classes]
        axes.set_xticks(ticks, [names[i] for i in ticks], rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, [names[i] for i in ticks])
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if size <= MAX_CELLS:
            for i in range(size):
                for j in range(size):
                    colour = "white" if shares[i, j] > 0.5 else "black"
                    axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=7.5)
        figure.colorbar(shown, ax=axes, label="share of the true class (%)", shrink=0.8)
        accuracy = np.trace(counts) / counts.sum()
        axes.set_title(f"{_wrapped(result.id)}\n{percent(float(accuracy))} % of {counts.sum():,} test images right")
    return figure


def draw_mistakes(result: Result, details: Details, split: Split) -> Figure:
    """The mistakes of highest probability, surest first, row by row, with true and predicted class."""
    if max(mistake.image for mistake in details.mistakes) >= len(split.test_images):
        raise UsageError(f"trial {result.id}: its mistakes are of images that its data do not have")
    columns = min(5, len(details.mistakes))
    rows = -(-len(details.mistakes) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.9 * columns + 0.2, 2.15 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, mistake in zip(grid.flat, details.mistakes, strict=False):
            pixels = np.asarray(split.test_images[mistake.image])
            axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            true, predicted = details.classes[mistake.true], details.classes[mistake.predicted]
            axes.set_title(f"{true}\ntaken for {predicted}\n{100 * mistake.confidence:.1f} %", loc="left", fontsize=8)
        figure.suptitle(f"Surest mistakes of\n{_wrapped(result.id)}", fontsize=9)
    return figure


def _wrapped(trial_id: str) -> str:
    """An id in lines that fit above a small figure."""
    words, lines = trial_id.split("-"), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 44:
            lines.append("")
        lines[-1] += word + "-"
    return "\n".join(lines).removesuffix("-")
