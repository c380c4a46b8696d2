"""Damage done to the fields of TIFF directories, BMP headers and DICOM elements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from damage import Mutation, replaced

__all__ = ["BMP", "DICOM", "TIFF"]

_BMP_FIELDS = ((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4))
_DICOM_PREAMBLE = 132


def _other_number(old: int, size: int, rng: np.random.Generator) -> int:
    """A number near the old one, an extreme one, or any."""
    top = 256**size - 1
    choices = (old - 1, old + 1, old * 2, old // 2, old ^ 1 << int(rng.integers(8 * size)), 0, top)
    drawn = int(rng.integers(len(choices) + 1))
    return choices[drawn] & top if drawn < len(choices) else int(rng.integers(top, endpoint=True))


def _field(data: bytes, at: int, size: int, order: str, rng: np.random.Generator) -> bytes:
    if at < 0 or at + size > len(data):
        return data
    old = int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]
    new = _other_number(old, size, rng)
    return replaced(data, at, new.to_bytes(size, order))  # type: ignore[arg-type]


def _bmp_header(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    at, size = _BMP_FIELDS[rng.integers(len(_BMP_FIELDS))]
    return _field(data, at, size, "little", rng)


def _tiff_directory(data: bytes) -> tuple[str, int, int]:
    """Byte order, offset and number of entries of the first directory."""
    order = "big" if data[:2] == b"MM" else "little"
    start = int.from_bytes(data[4:8], order)  # type: ignore[arg-type]
    return order, start, int.from_bytes(data[start : start + 2], order)  # type: ignore[arg-type]


def _tiff_entry(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Another tag, type, count or value (or offset of values) of one entry."""
    order, start, num = _tiff_directory(data)
    if not 0 < num < 200:
        return data
    part, size = ((0, 2), (2, 2), (4, 4), (8, 2), (8, 4))[rng.integers(5)]
    at = start + 2 + 12 * int(rng.integers(num)) + part
    return _field(data, at, size, order, rng)


def _tiff_links(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Another first directory, another number of entries, or a next directory."""
    order, start, num = _tiff_directory(data)
    at, size = ((4, 4), (start, 2), (start + 2 + 12 * num, 4))[rng.integers(3)]
    if rng.random() < 0.3 and size == 4:  # a directory that follows itself
        return replaced(data, at, start.to_bytes(4, order))  # type: ignore[arg-type]
    return _field(data, at, size, order, rng)


def _dicom_element(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """A byte of the data set in front of the pixels."""
    pixels = max(data.find(b"\xe0\x7f\x10\x00"), _DICOM_PREAMBLE + 1)
    at = int(rng.integers(_DICOM_PREAMBLE, pixels))
    return _field(data, at, 1, "little", rng)


def _dicom_pixel_header(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """A byte of the pixel element's header and of the item headers that follow it."""
    at = data.find(b"\xe0\x7f\x10\x00")
    return data if at < 0 else _field(data, at + int(rng.integers(32)), 1, "little", rng)


TIFF: Mapping[str, Mutation] = {"entry": _tiff_entry, "links": _tiff_links}
BMP: Mapping[str, Mutation] = {"header field": _bmp_header}
DICOM: Mapping[str, Mutation] = {"element": _dicom_element, "pixel header": _dicom_pixel_header}
