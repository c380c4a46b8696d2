"""The files of one triple as bytes, checked before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from train.pairing.match import Triple
from train.pairing.pixels import encode_png
from train.pairing.raw import RawImage
from train.pairing.reasons import Reason, Refusal
from train.pairing.settings import PairSettings

__all__ = ["EncodedFile", "encode_triple"]


@dataclass(frozen=True, kw_only=True)
class EncodedFile:
    """One file of the data set: its column, its ending, its bytes."""

    column: str
    suffix: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


def encode_triple(
    triple: Triple, settings: PairSettings, *, is_used: Callable[[str], bool]
) -> list[EncodedFile] | tuple[RawImage, Refusal]:
    """Read, check and convert the images of a triple.

    Args:
        triple: What to read.
        settings: Size of the scans, and whether a CFP may be grey.
        is_used: Whether a file with this SHA-256 is in the data set already.

    Returns:
        One file for each image, or the first image that cannot be used and why.
    """
    files: list[EncodedFile] = []
    shape: tuple[int, ...] | None = None
    for column, image in (("cfp", triple.cfp), ("oct_h", triple.oct_h), ("oct_v", triple.oct_v)):
        if image is None:
            continue
        encoded = _encode(column, image, settings, shape)
        if isinstance(encoded, Refusal):
            return image, encoded
        file, shape = encoded
        if is_used(file.sha256) or any(file.data == other.data for other in files):
            detail = "the same pixels are in the data set already"
            return image, Refusal(reason=Reason.CONFLICTING_IMAGES, detail=detail)
        files.append(file)
    return files


def _encode(
    column: str, image: RawImage, settings: PairSettings, shape: tuple[int, ...] | None
) -> tuple[EncodedFile, tuple[int, ...] | None] | Refusal:
    """One file and the shape that the visit's next scan must have."""
    if column == "cfp":
        photo = image.source.cfp(allow_grey=settings.allow_grey_cfp)
        if isinstance(photo, Refusal):
            return photo
        return EncodedFile(column=column, suffix=photo.suffix, data=photo.data), None
    scan = image.source.oct_zx()
    if isinstance(scan, Refusal):
        return scan
    if settings.oct_size_px is not None:
        scan = _resampled(scan, settings.oct_size_px)
    if shape is not None and scan.shape != shape:
        detail = f"{scan.shape} px where the horizontal scan has {shape}; use --oct-size"
        return Refusal(reason=Reason.SHAPE_MISMATCH, detail=detail)
    return EncodedFile(column=column, suffix=".png", data=encode_png(scan)), scan.shape


def _resampled(scan_zx: npt.NDArray[np.uint8], size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(Z, X) to `size_px`; by area where it shrinks, since B-scans are speckled."""
    rows, columns = size_px
    if scan_zx.shape == size_px:
        return scan_zx
    shrinks = rows <= scan_zx.shape[0] and columns <= scan_zx.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.ascontiguousarray(
        cv2.resize(scan_zx, (columns, rows), interpolation=method), dtype=np.uint8
    )
