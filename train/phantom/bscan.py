"""Render an OCT B-scan from its layer boundaries: tissue, fluid, shadows, speckle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from train.phantom.latent import FloatArray, LatentEye
from train.phantom.oct import SCAN_HALF_LENGTH, ScanGeometry, scan_geometry
from train.phantom.vessels import scan_crossings

__all__ = ["BScan", "render_bscan"]

# Brightness of vitreous, RNFL, GCL, IPL, INL, OPL, ONL, and of what lies below the ELM.
_VITREOUS = 0.045
_INNER_TISSUE = (0.80, 0.52, 0.60, 0.36, 0.55, 0.25)
_FLUID = 0.06


@dataclass(frozen=True, eq=False)
class BScan:
    """One B-scan: `image_zx` uint8 (Z, X); `boundaries_px` float32 (11, X) in rows."""

    image_zx: np.ndarray
    boundaries_px: FloatArray


class _Canvas:
    """A scan being drawn: `below(depth)` is 1 under a boundary and 0 above it."""

    def __init__(self, height_px: int, geometry: ScanGeometry) -> None:
        self.height_px = height_px
        self.geometry = geometry
        rows = (np.arange(height_px, dtype=np.float32) + 0.5) / height_px
        self.depth = rows[:, None]
        self.edges = [self.below(boundary) for boundary in geometry.boundaries]

    def below(self, boundary: FloatArray) -> FloatArray:
        """Coverage by what lies under a boundary, (Z, X)."""
        return np.clip((self.depth - boundary[None]) * self.height_px + 0.5, 0, 1)


def render_bscan(eye: LatentEye, axis: int, *, height_px: int, width_px: int) -> BScan:
    """Render one foveal scan.

    Args:
        eye: The latent eye.
        axis: 0 for the horizontal scan, 1 for the vertical one.
        height_px: Rows of the scan.
        width_px: Columns of the scan.
    """
    rng = np.random.default_rng([eye.render_seed, 1 + axis])
    geometry = scan_geometry(rng, eye, axis, width_px)
    canvas = _Canvas(height_px, geometry)
    image = _tissue(rng, canvas, eye)
    if eye.disease.edema > 0:
        image = _cysts(rng, image, canvas, eye, axis)
    if eye.disease.schisis > 0:
        image = _schisis(image, canvas, eye)
    _exudates(image, canvas, eye, axis)
    image = _vessel_shadows(image, canvas, eye, axis)
    image = _acquire(rng, image, eye.capture.media_opacity)
    pixels = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return BScan(pixels, geometry.boundaries * np.float32(height_px))


def _tissue(rng: np.random.Generator, canvas: _Canvas, eye: LatentEye) -> FloatArray:
    """Layers with their brightness, from vitreous to sclera."""
    edges, (height, width) = canvas.edges, canvas.edges[0].shape
    image = np.full((height, width), _VITREOUS, np.float32)
    previous = _VITREOUS
    for edge, brightness in zip(edges[:6], _INNER_TISSUE, strict=True):
        image += (brightness - previous) * edge
        previous = brightness
    ellipsoid, bruch = canvas.geometry.boundaries[7], canvas.geometry.boundaries[9]
    image += (0.42 - previous) * edges[6]
    image += 0.40 * canvas.below(ellipsoid - 0.008) - 0.37 * canvas.below(ellipsoid + 0.018)
    image += 0.50 * edges[8] - 0.43 * edges[9]
    fluid = canvas.geometry.fluid
    if fluid.max() > 0.004:
        pocket = canvas.below(ellipsoid + 0.022) - canvas.below(ellipsoid + 0.022 + fluid)
        image = np.where(pocket > 0.4, 0.07, image)
    coarse = rng.standard_normal((9, 12), dtype=np.float32)
    choroid = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    fading = np.clip((canvas.depth - bruch) * 0.9, 0, 0.4)
    image += edges[9] * (0.07 * choroid - fading) - 0.10 * edges[10]
    if eye.disease.atrophy > 0:  # light passes where the pigment epithelium is gone
        window = np.exp(-((canvas.geometry.along / 0.12) ** 4))
        image += 0.25 * eye.disease.atrophy * window * edges[9]
    return np.asarray(image)


def _cysts(
    rng: np.random.Generator, image: FloatArray, canvas: _Canvas, eye: LatentEye, axis: int
) -> FloatArray:
    """Dark cysts of edema in the inner and outer nuclear layers."""
    disease, (height, width) = eye.disease, image.shape
    count = int(rng.poisson(4 + 9 * disease.edema))
    places = rng.normal(disease.edema_offset_xy[axis], disease.edema_radius * 0.5, count)
    sizes, layers = rng.uniform(0.3, 1.0, count), rng.random(count)
    mask, depths = np.zeros((height, width), np.uint8), canvas.geometry.boundaries
    for place, size, layer in zip(places.tolist(), sizes.tolist(), layers.tolist(), strict=True):
        column = int((place / SCAN_HALF_LENGTH * 0.5 + 0.5) * width)
        if not 1 <= column < width - 1 or canvas.geometry.swelling[column] < 0.1:
            continue
        top, bottom = (depths[3:5] if layer < 0.45 else depths[5:7])[:, column].tolist()
        reach = size * (bottom - top)
        axes = (max(1.4, reach * width * 0.55), max(1.2, reach * height * 0.85))
        box = ((float(column), (top + bottom) / 2 * height), axes, 0.0)
        cv2.ellipse(mask, box, 255, -1, cv2.LINE_AA)
    cover = mask.astype(np.float32) / 255
    return image * (1 - cover * 0.9) + _FLUID * cover


def _schisis(image: FloatArray, canvas: _Canvas, eye: LatentEye) -> FloatArray:
    """A split outer nuclear layer, bridged by columns."""
    geometry, disease = canvas.geometry, eye.disease
    top, bottom = geometry.boundaries[5] + 0.02, geometry.boundaries[6] - 0.012
    cavity = canvas.below(top) - canvas.below(bottom)
    cavity = np.clip(cavity, 0, 1) * np.clip(geometry.splitting * 3 - 0.3, 0, 1)
    wave = np.cos(geometry.along * (2 * math.pi / 0.065) + disease.schisis_phase)
    column = np.clip(wave * 2 - 1.1, 0, 1)
    return np.asarray(
        image * (1 - 0.85 * cavity * (1 - 0.6 * column)) + _FLUID * cavity * (1 - column)
    )


def _exudates(image: FloatArray, canvas: _Canvas, eye: LatentEye, axis: int) -> None:
    """Bright spots where the scan crosses hard exudates."""
    fovea, (height, width) = eye.anatomy.fovea_xy, image.shape
    radius = max(1, round(width / 128))
    for row in eye.lesions.exudates:
        place = (row[axis] - fovea[axis]) / SCAN_HALF_LENGTH * 0.5 + 0.5
        column = int(place * width)
        if abs(row[1 - axis] - fovea[1 - axis]) < 0.03 and 0 <= column < width:
            depth = int(canvas.geometry.boundaries[4, column] * height)
            cv2.circle(image, (column, depth), radius, 1.0, -1)


def _vessel_shadows(image: FloatArray, canvas: _Canvas, eye: LatentEye, axis: int) -> FloatArray:
    """Vessels brighten the inner retina and shadow everything below them."""
    cover = np.zeros_like(canvas.geometry.along)
    for place, width in scan_crossings(eye.vessels, eye.anatomy.fovea_xy, axis):
        reach = max(0.5 * float(width), 0.006)
        profile = np.exp(-(((canvas.geometry.along - place) / reach) ** 2))
        np.maximum(cover, profile * min(1.0, float(width) / 0.012), out=cover)
    edges = canvas.edges
    shadow = 0.5 * cover * edges[9] + 0.32 * cover * edges[1] * (1 - edges[9])
    return np.asarray(image * (1 - shadow) + 0.25 * cover * (edges[0] - edges[1]))


def _acquire(rng: np.random.Generator, image: FloatArray, media_opacity: float) -> FloatArray:
    """Signal loss through cloudy media, multiplicative speckle, noise of the detector."""
    signal = np.float32(math.exp(-0.45 * media_opacity) * rng.uniform(0.9, 1.1))
    speckle = rng.standard_normal(image.shape, dtype=np.float32)
    speckle = 0.75 * speckle + 0.5 * cv2.blur(speckle, (3, 1))
    noise = np.abs(rng.standard_normal(image.shape, dtype=np.float32))
    return np.asarray(image * signal * (1 + 0.22 * speckle) + 0.03 * noise)
