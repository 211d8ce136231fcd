"""A picture of augmentation by the code that training uses: the paper's figure 3."""

import numpy as np
import torch
from matplotlib.figure import Figure

from normlab.augment import draw_warps, warp
from normlab.datasets.image_set import ImageSet
from normlab.trial import TrialSpec

DRAWN_COPIES = 2  # the paper's ×3 is the original and two copies


def draw_augmentation(images: ImageSet, spec: TrialSpec, *, count: int = 4) -> Figure:
    """Draws the first image of each of `count` classes: as it is, under each transform alone at the limit that the
    spec sets, and as the copies that a training of this spec makes of it."""
    first = [int(np.flatnonzero(images.train_labels == label)[0]) for label in range(min(count, len(images.classes)))]
    pixels_NHWC = np.asarray(images.train_images[first])
    size, degrees = pixels_NHWC.shape[1], spec.rotation_degrees
    shift = spec.shift_fraction * size
    alone = {
        "original": (0, 0, 0, 0),
        f"rotated\n{degrees:g}°": (degrees, 0, 0, 0),
        f"shifted across\n{100 * spec.shift_fraction:g} %": (0, 0, shift, 0),
        f"shifted down\n{100 * spec.shift_fraction:g} %": (0, -shift, 0, 0),
        "flipped": (0, 0, 0, 1),
    }
    x_NCHW = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).float() / 255
    columns = {
        name: warp(x_NCHW, torch.tensor(four, dtype=torch.float32).expand(len(first), 4))
        for name, four in alone.items()
    }
    for copy in range(1, DRAWN_COPIES + 1):
        warps = draw_warps(spec, len(images.train_labels), size, epoch=0, copy=copy)
        columns[f"all at once\ncopy {copy}"] = warp(x_NCHW, torch.from_numpy(warps[first]))
    figure = Figure(figsize=(1.05 * len(columns), 1.02 * len(first) + 0.5), layout="constrained")
    grid = figure.subplots(len(first), len(columns), squeeze=False)
    for j, (name, column) in enumerate(columns.items()):
        grid[0, j].set_title(name, fontsize=8)
        for i, picture in enumerate(column.permute(0, 2, 3, 1).numpy()):
            grid[i, j].imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            grid[i, j].axis("off")
    return figure
