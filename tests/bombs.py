"""Small files that claim, or unpack to, far more than a picture needs: none may be decoded.

`BOMBS` gives a builder by name. Each is refused by a limit or as damage; how long that takes and
how much memory it costs is measured by `bomb_child.py`. Those in tables of offsets (TIFF, BMP,
DICOM) come from `bombs_tables.py`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from bomb_streams import FILE_LIMIT, zeros_stream
from bombs_tables import TABLE_BOMBS, many_strips
from fundus_factory import (
    Pixels,
    centred_fundus,
    jpeg_bytes,
    png_bytes,
    png_chunk,
    sof_offset,
    with_exif,
    with_size,
)
from picture_factory import LZW, built_tiff, tiff_bytes

__all__ = ["BOMBS", "HEAVY"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BIG = 65_500


def _noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _lzw_strips(num: int) -> bytes:
    """Rows of four pixels, each packed as codes of 9 bits: clear, twelve values, end."""
    bits = "".join(f"{code:09b}" for code in (256, *range(12), 257)) + "00"
    strip = int(bits, 2).to_bytes(len(bits) // 8, "big")
    changes = {259: (259, 3, (LZW,)), 278: (278, 3, (1,))}
    return built_tiff([strip] * num, (num, 4), changes=changes)


def _small_jpeg(*, progressive: bool = False) -> bytes:
    return jpeg_bytes(centred_fundus(64), progressive=progressive)


def _filled(jpeg: bytes, unit: bytes) -> bytes:
    """A JPEG with `unit` repeated behind its start marker, up to the largest file allowed."""
    return jpeg[:2] + unit * ((FILE_LIMIT - len(jpeg)) // len(unit)) + jpeg[2:]


def _many_scans(num: int) -> bytes:
    """A progressive file whose last scan comes `num` times more."""
    jpeg = _small_jpeg(progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * num + b"\xff\xd9"


def _thin_scans(num_bands: int) -> bytes:
    """Correct progressive scans of 39 megapixels of grey, each of a few bytes and a full pass.

    Huffman tables of one code each: DC category 0 is '0'; AC symbol 0xE0 (a run of 16,384 blocks
    and 14 more bits) is '0'. One band a scan, three components: 1 + 3 x `num_bands` scans.
    """
    height, width = 6240, 6248
    num_blocks = -(-height // 8) * -(-width // 8)
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    one_code = b"\x01" + bytes(15)
    parts = [
        b"\xff\xd8",
        _segment(0xDB, b"\x00" + b"\x01" * 64),
        _segment(0xC2, frame),
        _segment(0xC4, b"\x00" + one_code + b"\x00"),
        _segment(0xC4, b"\x10" + one_code + b"\xe0"),
        _segment(0xDA, b"\x03\x01\x00\x02\x00\x03\x00\x00\x00\x00"),
        bytes(-(-3 * num_blocks // 8)),
    ]
    runs = "0" + "1" * 14  # 32,767 blocks
    bits = runs * (num_blocks // 32_767) + "0" + f"{num_blocks % 32_767 - 16_384 & 0x3FFF:014b}"
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    bands = [(k, k) for k in range(1, num_bands)] + [(num_bands, 63)]
    for first, last in bands:
        for component in (1, 2, 3):
            parts += [_segment(0xDA, bytes([1, component, 0, first, last, 0])), data]
    return b"".join(parts) + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _size_later() -> bytes:
    """Height 0, to be given by a DNL segment behind the scan."""
    jpeg = with_size(_small_jpeg(), 0, 64)
    return jpeg[:-2] + b"\xff\xdc\x00\x04\xff\xff" + b"\xff\xd9"


def _nested(depth: int) -> bytes:
    """A preview in a preview in a preview."""
    jpeg = _small_jpeg()
    inner = b""
    for _ in range(depth):
        inner = jpeg[:2] + b"".join(
            _segment(0xE1, b"Exif\x00\x00" + inner[i : i + 65_000])
            for i in range(0, len(inner), 65_000)
        )
        inner += jpeg[2:]
    return inner


def _profile(num_chunks: int) -> bytes:
    """An ICC profile of `num_chunks` segments of 64 kB."""
    body = b"ICC_PROFILE\x00"
    parts = [
        _segment(0xE2, body + bytes([1 + i % 255, 255]) + bytes(65_500)) for i in range(num_chunks)
    ]
    jpeg = _small_jpeg()
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def _exif_directory(num_entries: int) -> bytes:
    """An EXIF directory of many entries whose next directory is itself."""
    entries = struct.pack("<HHII", 0x0100, 3, 1, 0) * num_entries
    block = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", num_entries) + entries
    return with_exif(_small_jpeg(), block + struct.pack("<I", 8))


def _png(*chunks: tuple[bytes, bytes], width: int = 64, height: int = 64, kind: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return _SIGNATURE + b"".join(png_chunk(name, body) for name, body in parts)


def _png_of_zeros(width: int, height: int) -> bytes:
    stream = zeros_stream(height * (1 + 3 * width))
    return _png((b"IDAT", stream), width=width, height=height)


def _png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A whole small picture with chunks before its data."""
    data = png_bytes(centred_fundus(64))
    return data[:33] + b"".join(png_chunk(name, body) for name, body in chunks) + data[33:]


