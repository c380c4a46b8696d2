"""Check a PNG file from its bytes: header, colour type, every chunk's CRC, the end; decode it.

Some faults of the stream libpng reports as warnings only, which OpenCV drops: more rows than the
picture has, a checksum that fails behind the last row. So the stream is unpacked here once before,
and must hold exactly the rows.
Layout: W3C Portable Network Graphics (third edition), sections 5 and 11.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats.exif import read_orientation
from edge_runtime.formats.header import DecodeLimits, ImageHeader, Pixels, check_pixel_limit
from edge_runtime.formats.icc import describe_profile, profile_warning

__all__ = [
    "PNG_SIGNATURE",
    "PngFile",
    "PngHeader",
    "PngStructure",
    "check_png_colour",
    "check_png_structure",
    "open_png",
    "read_png_header",
]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33  # signature, then the IHDR chunk: length, name, 13 bytes, CRC
_COLOUR_TYPES = {0: "grayscale", 2: "RGB", 3: "palette", 4: "grayscale with alpha", 6: "RGBA"}
_RGB, _RGBA, _PALETTE = 2, 6, 3
_MAX_PROFILE_BYTES = 1_000_000
_MAX_CHUNKS = 50_000  # 60 MB in data chunks of 8 kB are 7,500
_INFLATE_STEP = 1 << 20
# First column, first row, step across, step down of the seven passes (section 8.1).
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


@dataclass(frozen=True, kw_only=True)
class PngHeader:
    """What IHDR claims: size in pixels, bits a sample, and the colour type's number."""

    height_px: int
    width_px: int
    bits: int
    colour_type: int

    @property
    def has_alpha(self) -> bool:
        """Whether the file carries an alpha channel."""
        return self.colour_type == _RGBA


@dataclass(frozen=True, kw_only=True)
class PngStructure:
    """What the walk over every chunk found: the EXIF block and the colour profile, or None."""

    exif: bytes | None
    icc_profile: bytes | None


@dataclass(frozen=True, kw_only=True)
class PngFile:
    """A PNG whose chunks are whole."""

    data: bytes
    header: ImageHeader
    can_reduce: bool = False

    def decode(self, reduction: int) -> Pixels:
        """Decode at full size; see `PictureFile.decode`."""
        if reduction != 1:
            raise ValueError("a PNG has no reduced decoding")
        has_alpha = self.header.channels == 4
        _check_stream(self.data, self.header)
        flags = cv2.IMREAD_UNCHANGED if has_alpha else cv2.IMREAD_COLOR_RGB
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
        try:
            pixels = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
        except cv2.error as error:
            raise ImageUnreadableError(f"the decoder refused the PNG: {error.err}") from error
        expected = (*self.header.stored_size_px, self.header.channels)
        if pixels is None or pixels.shape != expected:
            raise ImageUnreadableError(
                "the PNG's image data do not decode: the file is damaged; copy it again"
            )
        if not has_alpha:
            return np.asarray(pixels, np.uint8)
        if pixels[..., 3].min() < 255:
            raise ImageUnreadableError(
                "PNG is partly transparent; export one opaque 24-bit RGB image"
            )
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), np.uint8)


def open_png(data: bytes, limits: DecodeLimits) -> PngFile:
    """Check a PNG's header and walk its chunks.

    Args:
        data: the file's bytes, beginning with `PNG_SIGNATURE`.
        limits: of pixels.

    Raises:
        ImageUnreadableError: cut, damaged, or not 8-bit RGB or RGBA.
        ImageLimitError: more pixels than the limits.
    """
    header = read_png_header(data)
    check_pixel_limit(header.height_px, header.width_px, limits)
    check_png_colour(header)
    structure = check_png_structure(data)
    orientation, warnings = read_orientation(structure.exif)
    profile = structure.icc_profile
    description = None if profile is None else describe_profile(profile)
    return PngFile(
        data=data,
        header=ImageHeader(
            format="png",
            stored_size_px=(header.height_px, header.width_px),
            channels=4 if header.has_alpha else 3,
            orientation=orientation,
            icc_profile=description,
            warnings=warnings + profile_warning(description),
        ),
    )


def read_png_header(data: bytes) -> PngHeader:
    """Read IHDR without looking further.

    Args:
        data: the file's bytes, starting with the PNG signature.

    Raises:
        ImageUnreadableError: IHDR is missing, damaged or names an impossible format.
    """
    if len(data) < _HEADER_END or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise ImageUnreadableError("PNG has no whole header (IHDR): the file is cut or damaged")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise ImageUnreadableError("PNG header (IHDR) fails its CRC: the file is damaged")
    header = PngHeader(
        width_px=int.from_bytes(data[16:20], "big"),
        height_px=int.from_bytes(data[20:24], "big"),
        bits=data[24],
        colour_type=data[25],
    )
    if header.width_px == 0 or header.height_px == 0 or header.colour_type not in _COLOUR_TYPES:
        raise ImageUnreadableError(
            f"PNG header is impossible: {header.width_px}x{header.height_px} pixels, "
            f"colour type {header.colour_type}"
        )
    return header


