"""Read TIFF files: one page of 8-bit RGB in strips or tiles, every byte accounted for.

Everything else that TIFF may hold is refused by name, because a guess at colours, scale or
page is a guess at the patient. Layout: TIFF revision 6.0; the deflate code is Adobe's
technical note of 2002.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.exif import orientation_warning
from edge_runtime.formats.header import DecodeLimits, ImageHeader, Pixels, check_pixel_limit
from edge_runtime.formats.icc import describe_profile, profile_warning
from edge_runtime.formats.lzw import check_lzw_cost, unpack_lzw
from edge_runtime.formats.packed_bytes import inflate, unpack_bits
from edge_runtime.formats.second_picture import refuse_second_picture
from edge_runtime.formats.tiff_directory import TIFF_STARTS, Entries, read_directory

__all__ = ["TIFF_STARTS", "TiffFile", "open_tiff"]

_CHANNELS = 3
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES = 273, 274, 277, 278, 279
_PLANAR, _PREDICTOR, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _ICC_PROFILE = 284, 317, 338, 339, 34675
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 8, 32946, 32773
_UNPACK: dict[int, Callable[[bytes, int], bytes]] = {
    _LZW: unpack_lzw,
    _DEFLATE: inflate,
    _OLD_DEFLATE: inflate,
    _PACKBITS: unpack_bits,
}
_PHOTOMETRIC_NAMES = {
    0: "grayscale",
    1: "grayscale",
    3: "a palette",
    4: "a mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    32803: "raw sensor data",
}
_RGB, _TILE_STEP = 2, 16
_MAX_COUNTS = {
    **dict.fromkeys((_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION), 1),
    **dict.fromkeys((_SAMPLES, _STRIP_ROWS, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT), 1),
    **dict.fromkeys((_BITS, _EXTRA_SAMPLES, _SAMPLE_FORMAT), 16),
    **dict.fromkeys((_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES), 200_000),
    _ICC_PROFILE: 10_000_000,
}


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A strip or tile: its bytes in the file, and where its pixels go (it may pass the edge)."""

    start: int
    num_bytes: int
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class TiffFile:
    """A TIFF whose strips or tiles lie in the file and cover the picture."""

    data: bytes
    header: ImageHeader
    compression: int
    has_predictor: bool
    blocks: tuple[_Block, ...]
    can_reduce: bool = False

    def decode(self, reduction: int) -> Pixels:
        """Unpack every block; see `PictureFile.decode`."""
        if reduction != 1:
            raise ValueError("a TIFF has no reduced decoding")
        height, width = self.header.stored_size_px
        image = np.zeros((height, width, _CHANNELS), np.uint8)
        for block in self.blocks:
            pixels = self._block_pixels(block)
            target = image[block.top :, block.left :][: block.height, : block.width]
            target[...] = pixels[: target.shape[0], : target.shape[1]]
        return image

    def _block_pixels(self, block: _Block) -> Pixels:
        raw = self.data[block.start : block.start + block.num_bytes]
        if self.compression != _NONE:
            raw = _UNPACK[self.compression](raw, block.height * block.width * _CHANNELS)
        pixels = np.frombuffer(raw, np.uint8).reshape(block.height, block.width, _CHANNELS)
        # Horizontal differencing (section 14): sums wrap at 256, as they did when it was written.
        return np.cumsum(pixels, axis=1, dtype=np.uint8) if self.has_predictor else pixels


def open_tiff(data: bytes, limits: DecodeLimits) -> TiffFile:
    """Check a TIFF's directory and the place of every strip or tile.

    Args:
        data: the file's bytes, beginning with one of `TIFF_STARTS`.
        limits: of pixels.

    Raises:
        ImageUnreadableError: cut, damaged, of a kind that is not read, or followed by another
            picture.
        ImageLimitError: more pixels than the limits, tiles that pass the edge included, or more
            LZW than can be unpacked in time.
    """
    entries = read_directory(data, _MAX_COUNTS)
    height, width = entries.size(_HEIGHT), entries.size(_WIDTH)
    check_pixel_limit(height, width, limits)
    compression = _check_coding(entries)
    blocks = _blocks(entries, height, width, limits)
    _check_places(data, blocks, compression)
    if compression == _LZW:
        check_lzw_cost(sum(block.num_bytes for block in blocks), len(blocks))
    orientation, warnings = _orientation(entries)
    profile = entries.raw(_ICC_PROFILE)
    description = None if profile is None else describe_profile(profile)
    end = max(entries.end, *(block.start + block.num_bytes for block in blocks))
    refuse_second_picture(data, end, "TIFF")
    if len(data) > end:
        warnings += (f"{len(data) - end} bytes after the end of the TIFF were ignored",)
    header = ImageHeader(
        format="tiff",
        stored_size_px=(height, width),
        orientation=orientation,
        icc_profile=description,
        trailing_bytes=len(data) - end,
        warnings=warnings + profile_warning(description),
    )
    return TiffFile(
        data=data,
        header=header,
        compression=compression,
        has_predictor=entries.one(_PREDICTOR, 1) == 2,
        blocks=blocks,
    )


