"""Reading OCT B-scans and masks: 8-bit, one-channel PNG, whole to the last byte.

CFPs are not read here: they go through `edge_runtime.preprocess` and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError, ImageUnreadableError
from edge_runtime.formats.png import PNG_SIGNATURE, check_png_structure, read_png_header

__all__ = ["decode_scan", "read_mask", "read_scan"]

_GREY_8_BIT = (8, 0)  # bit depth, colour type of the PNG header
_MAX_SIDE_PX = 16384


def read_scan(path: Path) -> npt.NDArray[np.uint8]:
    """One OCT B-scan.

    Returns:
        (Z, X) uint8, rows from vitreous to choroid.

    Raises:
        DataError: The file is missing, damaged, or not an 8-bit grey PNG.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path.name}': {error.strerror}; restore it") from error
    return decode_scan(data, path.name)


def decode_scan(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """One OCT B-scan from a file's bytes; `name` is what messages call it.

    Returns:
        (Z, X) uint8, rows from vitreous to choroid.

    Raises:
        DataError: The bytes are damaged, or not an 8-bit grey PNG.
    """
    _require_whole_grey_png(data, name)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint8:
        raise DataError(f"'{name}' does not decode as an 8-bit grey PNG; write it again")
    return np.ascontiguousarray(image, dtype=np.uint8)


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """One mask; pixels are 0 (outside) or 255 (inside).

    Returns:
        (H, W) bool, in the pixels of the CFP file it belongs to.

    Raises:
        DataError: As `read_scan`, or a pixel has a value other than 0 and 255.
    """
    image = read_scan(path)
    inside: npt.NDArray[np.bool_] = np.equal(image, 255)
    odd = image[~inside & (image != 0)]
    if odd.size:
        raise DataError(
            f"'{path.name}' has pixel value {int(odd[0])}; a mask holds only 0 and 255, "
            "save it without smoothing or as values 0/255"
        )
    return inside


def _require_whole_grey_png(data: bytes, name: str) -> None:
    """Ask before decoding: decoders fill in what a cut file lacks."""
    if not data.startswith(PNG_SIGNATURE):
        raise DataError(f"'{name}' is not a PNG file; convert OCT scans and masks to 8-bit PNG")
    try:
        header = read_png_header(data)
        check_png_structure(data)
    except ImageUnreadableError as error:
        raise DataError(f"'{name}': {error}; copy it again") from error
    if (header.bits, header.colour_type) != _GREY_8_BIT:
        raise DataError(
            f"'{name}' is a PNG of {header.bits} bits, colour type {header.colour_type}; "
            "save it as 8-bit grey"
        )
    if max(header.width_px, header.height_px) > _MAX_SIDE_PX:
        raise DataError(
            f"'{name}' is {header.width_px} x {header.height_px} px; "
            f"bring it to at most {_MAX_SIDE_PX} px a side"
        )
