"""Patches and pixels: inverses, ranges, and the circle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.arrays import circle_mask, normalize_cfp, patchify, unpatchify


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(1, 3),
    side=st.integers(1, 7),
    patch_px=st.integers(1, 9),
    channels=st.integers(1, 4),
)
def test_unpatchify_undoes_patchify(num, side, patch_px, channels):
    px = side * patch_px
    images = torch.arange(num * channels * px * px, dtype=torch.float32)
    images = images.reshape(num, channels, px, px)
    patches = patchify(images, patch_px)
    assert patches.shape == (num, side**2, patch_px**2 * channels)
    assert torch.equal(unpatchify(patches, patch_px, channels), images)


def test_patches_are_row_major_with_colours_last():
    image = torch.arange(2 * 4 * 6, dtype=torch.float32).reshape(1, 2, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 8)
    for t in range(6):
        row, col = 2 * (t // 3), 2 * (t % 3)
        expected = image[0, :, row : row + 2, col : col + 2].permute(1, 2, 0).flatten()
        assert torch.equal(patches[0, t], expected)


def test_a_side_that_is_no_multiple_is_refused():
    with pytest.raises(ValueError, match="30x32 is not a multiple of the patch 16"):
        patchify(torch.zeros(1, 3, 30, 32), 16)


def test_normalisation_is_exactly_pixel_minus_128_over_64():
    every = torch.arange(256, dtype=torch.uint8)
    images = every.reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    images[..., 1] = 128
    batch = normalize_cfp(images)
    assert batch.dtype == torch.float32
    assert batch.shape == (1, 3, 16, 16)
    assert torch.equal(batch[0, 0].flatten() * 64 + 128, every.float())
    assert not batch[0, 1].any()  # mid grey is zero: what padding and masks stand for


def test_the_circle_is_centred_and_of_the_right_area():
    circle = circle_mask(96)
    assert torch.equal(circle, circle.flip(0))
    assert torch.equal(circle, circle.T)
    assert float(circle.float().mean()) == pytest.approx(0.98**2 * torch.pi / 4, abs=5e-3)
    assert not circle[0, 0]
    assert circle[48, 48]
