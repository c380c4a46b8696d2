"""Guess from the optic disc's side which eye a macula-centred photograph shows.

The disc is nasal to the macula, so it lies right of the centre in a right eye and left of it
in a left eye. Two signs are compared between the halves: a compact bright spot, and the steep
vessels that leave the disc upwards and downwards. The answer is only ever a warning; a
photograph centred on the disc, an unusual or mirrored one, gives None or, rarely, the wrong side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.fundus.field_measures import CANONICAL_PX, canonical_square

__all__ = ["OTHER_EYE", "SAME_SIDE", "Laterality", "guess_laterality", "look_alike"]

OTHER_EYE = "the picture looks like the other eye; compare with the patient"
SAME_SIDE = (
    "the pictures of OD and OS look like the same side; compare both with the patient (another "
    "eye's picture, or one mirrored or upside down)"
)

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_RADIUS_PX = CANONICAL_PX / 2
_DISC_SIGMA, _AROUND_SIGMA = 0.07, 0.22  # of the field's radius; a disc's is about 0.12
_VESSEL_SIGMA = 0.035
_REACH_SIGMA = 0.09  # over which the vessels at a disc are summed
_MIN_X, _MAX_DISTANCE, _MAX_Y = 0.18, 0.86, 0.42  # radii: where a disc is looked for
_CEILING = 7.0  # of each sign: one flare cannot outvote the vessels
_SHADOW_LEVEL = 12  # of green; darker pixels hold noise only
_LEAST_SPREAD = 1e-3  # of a picture without contrast, where rounding would decide
_DOUBT = 3.0  # lead over the other side; `benchmarks/image_gate.py` shows what it gives


@dataclass(frozen=True, kw_only=True)
class Laterality:
    """What the disc says.

    Attributes:
        disc_side: -1 to 1; positive where the disc lies right of the centre, as in OD; beyond
            0.5 either way it is clear enough to speak of.
    """

    disc_side: float

    @property
    def eye(self) -> str | None:
        """OD or OS, or None in doubt."""
        return _eye(self.disc_side)

    @property
    def confidence(self) -> float:
        """0 to 1; 0.5 where the answer begins."""
        return abs(self.disc_side)

    def warnings(self, entered: str) -> tuple[str, ...]:
        """What to say where the operator entered "OD" or "OS"; nothing in doubt."""
        is_other = self.eye is not None and {self.eye, entered} == {"OD", "OS"}
        return (OTHER_EYE,) if is_other else ()


def guess_laterality(image_hwc: npt.NDArray[np.uint8]) -> Laterality:
    """Compare the signs of a disc left and right of the centre.

    Args:
        image_hwc: (S, S, 3) uint8 RGB, the model's input: the field's circle fills the square.
    """
    lead = _lead(canonical_square(image_hwc))
    return Laterality(disc_side=lead / (abs(lead) + _DOUBT))


def look_alike(disc_sides: Mapping[str, float | None]) -> bool:
    """Whether OD and OS clearly have the disc on the same side.

    Args:
        disc_sides: `Laterality.disc_side` by the eye entered; None: not taken.
    """
    eyes = [_eye(disc_sides.get(eye) or 0.0) for eye in ("OD", "OS")]
    return eyes[0] is not None and eyes[0] == eyes[1]


def _eye(disc_side: float) -> str | None:
    if abs(disc_side) < 0.5:
        return None
    return "OD" if disc_side > 0 else "OS"


def _lead(small: npt.NDArray[np.uint8]) -> float:
    """How much more the right half looks like holding the disc, in spreads of the picture."""
    right, left, inner = _regions()
    red, green, _ = (plane.astype(np.float32) for plane in cv2.split(small))
    weight = (inner & (green >= _SHADOW_LEVEL)).astype(np.float32)
    if weight.sum() < 0.25 * inner.sum():
        return 0.0
    bright = _standardised(_spot(green + 0.5 * red, weight), inner)
    vessels = _standardised(_steep_vessels(green, weight), inner)
    score = np.minimum(bright, _CEILING) + np.minimum(vessels, _CEILING)
    return float(score[right].max() - score[left].max())


def _spot(brightness: Floats, weight: Floats) -> Floats:
    """Mean over a disc's size less the mean around it, relative to the latter."""
    near = _local_mean(brightness, weight, _DISC_SIGMA)
    around = _local_mean(brightness, weight, _AROUND_SIGMA)
    return np.asarray((near - around) / (around + 8), np.float32)


def _steep_vessels(green: Floats, weight: Floats) -> Floats:
    """Darkness of narrow structures that run up and down, summed over a disc's size."""
    flat = np.asarray(np.log(green + 8), np.float32)
    flat = np.asarray((flat - _local_mean(flat, weight, 0.16)) * weight, np.float32)
    across = cv2.GaussianBlur(flat, (0, 0), _VESSEL_SIGMA * _RADIUS_PX)
    bend = cv2.Sobel(across, cv2.CV_32F, 2, 0) - 0.5 * np.abs(cv2.Sobel(across, cv2.CV_32F, 0, 2))
    safe = cv2.erode(weight, np.ones((5, 5), np.uint8))
    steep = np.asarray(np.maximum(bend, 0) * safe, np.float32)
    return _local_mean(steep, weight, _REACH_SIGMA)


def _local_mean(values: Floats, weight: Floats, sigma: float) -> Floats:
    """Gaussian mean of the weighted pixels alone; sigma in radii of the field."""
    sigma_px = sigma * _RADIUS_PX
    total = cv2.GaussianBlur(values * weight, (0, 0), sigma_px)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma_px), 1e-3))


def _standardised(values: Floats, inner: Mask) -> Floats:
    """Less the median, over the median absolute deviation scaled to a normal's spread."""
    inside = values[inner]
    median = np.median(inside)
    spread = 1.4826 * np.median(np.abs(inside - median)) + _LEAST_SPREAD
    return np.asarray((values - median) / spread, np.float32)


@lru_cache(maxsize=1)
def _regions() -> tuple[Mask, Mask, Mask]:
    """(N, N) masks: where a disc may be on the right, on the left, and the field."""
    axis = (2 * np.arange(CANONICAL_PX) + 1 - CANONICAL_PX) / CANONICAL_PX
    x, y = axis[None, :], axis[:, None]
    distance = np.hypot(x, y)
    place = (distance < _MAX_DISTANCE) & (np.abs(y) < _MAX_Y)
    return place & (x > _MIN_X), place & (x < -_MIN_X), distance < 0.93
