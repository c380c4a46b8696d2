"""Intact pictures in every format that is screened: what the fault tests damage.

A format is one row of `FORMATS`: how a picture is written in it and how its own structure is
damaged. The pictures are drawn, so that the same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from damage import Mutation
from damage_jpeg import JPEG, WRAPPED_JPEG
from damage_png import PNG
from damage_tables import BMP, DICOM, TIFF
from dicom_photo_factory import DEFLATED, RLE, photo_bytes
from fundus_factory import Pixels, exif_block, fundus, jpeg_bytes, png_bytes, with_exif
from picture_factory import (
    DEFLATE,
    LZW,
    PACKBITS,
    bmp_bytes,
    sampled_jpeg,
    tiff_bytes,
    wrapped_jpeg,
)

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


def _form(
    name: str, encode: Callable[[Pixels], bytes], own_damage: Mapping[str, Mutation]
) -> PictureFormat:
    return PictureFormat(name=name, encode=encode, own_damage=own_damage)


FORMATS = (
    _form("jpeg 4:2:0", lambda image: sampled_jpeg(image, "420"), JPEG),
    _form("jpeg 4:4:4", lambda image: sampled_jpeg(image, "444"), JPEG),
    _form("jpeg progressive", lambda image: sampled_jpeg(image, "420", progressive=True), JPEG),
    _form("jpeg with restarts", lambda image: sampled_jpeg(image, "422", restart=8), JPEG),
    _form("jpeg with EXIF", lambda image: with_exif(jpeg_bytes(image), exif_block(6)), JPEG),
    _form("png", png_bytes, PNG),
    _form("bmp", bmp_bytes, BMP),
    _form("tiff", tiff_bytes, TIFF),
    _form("tiff LZW", lambda image: tiff_bytes(image, LZW), TIFF),
    _form("tiff deflate", lambda image: tiff_bytes(image, DEFLATE), TIFF),
    _form("tiff PackBits", lambda image: tiff_bytes(image, PACKBITS), TIFF),
    _form("dicom", photo_bytes, DICOM),
    _form("dicom deflated", lambda image: photo_bytes(image, syntax=DEFLATED), DICOM),
    _form("dicom RLE", lambda image: photo_bytes(image, syntax=RLE), DICOM),
    _form(
        "dicom JPEG",
        lambda image: wrapped_jpeg(image, sampled_jpeg(image, "422")),
        {**DICOM, **WRAPPED_JPEG},
    ),
)


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
