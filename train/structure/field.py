"""The field of view of a preprocessed CFP and what is measured relative to it.

Legend: S side in pixels; field units: the square is [-1, 1], the fundus circle has radius 1,
x grows to the right, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Field", "FloatArray", "axes", "find_field", "robust_z", "smooth"]

FloatArray = npt.NDArray[np.float32]
_CIRCLE_RADIUS = 0.98  # of half the side: what the runtime's preprocessing leaves
_DARK_SHARE = 0.12  # of the typical brightness: below it is the frame, not the fundus
_LEAST_LEVEL = 3  # grey levels of noise in a black frame
_LEAST_LIT_SHARE = 0.25  # of the circle
_SAMPLE = 3  # every third pixel is enough for a median
_COARSE_SIGMA_PX = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """Where the picture shows the fundus.

    Attributes:
        inside: (S, S) bool.
        lit: False where too little of the circle is lit; `inside` is then the whole circle.
    """

    inside: npt.NDArray[np.bool_]
    lit: bool

    @property
    def radius_px(self) -> float:
        """One field unit in pixels."""
        return float(self.inside.shape[0] / 2)

    def flatten(self, channel: FloatArray, width: float) -> tuple[FloatArray, FloatArray]:
        """Take the slow background off, a Gaussian mean over pixels inside only.

        Args:
            channel: (S, S) float32.
            width: of the Gaussian, field units.

        Returns:
            The difference, 0 outside so that the rim makes no edge, and the background.
        """
        weight = self.inside.astype(np.float32)
        sigma = width * self.radius_px
        both = smooth(np.dstack([channel * weight, weight]), sigma)
        background = both[..., 0] / (both[..., 1] + np.float32(1e-3))
        return np.asarray((channel - background) * weight), np.asarray(background)


@lru_cache(maxsize=8)
def axes(size_px: int) -> tuple[FloatArray, FloatArray]:
    """Coordinates x and y of every pixel centre in field units, (S, S) float32 each, read only."""
    axis = ((np.arange(size_px) + 0.5) / size_px * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def find_field(image_hwc: npt.NDArray[np.uint8]) -> Field:
    """The lit part of the circle: frames that cut the circle and black corners are left out.

    Args:
        image_hwc: (S, S, 3) uint8 RGB, preprocessed by the runtime.
    """
    x, y = axes(image_hwc.shape[0])
    circle = np.asarray(x * x + y * y < _CIRCLE_RADIUS**2)
    brightest = np.asarray(image_hwc.max(2))
    typical = float(np.percentile(brightest[circle][::_SAMPLE], 75))
    level = max(_LEAST_LEVEL, _DARK_SHARE * typical)
    bright = ((brightest > level) & circle).astype(np.uint8)
    side = 2 * max(1, round(0.03 * image_hwc.shape[0])) + 1
    # Dark vessels and bleedings are holes in the fundus, not outside it.
    # The border counts as dark: a sliver of frame between field and border is not a hole.
    closed = cv2.morphologyEx(
        bright,
        cv2.MORPH_CLOSE,
        np.ones((side, side), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    inside = (closed > 0) & circle
    if inside.sum() < _LEAST_LIT_SHARE * circle.sum():
        return Field(inside=circle, lit=False)
    return Field(inside=inside, lit=True)


def smooth(image: FloatArray, sigma_px: float) -> FloatArray:
    """Gaussian mean; a wide one is taken at half size, which a slow background cannot tell."""
    if sigma_px < _COARSE_SIGMA_PX:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px))
    height, width = image.shape[:2]
    half = cv2.resize(image, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    wide = smooth(np.asarray(half, np.float32), sigma_px / 2)
    return np.asarray(cv2.resize(wide, (width, height), interpolation=cv2.INTER_LINEAR))


def robust_z(values: FloatArray, where: npt.NDArray[np.bool_]) -> FloatArray:
    """Deviation from the median over `where` in units of its scaled median deviation."""
    chosen: npt.NDArray[Any] = values[where][::_SAMPLE]
    middle = np.median(chosen)
    spread = 1.4826 * np.median(np.abs(chosen - middle))
    return np.asarray((values - middle) / np.float32(spread + 1e-6), np.float32)
