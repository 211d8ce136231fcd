"""The warp against Keras's golden images, and what the draws promise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from normlab.augment import draw_warps, training_warps, warp
from normlab.trial import TrialSpec, make_spec

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment_keras.npz")


def spec(**settings: object) -> TrialSpec:
    return make_spec({"data": "x", "network": "10D", "epochs": 1, "augment": "on_the_fly", **settings})


@pytest.mark.parametrize("case", range(4))
def test_rotation_shift_and_flip_give_kerass_pixels(case: int) -> None:
    image = torch.from_numpy(GOLDEN["image_hwc"]).permute(2, 0, 1)[None]
    warps = torch.from_numpy(GOLDEN[f"case{case}/params_theta_tx_ty_flip"])[None].float()
    ours = warp(image, warps, centre=0.5)[0].permute(1, 2, 0).numpy()
    expected = GOLDEN[f"case{case}/out"]
    assert np.abs(ours - expected).max() < 1e-3 * max(1.0, np.abs(expected).max())


def test_no_warp_is_the_identity_and_keeps_the_memory_layout() -> None:
    images = torch.rand(3, 2, 9, 9).contiguous(memory_format=torch.channels_last)
    assert torch.allclose(warp(images, torch.zeros(3, 4)), images, atol=1e-5)


def test_a_quarter_turn_about_the_middle_moves_every_pixel_onto_a_pixel() -> None:
    images = torch.rand(1, 1, 8, 8)
    turned = warp(images, torch.tensor([[90.0, 0, 0, 0]]))
    assert torch.allclose(turned, images.rot90(1, (2, 3)), atol=1e-5) or torch.allclose(
        turned, images.rot90(-1, (2, 3)), atol=1e-5
    )


def test_a_shift_by_whole_pixels_repeats_the_edge() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4)
    down = warp(images, torch.tensor([[0.0, 1, 0, 0]]))
    assert torch.allclose(down[0, 0, :3], images[0, 0, 1:], atol=1e-5)
    assert torch.allclose(down[0, 0, 3], images[0, 0, 3], atol=1e-5)


def test_draws_stay_in_their_ranges_and_use_all_of_them() -> None:
    warps = draw_warps(spec(), 5000, 32, epoch=1, copy=0)
    for column, limit in ((0, 70.0), (1, 3.2), (2, 3.2)):
        assert -limit <= warps[:, column].min() < -0.95 * limit
        assert 0.95 * limit < warps[:, column].max() <= limit
    assert set(np.unique(warps[:, 3])) == {0.0, 1.0}
    assert 0.45 < warps[:, 3].mean() < 0.55
    assert not draw_warps(spec(horizontal_flip=False), 100, 32, epoch=1, copy=0)[:, 3].any()


def test_fixed_copies_keep_the_original_first_and_do_not_depend_on_the_epoch() -> None:
    trial = spec(augment="copies", copies=3)
    first, later = (training_warps(trial, 10, 32, epoch) for epoch in (1, 7))
    assert first is not None
    assert first.shape == (30, 4)
    assert not first[:10].any()
    assert np.array_equal(first, later)
    assert not np.array_equal(first[10:20], first[20:])
