"""The optic disc: a bright spot on which vessels of many directions converge.

Every pixel of a vessel votes along its direction (Hoover and Goldbaum 2003, IEEE TMI 22(8));
votes are kept apart by direction, so that a long vessel alone does not win. Brightness and
votes are compared with the rest of the same picture, never with absolute levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from train.structure.field import Field, FloatArray, axes, robust_z, smooth
from train.structure.ridges import Ridges

__all__ = ["NOMINAL_RADIUS", "DiscFinding", "closed_brightness", "find_disc"]

NOMINAL_RADIUS = 0.12  # field units
_RADII = (0.09, 0.105, 0.12, 0.14, 0.16)
_VOTER_SHARE = 0.08  # of the field's pixels
_NUM_DIRECTIONS = 6
_VOTE_REACH = 0.36  # field units over which a vote fades
_CEILING = 6.0  # of each part of the score: one bright lesion cannot outvote the vessels
_RIM = 0.93
_RIVAL_DISTANCE = 0.30
_SEARCH = 0.16  # around the score's peak
_LEAST_MARGIN = 0.9  # at which the place found is as likely right as the best other one


@dataclass(frozen=True, kw_only=True)
class DiscFinding:
    """The best place for the disc.

    Attributes:
        x: field units.
        y: field units.
        radius: field units.
        confidence: in [0, 1], rises with the lead over the best place elsewhere.
    """

    x: float
    y: float
    radius: float
    confidence: float


def closed_brightness(image_hwc: npt.NDArray[np.uint8], field: Field) -> FloatArray:
    """Green plus half of red with vessels and small dark spots filled, background taken off."""
    red, green = (image_hwc[..., k].astype(np.float32) for k in (0, 1))
    brightness = green + np.float32(0.5) * red
    side = 2 * max(1, int(0.06 * field.radius_px)) + 1
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    flat, _ = field.flatten(brightness, 0.30)
    return np.asarray(cv2.morphologyEx(flat, cv2.MORPH_CLOSE, element))


def find_disc(field: Field, ridges: Ridges, brightness: FloatArray) -> DiscFinding:
    """Find the disc; how sure that is, is for the caller to judge by `confidence`.

    Args:
        field: the field of view of a picture.
        ridges: of the same picture.
        brightness: `closed_brightness` of the same picture.
    """
    x, y = axes(field.inside.shape[0])
    inner = field.inside & (x * x + y * y < _RIM**2)
    radius_px = field.radius_px
    near = smooth(brightness, 0.6 * NOMINAL_RADIUS * radius_px)
    around = smooth(brightness, 1.6 * NOMINAL_RADIUS * radius_px)
    bright = robust_z(near - around, inner)
    votes = robust_z(_convergence(ridges, field), inner)
    score = np.minimum(bright, _CEILING) + np.minimum(votes, _CEILING)
    score = np.where(inner, score, np.float32(-np.inf))
    row, col = divmod(int(score.argmax()), score.shape[1])
    place = (float(x[row, col]), float(y[row, col]))
    elsewhere = (x - place[0]) ** 2 + (y - place[1]) ** 2 > _RIVAL_DISTANCE**2
    margin = float(score[row, col] - score[elsewhere].max())
    return _refined(place, brightness, inner, margin)


def _convergence(ridges: Ridges, field: Field) -> FloatArray:
    """Sum over directions of the root of the votes a place gets from vessels of a direction."""
    size = field.inside.shape[0]
    row, col, angle, weight = _voters(ridges, field)
    step, fade = _vote_steps(field.radius_px)
    at_x = np.rint(col[:, None] + step * np.cos(angle)[:, None]).astype(np.int32)
    at_y = np.rint(row[:, None] + step * np.sin(angle)[:, None]).astype(np.int32)
    sector = np.floor((angle / np.pi % 1) * _NUM_DIRECTIONS).astype(np.int32) % _NUM_DIRECTIONS
    hit = (at_x >= 0) & (at_x < size) & (at_y >= 0) & (at_y < size)
    cell = ((sector[:, None] * size + at_y) * size + at_x)[hit]
    votes = np.bincount(cell, (weight[:, None] * fade)[hit], _NUM_DIRECTIONS * size * size)
    total = np.zeros((size, size), np.float32)
    for plane in votes.reshape(_NUM_DIRECTIONS, size, size).astype(np.float32):
        total += cv2.sqrt(smooth(plane, 0.05 * field.radius_px))
    return total


def _voters(
    ridges: Ridges, field: Field
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Row, column, direction and weight of the most vessel-like pixels."""
    size = field.inside.shape[0]
    likeness = (ridges.strength * ridges.coherence).ravel()
    count = max(1, int(_VOTER_SHARE * field.inside.sum()))
    chosen = np.argpartition(likeness, -count)[-count:]
    chosen.sort()  # argpartition's order is not part of its contract
    row, col = np.divmod(chosen, size)
    strength = np.minimum(ridges.strength.ravel()[chosen] / (3 * ridges.median + 1e-6), 2)
    weight = np.asarray(strength * ridges.coherence.ravel()[chosen], np.float32)
    return row, col, ridges.angle.ravel()[chosen], weight


@lru_cache(maxsize=8)
def _vote_steps(radius_px: float) -> tuple[FloatArray, FloatArray]:
    """Signed distances in pixels at which a pixel votes, and the weight of each."""
    stride = max(1.0, radius_px / 48)
    forward = np.arange(0.06 * radius_px, 0.54 * radius_px, stride, dtype=np.float32)
    step = np.concatenate([-forward, forward])
    return step, np.exp(-((step / (_VOTE_REACH * radius_px)) ** 2)).astype(np.float32)


def _refined(
    place: tuple[float, float], brightness: FloatArray, inner: npt.NDArray[np.bool_], margin: float
) -> DiscFinding:
    """Centre and radius of the disc that differs most from its ring, near a first place."""
    x, y = axes(brightness.shape[0])
    near = inner & ((x - place[0]) ** 2 + (y - place[1]) ** 2 < _SEARCH**2)
    best, found = -np.inf, (*place, NOMINAL_RADIUS)
    for radius in _RADII:
        contrast = np.where(near, _disc_contrast(brightness, radius), np.float32(-np.inf))
        row, col = divmod(int(contrast.argmax()), contrast.shape[1])
        if contrast[row, col] > best:
            best, found = (
                float(contrast[row, col]),
                (float(x[row, col]), float(y[row, col]), radius),
            )
    confidence = 1 / (1 + np.exp(-1.5 * (margin - _LEAST_MARGIN)))
    return DiscFinding(x=found[0], y=found[1], radius=found[2], confidence=float(confidence))


def _disc_contrast(brightness: FloatArray, radius: float) -> FloatArray:
    """Mean inside a disc minus mean in the ring around it, times the radius' root."""
    kernel = _ring_kernel(radius, brightness.shape[0] / 2)
    contrast = cv2.filter2D(brightness, cv2.CV_32F, kernel)
    return np.asarray(contrast * np.float32(radius**0.5), np.float32)


@lru_cache(maxsize=32)
def _ring_kernel(radius: float, radius_px: float) -> FloatArray:
    reach = int(np.ceil(1.6 * radius * radius_px))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] / radius_px
    distance = np.hypot(x, y)
    # One pixel of soft edge: at 96 px a disc has a radius of five pixels.
    disc = np.clip((radius - distance) * radius_px + 0.5, 0, 1)
    ring = np.clip((1.6 * radius - distance) * radius_px + 0.5, 0, 1) - disc
    return np.asarray(disc / disc.sum() - ring / ring.sum(), np.float32)
