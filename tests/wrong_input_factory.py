"""Pictures that a screening camera may be handed and that are no colour fundus photograph."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from fundus_factory import Pixels

_SIDE = 480

Floats = npt.NDArray[np.float64]


def in_circle(image_hwc: Pixels, *, fill: float = 0.95) -> Pixels:
    """The middle of a picture in a circle on black, as a fundus camera frames an eye."""
    side = min(image_hwc.shape[:2])
    top, left = ((length - side) // 2 for length in image_hwc.shape[:2])
    y, x = np.ogrid[:side, :side]
    inside = np.hypot(x + 0.5 - side / 2, y + 0.5 - side / 2) < fill * side / 2
    return np.where(inside[..., None], image_hwc[top : top + side, left : left + side], 0).astype(
        np.uint8
    )


def _grid() -> tuple[Floats, Floats]:
    """Coordinates from -1 to 1."""
    axis = (np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1
    return axis[None, :] + np.zeros((_SIDE, 1)), axis[:, None] + np.zeros((1, _SIDE))


def _texture(cells: int, seed: int) -> Floats:
    """Smooth noise of unit spread with that many cells across."""
    noise = np.random.default_rng(seed).standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC), np.float64)


def _painted(value: Floats, colour: tuple[float, float, float]) -> Pixels:
    return np.asarray(np.clip(value[..., None] * np.array(colour), 0, 255), np.uint8)


def _sphere(colour: tuple[float, float, float], cells: int, depth: float) -> Pixels:
    """A lit ball with pores and a highlight."""
    x, y = _grid()
    height = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    light = np.clip(-0.4 * x - 0.5 * y + 0.77 * height, 0.05, 1)
    shade = light * (1 + depth * _texture(cells, 1))
    ball = _painted(shade, colour).astype(float)
    shine = 230 * np.exp(-((x + 0.35) ** 2 + (y + 0.42) ** 2) / 0.012)
    return np.asarray(np.clip(ball + shine[..., None], 0, 255), np.uint8)


def _eye_from_outside() -> Pixels:
    """Skin, lids, white, iris with spokes, pupil, reflection."""
    x, y = _grid()
    image = _painted(1 + 0.05 * _texture(90, 2), (205, 150, 125)).astype(float)
    opening = (x / 0.95) ** 2 + (y / 0.5) ** 2 < 1
    image[opening] = (232, 222, 216)
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    iris = opening & (distance < 0.45)
    spokes = 0.75 + 0.25 * np.sin(46 * angle + 3 * _texture(20, 3))
    image[iris] = (np.stack([spokes * 120, spokes * 82, spokes * 45], -1))[iris]
    image[opening & (distance < 0.18)] = 8
    image[np.hypot(x + 0.1, y + 0.12) < 0.05] = 255
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def _iris_close() -> Pixels:
    """An iris that fills the frame, brown, with a dark pupil."""
    x, y = _grid()
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    spokes = 0.7 + 0.2 * np.sin(60 * angle + 2 * _texture(30, 4)) + 0.1 * _texture(60, 5)
    image = _painted(np.where(distance < 0.3, 0.06, spokes), (150, 95, 50))
    return image


def _bscan(seed: int = 6) -> Pixels:
    """Layers of speckle, grey."""
    x, y = _grid()
    depth = y + 0.15 * np.exp(-((x / 0.3) ** 2)) + 0.05 * np.sin(3 * x)
    layers = sum(
        weight * np.exp(-(((depth - place) / width) ** 2))
        for place, width, weight in ((-0.2, 0.05, 0.8), (0.0, 0.09, 0.4), (0.25, 0.04, 1.0),
                                     (0.45, 0.2, 0.35))
    )  # fmt: skip
    speckle = np.random.default_rng(seed).gamma(2.0, 0.5, (_SIDE, _SIDE))
    return _painted(np.asarray((0.08 + layers) * speckle), (170, 170, 170))


def _vessel_tree(background: float, vessels: float) -> Floats:
    """A branching picture of one level on another, as grey modalities show the fundus."""
    canvas = np.full((_SIDE, _SIDE), background, np.float32)
    rng = np.random.default_rng(7)
    for start in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        x, y, angle, width = 0.72 * _SIDE, 0.5 * _SIDE, start, 9.0
        for _ in range(40):
            angle += rng.normal(0, 0.16)
            to = (x + 9 * np.cos(angle), y + 9 * np.sin(angle))
            cv2.line(canvas, (int(x), int(y)), (int(to[0]), int(to[1])), vessels, round(width))
            (x, y), width = to, max(1.0, width * 0.95)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 1.2), np.float64)


def _page() -> Pixels:
    page = np.full((_SIDE, _SIDE, 3), 246, np.uint8)
    for row in range(20, _SIDE, 22):
        cv2.putText(page, "Referral letter: please see the patient", (4, row), 0, 0.62, (25,) * 3)
    return page


def _screen() -> Pixels:
    """Windows, bars and buttons."""
    image = np.full((_SIDE, _SIDE, 3), (36, 60, 105), np.uint8)
    rng = np.random.default_rng(8)
    for _ in range(14):
        x, y = rng.integers(0, 380, 2)
        colour = [int(v) for v in rng.integers(60, 255, 3)]
        cv2.rectangle(image, (int(x), int(y)), (int(x) + 150, int(y) + 90), colour, -1)
        cv2.putText(image, "OK Cancel", (int(x) + 5, int(y) + 40), 0, 0.6, (0, 0, 0))
    return image


def _scene() -> Pixels:
    """Sky, a hill, a house with a red roof."""
    x, y = _grid()
    image = _painted(1 - 0.2 * y, (120, 165, 225))
    image[y > 0.1 + 0.15 * np.sin(3 * x)] = (70, 130, 60)
    cv2.rectangle(image, (150, 190), (330, 380), (200, 180, 150), -1)
    cv2.fillPoly(image, [np.array([[130, 190], [350, 190], [240, 90]], np.int32)], (180, 50, 40))
    return image


def _colour_noise() -> Pixels:
    return np.random.default_rng(9).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)


def _warm_noise() -> Pixels:
    return _painted(1 + 0.35 * _texture(160, 10), (190, 95, 45))


def _ramp(colour: tuple[float, float, float]) -> Pixels:
    return _painted(0.2 + 0.4 * (_grid()[0] + 1), colour)


def _grey(value: Floats) -> Pixels:
    return _painted(value, (1, 1, 1))


WRONG_INPUT: dict[str, Callable[[], Pixels]] = {
    "eye from outside": _eye_from_outside,
    "iris": _iris_close,
    "orange": lambda: _sphere((235, 140, 30), 120, 0.09),
    "red ball": lambda: _sphere((215, 45, 40), 40, 0.02),
    "moon, tinted": lambda: _sphere((200, 100, 50), 60, 0.25),
    "B-scan": _bscan,
    "red-free": lambda: _grey(_vessel_tree(125, 60)),
    "red-free, green": lambda: _painted(_vessel_tree(125, 60) / 125, (25, 130, 30)),
    "fluorescein angiogram": lambda: _grey(_vessel_tree(45, 210)),
    "angiogram, green": lambda: _painted(_vessel_tree(45, 210) / 210, (40, 220, 90)),
    "angiogram, tinted": lambda: _painted(_vessel_tree(45, 210) / 210, (225, 120, 60)),
    "autofluorescence, green": lambda: _painted(_vessel_tree(140, 50) / 140, (45, 150, 60)),
    "infrared, tinted": lambda: _painted(_vessel_tree(120, 70) / 120, (160, 80, 40)),
    "page": _page,
    "screen": _screen,
    "scene": _scene,
    "colour noise": _colour_noise,
    "warm noise": _warm_noise,
    "red ramp": lambda: _ramp((210, 95, 45)),
    "grey ramp": lambda: _ramp((220, 220, 220)),
    "grey": lambda: np.full((_SIDE, _SIDE, 3), 128, np.uint8),
    "red": lambda: _ramp((0, 0, 0)) + np.array([190, 70, 40], np.uint8),
    "white": lambda: np.full((_SIDE, _SIDE, 3), 255, np.uint8),
    "black": lambda: np.zeros((_SIDE, _SIDE, 3), np.uint8),
}
