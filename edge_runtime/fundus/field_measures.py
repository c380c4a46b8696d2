"""Cheap statistics of the field of view, on one small canonical square.

They do not depend on the model's input size, and only what lies inside the field counts.
N is the canonical side in pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["CANONICAL_PX", "canonical_square", "measure_field"]

CANONICAL_PX = 96

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_FIELD_FRACTION = 0.9  # of the half side: clear of the rim's vignette and of the mask's edge
_BURNT_LEVEL = 250  # of the green channel, which saturates last in a fundus
_BLACK_LEVEL = 12  # of luma: camera black plus JPEG noise
_DETAIL_SIGMA_PX = 2.0  # of the canonical square: vessels are narrower, shading is wider
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601
_WARM_TOLERANCE = 3  # levels by which green may exceed red, and blue green
_LOG_OFFSET = 8.0  # levels; keeps noise of a dark field from becoming contrast
_SHADOW, _GLARE = 0.4, 1.8  # of the field's median luma
_STEP_CONTRAST, _MIN_STEP = 0.06, 2.5  # of a channel's mean, and levels
_MIN_STEP_WIDTH = 32  # canonical pixels: a short chord near the rim shows nothing
_STEP_MARGIN = 7  # side of the erosion that keeps dark edges of the field out of the steps


class _Field(NamedTuple):
    """(3, N, N) planes, luma, and where the field is, is lit, and is lit one pixel around.

    Planes, because NumPy reduces over a short last axis twenty times slower.
    """

    planes: Floats
    luma: Floats
    inside: Mask
    lit: Mask
    core: Mask


def canonical_square(image_hwc: Pixels) -> Pixels:
    """(N, N, 3) uint8: the square that every statistic is taken on."""
    if image_hwc.shape[:2] == (CANONICAL_PX, CANONICAL_PX):
        return image_hwc
    side = (CANONICAL_PX, CANONICAL_PX)
    # Enlarged, the area method repeats pixels, which would look like lost data.
    method = cv2.INTER_AREA if image_hwc.shape[0] > CANONICAL_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image_hwc, side, interpolation=method), np.uint8)


def measure_field(image_hwc: Pixels) -> dict[str, float]:
    """Measure colour, brightness, detail and artefacts inside the field.

    Args:
        image_hwc: (S, S, 3) uint8 RGB, black outside the field.

    Returns:
        Every statistic by name; shares are of the field, `docs/vendor.md` explains each.
    """
    small = canonical_square(image_hwc)
    field = _make_field(small)
    return {**_colour(field), **_texture(field), **_artefacts(small, field)}


def _make_field(small: Pixels) -> _Field:
    planes = np.stack(cv2.split(small)).astype(np.float32)
    luma = np.tensordot(_LUMA, planes, 1)
    inside = _inside(CANONICAL_PX)
    lit = inside & (luma >= _BLACK_LEVEL)
    core = cv2.erode(lit.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return _Field(planes, luma, inside, lit, core)


def _colour(field: _Field) -> dict[str, float]:
    red, green, blue = (plane[field.inside] for plane in field.planes)
    luma = field.luma[field.inside]
    is_lit = luma >= _BLACK_LEVEL
    brightness = max(float(luma.mean()), 1.0)
    is_warm = (red >= green - _WARM_TOLERANCE) & (green >= blue - _WARM_TOLERANCE)
    top = np.maximum(np.maximum(red, green), blue)
    spread = top - np.minimum(np.minimum(red, green), blue)
    return {
        "colour": float(spread.mean()) / max(float(top.mean()), 1.0),
        "red_excess": float(red.mean() - blue.mean()) / brightness,
        "warm_share": _share(is_warm & is_lit, is_lit),
        "hue_spread": _hue_spread(red[is_lit], green[is_lit], blue[is_lit]),
        "luma": float(np.median(luma)),
        "black_share": 1 - _share(is_lit, field.inside),
        "burnt_share": _share(green >= _BURNT_LEVEL, field.inside),
    }


def _hue_spread(red: Floats, green: Floats, blue: Floats) -> float:
    """Three quarters of the pixels lie this close to the median of R and G over R + G + B."""
    if len(red) == 0:
        return 0.0
    scale = np.asarray(1 / (red + green + blue + 1), np.float32)
    away_red = _from_median(np.asarray(red * scale, np.float32))
    away_green = _from_median(np.asarray(green * scale, np.float32))
    squared = np.asarray(away_red * away_red + away_green * away_green, np.float32)
    return float(np.sqrt(_quantile(squared, 0.75)))


def _from_median(values: Floats) -> Floats:
    return np.asarray(values - _quantile(values, 0.5), np.float32)


def _quantile(values: Floats, share: float) -> float:
    """The value that this share of the values does not exceed; no interpolation, for speed."""
    at = int(share * (len(values) - 1))
    return float(np.partition(values, at)[at])


def _texture(field: _Field) -> dict[str, float]:
    """Contrast finer than shading; the gradient of log luma, per canonical pixel."""
    if not field.core.any():
        return {"detail": 0.0, "edge_contrast": 0.0, "roughness": 0.0}
    log_luma = np.log(field.luma + _LOG_OFFSET)
    x, y = (cv2.Sobel(log_luma, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    gradient = np.asarray(cv2.magnitude(np.asarray(x), np.asarray(y)), np.float32)[field.core]
    brightness = max(float(field.luma[field.inside].mean()), 1.0)
    return {
        "detail": _detail(field) / brightness,
        "edge_contrast": _quantile(gradient, 0.95),
        "roughness": float(gradient.mean()),
    }


def _detail(field: _Field) -> float:
    """Standard deviation of luma around its Gaussian mean, in grey levels.

    Only lit pixels away from unlit ones count, and the mean is normalised by the same
    Gaussian of them (normalised convolution; Knutsson and Westin, 1993): neither the black
    surround nor the straight edge of a cut field is detail.
    """
    weight = field.core.astype(np.float32)
    blurred = cv2.GaussianBlur(field.luma * weight, (0, 0), _DETAIL_SIGMA_PX)
    covered = cv2.GaussianBlur(weight, (0, 0), _DETAIL_SIGMA_PX)
    chosen = field.core
    return float((field.luma[chosen] - blurred[chosen] / covered[chosen]).std())


def _artefacts(small: Pixels, field: _Field) -> dict[str, float]:
    median = _quantile(field.luma[field.lit], 0.5) if field.lit.any() else 0.0
    is_flat = _flat(small) & field.lit & (field.planes[1] < _BURNT_LEVEL)
    return {
        "shadow_share": _share((field.luma < _SHADOW * median) & field.inside, field.inside),
        "glare_share": _share((field.luma > _GLARE * median) & field.inside, field.inside),
        "flat_share": _share(is_flat, field.inside),
        "step_share": _step_share(field),
    }


def _flat(small: Pixels) -> Mask:
    """(N, N): every channel is one value over 3 x 3 pixels, which no camera's noise allows."""
    kernel = np.ones((3, 3), np.uint8)
    extent = cv2.subtract(cv2.dilate(small, kernel), cv2.erode(small, kernel))
    red, green, blue = (np.asarray(plane, np.uint8) for plane in cv2.split(extent))
    return np.asarray((red | green | blue) == 0, np.bool_)


