"""See a second picture behind the end of the first: joined files are refused, never chosen from.

A copy program that joins two files, or a card that lost its directory, gives one file whose first
picture decodes. Which eye, and whose, is not for this program to guess.
"""

from __future__ import annotations

import re

from edge_runtime.errors import ImageUnreadableError

__all__ = ["refuse_second_picture"]

_MAX_PADDING = 4096  # bytes of zeros that may stand between: a sector of a disc, a page
_DICOM_PREAMBLE = 128
# JPEG, PNG, TIFF and BigTIFF of both byte orders, BMP (its reserved bytes are 0), DICOM.
_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|II[*+]\x00|MM\x00[*+]|BM....\x00\x00\x00\x00|(?:.{128})?DICM", re.DOTALL
)


def refuse_second_picture(data: bytes, end: int, name: str) -> None:
    """Refuse bytes that begin as a picture file does.

    Args:
        data: the file's bytes.
        end: offset behind the last byte of the first picture.
        name: of the first picture's format, for the message.

    Raises:
        ImageUnreadableError: a known signature stands at `end`, or behind padding of zeros.
    """
    tail = data[end : end + _MAX_PADDING + _DICOM_PREAMBLE + 4]
    rest = tail.lstrip(b"\0")
    if _PICTURE.match(tail) or _PICTURE.match(rest):
        raise ImageUnreadableError(
            f"{name} is followed by a second image at byte {end + len(tail) - len(rest)}; give one "
            "image a file"
        )
