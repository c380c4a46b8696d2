"""Structure maps as tokens, the form in which pretraining uses them.

Legend: N pictures, S side, P patch side, T = (S / P)^2 tokens row-major as in
`train.arrays.patchify`, K structures in the order of STRUCTURES.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from train.structure.config import STRUCTURES
from train.structure.field import FloatArray
from train.structure.maps import StructureMaps, structure_maps

__all__ = ["structure_tokens", "token_structure"]


def token_structure(maps: StructureMaps, patch_px: int) -> FloatArray:
    """Mean of every map over every patch.

    Returns:
        (T, K) float32 in [0, 1].

    Raises:
        ValueError: the side is not a multiple of the patch.
    """
    side = maps.fov.shape[0]
    if patch_px < 1 or side % patch_px:
        raise ValueError(f"side {side} is not a multiple of the patch {patch_px}")
    count = side // patch_px
    tiles = maps.stacked().reshape(count, patch_px, count, patch_px, len(STRUCTURES))
    return np.asarray(tiles.mean((1, 3)).reshape(count * count, -1), np.float32)


def structure_tokens(
    images_nhwc: npt.NDArray[np.uint8], patch_px: int, *, eyes: Sequence[str] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Find the structures of many pictures; depends on the pixels (and eyes) only.

    Args:
        images_nhwc: (N, S, S, 3) uint8 RGB, preprocessed by the runtime.
        patch_px: P.
        eyes: N times 'OD' or 'OS' where known; None: the side is found from each picture.

    Returns:
        (N, T, K) float32 maps in [0, 1] and (N, K) float32 confidences, 0 = not found.

    Raises:
        ConfigError: an eye is neither 'OD' nor 'OS'.
        ValueError: shapes do not fit.
    """
    if eyes is not None and len(eyes) != len(images_nhwc):
        raise ValueError(f"{len(eyes)} eyes for {len(images_nhwc)} pictures")
    count = images_nhwc.shape[1] // patch_px
    tokens = np.empty((len(images_nhwc), count * count, len(STRUCTURES)), np.float32)
    quality = np.empty((len(images_nhwc), len(STRUCTURES)), np.float32)
    for position, image in enumerate(images_nhwc):
        eye = None if eyes is None else str(eyes[position])
        maps = structure_maps(image, eye=eye)
        tokens[position] = token_structure(maps, patch_px)
        quality[position] = maps.confidences()
    return tokens, quality
