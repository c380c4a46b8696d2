"""Bombs in formats that are tables of offsets and lengths: TIFF, BMP, DICOM (see `bombs.py`)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping

from bomb_streams import FILE_LIMIT, zeros_stream
from dicom_photo_factory import DEFLATED, JPEG_BASELINE, RLE, photo_bytes
from fundus_factory import centred_fundus, jpeg_bytes, with_size
from picture_factory import DEFLATE, LZW, PACKBITS, bmp_bytes, built_tiff

__all__ = ["TABLE_BOMBS", "many_strips"]

_SIDE = 64
_EYE = centred_fundus(_SIDE)
_LENGTH_LATER = b"\xff\xff\xff\xff"


def _tiff(stream: bytes, side: int, compression: int) -> bytes:
    return built_tiff(
        [stream], (side, side), changes={259: (259, 3, (compression,)), 278: (278, 4, (side,))}
    )


def _tiff_circle() -> bytes:
    """A directory that is followed by itself."""
    data = built_tiff([_EYE.tobytes()], (_SIDE, _SIDE))
    return data[:-4] + data[4:8]


def _tiff_claims(tag: int, count: int) -> bytes:
    """An entry that claims `count` values of four bytes at offset 8."""
    entry = struct.pack("<HHII", tag, 4, count, 8)
    head = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 1) + entry + bytes(4)
    return head + bytes(1000)


def many_strips(num: int) -> bytes:
    """`num` strips of one row that are all the same bytes."""
    row = bytes(200 * 3)
    places, sizes = (8,) * num, (len(row),) * num
    changes = {257: (257, 4, (num,)), 273: (273, 4, places), 279: (279, 4, sizes)}
    return built_tiff([row], (1, 200), changes={**changes, 278: (278, 3, (1,))})


def _bmp_claims(width: int, height: int) -> bytes:
    data = bmp_bytes(_EYE)
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def _bmp_runs() -> bytes:
    """Run-length coding of 39 megapixels by skips."""
    data = bytearray(_bmp_claims(6300, 6200))
    data[28:34] = struct.pack("<HI", 8, 1)
    return bytes(data) + b"\x00\x02\xff\xff" * 1000


def _dicom_claims(side: int) -> bytes:
    return photo_bytes(_EYE, Rows=side, Columns=side)


def _dicom_wrapping(side: int) -> bytes:
    frame = with_size(jpeg_bytes(_EYE), side, side)
    colours = {"PhotometricInterpretation": "YBR_FULL_422", "Rows": side, "Columns": side}
    return photo_bytes(_EYE, syntax=JPEG_BASELINE, frame=frame, **colours)


def _deflated(body: bytes) -> bytes:
    """A deflated data set: the file's meta group, then the packed elements of `body`."""
    data = photo_bytes(_EYE, syntax=DEFLATED)
    length = 132 + 12 + int.from_bytes(data[140:144], "little")
    return data[:length] + body


def _deflated_zeros() -> bytes:
    """A value of 1 GB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = struct.pack("<HH2sHI", 0x0009, 0x1000, b"OB", 0, 1 << 30)
    zeros = packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024))
    return _deflated(zeros + packer.flush())


def _nested_sequences(depth: int) -> bytes:
    """Sequences in items in sequences, `depth` deep, without an end."""
    level = struct.pack("<HH2sH", 0x0009, 0x1000, b"SQ", 0) + _LENGTH_LATER
    level += struct.pack("<HH", 0xFFFE, 0xE000) + _LENGTH_LATER
    return _before_patient(level * depth)


def _many_elements() -> bytes:
    """60,000 empty private elements in good order."""
    numbers = range(0x1000, 0x1000 + 60_000)
    return _before_patient(b"".join(struct.pack("<HH2sH", 9, n, b"LO", 0) for n in numbers))


def _before_patient(elements: bytes) -> bytes:
    """A photograph with elements of group 0009 in front of the patient's name."""
    data = photo_bytes(_EYE)
    at = data.index(b"\x10\x00\x10\x00PN")
    return data[:at] + elements + data[at:]


