"""Turn the bytes of one image file into upright RGB pixels, or refuse with the reason.

The header is checked from the bytes first (format, size, components, wholeness), so
nothing large is allocated for a file that will be refused. JPEG can be decoded at 1/2,
1/4 or 1/8 inside the decoder, which is most of the speed of the whole pipeline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, ImageLimitError, ImageUnreadableError
from edge_runtime.jpeg import check_jpeg_structure, exif_orientation, read_jpeg_frame
from edge_runtime.png import (
    PNG_SIGNATURE,
    check_png_colour,
    check_png_structure,
    read_png_header,
)

__all__ = ["DecodeLimits", "DecodedImage", "decode_image", "read_image"]

Pixels = npt.NDArray[np.uint8]

_SUPPORTED = "JPEG, PNG"
_OTHER_FORMATS = (
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (b"%PDF", "PDF"),
)
_READ_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# The circle fills at most the frame; 5 % less is what cameras leave around it (k is a guess
# that `edge_runtime.preprocess` corrects once the circle is known).
_FRAME_FILL = 0.95
_FILL_GREY = 128  # what libjpeg writes for blocks that never arrived: every coefficient zero
_FILL_CORNER_PX = 2  # further in, the decoder's chroma upsampling may have blended in a neighbour
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
class DecodeLimits:
    """What is refused before decoding.

    Attributes:
        max_megapixels: most claimed pixels, in millions.
        max_megabytes: largest file, in millions of bytes.
        max_scans: most scans of a JPEG.
    """

    max_megapixels: float = 40
    max_megabytes: float = 60
    max_scans: int = 100

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through.

        Raises:
            ConfigError: a limit is not positive.
        """
        for name in ("max_megapixels", "max_megabytes", "max_scans"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """One image, upright and in colour.

    Attributes:
        image_hwc: (H, W, 3) uint8 RGB, contiguous, after EXIF orientation and reduction.
        full_size_px: (height, width) of the file after orientation, before reduction.
        reduction: 1, 2, 4 or 8; H = ceil(full height / reduction), likewise W.
        sha256: of the file's bytes, hexadecimal.
        format: "jpeg" or "png".
        num_bytes: size of the file.
        warnings: what was done or noticed that a reader of the result should know.
    """

    image_hwc: Pixels
    full_size_px: tuple[int, int]
    reduction: int
    sha256: str
    format: str
    num_bytes: int
    warnings: tuple[str, ...]


class _Header(NamedTuple):
    """What the byte checks found: stored (height, width), alpha, orientation, warnings."""

    format: str
    size_px: tuple[int, int]
    has_alpha: bool
    orientation: int
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
        target_px: side of the square that the field of view will become. A JPEG is decoded
            at the largest 1/k that is expected to keep that many pixels; None: k = 1.
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
    if max_reduction not in _READ_FLAGS or (target_px is not None and target_px < 1):
        raise ConfigError(
            f"target_px is {target_px} and max_reduction {max_reduction}; they must be at least 1, "
            f"and one of {sorted(_READ_FLAGS)}"
        )
    header = _check_bytes(data, limits or DecodeLimits())
    reduction = 1
    if header.format == "jpeg" and target_px is not None:
        reduction = _choose_reduction(header.size_px, target_px, max_reduction)
    pixels = _decode(data, header, reduction)
    if header.format == "jpeg":
        _refuse_grey_fill(pixels, reduction)
    height, width = header.size_px
    return DecodedImage(
        image_hwc=np.ascontiguousarray(_UPRIGHT[header.orientation](pixels)),
        full_size_px=(width, height) if header.orientation >= 5 else (height, width),
        reduction=reduction,
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        format=header.format,
        num_bytes=len(data),
        warnings=header.warnings,
    )


def _check_bytes(data: bytes, limits: DecodeLimits) -> _Header:
    """Name the format and run its byte checks."""
    if len(data) == 0:
        raise ImageUnreadableError("the image file is empty (0 bytes); copy it again")
    if len(data) > limits.max_megabytes * 1e6:
        raise ImageLimitError(
            f"the image file has more than the {limits.max_megabytes:g} MB allowed; "
            "give the camera's own JPEG"
        )
    if data[:3] == b"\xff\xd8\xff":
        return _check_jpeg(data, limits)
    if data[:8] == PNG_SIGNATURE:
        return _check_png(data, limits)
    name = next((name for magic, name in _OTHER_FORMATS if data.startswith(magic)), None)
    if data[8:12] == b"WEBP":
        name = "WebP"
    elif data[128:132] == b"DICM":
        name = "DICOM"
    elif data[4:8] == b"ftyp":
        name = "HEIC or AVIF"
    found = f"format {name} is not supported" if name else "the bytes are no known image format"
    raise ImageUnreadableError(f"{found}; supported: {_SUPPORTED}")


def _check_jpeg(data: bytes, limits: DecodeLimits) -> _Header:
    frame = read_jpeg_frame(data)
    size_px = (frame.height_px, frame.width_px)
    _check_pixels(size_px, limits)
    count = len(frame.component_ids)
    if count == 1:
        raise ImageUnreadableError("not a colour fundus photograph: one channel (grayscale JPEG)")
    if count != 3:
        kind = "CMYK" if count == 4 else "unknown colours"
        raise ImageUnreadableError(f"JPEG has {count} components ({kind}); export it as RGB")
    structure = check_jpeg_structure(data, frame, max_scans=limits.max_scans)
    orientation, warnings = _orientation(structure.exif)
    if structure.trailing_bytes:
        warnings += (f"{structure.trailing_bytes} bytes after the end of the JPEG were ignored",)
    return _Header("jpeg", size_px, False, orientation, warnings)


def _check_png(data: bytes, limits: DecodeLimits) -> _Header:
    header = read_png_header(data)
    size_px = (header.height_px, header.width_px)
    _check_pixels(size_px, limits)
    check_png_colour(header)
    orientation, warnings = _orientation(check_png_structure(data))
    return _Header("png", size_px, header.has_alpha, orientation, warnings)


def _check_pixels(size_px: tuple[int, int], limits: DecodeLimits) -> None:
    height, width = size_px
    if height * width > limits.max_megapixels * 1e6:
        raise ImageLimitError(
            f"the image claims {width}x{height} = {height * width / 1e6:.1f} megapixels; the limit "
            f"is {limits.max_megapixels:g}; export it smaller"
        )


def _orientation(exif: bytes | None) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation and what to say about it."""
    try:
        value = exif_orientation(exif) if exif else None
    except ValueError as error:
        return 1, (f"{error}; the image was used as stored",)
    if value in (None, 1):
        return 1, ()
    return value or 1, (f"EXIF orientation {value} was applied",)


def _choose_reduction(size_px: tuple[int, int], target_px: int, max_reduction: int) -> int:
    """Largest k for which the frame's short side still covers the target."""
    usable_px = _FRAME_FILL * min(size_px)
    return next((k for k in (8, 4, 2) if k <= max_reduction and usable_px // k >= target_px), 1)


def _decode(data: bytes, header: _Header, reduction: int) -> Pixels:
    """Decode with OpenCV, stored orientation, and check that it did what the header says."""
    flags = cv2.IMREAD_UNCHANGED if header.has_alpha else _READ_FLAGS[reduction]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageUnreadableError(f"the decoder refused the image: {error.err}") from error
    expected = tuple(-(-side // reduction) for side in header.size_px)
    if pixels is None or pixels.shape != (*expected, 4 if header.has_alpha else 3):
        raise ImageUnreadableError(
            "the decoder could not read the image: the file is damaged; copy it again"
        )
    if header.has_alpha and pixels[..., 3].min() < 255:
        raise ImageUnreadableError("PNG is partly transparent; export one opaque 24-bit RGB image")
    code = cv2.COLOR_BGRA2RGB if header.has_alpha else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _refuse_grey_fill(pixels: Pixels, reduction: int) -> None:
    """Refuse a JPEG whose last block is the exact grey of data that never arrived.

    A cut file with an end marker put back passes the marker walk; libjpeg leaves the missing
    blocks at zero coefficients, which is (128, 128, 128). The last block in file order is
    missing whenever any is; beside a fundus it would be black. What this cannot see: a cut
    inside the very last block, one inside a later scan of a progressive file, and every damage
    that leaves the last block as it is.
    """
    side = max(1, _FILL_CORNER_PX // reduction)
    if (pixels[-side:, -side:] == _FILL_GREY).all():
        raise ImageUnreadableError(
            "the JPEG's last pixels are the decoder's fill for missing data (exactly grey 128): "
            "the file is cut; copy it again from the camera"
        )
