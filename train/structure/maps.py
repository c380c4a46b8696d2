"""Soft maps of field, vessels, disc and macula of one CFP, without learned weights.

Pixels decide, never a guess: where the disc cannot be found, disc and macula are not drawn
somewhere; their maps are constant over the field of view and their quality says why.
Disc and fovea are looked for at one fixed size, so that every number means the same at 96 and
at 448 pixels; vessels keep more detail. numpy and OpenCV only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError
from train.structure.disc import NOMINAL_RADIUS, DiscFinding, closed_brightness, find_disc
from train.structure.field import Field, FloatArray, axes, find_field
from train.structure.fovea import FoveaFinding, find_fovea
from train.structure.ridges import Ridges, find_ridges, vessel_probability

__all__ = ["StructureMaps", "StructureQuality", "structure_from_masks", "structure_maps"]

Pixels = npt.NDArray[np.uint8]

LOCATE_PX = 96  # side at which disc and fovea are looked for
VESSEL_PX = 224  # largest side at which vessels are looked for
_LEAST_SIZE_PX = 32
_LEAST_CONFIDENCE = 0.7
_VESSEL_CONTRAST = (3.5, 6.5)  # confidence 0 and 1
_LEAST_RELATIVE = 0.15
_MACULA_WIDTH = 2.2  # nominal disc radii: the measured one is too rough to scale a map
_SURE_DARKNESS = 3.0
_DARK_SPOT = 1.0  # robust deviations that a fovea is darker than its surroundings
_SURE_ECCENTRICITY = 0.30  # further out, only a dark spot tells the side
# What a map's mean over the field usually is: the level of a structure that was not found.
_NEUTRAL = {"fov": 1.0, "vessels": 0.10, "disc": 0.015, "macula": 0.07}


@dataclass(frozen=True, kw_only=True)
class StructureQuality:
    """How far one structure's map can be trusted.

    Attributes:
        found: False = the map is constant over the field of view.
        confidence: in [0, 1]; 0 where not found.
        reason: in words, for people.
    """

    found: bool
    confidence: float
    reason: str

    def __post_init__(self) -> None:
        """Refuse a confidence out of range, and one without a finding."""
        if not 0 <= self.confidence <= 1 or (self.confidence > 0 and not self.found):
            raise ValueError(f"found {self.found} with confidence {self.confidence}")


@dataclass(frozen=True, kw_only=True, eq=False)
class StructureMaps:
    """The four maps of one picture, float32 (S, S) in [0, 1], all 0 outside the field.

    Attributes:
        fov: 1 inside the field of view.
        vessels: soft vessel map.
        disc: optic disc, with an edge one pixel soft.
        macula: Gaussian around the fovea, 2.2 disc radii wide (about the arcades' inside).
        quality: one entry a structure, in the order of STRUCTURES.
        disc_xy: centre in field units (the circle has radius 1), or None.
        disc_radius: field units, or None.
        fovea_xy: field units, or None.
        eye: 'OD' or 'OS' as given or found, or None.
    """

    fov: FloatArray
    vessels: FloatArray
    disc: FloatArray
    macula: FloatArray
    quality: tuple[StructureQuality, ...]
    disc_xy: tuple[float, float] | None
    disc_radius: float | None
    fovea_xy: tuple[float, float] | None
    eye: str | None

    def stacked(self) -> FloatArray:
        """(S, S, K) float32 in the order of STRUCTURES."""
        return np.stack([self.fov, self.vessels, self.disc, self.macula], -1)

    def confidences(self) -> FloatArray:
        """(K,) float32 in the order of STRUCTURES."""
        return np.array([one.confidence for one in self.quality], np.float32)


def structure_maps(image_hwc: Pixels, *, eye: str | None = None) -> StructureMaps:
    """Find the structures of one picture.

    Args:
        image_hwc: (S, S, 3) uint8 RGB, preprocessed by the runtime: circle centred in the square.
        eye: 'OD' or 'OS' where it is known; None: found from the picture.

    Raises:
        ConfigError: `eye` is something else.
        ValueError: the picture has another shape or type, or is smaller than 32 px.
    """
    return structure_from_masks(image_hwc, eye=eye)


def structure_from_masks(
    image_hwc: Pixels,
    *,
    vessels: npt.NDArray[np.bool_] | None = None,
    disc: npt.NDArray[np.bool_] | None = None,
    eye: str | None = None,
) -> StructureMaps:
    """The same maps, from masks where there are some and from the picture where not.

    Args:
        image_hwc: (S, S, 3) uint8 RGB, preprocessed by the runtime.
        vessels: (S, S) bool in the geometry of the picture, or None.
        disc: (S, S) bool, or None. An empty one says that no disc is in the picture.
        eye: 'OD', 'OS' or None.

    Raises:
        ConfigError: `eye` is something else.
        ValueError: a shape or type differs.
    """
    _check(image_hwc, {"vessels": vessels, "disc": disc}, eye)
    field = find_field(image_hwc)
    look = _look(image_hwc, field)
    spot, disc_quality = _judged_disc(look) if disc is None else _measured_disc(disc)
    fovea, fovea_quality = _judged_fovea(spot, disc_quality, look, eye)
    vessel_map, vessel_quality = _vessels(image_hwc, field, look, vessels)
    return StructureMaps(
        fov=field.inside.astype(np.float32),
        vessels=vessel_map,
        disc=_disc_map(field, spot, disc),
        macula=_macula_map(field, spot, fovea),
        quality=(_field_quality(field), vessel_quality, disc_quality, fovea_quality),
        disc_xy=None if spot is None else (spot.x, spot.y),
        disc_radius=None if spot is None else spot.radius,
        fovea_xy=None if fovea is None else (fovea.x, fovea.y),
        eye=eye if fovea is None else ("OD" if fovea.side < 0 else "OS"),
    )


def _check(
    image_hwc: Pixels, masks: dict[str, npt.NDArray[np.bool_] | None], eye: str | None
) -> None:
    shape = image_hwc.shape
    if image_hwc.dtype != np.uint8 or len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
        raise ValueError(f"a picture is (S, S, 3) uint8, not {shape} {image_hwc.dtype}")
    if shape[0] < _LEAST_SIZE_PX:
        raise ValueError(f"a picture of {shape[0]} px is too small; give {_LEAST_SIZE_PX} or more")
    for name, mask in masks.items():
        if mask is not None and (mask.shape != shape[:2] or mask.dtype != np.bool_):
            raise ValueError(f"mask {name} is {mask.shape} {mask.dtype}, not {shape[:2]} bool")
    if eye not in (None, "OD", "OS"):
        raise ConfigError(f"eye is {eye!r}; give 'OD', 'OS' or None")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """What the search at LOCATE_PX needs of a picture."""

    field: Field
    ridges: Ridges
    brightness: FloatArray

    @property
    def shows_vessels(self) -> bool:
        """Whether ridges are more than noise (dark) and more than slow shades (blurred)."""
        enough = self.ridges.contrast >= _VESSEL_CONTRAST[0]
        return enough and self.ridges.relative >= _LEAST_RELATIVE


def _look(image_hwc: Pixels, field: Field) -> _Look:
    small = _resized(image_hwc, LOCATE_PX)
    if small is not image_hwc:
        field = find_field(small)
    ridges = find_ridges(small, field)
    return _Look(field=field, ridges=ridges, brightness=closed_brightness(small, field))


def _resized(image_hwc: Pixels, side_px: int) -> Pixels:
    if image_hwc.shape[0] == side_px:
        return image_hwc
    method = cv2.INTER_AREA if image_hwc.shape[0] > side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image_hwc, (side_px, side_px), interpolation=method), np.uint8)


def _not_found(reason: str) -> StructureQuality:
    return StructureQuality(found=False, confidence=0.0, reason=reason)


def _field_quality(field: Field) -> StructureQuality:
    if not field.lit:
        return _not_found("too little of the circle is lit")
    return StructureQuality(found=True, confidence=1.0, reason="found")


def _judged_disc(look: _Look) -> tuple[DiscFinding | None, StructureQuality]:
    """The disc found in the picture, unless it cannot be told from other places."""
    if not look.field.lit:
        return None, _not_found("too little of the circle is lit")
    if not look.shows_vessels:
        return None, _not_found("no vessels that could lead to the disc")
    spot = find_disc(look.field, look.ridges, look.brightness)
    if spot.confidence < _LEAST_CONFIDENCE:
        return None, _not_found("no bright place where vessels meet stands out")
    return spot, StructureQuality(found=True, confidence=spot.confidence, reason="found")


def _measured_disc(
    mask: npt.NDArray[np.bool_],
) -> tuple[DiscFinding | None, StructureQuality]:
    """The disc of a mask: centroid, and the radius of the circle of its area."""
    if not mask.any():
        return None, _not_found("the mask of the disc is empty")
    x, y = axes(mask.shape[0])
    radius = float(np.sqrt(mask.mean() * 4 / np.pi))
    spot = DiscFinding(
        x=float(x[mask].mean()), y=float(y[mask].mean()), radius=radius, confidence=1.0
    )
    return spot, StructureQuality(found=True, confidence=1.0, reason="mask")


def _judged_fovea(
    spot: DiscFinding | None, disc_quality: StructureQuality, look: _Look, eye: str | None
) -> tuple[FoveaFinding | None, StructureQuality]:
    """The fovea where there is a disc to start from and a field to hold it."""
    if spot is None:
        return None, _not_found(f"disc: {disc_quality.reason}")
    vessels = vessel_probability(look.ridges)
    fovea = find_fovea(spot, look.field, look.brightness, vessels, eye=eye)
    if not fovea.inside:
        return None, _not_found("the fovea lies outside the field of view")
    if eye is None and fovea.eccentricity > _SURE_ECCENTRICITY and fovea.darkness < _DARK_SPOT:
        return None, _not_found("decentred: on which side of the disc the fovea lies is not clear")
    # Without a dark spot the place is the disc's geometry only: worth half.
    trust = 0.5 + 0.5 * float(np.clip(fovea.darkness / _SURE_DARKNESS, 0, 1))
    reason = "found" if fovea.darkness > _DARK_SPOT else "from the disc only: no dark spot there"
    confidence = disc_quality.confidence * trust
    return fovea, StructureQuality(found=True, confidence=confidence, reason=reason)


def _vessels(
    image_hwc: Pixels, field: Field, look: _Look, mask: npt.NDArray[np.bool_] | None
) -> tuple[FloatArray, StructureQuality]:
    """Vessel map and its quality, from the mask where there is one."""
    if mask is not None:
        quality = StructureQuality(found=True, confidence=1.0, reason="mask")
        return mask.astype(np.float32) * field.inside, quality
    if not look.field.lit:
        return _neutral(field, "vessels"), _not_found("too little of the circle is lit")
    if not look.shows_vessels:
        return _neutral(field, "vessels"), _not_found("vessels do not stand out of the background")
    low, high = _VESSEL_CONTRAST
    confidence = float(np.clip(0.2 + 0.8 * (look.ridges.contrast - low) / (high - low), 0, 1))
    quality = StructureQuality(found=True, confidence=confidence, reason="found")
    return _fine_vessels(image_hwc, field, look), quality


def _fine_vessels(image_hwc: Pixels, field: Field, look: _Look) -> FloatArray:
    """The vessel map at the picture's size, looked for at no more than VESSEL_PX."""
    size = image_hwc.shape[0]
    side = min(max(size, LOCATE_PX), VESSEL_PX)
    if side == LOCATE_PX:
        soft = vessel_probability(look.ridges)
    else:
        picture = _resized(image_hwc, side)
        reduced = find_field(picture)
        soft = vessel_probability(find_ridges(picture, reduced))
    if side != size:
        method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        soft = np.asarray(cv2.resize(soft, (size, size), interpolation=method))
    return np.asarray(soft * field.inside, np.float32)


def _neutral(field: Field, name: str) -> FloatArray:
    """The map of a structure that may be anywhere in the field."""
    return np.asarray(field.inside * np.float32(_NEUTRAL[name]), np.float32)


def _disc_map(
    field: Field, spot: DiscFinding | None, mask: npt.NDArray[np.bool_] | None
) -> FloatArray:
    if spot is None:
        return _neutral(field, "disc")
    if mask is not None:
        return mask.astype(np.float32) * field.inside
    x, y = axes(field.inside.shape[0])
    edge = (spot.radius - np.hypot(x - spot.x, y - spot.y)) * field.radius_px
    return np.asarray(np.clip(edge + 0.5, 0, 1) * field.inside, np.float32)


def _macula_map(field: Field, spot: DiscFinding | None, fovea: FoveaFinding | None) -> FloatArray:
    if spot is None or fovea is None:
        return _neutral(field, "macula")
    x, y = axes(field.inside.shape[0])
    squared = (x - fovea.x) ** 2 + (y - fovea.y) ** 2
    width = _MACULA_WIDTH * NOMINAL_RADIUS
    return np.asarray(np.exp(-squared / width**2) * field.inside, np.float32)
