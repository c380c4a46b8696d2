"""TIFF: what is read comes out exactly, everything else is refused by name."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from dicom_photo_factory import photo_bytes
from fundus_factory import centred_fundus, jpeg_bytes, png_bytes
from picture_factory import DEFLATE, LZW, NONE, PACKBITS, bmp_bytes, built_tiff, tiff_bytes

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats.header import DecodeLimits
from edge_runtime.formats.lzw import check_lzw_cost
from edge_runtime.formats.tiff import open_tiff
from edge_runtime.image import decode_image, inspect_image

EYE = centred_fundus(50)[:37]
STRIPS = [EYE[i : i + 10].tobytes() for i in range(0, 37, 10)]


def strips(**options: object) -> bytes:
    return built_tiff(STRIPS, (37, 50), **options)


def tiles(side: int) -> list[bytes]:
    padded = np.pad(EYE, ((0, -37 % side), (0, -50 % side), (0, 0)), constant_values=9)
    return [
        padded[y : y + side, x : x + side].tobytes()
        for y in range(0, padded.shape[0], side)
        for x in range(0, padded.shape[1], side)
    ]


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
def test_libtiffs_files_come_out_exactly(compression):
    np.testing.assert_array_equal(decode_image(tiff_bytes(EYE, compression)).image_hwc, EYE)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_strips_and_tiles(order):
    np.testing.assert_array_equal(decode_image(strips(order=order)).image_hwc, EYE)
    for side in (16, 32, 64):
        data = built_tiff(tiles(side), (37, 50), order=order, tiled=side)
        np.testing.assert_array_equal(decode_image(data).image_hwc, EYE)


def test_horizontal_differencing_wraps():
    differences = np.diff(EYE, axis=1, prepend=np.zeros((37, 1, 3), np.uint8))
    assert (differences > 200).any()
    import zlib

    blocks = [zlib.compress(differences[i : i + 10].tobytes()) for i in range(0, 37, 10)]
    data = built_tiff(blocks, (37, 50), changes={259: (259, 3, (8,)), 317: (317, 3, (2,))})
    np.testing.assert_array_equal(decode_image(data).image_hwc, EYE)


def test_orientation_and_trailing_bytes_are_said():
    decoded = decode_image(strips(changes={274: (274, 3, (3,))}) + bytes(5))
    np.testing.assert_array_equal(decoded.image_hwc, EYE[::-1, ::-1])
    assert decoded.warnings == (
        "EXIF orientation 3 was applied",
        "5 bytes after the end of the TIFF were ignored",
    )
    odd = decode_image(strips(changes={274: (274, 3, (9,))}))
    assert "used as stored" in odd.warnings[0]


REFUSED = {
    "16 bits": {258: (258, 3, (16, 16, 16))},
    "grayscale": {262: (262, 3, (1,)), 277: (277, 3, (1,)), 258: (258, 3, (8,))},
    "inverted grayscale": {262: (262, 3, (0,))},
    "a palette": {262: (262, 3, (3,))},
    "CMYK": {262: (262, 3, (5,)), 277: (277, 3, (4,))},
    "YCbCr": {262: (262, 3, (6,))},
    "CIELab": {262: (262, 3, (8,))},
    "alpha channel": {277: (277, 3, (4,)), 258: (258, 3, (8,) * 4), 338: (338, 3, (2,))},
    "names a fourth sample": {338: (338, 3, (0,))},
    "names a fourth sample, as bytes": {338: (338, 1, b"\0")},
    "2 samples": {277: (277, 3, (2,)), 258: (258, 3, (8, 8))},
    "floating-point samples": {339: (339, 3, (3, 3, 3))},
    "planar": {284: (284, 3, (2,))},
    "reverse order": {266: (266, 3, (2,))},
    "compression 6": {259: (259, 3, (6,))},
    "compression 7": {259: (259, 3, (7,))},
    "compression 3": {259: (259, 3, (3,))},
    "predictor": {317: (317, 3, (3,))},
    "predictor uncompressed": {317: (317, 3, (2,))},
    "more than one picture": {330: (330, 4, (8,))},
    "more than one picture, reduced": {254: (254, 4, (1,))},
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_other_kinds_are_refused_by_name(name):
    message = "grayscale" if "grayscale" in name else name.partition(",")[0]
    with pytest.raises(ImageUnreadableError, match=message):
        inspect_image(strips(changes=REFUSED[name]))


def test_more_pages_and_bigtiff_are_refused():
    with pytest.raises(ImageUnreadableError, match="more than one page"):
        inspect_image(strips(next_directory=8))
    with pytest.raises(ImageUnreadableError, match="BigTIFF"):
        inspect_image(b"II+\x00\x08\x00\x00\x00" + bytes(40))


BROKEN = {
    "strip outside": {273: (273, 4, (8, 1508, 3008, 90000))},
    "strips overlap": {273: (273, 4, (8, 1508, 3008, 1508))},
    "strip over the header": {273: (273, 4, (0, 1508, 3008, 4508))},
    "a byte short": {279: (279, 4, (1500, 1500, 1499, 1050))},
    "empty strip": {279: (279, 4, (1500, 1500, 0, 1050))},
    "a strip missing": {273: (273, 4, (8, 1508, 3008)), 279: (279, 4, (1500, 1500, 1500))},
    "counts differ": {279: (279, 4, (1500, 1500, 1500))},
    "no strips": {273: None},
    "no width": {256: None},
    "width 0": {256: (256, 3, (0,))},
    "height 0": {257: (257, 4, (0,))},
    "two widths": {256: (256, 3, (50, 50))},
    "strip of 0 rows": {278: (278, 3, (0,))},
    "text for a number": {259: (259, 2, b"1\0")},
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_layouts_are_refused(name):
    with pytest.raises(ImageUnreadableError, match="cut or damaged"):
        inspect_image(strips(changes=BROKEN[name]))


def test_tiles_must_be_possible():
    blocks = tiles(32)
    with pytest.raises(ImageUnreadableError, match="multiples of 16"):
        inspect_image(built_tiff(blocks, (37, 50), tiled=24))
    with pytest.raises(ImageUnreadableError, match="strips or tiles"):
        inspect_image(built_tiff(blocks[:3], (37, 50), tiled=32))
    with pytest.raises(ImageLimitError):  # one pixel, one tile of a thousand megapixels
        inspect_image(built_tiff([b"x"], (1, 1), tiled=32768))


def test_entry_twice_and_entry_outside_the_file():
    data = strips()
    directory = struct.unpack_from("<I", data, 4)[0]
    twice = bytearray(data)
    twice[directory + 14 : directory + 16] = data[directory + 2 : directory + 4]
    with pytest.raises(ImageUnreadableError, match="twice"):
        inspect_image(bytes(twice))
    far = strips(changes={305: (305, 2, b"written by nobody\0")})
    at = far.index(struct.pack("<HHI", 305, 2, 18)) + 8
    with pytest.raises(ImageUnreadableError, match="outside"):
        inspect_image(far[:at] + struct.pack("<I", len(far)) + far[at + 4 :])


def test_shared_values_cannot_fill_the_memory():
    """Entries may all point at the same bytes; only the tags that are needed are kept."""
    shared = {tag: (tag, 4, tuple(range(40_000))) for tag in range(40_000, 40_020)}
    assert inspect_image(strips(changes=shared)).stored_size_px == (37, 50)
    many = {258: (258, 3, (8,) * 17)}
    with pytest.raises(ImageUnreadableError, match="17 values"):
        inspect_image(strips(changes=many))


def test_a_flipped_byte_in_a_packed_strip_is_seen_or_changes_pixels_only():
    data = tiff_bytes(EYE, DEFLATE)
    at = inspect_image(data)
    assert at.format == "tiff"
    for position in range(20, 400, 11):
        flipped = data[:position] + bytes([data[position] ^ 8]) + data[position + 1 :]
        with pytest.raises(ImageUnreadableError):  # deflate has a checksum
            decode_image(flipped)


OTHERS = {
    "TIFF": strips(),
    "big endian TIFF": strips(order=">"),
    "JPEG": jpeg_bytes(EYE),
    "PNG": png_bytes(EYE),
    "BMP": bmp_bytes(EYE),
    "DICOM": photo_bytes(EYE),
    "DICOM with a preamble": b"II*\0" + b"x" * 124 + photo_bytes(EYE)[128:],
}


@pytest.mark.parametrize("name", list(OTHERS))
@pytest.mark.parametrize("padding", [0, 1, 512])
@pytest.mark.parametrize("first", ["libtiff", "built", "JPEG"])
def test_a_second_picture_behind_the_end_is_refused(name, padding, first):
    data = {"libtiff": tiff_bytes(EYE, LZW), "built": strips(), "JPEG": jpeg_bytes(EYE)}[first]
    with pytest.raises(ImageUnreadableError, match="second image at byte"):
        inspect_image(data + bytes(padding) + OTHERS[name])
    assert inspect_image(data + bytes(padding) + b"maker's notes").trailing_bytes == padding + 13


def test_lzw_is_read_up_to_what_can_be_unpacked_in_time(rng):
    noise = rng.integers(0, 256, (420, 2000, 3)).astype(np.uint8)
    data = tiff_bytes(noise, LZW)
    assert 3_300_000 < len(data) < 3_800_000
    np.testing.assert_array_equal(decode_image(data).image_hwc, noise)
    more = rng.integers(0, 256, (500, 2000, 3)).astype(np.uint8)
    with pytest.raises(ImageLimitError, match=r"4.0 MB of LZW data.*uncompressed, with deflate"):
        inspect_image(tiff_bytes(more, LZW))
    check_lzw_cost(0, 10_000)
    with pytest.raises(ImageLimitError, match="10001 strips"):
        check_lzw_cost(0, 10_001)


def test_reduced_decoding_is_a_programmers_error():
    with pytest.raises(ValueError, match="reduced"):
        open_tiff(strips(), DecodeLimits()).decode(2)
