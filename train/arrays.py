"""From uint8 pictures to the numbers the networks see, and back to patches.

Legend: N images, S side in pixels, P patch side, T = (S / P)^2 patches.
"""

from __future__ import annotations

import torch

__all__ = ["PIXEL_CENTER", "PIXEL_SCALE", "circle_mask", "normalize_cfp", "patchify", "unpatchify"]

# Mid grey maps to 0, so a convolution's zero padding is mid grey before and after the
# normalisation is folded into the exported graph, and INT8 pixels quantise without loss
# (scale exactly 1 on pixel - 128).
PIXEL_CENTER = 128.0
PIXEL_SCALE = 64.0


def normalize_cfp(images_nhwc: torch.Tensor) -> torch.Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32 in [-2, 1.984]."""
    batch_nchw = images_nhwc.permute(0, 3, 1, 2).to(torch.float32)
    return (batch_nchw - PIXEL_CENTER) / PIXEL_SCALE


def patchify(batch_nchw: torch.Tensor, patch_px: int) -> torch.Tensor:
    """(N, C, S, S) -> (N, T, P*P*C), patches in row-major order.

    Raises:
        ValueError: the side is not a multiple of the patch.
    """
    num, channels, height, width = batch_nchw.shape
    if height % patch_px or width % patch_px:
        raise ValueError(f"image {height}x{width} is not a multiple of the patch {patch_px}")
    rows, cols = height // patch_px, width // patch_px
    tiles = batch_nchw.reshape(num, channels, rows, patch_px, cols, patch_px)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(num, rows * cols, -1)


def unpatchify(patches_ntd: torch.Tensor, patch_px: int, channels: int) -> torch.Tensor:
    """Inverse of `patchify` for square images: (N, T, P*P*C) -> (N, C, S, S)."""
    num, count, _ = patches_ntd.shape
    side = round(count**0.5)
    tiles = patches_ntd.reshape(num, side, side, patch_px, patch_px, channels)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(num, channels, side * patch_px, side * patch_px)


def circle_mask(size_px: int, *, radius_fraction: float = 0.98) -> torch.Tensor:
    """(S, S) bool, True inside the fundus circle that preprocessing centres in the square."""
    axis = (torch.arange(size_px, dtype=torch.float32) + 0.5) / size_px * 2 - 1
    return axis[None, :] ** 2 + axis[:, None] ** 2 < radius_fraction**2
