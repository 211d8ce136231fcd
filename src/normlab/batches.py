"""Batches: the whole set in memory as uint8, gathered by index, scaled and augmented by tensor operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from normlab.augment import training_warps, warp
from normlab.functional import scaled
from normlab.randomness import numpy_generator
from normlab.trial import TrialSpec, examples_per_epoch


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images [N, H, W, C] uint8 and labels [N] int64 on a device, with the scaling that makes them inputs."""

    images: torch.Tensor
    labels: torch.Tensor
    scale: torch.Tensor  # [C]: input = scale · pixel + offset
    offset: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        return self.images.shape[1]

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    def inputs(self, index_TB: torch.Tensor) -> torch.Tensor:
        """Scaled images for T trials, [B, T·C, H, W] in torch's default dtype, channels last in memory."""
        return scaled(self.images, index_TB, self.scale, self.offset)


def as_images(
    images: np.ndarray, labels: np.ndarray, *, pixels: str, reference: np.ndarray, device: torch.device
) -> Images:
    """Moves a set to the device. `pixels` is `unit` (x/255) or `standardized` by the channels of `reference`, the
    training images [N, H, W, C]."""
    channels = images.shape[3]
    mean, std = np.zeros(channels), np.ones(channels)
    if pixels == "standardized":
        mean, std = _channel_moments(reference)
    return Images(
        images=torch.from_numpy(np.array(images)).to(device),  # a copy: the cache on disk is read-only
        labels=torch.from_numpy(np.asarray(labels, np.int64)).to(device),
        scale=torch.tensor(1 / (255 * std), dtype=torch.get_default_dtype(), device=device),
        offset=torch.tensor(-mean / std, dtype=torch.get_default_dtype(), device=device),
    )


def _channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 images [N, H, W, C], pixels as fractions of 255; that of a
    constant channel is 1, so that it becomes zero. From whole numbers, some images at a time: exact, in little memory.
    """
    total = np.zeros((2, images.shape[3]), np.int64)
    for start in range(0, len(images), 256):
        pixels = images[start : start + 256].astype(np.int64)
        total += [pixels.sum((0, 1, 2)), (pixels**2).sum((0, 1, 2))]
    count = images[..., 0].size
    sums, squares = total.astype(object)  # whole numbers of any size: the next line has some beyond 64 bits
    spread = (count * squares - sums**2).astype(np.float64)
    return total[0] / count / 255, np.where(spread > 0, np.sqrt(spread) / count / 255, 1.0)


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order of an epoch, int64 [num_examples], from the seed and the epoch alone."""
    return numpy_generator(seed, "order", epoch).permutation(num_examples)


def training_batches(
    data: Images, specs: Sequence[TrialSpec], epoch: int, *, skip: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of one epoch for T trials, without the first `skip`: inputs [B, T·C, H, W] and labels [B, T]. The
    last may be smaller."""
    for index_TB, warps_TB4 in draw_batches(data, specs, epoch, skip=skip):
        yield fetch(data, index_TB, warps_TB4)


def draw_batches(
    data: Images, specs: Sequence[TrialSpec], epoch: int, *, skip: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """What the batches of an epoch consist of, on the device: each trial's images [T, B], and their warps [T, B, 4]
    where there is augmentation."""
    device, num_images = data.labels.device, len(data)
    total, size = examples_per_epoch(specs[0], num_images), specs[0].batch_size
    order_TN = torch.from_numpy(np.stack([epoch_order(spec.seed, epoch, total) for spec in specs])).to(device)
    warps = [training_warps(spec, num_images, data.image_size, epoch) for spec in specs]
    warps_TN4 = torch.from_numpy(np.stack(warps)).to(device) if warps[0] is not None else None  # type: ignore[arg-type]
    for start in range(skip * size, total, size):
        example_TB = order_TN[:, start : start + size]
        some = None if warps_TN4 is None else warps_TN4.gather(1, example_TB[..., None].expand(-1, -1, 4))
        yield example_TB % num_images, some


def fetch(
    data: Images, index_TB: torch.Tensor, warps_TB4: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [B, T·C, H, W] and labels [B, T] of a batch."""
    x = data.inputs(index_TB)
    if warps_TB4 is not None:
        x = _warp_trials(x, warps_TB4)
    return x, data.labels[index_TB].T


def _warp_trials(x: torch.Tensor, warps_TB4: torch.Tensor) -> torch.Tensor:
    """Warps [B, T·C, H, W] by each trial's own numbers."""
    trials, batch = warps_TB4.shape[:2]
    if trials == 1:
        return warp(x, warps_TB4[0]).contiguous(memory_format=torch.channels_last)
    x_TBCHW = x.reshape(batch, trials, -1, *x.shape[2:]).transpose(0, 1).flatten(0, 1)
    warped = warp(x_TBCHW, warps_TB4.flatten(0, 1)).view(trials, batch, -1, *x.shape[2:])
    return warped.transpose(0, 1).reshape(x.shape).contiguous(memory_format=torch.channels_last)
