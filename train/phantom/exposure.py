"""Photograph a rendered fundus: cloudy media, focus, light, sensor, and failed pictures."""

from __future__ import annotations

import math

import numpy as np

from train.phantom.cfp import Fundus
from train.phantom.latent import Capture, FloatArray, LatentEye
from train.phantom.raster import REFERENCE_PX, blur, smooth_noise, step_down

__all__ = ["expose"]

_MEDIA_COLOR = np.array([0.55, 0.50, 0.40], np.float32)
_VEIL_COLOR = np.array([0.60, 0.52, 0.38], np.float32)
_LID_COLOR = np.array([0.86, 0.60, 0.46], np.float32)


def expose(eye: LatentEye, fundus: Fundus) -> FloatArray:
    """Turn reflected light into the camera's pixel values.

    Args:
        eye: The latent eye; `eye.capture` says how it was photographed.
        fundus: Its rendered retina.

    Returns:
        float32 (S, S, 3) RGB, 0 to 1; exactly 0 outside the field.
    """
    capture, grid = eye.capture, fundus.grid
    rng = np.random.default_rng([eye.render_seed, 3])
    image = _through_media(fundus.image_hwc, capture, grid.size_px)
    image = image * _light(fundus, capture)
    if capture.lid_cover > 0:
        image = _cover_with_lid(image, fundus, capture)
    image += capture.sensor_noise * _sensor_noise(rng, grid.size_px)
    return np.asarray(np.clip(image, 0, 1) * grid.in_field()[..., None])


def _sensor_noise(rng: np.random.Generator, size_px: int) -> FloatArray:
    """Noise of unit deviation at the reference size, (S, S, 3).

    A larger picture keeps less of it on the reference grid, where it would show as blotches,
    and gets grain of its own instead, which disappears when the picture is reduced.
    """
    noise = smooth_noise(rng, REFERENCE_PX, size_px, 3)
    if size_px <= 2 * REFERENCE_PX:
        return noise
    grain = smooth_noise(rng, min(size_px, 6 * REFERENCE_PX), size_px, 3)
    fine = rng.standard_normal(noise.shape, dtype=np.float32)
    return np.asarray(0.5 * noise + 0.5 * grain + 0.7 * fine)


def _through_media(image: FloatArray, capture: Capture, size_px: int) -> FloatArray:
    """Scatter and veil of lens and vitreous, and defocus of the camera."""
    pixel = 0.25 * min(1.0, REFERENCE_PX / size_px)  # the sensor's own pixels blur too
    sigma = math.hypot(pixel + 0.75 * capture.media_opacity, capture.defocus)
    image = blur(image, sigma)
    image = image + 0.07 * capture.media_opacity * (_MEDIA_COLOR - image)
    return image + capture.veil * (_VEIL_COLOR - image) if capture.veil > 0 else image


def _light(fundus: Fundus, capture: Capture) -> FloatArray:
    """Gain, uneven flash, vignette and colour tint, (S, S, 3)."""
    u, v = fundus.grid.u, fundus.grid.v
    shade = 1 - np.float32(capture.vignette) * (u * u + v * v)
    shade *= 1 + np.float32(capture.illumination_xy[0]) * u
    shade += shade * np.float32(capture.illumination_xy[1]) * v
    tint = np.array([1 + capture.tint, 1, 1 - 1.3 * capture.tint], np.float32)
    return np.asarray((capture.gain * shade)[..., None] * tint)


def _cover_with_lid(image: FloatArray, fundus: Fundus, capture: Capture) -> FloatArray:
    """A pale, blurred crescent of the upper lid with the shadows of lashes."""
    u, v = fundus.grid.u, fundus.grid.v
    sin, cos = np.float32(math.sin(capture.lid_angle)), np.float32(math.cos(capture.lid_angle))
    across, down = u * cos + v * sin, v * cos - u * sin
    edge = down - np.float32(2 * capture.lid_cover - 1) + 0.25 * across * across
    lid = step_down(edge, 0.0, 0.06)[..., None]
    lashes = np.maximum(0, np.cos(across * 31 + 2.5 * np.sin(across * 5))) ** 6
    shadow = (0.5 * lashes * np.exp(-(((edge - 0.10) / 0.11) ** 2)))[..., None]
    glare = _LID_COLOR * capture.gain * (0.82 - 0.25 * edge[..., None])
    return np.asarray((image + lid * (glare - image)) * (1 - shadow))
