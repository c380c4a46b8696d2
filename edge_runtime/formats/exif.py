"""The one EXIF tag that changes pixels: which way up the picture was stored.

EXIF 2.32, section 4.6.4; the block is a TIFF structure (TIFF 6.0, section 2).
"""

from __future__ import annotations

from typing import Literal

__all__ = ["exif_orientation", "orientation_warning", "read_orientation"]

_ORIENTATION_TAG, _SHORT = 0x0112, 3


def read_orientation(exif: bytes | None) -> tuple[int, tuple[str, ...]]:
    """Return the orientation of an EXIF block (1 without one) and what to say about it."""
    try:
        value = exif_orientation(exif) if exif else None
    except ValueError as error:
        return 1, (f"{error}; the image was used as stored",)
    return value or 1, orientation_warning(value or 1)


def orientation_warning(orientation: int) -> tuple[str, ...]:
    """Say that the picture was turned, because a turn can swap the side of the eye."""
    return () if orientation == 1 else (f"EXIF orientation {orientation} was applied",)


def exif_orientation(tiff: bytes) -> int | None:
    """Read the orientation tag (0x0112) of an EXIF block.

    Args:
        tiff: the TIFF structure, starting with `II*` or `MM*`.

    Returns:
        1 to 8, or None where the tag is absent.

    Raises:
        ValueError: the block is malformed or the value is not 1 to 8.
    """
    if tiff[:4] not in (b"II*\x00", b"MM\x00*"):
        raise ValueError("EXIF block has no TIFF header")
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"

    def number(start: int, size: int) -> int:
        if start + size > len(tiff):
            raise ValueError("EXIF block is cut")
        return int.from_bytes(tiff[start : start + size], order)

    directory = number(4, 4)
    for index in range(number(directory, 2)):
        entry = directory + 2 + 12 * index
        if number(entry, 2) == _ORIENTATION_TAG:
            value = number(entry + 8, 2)
            if number(entry + 2, 2) != _SHORT or number(entry + 4, 4) != 1 or not 1 <= value <= 8:
                raise ValueError(f"EXIF orientation is {value}, not 1 to 8")
            return value
    return None
