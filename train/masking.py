"""Which CFP patches are hidden: only patches inside the field of view are drawn.

Mask polarity, once and for all: True means hidden (removed from the input, scored in
the loss). Patches outside the fundus circle are black by construction; drawing or
scoring them would reward predicting black.
"""

from __future__ import annotations

import torch

from train.arrays import circle_mask, patchify

__all__ = ["expand_mask", "hidden_patches", "in_field_patches"]


def in_field_patches(size_px: int, patch_px: int, *, min_share: float = 0.5) -> torch.Tensor:
    """(T,) bool, True where at least `min_share` of a patch lies inside the circle."""
    circle = circle_mask(size_px).to(torch.float32)[None, None]
    return patchify(circle, patch_px).mean(-1)[0] >= min_share


def hidden_patches(
    num_images: int, in_field: torch.Tensor, ratio: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw exactly round(ratio * in-field count) hidden patches for every image.

    A ratio above 0 hides at least one; a loss needs something to score. The draw is on the
    CPU, so that it does not depend on where the network runs.

    Returns:
        (N, T) bool on `in_field`'s device, True = hidden, never True outside the field.
    """
    device, in_field = in_field.device, in_field.cpu()
    num_hidden = max(1, round(ratio * int(in_field.sum()))) if ratio > 0 else 0
    order = torch.rand(num_images, len(in_field), generator=generator)
    order = order.masked_fill(~in_field, 2.0)
    ranks = order.argsort(dim=1)[:, :num_hidden]
    hidden = torch.zeros(num_images, len(in_field), dtype=torch.bool).scatter_(1, ranks, True)
    return hidden.to(device)


def expand_mask(hidden_nt: torch.Tensor, patch_px: int) -> torch.Tensor:
    """(N, T) patch mask -> (N, 1, S, S) pixel mask of the same dtype."""
    side = round(hidden_nt.shape[1] ** 0.5)
    grid = hidden_nt.reshape(-1, 1, side, side)
    return grid.repeat_interleave(patch_px, 2).repeat_interleave(patch_px, 3)
