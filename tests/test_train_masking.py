"""Which patches are hidden: exact counts, inside the field only, one draw an image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.arrays import circle_mask, patchify
from train.masking import expand_mask, hidden_patches, in_field_patches


@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(2, 14),
    ratio=st.floats(0.0, 0.99),
    num=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_counts_are_exact_and_the_outside_is_never_hidden(side, ratio, num, seed):
    in_field = in_field_patches(16 * side, 16)
    hidden = hidden_patches(num, in_field, ratio, torch.Generator().manual_seed(seed))
    assert hidden.dtype == torch.bool
    expected = max(1, round(ratio * int(in_field.sum()))) if ratio > 0 else 0
    assert hidden.sum(1).tolist() == [expected] * num
    assert not (hidden & ~in_field).any()


def test_in_field_patches_against_counting_pixels():
    in_field = in_field_patches(96, 16)
    shares = patchify(circle_mask(96).float()[None, None], 16)[0].mean(1)
    assert torch.equal(in_field, shares >= 0.5)
    assert [bool(in_field[t]) for t in (0, 5, 30, 35)] == [False] * 4
    assert int(in_field.sum()) == 32


def test_images_draw_apart_and_a_generator_draws_again():
    in_field = in_field_patches(96, 16)
    first = hidden_patches(64, in_field, 0.5, torch.Generator().manual_seed(5))
    again = hidden_patches(64, in_field, 0.5, torch.Generator().manual_seed(5))
    other = hidden_patches(64, in_field, 0.5, torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(torch.unique(first, dim=0)) == 64


def test_every_patch_of_the_field_is_hidden_equally_often():
    in_field = in_field_patches(96, 16)
    hidden = hidden_patches(4000, in_field, 0.5, torch.Generator().manual_seed(0))
    share = hidden.float().mean(0)[in_field]
    assert float((share - 0.5).abs().max()) < 0.04  # five standard errors


def test_expanding_a_mask_is_the_inverse_of_patches():
    hidden = hidden_patches(
        3, torch.ones(16, dtype=torch.bool), 0.5, torch.Generator().manual_seed(1)
    )
    pixels = expand_mask(hidden, 4)
    assert pixels.shape == (3, 1, 16, 16)
    assert pixels.dtype == torch.bool
    patches = patchify(pixels, 4)
    assert torch.equal(patches.all(-1), hidden)
    assert torch.equal(patches.any(-1), hidden)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_ratio_is_of_the_field_and_not_of_the_square(ratio):
    in_field = in_field_patches(96, 16)
    hidden = hidden_patches(1, in_field, ratio, torch.Generator())
    assert int(hidden.sum()) == round(ratio * 32)
