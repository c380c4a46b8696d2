"""Read Windows bitmaps: uncompressed 24-bit, or 32-bit without transparency, to the exact byte.

Layout: Microsoft, BITMAPFILEHEADER and BITMAPINFOHEADER, BITMAPV4HEADER, BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.header import DecodeLimits, ImageHeader, Pixels, check_pixel_limit

__all__ = ["BMP_START", "BmpFile", "open_bmp"]

BMP_START = b"BM"
_FILE_HEADER, _INFO_HEADER = 14, 40
_INFO_SIZES = (_INFO_HEADER, 52, 56, 108, 124)
_RGB, _BITFIELDS = 0, 3
_BGRA_MASKS = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)


@dataclass(frozen=True, kw_only=True)
class BmpFile:
    """A bitmap of exactly the size its header claims.

    `start` is the offset of the pixels; `top_down` whether the first stored row is the top.
    """

    data: bytes
    header: ImageHeader
    start: int
    top_down: bool
    can_reduce: bool = False

    def decode(self, reduction: int) -> Pixels:
        """Reorder the stored bytes; see `PictureFile.decode`."""
        if reduction != 1:
            raise ValueError("a BMP has no reduced decoding")
        (height, width), channels = self.header.stored_size_px, self.header.channels
        rows = np.frombuffer(self.data, np.uint8, offset=self.start).reshape(height, -1)
        pixels = rows[:, : width * channels].reshape(height, width, channels)
        # The fourth byte is unused in most files: all 0, or all 255; else it is transparency.
        if channels == 4 and (np.ptp(pixels[..., 3]) != 0 or pixels[0, 0, 3] not in (0, 255)):
            raise ImageUnreadableError("BMP is partly transparent; export one opaque 24-bit image")
        return np.ascontiguousarray(pixels[:: 1 if self.top_down else -1, :, 2::-1])


def open_bmp(data: bytes, limits: DecodeLimits) -> BmpFile:
    """Check a bitmap's headers against the size of the file.

    Args:
        data: the file's bytes, beginning with `BMP_START`.
        limits: of pixels.

    Raises:
        ImageUnreadableError: cut, longer than claimed, or not uncompressed 24 or 32 bits.
        ImageLimitError: more pixels than the limits.
    """
    if len(data) < _FILE_HEADER + _INFO_HEADER:
        raise ImageUnreadableError("BMP ends inside its header: the file is cut; copy it again")
    file_bytes, _, start, info_bytes = struct.unpack_from("<4I", data, 2)
    width, height, planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if info_bytes not in _INFO_SIZES or planes != 1 or width <= 0 or height == 0:
        raise ImageUnreadableError(
            f"BMP header is impossible or of a kind not supported ({info_bytes} bytes, {planes} "
            f"planes, {width}x{height}); export a 24-bit BMP or PNG"
        )
    _check_coding(data, bits, compression)
    check_pixel_limit(abs(height), width, limits)
    stride = -(-width * bits // 32) * 4
    expected = start + stride * abs(height)
    if start < _FILE_HEADER + info_bytes or not file_bytes == len(data) == expected:
        raise ImageUnreadableError(
            f"BMP has {len(data)} bytes, its header claims {file_bytes} and its pixels end at "
            f"{expected}: the file is cut or damaged; copy it again"
        )
    header = ImageHeader(format="bmp", stored_size_px=(abs(height), width), channels=bits // 8)
    return BmpFile(data=data, header=header, start=start, top_down=height < 0)


def _check_coding(data: bytes, bits: int, compression: int) -> None:
    if bits <= 8:
        raise ImageUnreadableError(
            f"BMP has {bits} bits a pixel (grayscale or palette); export a 24-bit colour image"
        )
    standard = bits == 32 and compression == _BITFIELDS and data[54:66] == _BGRA_MASKS
    if bits not in (24, 32) or not (compression == _RGB or standard):
        raise ImageUnreadableError(
            f"BMP has {bits} bits a pixel and compression {compression}; export it uncompressed "
            "with 24 bits"
        )