def check_png_colour(header: PngHeader) -> None:
    """Refuse colour types that a fundus camera does not mean.

    Raises:
        ImageUnreadableError: grayscale, palette, or other than 8 bits a sample.
    """
    name = _COLOUR_TYPES[header.colour_type]
    if header.colour_type == _PALETTE:
        raise ImageUnreadableError(
            "PNG uses a colour palette, which has lost colours; export 24-bit RGB"
        )
    if header.colour_type not in (_RGB, _RGBA):
        raise ImageUnreadableError(f"not a colour fundus photograph: one channel ({name} PNG)")
    if header.bits != 8:
        raise ImageUnreadableError(
            f"PNG has {header.bits} bits a sample, whose scale cannot be known; export 8-bit RGB"
        )


def check_png_structure(data: bytes) -> PngStructure:
    """Walk every chunk to IEND and check the CRCs.

    Args:
        data: the file's bytes with a readable header.

    Returns:
        The EXIF block (eXIf chunk) and the colour profile (iCCP chunk).

    Raises:
        ImageUnreadableError: cut, damaged, animated, colour-keyed, without image data, or
            with bytes after the end.
    """
    exif: bytes | None = None
    profile: bytes | None = None
    has_data = False
    for name, start, end in _chunks(data):
        if name in (b"acTL", b"tRNS"):
            kind = "animated" if name == b"acTL" else "partly transparent"
            raise ImageUnreadableError(f"PNG is {kind}; export one opaque 24-bit RGB image")
        if name == b"eXIf":
            exif = data[start:end]
        if name == b"iCCP":
            profile = _profile(data[start:end])
        has_data |= name == b"IDAT"
        if name == b"IEND":
            if not has_data:
                raise ImageUnreadableError("PNG holds no image data (IDAT): the file is damaged")
            if end + 4 != len(data):
                raise ImageUnreadableError(
                    f"PNG is followed by {len(data) - end - 4} more bytes; give one image a file"
                )
            return PngStructure(exif=exif, icc_profile=profile)
    raise ImageUnreadableError(
        f"PNG ends after {len(data)} bytes without its end chunk (IEND): the file is cut; "
        "copy it again from the camera"
    )


def _check_stream(data: bytes, header: ImageHeader) -> None:
    """Refuse a stream that does not hold exactly the rows of the picture; none of it is kept.

    Raises:
        ImageUnreadableError: more or fewer bytes, a damaged stream, a wrong checksum, or bytes
            behind the end of the stream.
    """
    left = _num_row_bytes(header, is_interlaced=data[_HEADER_END - 5] != 0)
    stream = zlib.decompressobj()
    for name, start, end in _chunks(data):
        packed = data[start:end] if name == b"IDAT" else b""
        while packed:
            try:
                left -= len(stream.decompress(packed, _INFLATE_STEP))
            except zlib.error as error:
                raise _stream_error("is damaged or fails its checksum") from error
            if left < 0 or stream.unused_data:
                raise _stream_error("holds more than its size asks for")
            packed = stream.unconsumed_tail
    if left or not stream.eof:
        raise _stream_error("is cut")


def _stream_error(what: str) -> ImageUnreadableError:
    return ImageUnreadableError(
        f"PNG image data do not decode: the stream {what}; copy the file again from the camera"
    )


def _num_row_bytes(header: ImageHeader, *, is_interlaced: bool) -> int:
    """Bytes of all rows with their filter bytes, eight bits a sample (section 7.2)."""
    height, width = header.stored_size_px
    passes = _PASSES if is_interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    return sum(rows * (1 + columns * header.channels) for columns, rows in sizes if columns > 0)


def _profile(body: bytes) -> bytes:
    """Inflate an iCCP chunk (name, 0, method 0, zlib stream); b"" where it does not."""
    try:
        return zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, payload start, payload end) of whole chunks whose CRC is right."""
    view = memoryview(data)
    position, num_chunks = len(PNG_SIGNATURE), 0
    while position + 12 <= len(data):
        num_chunks += 1
        if num_chunks > _MAX_CHUNKS:
            raise ImageLimitError(
                f"PNG has more than {_MAX_CHUNKS} chunks: refused; export it again"
            )
        start = position + 8
        end = start + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            return
        name = data[position + 4 : start]
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageUnreadableError(
                f"PNG chunk {name.decode('ascii', 'replace')} at byte {position} fails its CRC: "
                "the file is damaged; copy it again from the camera"
            )
        yield name, start, end
        position = end + 4
