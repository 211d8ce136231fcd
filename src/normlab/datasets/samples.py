"""A picture of samples of each class: the paper's figure 1."""

import numpy as np
from matplotlib.figure import Figure

from normlab.datasets.image_set import ImageSet


def draw_samples(images: ImageSet, *, per_class: int = 10) -> Figure:
    """Draws the first training images of each class, a row a class with its name."""
    classes = len(images.classes)
    name_inches = 0.12 * max(map(len, images.classes)) + 0.2
    figure = Figure(figsize=(name_inches + 0.55 * per_class, 0.55 * classes + 0.4), dpi=150)
    width, height = figure.get_size_inches()
    left, bottom = name_inches / width, 0.02
    usable = 1 - 0.35 / height - bottom
    figure.text(0.02, 1 - 0.12 / height, f"{images.name}: training images", va="top", fontsize=9)
    for label, name in enumerate(images.classes):
        axes = figure.add_axes(
            (left, bottom + usable * (classes - 1 - label) / classes, 1 - left - 0.01, usable / classes * 0.96)
        )
        index = np.flatnonzero(images.train_labels == label)[:per_class]
        strip = [
            np.pad(
                images.train_images[i],
                ((0, 0), (0, max(1, images.train_images.shape[2] // 16)), (0, 0)),
                constant_values=255,
            )
            for i in index
        ]
        pixels = np.concatenate(strip, axis=1) if strip else np.full((1, 1, 3), 255, np.uint8)
        axes.imshow(
            pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest"
        )
        axes.set_anchor("W")
        axes.axis("off")
        figure.text(
            left - 0.1 / width,
            bottom + usable * (classes - 0.5 - label) / classes,
            name,
            ha="right",
            va="center",
            fontsize=9,
        )
    return figure
