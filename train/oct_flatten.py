"""Flatten OCT B-scans to Bruch's membrane, found from the image alone.

Raw B-scans differ mostly by where the retina lies in the frame and how it is
tilted, which says nothing about disease. Moving every column so that Bruch's
membrane lies on one row removes that. The membrane is the lower edge of the
bright retinal pigment epithelium; dynamic programming finds the best smooth path
of bright-above, darker-below pixels. Nothing but the image is used.

Axes: N scans, Z depth (rows, top is vitreous), X lateral (columns).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["bruch_rows", "flatten_to_rows"]

FloatArray = npt.NDArray[np.float32]

_BAND_FRACTION = 0.031  # thickness of the bright band above the edge, of Z
_CHOROID_FRACTION = 0.052  # thickness of the choroid looked at below the edge, of Z
_CONTRAST_CAP = 1.5  # a fluid-filled cavity has more contrast than the membrane: cap it
_STEP_COST = 0.05  # price of one row of change between columns, in standard deviations
_MAX_STEP_ROWS = 1  # largest change of the path between neighbouring columns


def _membrane_score(scan_zx: npt.NDArray[np.uint8]) -> FloatArray:
    """How much each pixel looks like the lower edge of the epithelium; (Z, X) float32.

    Brightness of the band above (the epithelium is the brightest layer), plus its
    capped contrast to the choroid below, plus a depth prior: the nerve fibre layer
    is bright too but lies on top.
    """
    num_rows = scan_zx.shape[0]
    above = max(2, round(_BAND_FRACTION * num_rows))
    below = max(3, round(_CHOROID_FRACTION * num_rows))
    smooth = cv2.blur(scan_zx.astype(np.float32), (9, 1))
    sums = np.vstack([np.zeros((1, smooth.shape[1]), np.float32), smooth.cumsum(0)])
    row = np.arange(num_rows)
    top, bottom = np.maximum(row - above, 0), np.minimum(row + below, num_rows)
    upper = (sums[row] - sums[top]) / np.maximum(row - top, 1)[:, None]
    lower = (sums[bottom] - sums[row]) / np.maximum(bottom - row, 1)[:, None]
    spread = max(float(smooth.std()), 1e-3)
    brightness = (upper - smooth.mean()) / spread
    contrast = np.minimum((upper - lower) / spread, _CONTRAST_CAP)
    score: FloatArray = (brightness + contrast + (row / num_rows)[:, None]).astype(np.float32)
    return score


def _best_paths(score_nzx: FloatArray) -> npt.NDArray[np.int64]:
    """Row of the best smooth path in every column; (N, X) int64."""
    num, num_rows, num_cols = score_nzx.shape
    best = score_nzx[:, :, 0].copy()
    came_from = np.empty((num_cols, num, num_rows), np.int8)
    for x in range(1, num_cols):
        padded = np.pad(best, ((0, 0), (_MAX_STEP_ROWS,) * 2), constant_values=-np.inf)
        steps = range(2 * _MAX_STEP_ROWS + 1)
        options = np.stack(
            [padded[:, s : s + num_rows] - _STEP_COST * abs(s - _MAX_STEP_ROWS) for s in steps]
        )
        choice = options.argmax(0)
        came_from[x] = choice - _MAX_STEP_ROWS
        best = np.take_along_axis(options, choice[None], 0)[0] + score_nzx[:, :, x]
    path = np.empty((num, num_cols), np.int64)
    path[:, -1] = best.argmax(1)
    for x in range(num_cols - 1, 0, -1):
        path[:, x - 1] = path[:, x] + came_from[x, np.arange(num), path[:, x]]
    return path


def bruch_rows(scans_nzx: npt.NDArray[np.uint8]) -> FloatArray:
    """Estimate the row of Bruch's membrane in every column of every scan.

    Args:
        scans_nzx: (N, Z, X) uint8 B-scans, vitreous on top.

    Returns:
        (N, X) float32 rows, smoothed over neighbouring columns.
    """
    score_nzx = np.stack([_membrane_score(scan_zx) for scan_zx in scans_nzx])
    path = _best_paths(score_nzx).astype(np.float32)
    smooth = cv2.blur(path, (9, 1), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth, np.float32).reshape(path.shape)


def flatten_to_rows(
    scans_nzx: npt.NDArray[np.uint8], rows_nx: FloatArray, *, target_fraction: float = 0.78
) -> FloatArray:
    """Shift every column so that `rows_nx` lands on one row.

    Args:
        scans_nzx: (N, Z, X) uint8 B-scans.
        rows_nx: (N, X) float32 row of the boundary.
        target_fraction: where the boundary goes, as a fraction of Z.

    Returns:
        (N, Z, X) float32 in 0..255; what leaves the frame is repeated from its border.
    """
    num, num_rows, num_cols = scans_nzx.shape
    out = np.empty(scans_nzx.shape, np.float32)
    grid_x, grid_z = np.meshgrid(
        np.arange(num_cols, dtype=np.float32), np.arange(num_rows, dtype=np.float32)
    )
    for i in range(num):
        source_z = grid_z + (rows_nx[i] - np.float32(target_fraction * num_rows))[None]
        out[i] = cv2.remap(
            scans_nzx[i].astype(np.float32),
            grid_x,
            source_z,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return out
