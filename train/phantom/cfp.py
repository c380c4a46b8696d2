"""Render the fundus of a latent eye: reflected light before it meets media and camera.

The cues of macular edema and schisis are deliberately faint (`EDEMA_*`, `SCHISIS_GAIN`):
what makes the OCT-informed encoder worth having is that a photograph only hints at them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from train.phantom.latent import Anatomy, Disease, FloatArray, LatentEye, Lesions, Vessel
from train.phantom.raster import (
    REFERENCE_PX,
    FieldGrid,
    blur,
    draw_blobs,
    draw_vessels,
    field_grid,
    gaussian,
    smooth_noise,
    step_down,
)

__all__ = ["EDEMA_BLUR", "EDEMA_HAZE", "SCHISIS_GAIN", "Fundus", "render_fundus"]

EDEMA_BLUR = 0.50  # largest share of the blurred picture mixed in
EDEMA_HAZE = 0.064  # largest share of grey mixed in
SCHISIS_GAIN = 0.034  # brightness of the rays


@dataclass(frozen=True, eq=False)
class Fundus:
    """The retina as seen through clear media, with the coverage maps that gave the masks.

    `image_hwc` is float32 RGB about 0 to 1; every map is float32 (S, S), 0 to 1.
    """

    image_hwc: FloatArray
    grid: FieldGrid
    vessels: FloatArray
    disc: FloatArray
    cup: FloatArray
    lesions: FloatArray


def _rgb(red: float, green: float, blue: float) -> FloatArray:
    return np.array([red, green, blue], np.float32)


def _add(image: FloatArray, weight: FloatArray, color: FloatArray) -> None:
    image += weight[..., None] * color


def _absorb(image: FloatArray, weight: FloatArray, color: FloatArray) -> None:
    image *= 1 - weight[..., None] * color


def render_fundus(eye: LatentEye, size_px: int) -> Fundus:
    """Render the retina in a square of `size_px` pixels."""
    rng = np.random.default_rng([eye.render_seed, 0])
    grid, anatomy, disease = field_grid(eye, size_px), eye.anatomy, eye.disease
    fine = smooth_noise(rng, 26, size_px)
    image = _background(rng, grid, anatomy, fine)
    _macular_pigment(image, grid, anatomy)
    _nerve_fibre_sheen(image, grid, anatomy, disease, fine)
    drusen = _drusen_and_atrophy(image, grid, eye, fine)
    disc, cup = _disc(image, grid, anatomy, fine)
    vessels = _vessels(image, grid, eye)
    lesions = np.maximum(drusen, _diabetic_lesions(image, grid, eye.lesions))
    if disease.edema > 0:
        image = _edema_cue(image, grid, anatomy, disease)
    if disease.schisis > 0:
        _schisis_cue(image, grid, anatomy, disease)
    _foveal_reflex(image, grid, anatomy, disease)
    return Fundus(image, grid, vessels, disc, cup, lesions)


def _background(
    rng: np.random.Generator, grid: FieldGrid, anatomy: Anatomy, fine: FloatArray
) -> FloatArray:
    """Pigment epithelium and choroid: base colour, its gradient, and tessellation."""
    pigment, myopia = anatomy.pigment, anatomy.myopia
    size_px = grid.size_px
    coarse, middle = smooth_noise(rng, 5, size_px), smooth_noise(rng, 13, size_px)
    grain = smooth_noise(rng, REFERENCE_PX, size_px)
    ridges = 1 - np.minimum(np.abs(middle + 0.3 * fine) * 1.3, 1.4)
    macula = gaussian(grid.distance(anatomy.fovea_xy), 0.30)
    tessellation = 0.025 + 0.13 * myopia + 0.03 * (1 - pigment)
    texture = 0.035 * coarse + 0.028 * fine + 0.012 * grain
    texture += tessellation * ridges * (1 - 0.55 * (1 - 0.5 * myopia) * macula)
    base = _rgb(0.78 - 0.20 * pigment, 0.36 - 0.13 * pigment, 0.17 - 0.06 * pigment)
    texture = texture[..., None] * _rgb(0.8, 1.0, 0.7)
    posterior = gaussian(grid.distance(anatomy.disc_xy), 0.75)[..., None]
    gradient = 1 + (posterior - 0.4) * _rgb(0.06, 0.20, 0.16)
    return np.asarray(base * (1 + texture) * gradient)


def _macular_pigment(image: FloatArray, grid: FieldGrid, anatomy: Anatomy) -> None:
    distance = grid.distance(anatomy.fovea_xy)
    wide, narrow = gaussian(distance, 0.17), gaussian(distance, 0.055)
    _absorb(image, anatomy.macular_pigment * wide, _rgb(0.21, 0.28, 0.34))
    _absorb(image, anatomy.macular_pigment * narrow, _rgb(0.07, 0.12, 0.17))


def _nerve_fibre_sheen(
    image: FloatArray, grid: FieldGrid, anatomy: Anatomy, disease: Disease, fine: FloatArray
) -> None:
    """The pale sheen of nerve fibres along the arcades, lost in glaucoma."""
    dx, dy = grid.x - anatomy.disc_xy[0], grid.y - anatomy.disc_xy[1]
    angle = np.arctan2(np.abs(dy), -dx * anatomy.nasal_sign)
    sheen = gaussian(angle - np.float32(1.15), 0.42) * gaussian(np.sqrt(dx * dx + dy * dy), 0.5)
    strength = 0.055 * (1 - 0.8 * disease.glaucoma)
    _add(image, strength * sheen * (1 + 0.25 * fine), _rgb(0.5, 1.0, 0.75))


def _drusen_and_atrophy(
    image: FloatArray, grid: FieldGrid, eye: LatentEye, fine: FloatArray
) -> FloatArray:
    """Draw drusen, pigment clumps and geographic atrophy; return their coverage."""
    lesions, found = eye.lesions, np.zeros_like(grid.x)
    if len(lesions.drusen):
        found = draw_blobs(lesions.drusen, grid.size_px, grid.shift_xy)
        _add(image, blur(found, 0.45), _rgb(0.17, 0.1615, 0.0765))
    if eye.disease.atrophy > 0:
        edge = grid.distance(eye.anatomy.fovea_xy) + 0.02 * fine
        patch = step_down(edge, 0.05 + 0.09 * eye.disease.atrophy, 0.008)
        _add(image, 0.7 * patch, _rgb(0.14, 0.20, 0.10))
        found = np.maximum(found, patch)
    if len(lesions.pigment_clumps):
        clumps = draw_blobs(lesions.pigment_clumps, grid.size_px, grid.shift_xy)
        _absorb(image, 0.5 * clumps, _rgb(0.7, 0.7, 0.6))
        found = np.maximum(found, clumps)
    return found


def _disc(
    image: FloatArray, grid: FieldGrid, anatomy: Anatomy, fine: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Draw the myopic crescent, the disc with its rim, and the cup; return disc and cup."""
    (dx, dy), radius, aspect = anatomy.disc_xy, anatomy.disc_radius, anatomy.disc_aspect
    if anatomy.myopia > 0.05:
        _crescent(image, grid, anatomy)
    distance = grid.distance((dx, dy), aspect)
    disc = step_down(distance, radius, 0.010)
    color = _rgb(0.91, 0.58, 0.34) * (1 + 0.03 * fine[..., None])
    image += disc[..., None] * (color - image)
    center = (dx + anatomy.cup_shift * radius, dy)
    cup = step_down(grid.distance(center, aspect), radius * anatomy.cup_ratio, 0.011)
    _add(image, cup, _rgb(0.06, 0.18, 0.20))
    return disc, cup


