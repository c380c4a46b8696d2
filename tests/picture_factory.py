"""The same small picture as a file of every format and coding."""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import numpy as np
from dicom_photo_factory import JPEG_BASELINE, RLE, photo_bytes
from fundus_factory import Pixels, jpeg_bytes, png_bytes

SAMPLINGS = {
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
Entry = tuple[int, int, tuple[int, ...] | bytes]


def sampled_jpeg(
    image_hwc: Pixels, sampling: str, *, progressive: bool = False, restart: int = 0
) -> bytes:
    """Encode RGB as JPEG with a chroma sampling; `restart` is the interval in MCUs."""
    settings = [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling],
        cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive),
        cv2.IMWRITE_JPEG_RST_INTERVAL, restart,
    ]  # fmt: skip
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(image_hwc[..., ::-1]), settings)[1])


def tiff_bytes(image_hwc: Pixels, compression: int = NONE) -> bytes:
    """Encode RGB as TIFF with libtiff, in strips."""
    settings = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    return bytes(cv2.imencode(".tiff", np.ascontiguousarray(image_hwc[..., ::-1]), settings)[1])


def bmp_bytes(image: Pixels) -> bytes:
    """Encode RGB (24 bits) as BMP."""
    return bytes(cv2.imencode(".bmp", np.ascontiguousarray(image[..., ::-1]))[1])


def built_tiff(
    blocks: list[bytes],
    size: tuple[int, int],
    *,
    order: str = "<",
    tiled: int = 0,
    changes: dict[int, Entry | None] | None = None,
    next_directory: int = 0,
) -> bytes:
    """Lay out a TIFF by hand: blocks, long values, directory at the end.

    `size` is (height, width); `tiled` the side of square tiles, else the blocks are strips of
    equal height; `changes` replaces or removes entries (tag, type, values).
    """
    height, width = size
    starts = tuple(8 + sum(map(len, blocks[:i])) for i in range(len(blocks)))
    sizes = tuple(map(len, blocks))
    entries: dict[int, Entry | None] = {
        256: (256, 3, (width,)), 257: (257, 3, (height,)), 258: (258, 3, (8, 8, 8)),
        259: (259, 3, (1,)), 262: (262, 3, (2,)), 277: (277, 3, (3,)),
    }  # fmt: skip
    if tiled:
        entries |= {322: (322, 3, (tiled,)), 323: (323, 3, (tiled,))}
        entries |= {324: (324, 4, starts), 325: (325, 4, sizes)}
    else:
        entries |= {273: (273, 4, starts), 279: (279, 4, sizes)}
        entries |= {278: (278, 3, (-(-height // len(blocks)),))}
    entries |= changes or {}
    body = b"".join(blocks)
    rows = []
    for tag, entry in sorted(entries.items()):
        if entry is None:
            continue
        _, kind, values = entry
        codes = {1: "B", 3: "H", 4: "I"}
        packed = values if isinstance(values, bytes) else struct.pack(
            f"{order}{len(values)}{codes[kind]}", *values
        )  # fmt: skip
        if len(packed) > 4:
            at = struct.pack(order + "I", 8 + len(body))
            body += packed
        else:
            at = packed.ljust(4, b"\0")
        rows.append(struct.pack(order + "HHI", tag, kind, len(values)) + at)
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, 8 + len(body))
    tail = struct.pack(order + "H", len(rows)) + b"".join(rows)
    return head + body + tail + struct.pack(order + "I", next_directory)


def wrapped_jpeg(image: Pixels, jpeg: bytes, syntax: str = JPEG_BASELINE, **tags: object) -> bytes:
    """A YCbCr JPEG of `image`'s size as a DICOM photograph."""
    colours = {"PhotometricInterpretation": "YBR_FULL_422", **tags}
    return photo_bytes(image, syntax=syntax, frame=jpeg, **colours)


ENCODERS: dict[str, Callable[[Pixels], bytes]] = {
    "jpeg": jpeg_bytes,
    "jpeg-progressive": lambda image: jpeg_bytes(image, progressive=True),
    "jpeg-restart": lambda image: sampled_jpeg(image, "422", restart=3),
    "png": png_bytes,
    "tiff": tiff_bytes,
    "tiff-lzw": lambda image: tiff_bytes(image, LZW),
    "tiff-deflate": lambda image: tiff_bytes(image, DEFLATE),
    "tiff-packbits": lambda image: tiff_bytes(image, PACKBITS),
    "bmp": bmp_bytes,
    "dicom": photo_bytes,
    "dicom-rle": lambda image: photo_bytes(image, syntax=RLE),
    "dicom-jpeg": lambda image: wrapped_jpeg(image, jpeg_bytes(image)),
}
