"""The fovea: about 2.5 disc diameters temporal of the disc, a little lower, locally dark.

The side is the given eye's, or the one on which the better place lies: darker, free of
vessels and nearer to the middle of the field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.structure.disc import DiscFinding
from train.structure.field import Field, FloatArray, axes, robust_z, smooth

__all__ = ["FoveaFinding", "find_fovea"]

# Of the offset from disc to fovea, in field units: disc diameters are measured too roughly
# at 96 px to be trusted alone, so half of the distance is the typical one.
_TYPICAL_DISTANCE = 0.63
_DIAMETERS = 2.5
_DROP = 0.07
_ALONG_SPREAD, _ACROSS_SPREAD = 0.085, 0.075
_CENTER_SPREAD = 0.35  # of foveas around the middle of the field, which decides the side
_DARK_CEILING = 5.0
_REACH = 0.88


@dataclass(frozen=True, kw_only=True)
class FoveaFinding:
    """The best place for the fovea.

    Attributes:
        x: field units.
        y: field units.
        side: -1 where the fovea lies left of the disc (OD), 1 right of it (OS).
        darkness: robust deviations by which the place is darker than the field.
        inside: False where even the best place lies beyond the visible field.
        eccentricity: distance of the place that the disc alone suggests from the middle of
            the field. On a decentred picture the true fovea may lie outside, and the better of
            two sides is then no evidence.
    """

    x: float
    y: float
    side: int
    darkness: float
    inside: bool
    eccentricity: float


def find_fovea(
    disc: DiscFinding,
    field: Field,
    brightness: FloatArray,
    vessels: FloatArray,
    *,
    eye: str | None,
) -> FoveaFinding:
    """Find the fovea from the disc.

    Args:
        disc: a disc that can be trusted.
        field: the field of view.
        brightness: `disc.closed_brightness` of the picture.
        vessels: soft vessel map of the same size.
        eye: 'OD', 'OS', or None to find the side.
    """
    dark = _darkness(field, brightness, vessels)
    sides = {"OD": (-1,), "OS": (1,), None: (-1, 1)}[eye]
    places = [_best_on_side(disc, field, dark, side) for side in sides]
    return max(places, key=lambda place: place[0])[1]


def _darkness(field: Field, brightness: FloatArray, vessels: FloatArray) -> FloatArray:
    """Robust deviations of a dark, vessel-free spot of the fovea's size."""
    radius_px = field.radius_px
    spot = smooth(brightness, 0.07 * radius_px)
    around = smooth(brightness, 0.20 * radius_px)
    crowded = smooth(vessels, 0.07 * radius_px)
    dark = robust_z(around - spot, field.inside) - robust_z(crowded, field.inside)
    return np.asarray(np.clip(dark, -_DARK_CEILING, _DARK_CEILING), np.float32)


def _best_on_side(
    disc: DiscFinding, field: Field, dark: FloatArray, side: int
) -> tuple[float, FoveaFinding]:
    """Score and place of the best fovea on one side of the disc."""
    x, y = axes(dark.shape[0])
    distance = (_TYPICAL_DISTANCE + _DIAMETERS * 2 * disc.radius) / 2
    expected = (disc.x + side * distance, disc.y + _DROP)
    off = ((x - expected[0]) / _ALONG_SPREAD) ** 2 + ((y - expected[1]) / _ACROSS_SPREAD) ** 2
    score = dark - off / 2
    row, col = divmod(int(score.argmax()), score.shape[1])
    place = (float(x[row, col]), float(y[row, col]))
    inside = bool(field.inside[row, col]) and float(np.hypot(*place)) < _REACH
    eccentricity = float(np.hypot(*expected))
    finding = FoveaFinding(
        x=place[0],
        y=place[1],
        side=side,
        darkness=float(dark[row, col]),
        inside=inside,
        eccentricity=eccentricity,
    )
    return float(score[row, col]) - (eccentricity / _CENTER_SPREAD) ** 2 / 2, finding
