"""Augmentation by rotation, shifts and flip, composed into one warp of the batch: bilinear, edge pixels repeated.

The geometry is that of Keras's `ImageDataGenerator`. A warp is four numbers an image; they are drawn once for fixed
copies (the paper's ×3) or anew every epoch.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from normlab.randomness import numpy_generator
from normlab.trial import TrialSpec

# Where the grid is centred, from half the size: −0.5 is the middle of the pixels. Keras of the paper's time had +0.5,
# one pixel off; the golden vectors carry that version.
CENTRE = -0.5


def draw_warps(spec: TrialSpec, num_images: int, image_size: int, *, epoch: int, copy: int) -> np.ndarray:
    """Random warps, float32 [N, 4]: rotation in degrees, shift of rows and of columns in pixels, flip 0 or 1."""
    generator = numpy_generator(spec.seed, "augmentation", epoch, copy)
    uniform = generator.random((num_images, 4), dtype=np.float32)
    shift = 2 * spec.shift_fraction * image_size
    warps = (uniform - 0.5) * np.array([2 * spec.rotation_degrees, shift, shift, 0], np.float32)
    warps[:, 3] = uniform[:, 3] < 0.5 if spec.horizontal_flip else 0
    return warps


def training_warps(spec: TrialSpec, num_images: int, image_size: int, epoch: int) -> np.ndarray | None:
    """The warps of one epoch over the augmented set, [num_images · copies, 4], or None without augmentation.

    With copies, image i of copy c stands at row c · num_images + i, copy 0 is the original, and epochs do not differ.
    """
    if spec.augment == "none":
        return None
    if spec.augment == "on_the_fly":
        return draw_warps(spec, num_images, image_size, epoch=epoch, copy=0)
    original = np.zeros((num_images, 4), np.float32)
    copies = [draw_warps(spec, num_images, image_size, epoch=0, copy=copy) for copy in range(1, spec.copies)]
    return np.concatenate([original, *copies])


def warp(images_NCHW: torch.Tensor, warps_N4: torch.Tensor, *, centre: float = CENTRE) -> torch.Tensor:
    """Warps each image by its own numbers; the output is float, of the same shape and memory layout.

    Output pixel o takes the input at R(θ) (o − c + t) + c, where c is the centre and t the shift: rotation about the
    centre, content moved by −t along the rotated axes; the flip of columns comes last.
    """
    height, width = images_NCHW.shape[2:]
    warps_N4 = warps_N4.to(images_NCHW.dtype)
    theta, shift_rows, shift_columns, flip = warps_N4.unbind(1)
    cos, sin = torch.cos(theta * (math.pi / 180)), torch.sin(theta * (math.pi / 180))
    centre_row, centre_column = height / 2 + centre, width / 2 + centre
    rows = torch.arange(height, device=images_NCHW.device, dtype=warps_N4.dtype)
    columns = torch.arange(width, device=images_NCHW.device, dtype=warps_N4.dtype)
    flipped_NW = torch.where(flip[:, None] > 0.5, width - 1 - columns, columns)
    row_NH = rows - centre_row + shift_rows[:, None]
    column_NW = flipped_NW - centre_column + shift_columns[:, None]
    source_row = cos[:, None, None] * row_NH[:, :, None] - sin[:, None, None] * column_NW[:, None, :] + centre_row
    source_column = sin[:, None, None] * row_NH[:, :, None] + cos[:, None, None] * column_NW[:, None, :] + centre_column
    # grid_sample wants x before y, in −1 … 1 from the middle of the first pixel to that of the last.
    grid_NHW2 = torch.stack(
        [source_column * (2 / max(width - 1, 1)) - 1, source_row * (2 / max(height - 1, 1)) - 1], dim=-1
    )
    return F.grid_sample(images_NCHW, grid_NHW2, mode="bilinear", padding_mode="border", align_corners=True)
