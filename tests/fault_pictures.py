"""Intact pictures in every format that is screened: what the fault tests damage.

A format is one row of `FORMATS`: how a picture is written in it and how its own structure is
damaged. The pictures are drawn, so that the same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from damage import Mutation
from damage_jpeg import JPEG
from damage_png import PNG
from fundus_factory import Pixels, exif_block, fundus, png_bytes, with_exif

__all__ = ["FORMATS", "SIZES_PX", "PictureFormat", "intact_file", "picture"]

#: (height, width) by the name of a size.
SIZES_PX: Mapping[str, tuple[int, int]] = {"256px": (256, 256), "3mp": (1536, 2048)}
NUM_PICTURES: Mapping[str, int] = {"256px": 8, "3mp": 2}
_TEXTURE_SIGMA = 6.0  # of the camera's noise, in grey levels


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFormat:
    """One way to write a picture, and the ways to damage what is particular to it."""

    name: str
    encode: Callable[[Pixels], bytes]
    own_damage: Mapping[str, Mutation]


def _jpeg(
    image_hwc: Pixels, *, quality: int = 90, progressive: bool = False, restart: int = 0,
    sampling: int = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
) -> bytes:  # fmt: skip
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    return bytes(cv2.imencode(".jpg", image_hwc[..., ::-1], options)[1])


FORMATS = (
    PictureFormat(name="jpeg 4:2:0", encode=_jpeg, own_damage=JPEG),
    PictureFormat(
        name="jpeg 4:4:4",
        encode=lambda image: _jpeg(image, sampling=cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        own_damage=JPEG,
    ),
    PictureFormat(
        name="jpeg progressive",
        encode=lambda image: _jpeg(image, progressive=True),
        own_damage=JPEG,
    ),
    PictureFormat(
        name="jpeg with restarts", encode=lambda image: _jpeg(image, restart=8), own_damage=JPEG
    ),
    PictureFormat(
        name="jpeg with EXIF", encode=lambda image: with_exif(_jpeg(image), exif_block(6)),
        own_damage=JPEG,
    ),
    PictureFormat(name="png", encode=png_bytes, own_damage=PNG),
)  # fmt: skip


@lru_cache(maxsize=16)
def picture(size: str, seed: int) -> Pixels:
    """(H, W, 3) RGB: a drawn fundus with a camera's noise, of a size of `SIZES_PX`."""
    height, width = SIZES_PX[size]
    side = min(height, width)
    image = fundus(height, width, cx=width / 2, cy=height / 2, radius=0.46 * side, seed=seed)
    noise = np.random.default_rng([seed, side]).normal(0, _TEXTURE_SIGMA, (height, width, 1))
    return np.where(image > 0, np.clip(image + noise, 1, 255), 0).astype(np.uint8)


@lru_cache(maxsize=256)
def intact_file(form: PictureFormat, size: str, seed: int) -> bytes:
    """The picture of `seed` written in a format."""
    return form.encode(picture(size, seed))
