"""Undo the byte codings of TIFF and DICOM strictly: exactly the bytes expected, or refused.

libtiff meets a damaged strip with a message on stderr and goes on, and OpenCV does not hear it:
of 300 TIFF files with one flipped bit it refused none. So these decoders are the project's own.

TIFF 6.0, section 9 (PackBits); DICOM PS3.5, annex G.3: its RLE is PackBits. LZW: `lzw.py`.
"""

from __future__ import annotations

import zlib

from edge_runtime.errors import ImageUnreadableError

__all__ = ["damaged", "inflate", "unpack_bits"]


def inflate(data: bytes, expected: int) -> bytes:
    """Undo deflate (a zlib stream, RFC 1950) of exactly `expected` bytes.

    Raises:
        ImageUnreadableError: the stream is damaged, cut, longer or shorter.
    """
    stream = zlib.decompressobj()
    try:
        # One byte more than expected tells that there are too many.
        out = stream.decompress(data, expected + 1)
    except zlib.error as error:
        raise damaged(f"its deflate stream does not decode ({error})") from error
    if len(out) != expected or not stream.eof or stream.unused_data:
        raise damaged(f"its deflate stream does not hold exactly {expected} bytes")
    return out


def unpack_bits(data: bytes, expected: int, *, max_padding: int = 0) -> bytes:
    """Undo PackBits of exactly `expected` bytes.

    Args:
        data: runs: a count n below 128 and n + 1 literal bytes, or n above 128 and one byte
            that stands 257 - n times; 128 stands for nothing.
        expected: bytes to come out.
        max_padding: bytes that may follow the last run.

    Raises:
        ImageUnreadableError: a run passes the end of the data or of what is expected, or
            more bytes are left than may be.
    """
    out = bytearray()
    position, length = 0, len(data)
    while len(out) < expected and position < length:
        count = data[position]
        position += 1
        if count < 128:
            out += data[position : position + count + 1]
            position += count + 1
        elif count > 128:
            out += data[position : position + 1] * (257 - count)
            position += 1
    if len(out) != expected or not 0 <= length - position <= max_padding:
        raise damaged(f"its PackBits runs do not hold exactly {expected} bytes")
    return bytes(out)


def damaged(what: str) -> ImageUnreadableError:
    """Return the error for packed bytes that are not what they claim."""
    return ImageUnreadableError(
        f"the picture's data are damaged: {what}; copy the file again from the camera"
    )
