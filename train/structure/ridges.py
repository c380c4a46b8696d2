"""Vessels as dark ridges of the green channel: multi-scale top-hat and a bank of line filters.

The top-hat (closing minus picture) takes what is darker and thinner than its disc, at three
sizes; the line filters (second derivative of a Gaussian across, a long Gaussian along,
Chaudhuri et al. 1989) prefer what is long and give its direction. Their sum is better than
either alone on synthetic and on real eyes, see docs/structure.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from train.structure.field import Field, FloatArray

__all__ = ["Ridges", "find_ridges", "vessel_probability"]

_BACKGROUND_WIDTH = 0.15
_TOP_HAT_RADII = (0.03, 0.06, 0.10)  # field units; the widest veins are 0.03 wide
_LINE_WIDTH = 0.008
_LINE_LENGTH = 0.06
_NUM_ANGLES = 8
_LEAST_SIGMA_PX = 0.65  # a thinner kernel cannot be sampled
_LINE_WEIGHT = 2.0
_SAMPLE = 3  # every third pixel is enough for a median
_HALF_LEVEL = 4.0  # times the median response: where a vessel is as likely as not


@dataclass(frozen=True, kw_only=True, eq=False)
class Ridges:
    """Dark ridges of one picture.

    Attributes:
        strength: (S, S) float32, at least 0, grey levels; 0 outside the field.
        angle: (S, S) float32 direction of the ridge in radians, modulo pi.
        coherence: (S, S) float32, 0 = no direction, towards 1 = one direction.
        median: of the strength inside the field.
        contrast: strongest 2 % over the median; about 3 for noise and blur, 6 and more where
            vessels can be seen.
        relative: strongest 2 % over the mean brightness of the field; 0.1 where the picture is
            so blurred that only slow shades are left, 0.3 and more on sharp ones.
    """

    strength: FloatArray
    angle: FloatArray
    coherence: FloatArray
    median: float
    contrast: float
    relative: float


def find_ridges(image_hwc: npt.NDArray[np.uint8], field: Field) -> Ridges:
    """Ridge strength and direction.

    Args:
        image_hwc: (S, S, 3) uint8 RGB.
        field: of the same picture.
    """
    raw = image_hwc[..., 1].astype(np.float32)
    green, _ = field.flatten(raw, _BACKGROUND_WIDTH)
    top_hat = np.zeros_like(green)
    for radius in _TOP_HAT_RADII:
        top_hat += cv2.morphologyEx(green, cv2.MORPH_BLACKHAT, _disc(radius, field.radius_px))
    lines, angle, coherence = _line_response(green, field.radius_px)
    strength = top_hat * np.float32(2 / len(_TOP_HAT_RADII)) + np.float32(_LINE_WEIGHT) * lines
    # The rim's last pixel is half black.
    core = cv2.erode(field.inside.astype(np.uint8), np.ones((3, 3)))
    strength *= core
    middle, top = np.percentile(strength[field.inside][::_SAMPLE], (50, 98))
    return Ridges(
        strength=strength,
        angle=angle,
        coherence=coherence,
        median=float(middle),
        contrast=float(top / (middle + 0.1)),
        relative=float(top / (raw[field.inside].mean() + 1)),
    )


def _line_response(
    green: FloatArray, radius_px: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Largest response over the bank, mean direction (double angles), and its coherence."""
    largest, total = np.zeros_like(green), np.full_like(green, 1e-6)
    cosine, sine = np.zeros_like(green), np.zeros_like(green)
    for angle, kernel in _bank(radius_px):
        response = np.maximum(cv2.filter2D(green, cv2.CV_32F, kernel), 0)
        np.maximum(largest, response, out=largest)
        total += response
        cosine += np.float32(np.cos(2 * angle)) * response
        sine += np.float32(np.sin(2 * angle)) * response
    direction = np.asarray(np.arctan2(sine, cosine) / 2, np.float32)
    return largest, direction, np.asarray(cv2.magnitude(cosine, sine) / total)


@lru_cache(maxsize=8)
def _bank(radius_px: float) -> tuple[tuple[float, FloatArray], ...]:
    """(angle, kernel) pairs; kernels have mean 0 and a sum of absolute values of 2."""
    across, along = max(_LINE_WIDTH * radius_px, _LEAST_SIGMA_PX), max(_LINE_LENGTH * radius_px, 1)
    reach = int(np.ceil(max(2 * along, 3 * across)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    bank = []
    for angle in np.pi * np.arange(_NUM_ANGLES) / _NUM_ANGLES:
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        kernel = ((v / across) ** 2 - 1) * np.exp(-((v / across) ** 2 + (u / along) ** 2) / 2)
        kernel -= kernel.mean()
        bank.append((float(angle), (2 * kernel / np.abs(kernel).sum()).astype(np.float32)))
    return tuple(bank)


@lru_cache(maxsize=32)
def _disc(radius: float, radius_px: float) -> npt.NDArray[np.uint8]:
    side = 2 * max(1, int(radius * radius_px)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def vessel_probability(ridges: Ridges) -> FloatArray:
    """Soft vessel map r^2 / (r^2 + h^2), h a multiple of the median response in the field."""
    squared = ridges.strength**2
    half = np.float32((_HALF_LEVEL * ridges.median) ** 2 + 1e-6)
    return np.asarray(squared / (squared + half))
