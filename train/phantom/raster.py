"""Draw in field units: grids, noise on fixed grids, vessels and blobs.

Everything random lives on grids whose cells are fixed parts of the field, so an eye drawn
at camera size and reduced shows the same picture as the small one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from train.phantom.latent import FloatArray, LatentEye, Vessel

__all__ = [
    "REFERENCE_PX",
    "FieldGrid",
    "blur",
    "draw_blobs",
    "draw_vessels",
    "field_grid",
    "gaussian",
    "smooth_noise",
    "step_down",
]

REFERENCE_PX = 128
FIELD_RADIUS = 0.985  # of half the square frame


@dataclass(frozen=True, eq=False)
class FieldGrid:
    """Coordinates of a square picture of a field.

    `x`, `y` are anatomical positions of every pixel (float32, (S, S)); `u`, `v` the optical
    ones, which differ when the camera was not centred.
    """

    size_px: int
    x: FloatArray
    y: FloatArray
    u: FloatArray
    v: FloatArray
    shift_xy: tuple[float, float]

    def distance(self, center_xy: tuple[float, float], aspect: float = 1.0) -> FloatArray:
        """Distance of every pixel from a point; `aspect` > 1 shrinks the vertical part."""
        dx, dy = self.x - center_xy[0], self.y - center_xy[1]
        if aspect != 1.0:
            dy = dy / np.float32(aspect)
        return np.asarray(np.sqrt(dx * dx + dy * dy))

    def in_field(self) -> FloatArray:
        """Coverage of every pixel by the circular field, 0 to 1."""
        edge = (FIELD_RADIUS - np.sqrt(self.u * self.u + self.v * self.v)) * self.size_px * 0.5
        return np.asarray(np.clip(edge + 0.5, 0, 1))


@lru_cache(maxsize=4)
def _axes(size_px: int) -> tuple[FloatArray, FloatArray]:
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px * 2 - 1
    u, v = np.meshgrid(axis, axis)
    u.flags.writeable = v.flags.writeable = False
    return u, v


def field_grid(eye: LatentEye, size_px: int) -> FieldGrid:
    """Make the coordinates of an eye's picture."""
    u, v = _axes(size_px)
    shift = eye.capture.field_shift_xy
    if shift == (0.0, 0.0):
        return FieldGrid(size_px, u, v, u, v, shift)
    x, y = u + np.float32(shift[0]), v + np.float32(shift[1])
    return FieldGrid(size_px, x, y, u, v, shift)


def smooth_noise(rng: np.random.Generator, cells: int, size_px: int, bands: int = 1) -> FloatArray:
    """Draw noise on `cells` x `cells` over the field, interpolated to (S, S[, bands])."""
    shape = (cells, cells) if bands == 1 else (cells, cells, bands)
    coarse = rng.standard_normal(shape, dtype=np.float32)
    if cells == size_px:
        return coarse
    method = cv2.INTER_CUBIC if cells < size_px else cv2.INTER_AREA
    return np.asarray(cv2.resize(coarse, (size_px, size_px), interpolation=method))


def gaussian(distance: FloatArray, width: float) -> FloatArray:
    """exp(-(distance / width)^2)."""
    ratio = distance / np.float32(width)
    return np.asarray(np.exp(-ratio * ratio))


def step_down(distance: FloatArray, edge: float, softness: float) -> FloatArray:
    """A smooth step: 1 inside the edge, 0 outside."""
    ratio = np.clip((distance - np.float32(edge)) / np.float32(softness), -30, 30)
    return np.asarray(1 / (1 + np.exp(ratio)))


def blur(image: FloatArray, sigma_96: float) -> FloatArray:
    """Gaussian blur; sigma is given in pixels of a 96 px picture."""
    sigma = sigma_96 * image.shape[0] / 96
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma)) if sigma > 0.05 else image


def _oversampling(size_px: int) -> int:
    return 3 if size_px <= 256 else 1


def _to_pixels(points_xy: FloatArray, shift_xy: tuple[float, float], big_px: int) -> FloatArray:
    moved = points_xy - np.asarray(shift_xy, np.float32)
    return ((moved * 0.5 + 0.5) * big_px - 0.5) * 16


def _reduce(canvas: np.ndarray, size_px: int) -> FloatArray:
    if canvas.shape[0] != size_px:
        canvas = cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(canvas.astype(np.float32) * np.float32(1 / 255))


def draw_vessels(
    vessels: tuple[Vessel, ...], size_px: int, shift_xy: tuple[float, float] = (0.0, 0.0)
) -> FloatArray:
    """Draw vessels as coverage.

    A line thinner than a pixel of the oversampled canvas is drawn one pixel wide and fainter,
    so that the covered area does not depend on the picture's size.

    Returns:
        float32 (S, S), 0 to 1.
    """
    big_px = size_px * _oversampling(size_px)
    canvas = np.zeros((big_px, big_px), np.uint8)
    for vessel in sorted(vessels, key=lambda item: float(item.widths[0])):
        pixels = np.rint(_to_pixels(vessel.points_xy, shift_xy, big_px)).astype(np.int32)
        for start in range(0, len(pixels) - 1, 6):
            width = float(vessel.widths[start]) * 0.5 * big_px
            thickness = max(1, round(width))
            value = int(255 * min(1.0, width / thickness))
            part = pixels[start : start + 7]
            cv2.polylines(canvas, [part], False, value, thickness, cv2.LINE_AA, 4)
    return _reduce(canvas, size_px)


def draw_blobs(
    rows: FloatArray, size_px: int, shift_xy: tuple[float, float] = (0.0, 0.0)
) -> FloatArray:
    """Draw discs given as rows (x, y, radius) as coverage, float32 (S, S), 0 to 1."""
    big_px = size_px * _oversampling(size_px)
    canvas = np.zeros((big_px, big_px), np.uint8)
    centers = np.rint(_to_pixels(rows[:, :2], shift_xy, big_px)).astype(int).tolist()
    for center, radius in zip(centers, rows[:, 2].tolist(), strict=True):
        size = max(8, round(radius * 0.5 * big_px * 16))
        cv2.circle(canvas, center, size, 255, -1, cv2.LINE_AA, 4)
    return _reduce(canvas, size_px)
