"""Frames on the pipes between parent and child: a number, JSON text and raw data.

magic   4 bytes "ESD1"
number  u64: 0 for settings and readiness, then counted up by the parent and echoed
text    u32 length, data u32 length, then both; little-endian
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["HEAD_BYTES", "MAX_TEXT_BYTES", "Frame", "FrameHead", "WireError", "pack_head"]

_MAGIC = b"ESD1"
_HEAD = struct.Struct("<4sQII")
HEAD_BYTES = _HEAD.size
MAX_TEXT_BYTES = 1 << 16


class WireError(Exception):
    """What came over a pipe is not what may come; the message says in which way."""


@dataclass(frozen=True, kw_only=True)
class FrameHead:
    """The fixed part of a frame.

    Attributes:
        number: of the request that the frame belongs to.
        num_text_bytes: length of the JSON text.
        num_data_bytes: length of the raw data.
    """

    number: int
    num_text_bytes: int
    num_data_bytes: int

    @classmethod
    def parse(cls, head: bytes, *, max_data_bytes: int) -> FrameHead:
        """Read `HEAD_BYTES` bytes.

        Raises:
            WireError: no frame begins here, or it claims more than is allowed.
        """
        magic, number, num_text, num_data = _HEAD.unpack(head)
        if magic != _MAGIC:
            raise WireError("it does not begin a frame")
        if num_text > MAX_TEXT_BYTES or num_data > max_data_bytes:
            raise WireError(f"it claims {num_text} bytes of text and {num_data} of data")
        return cls(number=number, num_text_bytes=num_text, num_data_bytes=num_data)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One whole message."""

    number: int
    text: bytes
    data: bytes = b""


def pack_head(frame: Frame) -> bytes:
    """Return the fixed part of a frame; text and data follow it."""
    return _HEAD.pack(_MAGIC, frame.number, len(frame.text), len(frame.data))