def _many_fragments() -> bytes:
    """A JPEG in as many empty fragments as the file may hold, without an end."""
    data = photo_bytes(_EYE, syntax=JPEG_BASELINE, frame=jpeg_bytes(_EYE))
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return data[:-8] + item * ((FILE_LIMIT - len(data)) // 8)


def _huge_element() -> bytes:
    return _before_patient(struct.pack("<HH2sHI", 9, 0x1000, b"OB", 0, 0xFFFFFFF0))


def _rle(side: int) -> bytes:
    """Three segments of PackBits that claim `side` squared pixels and hold 1,000 runs of 128."""
    runs = b"\x81\x00" * 1000
    offsets = [64, 64 + len(runs), 64 + 2 * len(runs)]
    frame = struct.pack("<16I", 3, *offsets, *[0] * 12) + runs * 3
    return photo_bytes(_EYE, syntax=RLE, frame=frame, Rows=side, Columns=side)


def _packed_rows() -> bytes:
    stream = io.BytesIO()
    for _ in range(1 << 20):
        stream.write(b"\x81\x00")
    return stream.getvalue()


TABLE_BOMBS: Mapping[str, Callable[[], bytes]] = {
    "bmp claims 65500 x 65500": lambda: _bmp_claims(65_500, 65_500),
    "bmp claims -2 billion rows": lambda: _bmp_claims(64, -(2**31)),
    "bmp of 39 megapixels in runs": _bmp_runs,
    "bmp claims 39 megapixels": lambda: _bmp_claims(6300, 6200),
    "tiff claims 65500 x 65500": lambda: _tiff(b"\0", 65_500, DEFLATE),
    "tiff strip that unpacks to 1 GB": lambda: _tiff(zeros_stream(1 << 30), _SIDE, DEFLATE),
    "tiff of 39 megapixels in 100 bytes": lambda: _tiff(zlib.compress(bytes(1000)), 6240, DEFLATE),
    "tiff of 39 megapixels in 1 MB of PackBits": lambda: _tiff(
        b"\x81\x00" * 500_000, 6240, PACKBITS
    )[:-1],
    "tiff of PackBits for 128 MB": lambda: _tiff(_packed_rows(), _SIDE, PACKBITS),
    "tiff of LZW for 39 megapixels, cut": lambda: _tiff(b"\x80\x00" + b"\x01" * 100, 6240, LZW),
    "tiff that follows itself": _tiff_circle,
    "tiff of 4 billion strips": lambda: _tiff_claims(273, 2**32 - 1),
    "tiff of 4 billion bits a sample": lambda: _tiff_claims(258, 2**32 - 1),
    "tiff of 250,000 strips of the same bytes": lambda: many_strips(250_000),
    "tiff of a billion tiles": lambda: built_tiff([b"\0"], (60_000, 60_000), tiled=16),
    "dicom claims 65500 x 65500": lambda: _dicom_claims(65_500),
    "dicom claims 39 megapixels": lambda: _dicom_claims(6240),
    "dicom wraps a jpeg of 65500 x 65500": lambda: _dicom_wrapping(65_500),
    "dicom wraps a jpeg of 39 megapixels": lambda: _dicom_wrapping(6240),
    "dicom deflated, 1 GB": _deflated_zeros,
    "dicom of 100,000 nested sequences": lambda: _nested_sequences(100_000),
    "dicom of 60,000 empty elements": _many_elements,
    "dicom of 60 MB of empty fragments": _many_fragments,
    "dicom element of 4 GB": _huge_element,
    "dicom of 2 billion frames": lambda: photo_bytes(_EYE, NumberOfFrames=2**31 - 1),
    "dicom RLE of 39 megapixels in 6 kB": lambda: _rle(6240),
}