def _png_flood(name: bytes) -> bytes:
    """As many empty chunks as the file may hold, and the picture behind them cut."""
    data = png_bytes(centred_fundus(64))
    return data[:33] + png_chunk(name, b"") * ((FILE_LIMIT - len(data)) // 12) + data[33:-1]


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "jpeg claims 65500 x 65500": lambda: with_size(_small_jpeg(), _BIG, _BIG),
    "progressive jpeg claims 65500 x 65500": lambda: with_size(
        _small_jpeg(progressive=True), _BIG, _BIG
    ),
    "jpeg a little over the limit": lambda: with_size(_small_jpeg(), 6400, 6300),
    "jpeg claims 39 megapixels, holds 64 x 64": lambda: with_size(_small_jpeg(), 6200, 6300),
    "progressive jpeg claims 39 megapixels": lambda: with_size(
        _small_jpeg(progressive=True), 6200, 6300
    ),
    "jpeg of 200 scans": lambda: _many_scans(200),
    "jpeg of 50,000 scans": lambda: _many_scans(50_000),
    "jpeg of 121 thin scans of 39 megapixels": lambda: _thin_scans(40),
    "jpeg whose height comes later": _size_later,
    "jpeg of four components": lambda: _four_components(),
    "jpeg over the size limit": lambda: _small_jpeg() + bytes(60_000_000),
    "jpeg of 60 MB of empty comments, cut": lambda: _filled(_small_jpeg(), b"\xff\xfe\x00\x02")[
        :-2
    ],
    "jpeg of 60 MB of fill bytes, cut": lambda: _filled(_small_jpeg(), b"\xff")[:-2],
    "jpeg of 60 MB of restart markers, cut": lambda: _filled(_small_jpeg(), b"\xff\xd0")[:-2],
    "jpeg of 60 MB of start markers, cut": lambda: _filled(_small_jpeg(), b"\xff\xd8")[:-2],
    "jpeg of 60 MB of tables, cut": lambda: _filled(
        _small_jpeg(), _segment(0xDB, b"\x00" + b"\x01" * 64)
    )[:-2],
    "jpeg of 60 MB of restart markers in its scan": lambda: (
        _small_jpeg()[:-2] + b"\xff\xd0" * 29_000_000 + b"\xff\xd9"
    ),
    "png claims 60000 x 60000": lambda: _png(
        (b"IDAT", zlib.compress(bytes(100))), width=60_000, height=60_000
    ),
    "png of 20000 x 20000 zeros": lambda: _png_of_zeros(20_000, 20_000),
    "png of 6400 x 6300 zeros": lambda: _png_of_zeros(6300, 6400),
    "png whose data unpack to 1 GB": lambda: _png((b"IDAT", zeros_stream(1 << 30))),
    "png claims 39 megapixels, holds 1 kB": lambda: _png(
        (b"IDAT", zlib.compress(bytes(1000))), width=6300, height=6200
    ),
    "png of 60 MB of empty chunks": lambda: _png_flood(b"tEXt"),
    "png of 60 MB of empty data chunks": lambda: _png_flood(b"IDAT"),
    "png chunk that claims 2 GB": lambda: _SIGNATURE + b"\x7f\xff\xff\xffIDAT" + bytes(1000),
    "png of 2 billion frames": lambda: _png_with((b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    "tiff LZW of 3 megapixels of noise": lambda: tiff_bytes(_noise(1500, 2000), LZW),
    "tiff LZW of 39 megapixels of zeros, a row a strip": lambda: tiff_bytes(
        np.zeros((20_000, 1950, 3), np.uint8), LZW
    ),
    "png of 16 bits": lambda: png_bytes(np.zeros((64, 64, 3), np.uint16)),
    **TABLE_BOMBS,
}


#: Pictures that are whole and within every limit, with a weight beside them: decoded or refused,
#: but at once and in little memory.
HEAVY: Mapping[str, Callable[[], bytes]] = {
    "jpeg with 59 MB of comments": lambda: _filled(_small_jpeg(), _segment(0xFE, bytes(65_000))),
    "jpeg with 59 MB of fill bytes": lambda: _filled(_small_jpeg(), b"\xff"),
    "jpeg of previews in previews": lambda: _nested(12),
    "jpeg with 16 MB of colour profile": lambda: _profile(254),
    "jpeg with an endless EXIF directory": lambda: _exif_directory(5_000),
    "jpeg with 57 MB behind its end": lambda: _small_jpeg() + bytes(57_000_000),
    "png with 1 GB of packed text": lambda: _png_with(
        (b"zTXt", b"a\x00\x00" + zeros_stream(1 << 30))
    ),
    "png with 1 GB of packed iTXt": lambda: _png_with(
        (b"iTXt", b"a\x00\x01\x00\x00\x00" + zeros_stream(1 << 30))
    ),
    "png with 1 GB of colour profile": lambda: _png_with(
        (b"iCCP", b"a\x00\x00" + zeros_stream(1 << 30))
    ),
    "png with 57 MB of text": lambda: _png_with((b"tEXt", b"a\x00" + bytes(57_000_000))),
    "tiff of 190,000 strips of the same bytes": lambda: many_strips(190_000),
    "jpeg of 100 thin scans of 39 megapixels": lambda: _thin_scans(33),
    # Two thirds of the LZW that is read, and nearly as many strips as may be.
    "tiff LZW of 0.6 megapixels of noise": lambda: tiff_bytes(_noise(300, 2000), LZW),
    "tiff LZW of 9,000 strips": lambda: _lzw_strips(9000),
}


def _four_components() -> bytes:
    """A frame of four components, 65,500 pixels a side."""
    jpeg = with_size(_small_jpeg(), 6000, 6000)
    at = sof_offset(jpeg)
    frame = jpeg[at + 4 : at + 9] + b"\x04" + jpeg[at + 10 : at + 19] + b"\x04\x11\x00"
    return jpeg[:at] + _segment(0xC0, frame) + jpeg[at + 19 :]
