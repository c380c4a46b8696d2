"""Thin masks to centre lines one pixel wide, without breaking or joining anything.

The two-subiteration thinning of Guo and Hall (Communications of the ACM 32, 1989), their
algorithm A1, which is proven to keep connectivity. A pixel's fate depends on its eight
neighbours only, so it is read from a table of 256 entries, for all images at once.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["skeletonize"]

BoolArray = npt.NDArray[np.bool_]

# P2 ... P9 of the paper as (row, column): clockwise from the pixel above.
_NEIGHBORS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def skeletonize(masks_nss: BoolArray) -> BoolArray:
    """Thin every mask until nothing can be taken away.

    Args:
        masks_nss: (N, H, W) bool.

    Returns:
        (N, H, W) bool, a subset of the masks. Connected masks (8 neighbours) stay connected,
        holes stay holes, and nothing that is not empty vanishes.
    """
    if masks_nss.ndim != 3:
        raise ValueError(f"masks have shape {masks_nss.shape}; give (N, H, W)")
    padded = np.pad(masks_nss, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    active = np.arange(len(padded))
    while active.size:
        images = padded[active]
        before = images.sum((1, 2), dtype=np.int64)
        for table in _tables():
            images &= table[_codes(images)]
        padded[active] = images
        active = active[images.sum((1, 2), dtype=np.int64) < before]
    return padded[:, 1:-1, 1:-1].astype(np.bool_)


def _codes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Bit k of a pixel is its neighbour k; 0 at the padding's rim."""
    codes = np.zeros_like(images)
    height, width = images.shape[1:]
    inner = codes[:, 1:-1, 1:-1]
    for bit, (row, column) in enumerate(_NEIGHBORS):
        shifted = images[:, 1 + row : height - 1 + row, 1 + column : width - 1 + column]
        inner |= shifted << np.uint8(bit)
    return codes


@lru_cache(maxsize=1)
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """For both subiterations: 0 where a pixel with these neighbours is taken away, else 1.

    A pixel goes when it joins exactly one run of neighbours (C = 1), is neither an end nor
    inside (2 <= N <= 3), and lies on the side that this subiteration peels (m = 0).
    """
    p2, p3, p4, p5, p6, p7, p8, p9 = (np.arange(256) >> np.arange(8)[:, None] & 1).astype(bool)
    runs = sum(
        (~a & (b | c)).astype(int)
        for a, b, c in ((p2, p3, p4), (p4, p5, p6), (p6, p7, p8), (p8, p9, p2))
    )
    first = (p9 | p2).astype(int) + (p3 | p4) + (p5 | p6) + (p7 | p8)
    second = (p2 | p3).astype(int) + (p4 | p5) + (p6 | p7) + (p8 | p9)
    count = np.minimum(first, second)
    simple = (runs == 1) & (count >= 2) & (count <= 3)
    sides = ((p2 | p3 | ~p5) & p4, (p6 | p7 | ~p9) & p8)
    odd, even = ((~(simple & ~side)).astype(np.uint8) for side in sides)
    return odd, even