def _crescent(image: FloatArray, grid: FieldGrid, anatomy: Anatomy) -> None:
    """Peripapillary atrophy on the temporal side of a myopic disc."""
    radius, myopia = anatomy.disc_radius, anatomy.myopia
    x = anatomy.disc_xy[0] - anatomy.nasal_sign * radius * (0.25 + 0.45 * myopia)
    distance = grid.distance((x, anatomy.disc_xy[1]), 1.1)
    patch = step_down(distance, radius * (1.08 + 0.25 * myopia), 0.014)
    _add(image, patch * min(1.0, 2.2 * myopia), _rgb(0.16, 0.22, 0.16))


def _vessels(image: FloatArray, grid: FieldGrid, eye: LatentEye) -> FloatArray:
    """Draw arteries and veins; return their joint coverage."""
    size_px, shift = grid.size_px, grid.shift_xy
    arteries = draw_vessels(tuple(v for v in eye.vessels if not v.is_vein), size_px, shift)
    veins = draw_vessels(tuple(v for v in eye.vessels if v.is_vein), size_px, shift)
    _absorb(image, arteries, _rgb(0.20, 0.42, 0.34))
    _absorb(image, veins, _rgb(0.36, 0.56, 0.47))
    reflexes = tuple(_reflex(v) for v in eye.vessels if not v.is_vein and v.widths[0] > 0.010)
    _add(image, draw_vessels(reflexes, size_px, shift), _rgb(0.13, 0.08, 0.05))
    return np.maximum(arteries, veins)


