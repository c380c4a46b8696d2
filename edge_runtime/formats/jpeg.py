"""Decode JPEG with libjpeg-turbo, where every warning of the decoder refuses the file.

libjpeg fills what is missing with grey and calls that a warning; other bindings drop it. Here
the first warning stops the decoder (`strict`), and its words are the reason. Together with the
marker walk that leaves only damage that decodes as another valid picture: a flipped bit, a
doubled block. For that there is the camera's own SHA-256 (`EyeImage.expected_sha256`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.exif import read_orientation
from edge_runtime.formats.header import DecodeLimits, ImageHeader, Pixels, check_pixel_limit
from edge_runtime.formats.icc import describe_profile, profile_warning
from edge_runtime.formats.jpeg_markers import check_jpeg_structure, read_jpeg_frame

__all__ = ["JPEG_START", "JpegFile", "open_jpeg"]

JPEG_START = b"\xff\xd8\xff"
_NO_MEMORY = "Insufficient memory"  # libjpeg's JERR_OUT_OF_MEMORY; it goes on with its case


@dataclass(frozen=True, kw_only=True)
class JpegFile:
    """A JPEG whose markers are whole."""

    data: bytes
    header: ImageHeader
    can_reduce: bool  # lossless JPEG has no transform to leave coefficients out of

    @property
    def colour_space(self) -> str:
        """What libjpeg takes the components for, from the file's own markers: "YCbCr", "RGB"."""
        try:
            return str(simplejpeg.decode_jpeg_header(self.data)[2])
        except ValueError as error:
            raise _refused(error) from error

    def decode(self, reduction: int) -> Pixels:
        """Decode at 1/reduction inside the inverse DCT; see `PictureFile.decode`."""
        height, width = (-(-side // reduction) for side in self.header.stored_size_px)
        try:
            pixels = simplejpeg.decode_jpeg(
                self.data, "RGB", min_height=height, min_width=width, strict=True
            )
        except ValueError as error:
            raise _refused(error) from error
        if pixels.shape != (height, width, 3):
            raise ImageUnreadableError(
                f"the JPEG decoder returned {pixels.shape} instead of {(height, width, 3)}: the "
                "file is damaged; copy it again from the camera"
            )
        return np.asarray(pixels, np.uint8)


def open_jpeg(data: bytes, limits: DecodeLimits) -> JpegFile:
    """Check a JPEG's header and walk its markers.

    Args:
        data: the file's bytes, beginning with `JPEG_START`.
        limits: of pixels and scans.

    Raises:
        ImageUnreadableError: cut, damaged, or not three components of 8 bits.
        ImageLimitError: more pixels or scans than the limits.
    """
    frame = read_jpeg_frame(data)
    check_pixel_limit(frame.height_px, frame.width_px, limits)
    count = len(frame.component_ids)
    if count == 1:
        raise ImageUnreadableError("not a colour fundus photograph: one channel (grayscale JPEG)")
    if count != 3:
        kind = "CMYK" if count == 4 else "unknown colours"
        raise ImageUnreadableError(f"JPEG has {count} components ({kind}); export it as RGB")
    structure = check_jpeg_structure(data, frame, max_scans=limits.max_scans)
    orientation, warnings = read_orientation(structure.exif)
    profile = structure.icc_profile
    description = None if profile is None else describe_profile(profile)
    if structure.trailing_bytes:
        warnings += (f"{structure.trailing_bytes} bytes after the end of the JPEG were ignored",)
    header = ImageHeader(
        format="jpeg",
        stored_size_px=(frame.height_px, frame.width_px),
        num_scans=structure.num_scans,
        orientation=orientation,
        icc_profile=description,
        trailing_bytes=structure.trailing_bytes,
        warnings=warnings + profile_warning(description),
    )
    return JpegFile(data=data, header=header, can_reduce=not frame.lossless)


def _refused(error: ValueError) -> ImageUnreadableError | MemoryError:
    """What the decoder's complaint means: lack of memory is this machine's, not the file's."""
    if str(error).startswith(_NO_MEMORY):
        return MemoryError(str(error))
    return ImageUnreadableError(
        f"the JPEG decoder says: {error}; the file is damaged, copy it again from the camera"
    )
