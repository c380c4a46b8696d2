"""What every picture format gives before a pixel is decoded: its header, within the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, ImageLimitError

__all__ = ["DecodeLimits", "ImageHeader", "PictureFile", "Pixels", "check_pixel_limit"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What is refused before decoding.

    Attributes:
        max_megapixels: most claimed pixels, in millions.
        max_megabytes: largest file, and largest inflated DICOM data set, in millions of bytes.
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
class ImageHeader:
    """What a picture file says about itself; no pixel has been decoded.

    Attributes:
        format: "jpeg", "png", "tiff", "bmp" or "dicom".
        stored_size_px: (height, width) as stored.
        upright_size_px: (height, width) after the EXIF orientation.
        bits: a sample, always 8 where the file is not refused.
        channels: stored a pixel: 3, or 4 with an alpha channel that must prove opaque.
        num_scans: of a JPEG; 1 for every other coding.
        orientation: EXIF orientation, 1 (as stored) to 8.
        icc_profile: description of the embedded colour profile, "without a description"
            where it has none that can be read, or None without a profile.
        trailing_bytes: bytes after the end of the picture, ignored.
        laterality: "OD" or "OS" where the file says so (DICOM), else None.
        field_degrees: horizontal field of view where the file says so (DICOM), else None.
        warnings: what a reader of the result should know.
    """

    format: str
    stored_size_px: tuple[int, int]
    bits: int = 8
    channels: int = 3
    num_scans: int = 1
    orientation: int = 1
    icc_profile: str | None = None
    trailing_bytes: int = 0
    laterality: str | None = None
    field_degrees: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def upright_size_px(self) -> tuple[int, int]:
        """(height, width) after the EXIF orientation."""
        height, width = self.stored_size_px
        return (width, height) if self.orientation >= 5 else (height, width)


class PictureFile(Protocol):
    """One picture whose header and structure were found whole; its pixels are still encoded."""

    @property
    def header(self) -> ImageHeader:
        """What the file says about itself."""

    @property
    def can_reduce(self) -> bool:
        """Whether the decoder can leave out resolution (JPEG); others decode at 1 only."""

    def decode(self, reduction: int) -> Pixels:
        """(ceil(H / reduction), ceil(W / reduction), 3) uint8 RGB, orientation as stored.

        Raises:
            ImageUnreadableError: the picture's data are damaged.
        """


def check_pixel_limit(height_px: int, width_px: int, limits: DecodeLimits) -> None:
    """Refuse a claim of more pixels than the limits, before anything is allocated.

    Raises:
        ImageLimitError: with the claim and the limit.
    """
    if height_px * width_px > limits.max_megapixels * 1e6:
        raise ImageLimitError(
            f"the image claims {width_px}x{height_px} = {height_px * width_px / 1e6:.1f} "
            f"megapixels; the limit is {limits.max_megapixels:g}; export it smaller"
        )
