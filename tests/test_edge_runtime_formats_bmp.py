"""BMP: uncompressed 24 and 32 bits to the exact byte, everything else refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from fundus_factory import centred_fundus
from picture_factory import bmp_bytes

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats.bmp import open_bmp
from edge_runtime.formats.header import DecodeLimits
from edge_runtime.image import decode_image, inspect_image

EYE = centred_fundus(50)[:37]


def built_bmp(
    pixels: np.ndarray, *, top_down: bool = False, masks: bytes = b"", info: int = 40
) -> bytes:
    """`pixels` is (H, W, 3 or 4) BGR(A); masks make it BITFIELDS."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, -(-width * channels // 4) * 4), np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    body = (rows if top_down else rows[::-1]).tobytes()
    start = 14 + max(info, 40 + len(masks))
    head = struct.pack("<2s4I", b"BM", start + len(body), 0, start, info)[:18]
    signed = -height if top_down else height
    head += struct.pack(
        "<iiHHIIiiII", width, signed, 1, 8 * channels, 3 if masks else 0, 0, 0, 0, 0, 0
    )
    return (head + masks).ljust(start, b"\0") + body


def four(alpha: int) -> np.ndarray:
    return np.dstack([EYE[..., ::-1], np.full(EYE.shape[:2], alpha, np.uint8)])


BGRA = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)


@pytest.mark.parametrize("width", [50, 49, 48, 47])
def test_rows_of_every_padding(width):
    image = np.ascontiguousarray(EYE[:, :width])
    np.testing.assert_array_equal(decode_image(bmp_bytes(image)).image_hwc, image)


def test_top_down_and_32_bits():
    for data in (
        built_bmp(EYE[..., ::-1]),
        built_bmp(EYE[..., ::-1], top_down=True),
        built_bmp(EYE[..., ::-1], info=124),
        built_bmp(four(0)),
        built_bmp(four(255)),
        built_bmp(four(255), masks=BGRA),
        built_bmp(four(255), masks=BGRA, info=108),
    ):
        np.testing.assert_array_equal(decode_image(data).image_hwc, EYE)
    assert inspect_image(built_bmp(four(0))).channels == 4


def test_transparency_is_refused():
    pixels = four(255)
    pixels[3, 4, 3] = 254
    for data in (built_bmp(pixels), built_bmp(four(128))):
        with pytest.raises(ImageUnreadableError, match="transparent"):
            decode_image(data)


@pytest.mark.parametrize(
    ("offset", "code", "value", "message"),
    [
        (28, "<H", 8, "grayscale or palette"),
        (28, "<H", 1, "grayscale or palette"),
        (28, "<H", 16, "16 bits a pixel"),
        (30, "<I", 1, "compression 1"),
        (30, "<I", 3, "compression 3"),
        (30, "<I", 4, "compression 4"),
        (26, "<H", 2, "planes"),
        (18, "<i", 0, "impossible"),
        (18, "<i", -50, "impossible"),
        (22, "<i", 0, "impossible"),
        (14, "<I", 12, "kind not supported"),
        (10, "<I", 20, "cut or damaged"),
        (10, "<I", 58, "cut or damaged"),
        (2, "<I", 10, "cut or damaged"),
        (22, "<i", 36, "cut or damaged"),
    ],
)
def test_headers_that_are_refused(offset, code, value, message):
    data = bytearray(bmp_bytes(EYE))
    struct.pack_into(code, data, offset, value)
    with pytest.raises(ImageUnreadableError, match=message):
        inspect_image(bytes(data))


def test_other_masks_are_refused():
    with pytest.raises(ImageUnreadableError, match="compression 3"):
        inspect_image(built_bmp(four(255), masks=struct.pack("<3I", 0xFF, 0xFF00, 0xFF0000)))


def test_a_claim_of_too_many_pixels_and_bytes_behind_the_end():
    data = bytearray(bmp_bytes(EYE))
    struct.pack_into("<ii", data, 18, 60000, -60000)
    with pytest.raises(ImageLimitError):
        inspect_image(bytes(data))
    with pytest.raises(ImageUnreadableError, match="cut or damaged"):
        inspect_image(bmp_bytes(EYE) + b"x")
    with pytest.raises(ImageUnreadableError, match="cut or damaged"):
        inspect_image(bmp_bytes(EYE) * 2)


def test_reduced_decoding_is_a_programmers_error():
    with pytest.raises(ValueError, match="reduced"):
        open_bmp(bmp_bytes(EYE), DecodeLimits()).decode(2)