def _reflex(artery: Vessel) -> Vessel:
    """The bright line that light leaves along the middle of an artery."""
    return replace(artery, widths=artery.widths * np.float32(0.28))


def _diabetic_lesions(image: FloatArray, grid: FieldGrid, lesions: Lesions) -> FloatArray:
    """Draw red and yellow lesions and new vessels; return their coverage."""
    size_px, shift, found = grid.size_px, grid.shift_xy, np.zeros_like(grid.x)
    if len(lesions.microaneurysms):
        dots = draw_blobs(lesions.microaneurysms, size_px, shift)
        _absorb(image, 0.85 * dots, _rgb(0.40, 0.75, 0.60))
        found = np.maximum(found, dots)
    if len(lesions.hemorrhages):
        blots = draw_blobs(lesions.hemorrhages, size_px, shift)
        _absorb(image, 0.85 * blur(blots, 0.5), _rgb(0.40, 0.75, 0.65))
        found = np.maximum(found, blots)
    if lesions.new_vessels:
        fronds = draw_vessels(lesions.new_vessels, size_px, shift)
        _absorb(image, fronds, _rgb(0.28, 0.62, 0.50))
        found = np.maximum(found, fronds)
    for row in lesions.preretinal:
        boat = _boat(grid, row)
        _absorb(image, 0.9 * boat, _rgb(0.45, 0.82, 0.75))
        found = np.maximum(found, boat)
    if len(lesions.exudates):
        flecks = draw_blobs(lesions.exudates, size_px, shift)
        _add(image, 0.38 * flecks, _rgb(0.8, 0.8, 0.35))
        found = np.maximum(found, flecks)
    return found


def _boat(grid: FieldGrid, row: FloatArray) -> FloatArray:
    """A bleed in front of the retina: round below, level above."""
    x, y, radius = row.tolist()
    level = step_down(-(grid.y - np.float32(y)), 0.0, 0.006)
    return np.asarray(level * step_down(grid.distance((x, y), 0.75), radius, 0.008))


def _edema_cue(
    image: FloatArray, grid: FieldGrid, anatomy: Anatomy, disease: Disease
) -> FloatArray:
    """Swelling hides a little detail and greys the macula a little."""
    x = anatomy.fovea_xy[0] + disease.edema_offset_xy[0]
    y = anatomy.fovea_xy[1] + disease.edema_offset_xy[1]
    ratio = grid.distance((x, y)) / np.float32(disease.edema_radius)
    weight = (disease.edema * np.exp(-0.7 * ratio**4))[..., None]
    image = image + EDEMA_BLUR * weight * (blur(image, 1.15) - image)
    luminance = image.mean(axis=2, keepdims=True)
    return np.asarray(image + EDEMA_HAZE * weight * (luminance + 0.02 - image))


def _schisis_cue(image: FloatArray, grid: FieldGrid, anatomy: Anatomy, disease: Disease) -> None:
    """Faint rays around the fovea."""
    dx, dy = grid.x - anatomy.fovea_xy[0], grid.y - anatomy.fovea_xy[1]
    ring = gaussian(np.sqrt(dx * dx + dy * dy) - np.float32(0.13), 0.09)
    rays = np.cos(np.arctan2(dy, dx) * disease.schisis_rays + disease.schisis_phase)
    weight = SCHISIS_GAIN * disease.schisis * ring * (0.45 + 0.9 * np.maximum(rays, 0) ** 2)
    _add(image, weight, _rgb(0.55, 0.75, 0.55))


def _foveal_reflex(image: FloatArray, grid: FieldGrid, anatomy: Anatomy, disease: Disease) -> None:
    """The bright point of a young, flat fovea; swelling removes it."""
    lost = 1.6 * max(disease.edema, disease.schisis)
    reflex = anatomy.foveal_reflex * max(0.0, 1 - lost)
    if reflex > 0:
        x, y = anatomy.fovea_xy
        image += (0.16 * reflex * gaussian(grid.distance((x + 0.012, y)), 0.022))[..., None]
