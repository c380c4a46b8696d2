"""A photograph that shows nothing, for the first run of a process: a shaded disc as JPEG."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["warmup_jpeg"]

_RIM_RGB = np.array([150.0, 75.0, 35.0], np.float32)
_DRAWN_PX = 128  # then enlarged, which costs less than to draw large
_TEXTURE = 14.0  # standard deviation, in levels: the quality gate sees detail, and goes on


def warmup_jpeg(size_px: int) -> bytes:
    """Return a JPEG of an orange disc with a grain on black.

    It takes the way of a camera's picture as far as the model: larger than the model's input, so
    that it is decoded at a reduced scale and resized. The bundle's golden photograph would do as
    well, but its bytes need not be kept for that.

    Args:
        size_px: Side of the model's input.
    """
    y, x = np.ogrid[:_DRAWN_PX, :_DRAWN_PX]
    radius = np.hypot(x + 0.5 - _DRAWN_PX / 2, y + 0.5 - _DRAWN_PX / 2) / (_DRAWN_PX / 2)
    cells = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    grain = cv2.resize(cells, (_DRAWN_PX, _DRAWN_PX), interpolation=cv2.INTER_CUBIC)
    light = (1.3 - 0.4 * radius**2) * (radius < 0.94)
    image = light[..., None] * (_RIM_RGB + _TEXTURE * grain[..., None])
    drawn = np.clip(image, 0.0, 255.0).astype(np.uint8)[..., ::-1]
    side_px = 3 * size_px
    pixels = cv2.resize(drawn, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    encoded, data = cv2.imencode(".jpg", pixels)
    if not encoded:
        raise ValueError("OpenCV could not encode a JPEG")
    return bytes(data.tobytes())
