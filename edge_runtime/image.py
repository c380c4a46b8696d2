"""Turn the bytes of one image file into upright RGB pixels, or refuse with the reason.

The header is checked from the bytes first (format, size, components, wholeness), so
nothing large is allocated for a file that will be refused. JPEG can be decoded at 1/2,
1/4 or 1/8 inside the decoder, which is most of the speed of the whole pipeline. Each format
is one file in `edge_runtime.formats`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.errors import ConfigError, ImageLimitError, ImageUnreadableError
from edge_runtime.formats.bmp import BMP_START, open_bmp
from edge_runtime.formats.dicom import is_dicom, open_dicom
from edge_runtime.formats.header import DecodeLimits, ImageHeader, PictureFile, Pixels
from edge_runtime.formats.jpeg import JPEG_START, open_jpeg
from edge_runtime.formats.png import PNG_SIGNATURE, open_png
from edge_runtime.formats.tiff import TIFF_STARTS, open_tiff

__all__ = [
    "DecodeLimits",
    "DecodedImage",
    "ImageHeader",
    "decode_image",
    "inspect_image",
    "read_image",
]

_SUPPORTED = "JPEG, PNG, TIFF, BMP, DICOM"
_OPENERS: tuple[
    tuple[Callable[[bytes], bool], Callable[[bytes, DecodeLimits], PictureFile]], ...
] = (
    (is_dicom, open_dicom),  # first, because its preamble may be that of another format
    (lambda data: data.startswith(JPEG_START), open_jpeg),
    (lambda data: data.startswith(PNG_SIGNATURE), open_png),
    (lambda data: data.startswith(TIFF_STARTS), open_tiff),
    (lambda data: data.startswith(BMP_START), open_bmp),
)
_OTHER_FORMATS = (
    (0, b"II+\x00", "BigTIFF"),
    (0, b"MM\x00+", "BigTIFF"),
    (0, b"GIF8", "GIF"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftyp", "HEIC or AVIF"),
)
_REDUCTIONS = (1, 2, 4, 8)
# The circle fills at most the frame; 5 % less is what cameras leave around it (k is a guess
# that `edge_runtime.preprocess` corrects once the circle is known).
_FRAME_FILL = 0.95
# A resize by a factor near 1 blurs as much again as the reduced decode has: fidelity to a full
# decode drops below 48 dB (`benchmarks/end_to_end.py --fidelity`). So some pixels are left to it.
_MIN_SHRINK = 1.15
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """One image, upright and in colour.

    Attributes:
        image_hwc: (H, W, 3) uint8 RGB, contiguous, after EXIF orientation and reduction.
        full_size_px: (height, width) of the file after orientation, before reduction.
        reduction: 1, 2, 4 or 8; H = ceil(full height / reduction), likewise W.
        sha256: of the file's bytes, hexadecimal.
        format: "jpeg", "png", "tiff", "bmp" or "dicom".
        num_bytes: size of the file.
        laterality: "OD" or "OS" where the file says which eye it shows (DICOM), else None.
        field_degrees: horizontal field of view where the file says so (DICOM), else None.
        warnings: what was done or noticed that a reader of the result should know.
    """

    image_hwc: Pixels
    full_size_px: tuple[int, int]
    reduction: int
    sha256: str
    format: str
    num_bytes: int
    laterality: str | None
    field_degrees: float | None
    warnings: tuple[str, ...]


def read_image(
    path: str | Path, *, target_px: int | None = None, limits: DecodeLimits | None = None
) -> DecodedImage:
    """Read and decode one file; arguments as for `decode_image`.

    Raises:
        ImageUnreadableError: missing, a directory, not readable, or as `decode_image`.
        ImageLimitError: larger than the limits.
    """
    limits = limits or DecodeLimits()
    try:
        with Path(path).open("rb") as file:  # one byte more than allowed shows it is too large
            data = file.read(int(limits.max_megabytes * 1e6) + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageUnreadableError(
            f"the image file cannot be read ({reason}); check that it exists and is a file"
        ) from error
    return decode_image(data, target_px=target_px, limits=limits)


def inspect_image(data: bytes, *, limits: DecodeLimits | None = None) -> ImageHeader:
    """Check one image file as far as that is possible without decoding a pixel.

    Args:
        data: the file's bytes.
        limits: what to refuse; None: the defaults of `DecodeLimits`.

    Returns:
        Format, sizes, channels, orientation, colour profile and what else the file says.

    Raises:
        ImageUnreadableError: header or structure is not that of one whole colour image of a
            supported format. Damage inside the image data is found by `decode_image` only.
        ImageLimitError: more bytes, pixels or scans than the limits.
    """
    return _open(data, limits or DecodeLimits()).header


def decode_image(
    data: bytes,
    *,
    target_px: int | None = None,
    limits: DecodeLimits | None = None,
    max_reduction: int = 8,
    sha256: str | None = None,
) -> DecodedImage:
    """Check and decode one image file.

    Args:
        data: the file's bytes.
        target_px: side of the square that the field of view will become. A JPEG, also one
            inside a DICOM file, is decoded at the largest 1/k that is expected to keep that
            many pixels; None: k = 1.
        limits: what to refuse before decoding; None: the defaults of `DecodeLimits`.
        max_reduction: largest k allowed (1, 2, 4 or 8).
        sha256: of `data`, where the caller has it already; None: computed here.

    Returns:
        Upright RGB pixels with the facts a result records about its source.

    Raises:
        ImageUnreadableError: not one whole colour image of a supported format.
        ImageLimitError: more bytes, pixels or scans than the limits.
        ConfigError: `target_px` or `max_reduction` is out of its range.
    """
    if max_reduction not in _REDUCTIONS or (target_px is not None and target_px < 1):
        raise ConfigError(
            f"target_px is {target_px} and max_reduction {max_reduction}; they must be at least 1, "
            f"and one of {list(_REDUCTIONS)}"
        )
    file = _open(data, limits or DecodeLimits())
    header = file.header
    reduction = 1
    if file.can_reduce and target_px is not None:
        reduction = _choose_reduction(header.stored_size_px, target_px, max_reduction)
    upright = _UPRIGHT[header.orientation](file.decode(reduction))
    return DecodedImage(
        image_hwc=np.ascontiguousarray(upright),
        full_size_px=header.upright_size_px,
        reduction=reduction,
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        format=header.format,
        num_bytes=len(data),
        laterality=header.laterality,
        field_degrees=header.field_degrees,
        warnings=header.warnings,
    )


def _open(data: bytes, limits: DecodeLimits) -> PictureFile:
    """Name the format and run its byte checks."""
    if len(data) == 0:
        raise ImageUnreadableError("the image file is empty (0 bytes); copy it again")
    if len(data) > limits.max_megabytes * 1e6:
        raise ImageLimitError(
            f"the image file has more than the {limits.max_megabytes:g} MB allowed; "
            "give the camera's own JPEG"
        )
    for is_format, open_format in _OPENERS:
        if is_format(data):
            return open_format(data, limits)
    name = next((name for at, magic, name in _OTHER_FORMATS if data.startswith(magic, at)), None)
    found = f"format {name} is not supported" if name else "the bytes are no known image format"
    raise ImageUnreadableError(f"{found}; supported: {_SUPPORTED}")


def _choose_reduction(size_px: tuple[int, int], target_px: int, max_reduction: int) -> int:
    """Largest k for which the frame's short side still covers the target with some to spare."""
    usable_px = _FRAME_FILL / _MIN_SHRINK * min(size_px)
    return next((k for k in (8, 4, 2) if k <= max_reduction and usable_px // k >= target_px), 1)
