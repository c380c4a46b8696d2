"""Camera-size pictures of one known circle under everything that hides its edge."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from fundus_factory import Pixels, fundus

HEIGHT, WIDTH = 1600, 2000
CENTRED = (1000.3, 800.6, 736.2)
_TEXT = (245, 245, 245)


class Scene(NamedTuple):
    """A picture at camera size and the circle that was drawn: x, y, radius in pixels."""

    image_hwc: Pixels
    circle: tuple[float, float, float]


@lru_cache(maxsize=4)
def _drawn(cx: float, cy: float, radius: float) -> Pixels:
    return fundus(HEIGHT, WIDTH, cx=cx, cy=cy, radius=radius)


def _plain(circle: tuple[float, float, float] = CENTRED) -> Scene:
    return Scene(_drawn(*circle).copy(), circle)


def _distance(circle: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Of every pixel from the circle's centre, in radii."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    return np.asarray(np.hypot(x + 0.5 - circle[0], y + 0.5 - circle[1]) / circle[2])


def _lit(image: npt.NDArray[np.float64]) -> Pixels:
    return np.asarray(np.clip(image, 0, 255).round(), np.uint8)


def _scaled(factor: float) -> Scene:
    scene = _plain()
    return Scene(_lit(scene.image_hwc * factor), scene.circle)


def _background(level: tuple[float, float, float], noise: float) -> Scene:
    """A camera's black that is neither black nor grey, with coloured noise everywhere."""
    scene = _plain()
    rng = np.random.default_rng(5)
    grain = rng.standard_normal((HEIGHT, WIDTH, 3)) * noise
    return Scene(_lit(np.maximum(scene.image_hwc, level) + grain), scene.circle)


def _side_notch() -> Scene:
    """The triangular registration tab on the right, and a square one above."""
    scene = _plain()
    x, y, r = scene.circle
    tab = np.array([[x + 0.99 * r, y - 60], [x + 0.99 * r, y + 60], [x + 1.06 * r, y]], np.int32)
    cv2.fillPoly(scene.image_hwc, [tab], (190, 95, 45))
    cv2.rectangle(
        scene.image_hwc, (int(x + 300), int(y - 1.02 * r)), (int(x + 360), int(y - 0.9 * r)),
        (190, 95, 45), -1,
    )  # fmt: skip
    return scene


def _inner_notch() -> Scene:
    """A tab that covers the field's edge with black."""
    scene = _plain()
    x, y, r = scene.circle
    tab = np.array([[x + r + 9, y - 90], [x + r + 9, y + 90], [x + 0.93 * r, y]], np.int32)
    cv2.fillPoly(scene.image_hwc, [tab], (0, 0, 0))
    return scene


def _text(places: tuple[tuple[int, int], ...], scale: float) -> Scene:
    scene = _plain()
    for place in places:
        cv2.putText(scene.image_hwc, "2026-11-23 OD 45", place, 0, scale, _TEXT, int(3 * scale))
    return scene


def _cropped(top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> Scene:
    """Cut by the frame itself."""
    scene = _plain()
    x, y, r = scene.circle
    cut = scene.image_hwc[top : HEIGHT - bottom, left : WIDTH - right]
    return Scene(np.ascontiguousarray(cut), (x - left, y - top, r))


def _barred(px: int) -> Scene:
    """Cut above and below by black bars inside the frame."""
    scene = _plain()
    scene.image_hwc[:px] = scene.image_hwc[-px:] = 0
    return scene


def _reflections() -> Scene:
    """Bright spots outside the field, as from a lens or a lamp in the room."""
    scene = _plain()
    for x, y, r in ((90, 120, 60), (1900, 1400, 70), (1880, 150, 45)):
        cv2.circle(scene.image_hwc, (x, y), r, (250, 240, 220), -1)
    return scene


def _haze(level: float, reach: float) -> Scene:
    """Scattered light that fades outside the rim."""
    scene = _plain()
    fade = level * np.exp(-np.maximum(_distance(scene.circle) - 1, 0) / reach)
    return Scene(_lit(np.maximum(scene.image_hwc, fade[..., None] * [1, 0.6, 0.35])), scene.circle)


def _crescent() -> Scene:
    """Flare that blows one side of the field out, and its glow beyond the rim."""
    scene = _plain()
    x, y, r = scene.circle
    spot = (x - 0.95 * r, y, r)
    glow = 320 * np.exp(-((_distance(spot) / 0.25) ** 2))
    inside = (_distance(scene.circle) < 1)[..., None]
    image = scene.image_hwc + np.where(inside, glow[..., None], 0.08 * glow[..., None])
    return Scene(_lit(image), scene.circle)


def _half_dark() -> Scene:
    """A pupil that was missed: light falls off to one side."""
    scene = _plain()
    fall = np.clip(np.linspace(1.25, 0.12, WIDTH), 0, 1)[None, :, None]
    return Scene(_lit(scene.image_hwc * fall), scene.circle)


def _lashes() -> Scene:
    """A lid's shadow over the lower fifth, uneven."""
    scene = _plain()
    x = np.arange(WIDTH)
    edge = (scene.circle[1] + 0.62 * scene.circle[2] + 40 * np.sin(x / 90)).astype(int)
    shadow = np.arange(HEIGHT)[:, None] > edge[None]
    return Scene(_lit(np.where(shadow[..., None], 0.05, 1) * scene.image_hwc), scene.circle)


def _ring() -> Scene:
    """A mask's faint outer ring, grey, outside the field."""
    scene = _plain()
    x, y, r = scene.circle
    cv2.circle(scene.image_hwc, (round(x), round(y)), round(1.05 * r), (38, 38, 38), 12)
    return scene


SCENES: dict[str, Callable[[], Scene]] = {
    "plain": _plain,
    "dark": lambda: _scaled(0.16),
    "very dark": lambda: _scaled(0.09),
    "overexposed": lambda: _scaled(4.0),
    "one side dark": _half_dark,
    "cropped top and bottom": lambda: _cropped(160, 170),
    "cropped on all sides": lambda: _cropped(110, 100, 310, 320),
    "cropped on three sides": lambda: _cropped(0, 200, 400, 360),
    "cropped close to the corners": lambda: _cropped(170, 170, 390, 390),
    "black bars above and below": lambda: _barred(180),
    "outer notches": _side_notch,
    "inner notch": _inner_notch,
    "text in the corner": lambda: _text(((20, 60),), 1.6),
    "text in four corners": lambda: _text(((20, 60), (1540, 60), (20, 1570), (1540, 1570)), 1.6),
    "text over the rim": lambda: _text(((40, 700), (60, 1300)), 2.0),
    "small circle": lambda: _plain((1000.2, 800.4, 300.7)),
    "very small circle": lambda: _plain((1000.2, 800.4, 190.7)),
    "off centre": lambda: _plain((790.4, 770.2, 640.3)),
    "off centre and cut": lambda: _plain((560.4, 900.2, 720.3)),
    "reflections outside": _reflections,
    "haze": lambda: _haze(22, 0.05),
    "wide haze": lambda: _haze(14, 0.4),
    "flare on the rim": _crescent,
    "lid's shadow": _lashes,
    "outer ring": _ring,
    "coloured noise": lambda: _background((9, 4, 14), 4),
    "bright background": lambda: _background((24, 26, 30), 3),
}