def _check_coding(entries: Entries) -> int:
    """Refuse every kind of TIFF but one; return its compression."""
    photometric = entries.one(_PHOTOMETRIC)
    if photometric in (0, 1):
        raise ImageUnreadableError("not a colour fundus photograph: one channel (grayscale TIFF)")
    compression = entries.one(_COMPRESSION, _NONE)
    samples = entries.one(_SAMPLES, 1)
    problems = (
        (photometric != _RGB, f"holds {_PHOTOMETRIC_NAMES.get(photometric, 'unknown colours')}"),
        (samples == 4, "has an alpha channel"),
        (samples != _CHANNELS, f"has {samples} samples a pixel"),
        (entries.has(_EXTRA_SAMPLES), "names a fourth sample and has three"),
        (
            set(entries.all(_BITS, (1,))) != {8},
            f"has {max(entries.all(_BITS, (1,)))} bits a sample",
        ),
        (set(entries.all(_SAMPLE_FORMAT, (1,))) != {1}, "holds signed or floating-point samples"),
        (entries.one(_PLANAR, 1) != 1, "stores its channels apart (planar)"),
        (entries.one(_FILL_ORDER, 1) != 1, "stores its bits in reverse order"),
        (
            compression not in (_NONE, *_UNPACK),
            f"has compression {compression} (not none, LZW, deflate or PackBits)",
        ),
        (entries.one(_PREDICTOR, 1) not in (1, 2), "uses the floating-point predictor"),
        (compression == _NONE and entries.one(_PREDICTOR, 1) != 1, "has a predictor uncompressed"),
    )
    for found, what in problems:
        if found:
            raise ImageUnreadableError(f"TIFF {what}; export 8-bit RGB as JPEG, PNG or plain TIFF")
    return compression


def _blocks(entries: Entries, height: int, width: int, limits: DecodeLimits) -> tuple[_Block, ...]:
    """Return all strips or all tiles, row by row. Tiles pass the edge, the last strip is cut."""
    is_tiled = _TILE_OFFSETS in entries.values
    if is_tiled:
        tile_width, tile_height = entries.size(_TILE_WIDTH), entries.size(_TILE_HEIGHT)
        if tile_width % _TILE_STEP or tile_height % _TILE_STEP:
            raise _damaged(f"its tiles have {tile_width}x{tile_height} pixels, not multiples of 16")
        offsets, sizes = entries.all(_TILE_OFFSETS), entries.all(_TILE_BYTES)
    else:
        rows = entries.size(_STRIP_ROWS) if _STRIP_ROWS in entries.values else height
        tile_width, tile_height = width, min(rows, height)
        offsets, sizes = entries.all(_STRIP_OFFSETS), entries.all(_STRIP_BYTES)
    down, across = -(-height // tile_height), -(-width // tile_width)
    if is_tiled:
        check_pixel_limit(down * tile_height, across * tile_width, limits)
    if not len(offsets) == len(sizes) == down * across:
        raise _damaged(f"it lists {len(offsets)} strips or tiles and needs {down * across}")
    return tuple(
        _Block(
            start=offsets[index],
            num_bytes=sizes[index],
            top=index // across * tile_height,
            left=index % across * tile_width,
            height=tile_height if is_tiled else min(tile_height, height - index * tile_height),
            width=tile_width,
        )
        for index in range(down * across)
    )


def _check_places(data: bytes, blocks: tuple[_Block, ...], compression: int) -> None:
    """Every block lies in the file, has its exact size where that is known, and is its own."""
    last_end = 8
    for block in sorted(blocks, key=lambda block: block.start):
        end = block.start + block.num_bytes
        if block.start < last_end or block.num_bytes == 0 or end > len(data):
            raise _damaged(
                f"the strip or tile at bytes {block.start} to {end} lies over another or outside "
                f"the {len(data)} bytes of the file"
            )
        expected = block.height * block.width * _CHANNELS
        if compression == _NONE and block.num_bytes != expected:
            raise _damaged(f"a strip or tile has {block.num_bytes} bytes instead of {expected}")
        last_end = end


def _orientation(entries: Entries) -> tuple[int, tuple[str, ...]]:
    value = entries.one(_ORIENTATION, 1)
    if 1 <= value <= 8:
        return value, orientation_warning(value)
    return 1, (f"TIFF orientation is {value}, not 1 to 8; the image was used as stored",)


def _damaged(what: str) -> ImageUnreadableError:
    return ImageUnreadableError(f"TIFF is cut or damaged: {what}; copy it again from the camera")
