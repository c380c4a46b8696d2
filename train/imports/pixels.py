"""Pixels of published files: masks to the contract's PNG, and photographs kept byte for byte.

Only a photograph in PPM is written anew, as PNG and without loss: the runtime reads no PPM.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError, ImageError
from edge_runtime.image import decode_image
from train.imports.records import MaskSource
from train.pairing.pixels import check_whole, decode_pixels, encode_png

__all__ = ["Photograph", "mask_png", "read_photograph"]

_SUFFIX = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "bmp": ".bmp"}
_PPM_START = b"P6"
_GZIP_START = b"\x1f\x8b"
_MAX_UNPACKED = 1 << 28  # no fundus photograph unpacks to more; a bomb does
_MAX_SIDE_PX = 16384

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A photograph that the runtime can read.

    Attributes:
        data: bytes to write.
        suffix: of the file, with its dot.
        shape: (height, width) in upright pixels.
        converted: it was PPM and is PNG now, pixel for pixel.
    """

    data: bytes
    suffix: str
    shape: tuple[int, int]
    converted: bool


def read_photograph(data: bytes) -> Photograph:
    """Look at a file's bytes; they are kept unless the format is PPM.

    Raises:
        DataError: it cannot be decoded whole.
    """
    plain = _unpacked(data)
    converted = plain.startswith(_PPM_START)
    kept = _png_of_ppm(plain) if converted else data
    try:
        decoded = decode_image(kept)
    except ImageError as error:
        raise DataError(str(error)) from error
    if decoded.format not in _SUFFIX:
        raise DataError(f"a {decoded.format} file; the set has photographs")
    height, width = decoded.full_size_px
    return Photograph(
        data=kept, suffix=_SUFFIX[decoded.format], shape=(height, width), converted=converted
    )


def mask_png(source: MaskSource, shape: tuple[int, int]) -> bytes:
    """A mask as 8-bit grey PNG of 0 and 255, without loss.

    Args:
        source: files and what their values mean.
        shape: (height, width) of the photograph.

    Raises:
        DataError: a file cannot be read, has another shape, or a value without a meaning.
    """
    inside = np.zeros(shape, np.bool_)
    for path in source.files:
        grey = _grey(path)
        if grey.shape != shape:
            raise DataError(
                f"mask '{path.name}' is {grey.shape[1]} x {grey.shape[0]} px, its photograph "
                f"{shape[1]} x {shape[0]}"
            )
        inside |= _inside(grey, source, path.name)
    return encode_png(inside.astype(np.uint8) * 255)


def _inside(grey: UInt8Array, source: MaskSource, name: str) -> npt.NDArray[np.bool_]:
    values = set(np.unique(grey).tolist())
    if source.inside is None:
        if len(values) > 2 or 0 not in values:
            shown = ", ".join(str(value) for value in sorted(values)[:5])
            raise DataError(f"mask '{name}' holds {shown}; two values, 0 being outside, are known")
        return np.not_equal(grey, 0)
    strange = values - source.inside - source.outside
    if strange:
        raise DataError(f"mask '{name}' holds {min(strange)}, which the set does not explain")
    return np.isin(grey, sorted(source.inside))


def _grey(path: Path) -> UInt8Array:
    """(H, W) uint8: the largest of a pixel's colour channels."""
    try:
        data = _unpacked(path.read_bytes())
        check_whole(data)
    except OSError as error:
        raise DataError(f"mask '{path.name}' cannot be read: {error.strerror}") from error
    except ImageError as error:
        raise DataError(f"mask '{path.name}': {error}") from error
    pixels = decode_pixels(data)
    if pixels is None or pixels.dtype != np.uint8 or max(pixels.shape[:2]) > _MAX_SIDE_PX:
        raise DataError(
            f"mask '{path.name}' is not an 8-bit picture that this OpenCV reads; where it lacks "
            "GIF, save the masks as PNG under their names"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(axis=2)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _unpacked(data: bytes) -> bytes:
    """The content of a gzip file; other bytes as they are."""
    if not data.startswith(_GZIP_START):
        return data
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = unpacker.decompress(data, _MAX_UNPACKED)
    except zlib.error as error:
        raise DataError(f"not a whole gzip file ({error})") from error
    if not unpacker.eof:
        raise DataError("the gzip file is cut, or unpacks to more than a photograph needs")
    return content


def _png_of_ppm(data: bytes) -> bytes:
    pixels = decode_pixels(data)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint8 or len(data) < pixels.size:
        raise DataError("not a whole 8-bit color PPM file; copy it again")
    return encode_png(np.ascontiguousarray(pixels))