def _step_share(field: _Field) -> float:
    """Largest share of a row that steps the same way in one channel: shifted JPEG blocks.

    The step over two rows, less the mean of those three rows above and below: what shading
    does is the same there and cancels. Rows only, as a file stores them: a damaged block
    shifts all that follow it.
    """
    deep = cv2.erode(field.lit.astype(np.uint8), np.ones((_STEP_MARGIN,) * 2, np.uint8)) > 0
    usable = deep[:-8] & deep[8:]
    width = np.count_nonzero(usable, axis=1)
    rows = np.flatnonzero(width >= _MIN_STEP_WIDTH)
    if len(rows) == 0:
        return 0.0
    most = max(_most_in_step(plane, deep, usable, rows, width[rows]) for plane in field.planes)
    return float(most)


def _most_in_step(
    plane: Floats, deep: Mask, usable: Mask, rows: npt.NDArray[np.intp], width: npt.NDArray[np.intp]
) -> float:
    """`_step_share` of one channel; `rows` are the wide ones of `usable`, `width` theirs."""
    change = plane[2:] - plane[:-2]
    excess = change[rows + 3] - 0.5 * (change[rows] + change[rows + 6])
    limit = max(_STEP_CONTRAST * float(plane[deep].mean()), _MIN_STEP)
    up = np.count_nonzero((excess > limit) & usable[rows], axis=1)
    down = np.count_nonzero((excess < -limit) & usable[rows], axis=1)
    return float((np.maximum(up, down) / width).max())


def _share(mask: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(mask)) / max(int(np.count_nonzero(of)), 1)


@lru_cache(maxsize=2)
def _inside(side_px: int) -> Mask:
    """(S, S) bool: inside `_FIELD_FRACTION` of the half side."""
    offset = 2 * np.arange(side_px) + 1 - side_px
    mask = offset[:, None] ** 2 + offset**2 <= (_FIELD_FRACTION * side_px) ** 2
    mask.setflags(write=False)
    return np.asarray(mask, np.bool_)
