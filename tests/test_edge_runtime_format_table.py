"""Every row of the table of picture formats in the vendor guide, as a file that is decoded."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_photo_factory import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    PHOTO_16,
    RLE,
    gdcm_frame,
    photo_bytes,
)
from fundus_factory import centred_fundus, jpeg_bytes, png_bytes, png_chunk, sof_offset
from picture_factory import (
    DEFLATE,
    LZW,
    PACKBITS,
    bmp_bytes,
    built_tiff,
    sampled_jpeg,
    tiff_bytes,
    wrapped_jpeg,
)

from edge_runtime.errors import ImageError
from edge_runtime.image import decode_image

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "vendor.md"
ROW = re.compile(r"^\| (JPEG|PNG|TIFF|BMP|DICOM|others) \| (.+?) \| (.+?) \|$", re.MULTILINE)
EYE = centred_fundus(64)
GREY = EYE[..., 1]
Build = Callable[[Path], bytes]


def patched(data: bytes, at: int, code: str, value: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(code, out, at, value)
    return bytes(out)


def jpeg_frame(offset: int, value: int) -> bytes:
    data = jpeg_bytes(EYE)
    return patched(data, sof_offset(data) + offset, "B", value)


def cmyk_jpeg() -> bytes:
    data = jpeg_bytes(EYE)
    at = sof_offset(data)
    head = b"\xff\xc0\x00\x14" + data[at + 4 : at + 9] + b"\x04" + data[at + 10 : at + 19]
    return data[:at] + head + b"\x04\x11\x00" + data[at + 19 :]


def adobe_rgb_jpeg() -> bytes:
    data = jpeg_bytes(EYE)
    end = 4 + int.from_bytes(data[4:6], "big")
    return data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5) + data[end:]


def png_with(name: bytes, body: bytes) -> bytes:
    data = png_bytes(EYE)
    return data[:33] + png_chunk(name, body) + data[33:]


def raw_png(colour: int, body: bytes, *, interlace: int = 0, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", 64, 64, 8, colour, 0, 0, interlace)
    chunks = png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def interlaced_png() -> bytes:
    """Adam7: seven pictures of every n-th pixel, each row behind filter type 0."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    parts = [EYE[y::dy, x::dx] for x, y, dx, dy in [*passes, (0, 1, 1, 2)]]
    return raw_png(
        2, b"".join(b"\0" + row.tobytes() for part in parts for row in part), interlace=1
    )


def rgba(alpha: int) -> np.ndarray:
    pixels = np.dstack([EYE, np.full((64, 64), 255, np.uint8)])
    pixels[9, 9, 3] = alpha
    return pixels


def tiff_with(**entries: tuple[int, int, tuple[int, ...]]) -> bytes:
    return built_tiff([EYE.tobytes()], (64, 64), changes={e[0]: e for e in entries.values()})


def too_much_lzw() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (550, 2000, 3))
    return tiff_bytes(noise.astype(np.uint8), LZW)


def tiled_tiff() -> bytes:
    tiles = [EYE[y : y + 32, x : x + 32].tobytes() for y in (0, 32) for x in (0, 32)]
    return built_tiff(tiles, (64, 64), tiled=32)


def bmp32(alpha: int) -> bytes:
    pixels = rgba(alpha)[::-1, :, [2, 1, 0, 3]].tobytes()
    head = struct.pack("<2sIIII", b"BM", 54 + len(pixels), 0, 54, 40)
    return head + struct.pack("<iiHHIIiiII", 64, 64, 1, 32, 0, 0, 0, 0, 0, 0) + pixels


def gdcm_photo(syntax: str) -> Build:
    return lambda folder: photo_bytes(EYE, syntax=syntax, frame=gdcm_frame(EYE, syntax, folder))


def photo(**options: object) -> Build:
    return lambda _: photo_bytes(EYE, **options)


FILES: dict[tuple[str, str], Build | list[bytes]] = {
    ("JPEG", "YCbCr, baseline, any chroma sampling"): [
        sampled_jpeg(EYE, sampling) for sampling in ("420", "422", "444")
    ],
    ("JPEG", "progressive"): [jpeg_bytes(EYE, progressive=True)],
    ("JPEG", "extended sequential, 8 bits"): [jpeg_frame(1, 0xC1)],
    ("JPEG", "lossless, 8 bits"): lambda folder: gdcm_frame(EYE, JPEG_LOSSLESS_SV1, folder).rstrip(
        b"\0"
    ),
    ("JPEG", "RGB components (Adobe marker)"): [adobe_rgb_jpeg()],
    ("JPEG", "bytes behind the end"): [jpeg_bytes(EYE) + b"maker's notes"],
    ("JPEG", "a second picture behind the end"): [
        jpeg_bytes(EYE) * 2,
        jpeg_bytes(EYE) + bytes(100) + png_bytes(EYE),
    ],
    ("JPEG", "grayscale"): [bytes(cv2.imencode(".jpg", GREY)[1])],
    ("JPEG", "CMYK"): [cmyk_jpeg()],
    ("JPEG", "12 bits"): [jpeg_frame(4, 12)],
    ("JPEG", "arithmetic coding"): [jpeg_frame(1, 0xC9)],
    ("PNG", "8-bit RGB"): [png_bytes(EYE)],
    ("PNG", "8-bit RGB, interlaced"): [interlaced_png()],
    ("PNG", "8-bit RGBA, opaque"): [png_bytes(rgba(255))],
    ("PNG", "8-bit RGBA, partly transparent"): [png_bytes(rgba(254))],
    ("PNG", "colour key"): [png_with(b"tRNS", bytes(6))],
    ("PNG", "grayscale"): [png_bytes(GREY)],
    ("PNG", "palette"): [raw_png(3, bytes(65 * 64), extra=png_chunk(b"PLTE", bytes(6)))],
    ("PNG", "16 bits"): [png_bytes(EYE.astype(np.uint16) * 257)],
    ("PNG", "animated"): [png_with(b"acTL", bytes(8))],
    ("TIFF", "8-bit RGB, uncompressed"): [tiff_bytes(EYE)],
    ("TIFF", "8-bit RGB, deflate"): [tiff_bytes(EYE, DEFLATE)],
    ("TIFF", "8-bit RGB, PackBits"): [tiff_bytes(EYE, PACKBITS)],
    ("TIFF", "8-bit RGB, LZW, up to 4 MB"): [tiff_bytes(EYE, LZW)],
    ("TIFF", "8-bit RGB, LZW, more than 4 MB"): [too_much_lzw()],
    ("TIFF", "8-bit RGB, tiles"): [tiled_tiff()],
    ("TIFF", "big endian"): [built_tiff([EYE.tobytes()], (64, 64), order=">")],
    ("TIFF", "JPEG inside"): [tiff_bytes(EYE, 7), tiff_with(compression=(259, 3, (6,)))],
    ("TIFF", "bytes behind the end"): [tiff_bytes(EYE) + b"maker's notes"],
    ("TIFF", "a second picture behind the end"): [tiff_bytes(EYE) * 2],
    ("TIFF", "three samples and the entry ExtraSamples"): [tiff_with(extra=(338, 3, (0,)))],
    ("TIFF", "alpha channel"): [
        tiff_with(samples=(277, 3, (4,)), bits=(258, 3, (8,) * 4), extra=(338, 3, (2,)))
    ],
    ("TIFF", "planar"): [tiff_with(planar=(284, 3, (2,)))],
    ("TIFF", "grayscale"): [bytes(cv2.imencode(".tiff", GREY)[1])],
    ("TIFF", "palette"): [tiff_with(photometric=(262, 3, (3,)))],
    ("TIFF", "CMYK"): [tiff_with(photometric=(262, 3, (5,)))],
    ("TIFF", "16 bits"): [bytes(cv2.imencode(".tiff", EYE.astype(np.uint16))[1])],
    ("TIFF", "floating point"): [bytes(cv2.imencode(".tiff", EYE.astype(np.float32))[1])],
    ("TIFF", "several pages"): [bytes(cv2.imencodemulti(".tiff", [EYE, EYE])[1])],
    ("TIFF", "BigTIFF"): [b"II+\x00\x08\x00\x00\x00" + bytes(64)],
    ("BMP", "24 bits"): [bmp_bytes(EYE)],
    ("BMP", "32 bits, opaque"): [bmp32(255)],
    ("BMP", "bytes behind the end"): [bmp_bytes(EYE) * 2, bmp_bytes(EYE) + b"\0"],
    ("BMP", "32 bits, partly transparent"): [bmp32(254)],
    ("BMP", "palette or grayscale"): [bytes(cv2.imencode(".bmp", GREY)[1])],
    ("BMP", "16 bits"): [patched(bmp_bytes(EYE), 28, "<H", 16)],
    ("BMP", "run-length coded"): [patched(bmp_bytes(EYE), 30, "<I", 1)],
    ("DICOM", "Implicit VR Little Endian"): photo(syntax=IMPLICIT),
    ("DICOM", "Explicit VR Little Endian"): photo(syntax=EXPLICIT),
    ("DICOM", "Deflated Explicit VR Little Endian"): photo(syntax=DEFLATED),
    ("DICOM", "JPEG baseline (.50)"): lambda _: wrapped_jpeg(EYE, jpeg_bytes(EYE), JPEG_BASELINE),
    ("DICOM", "JPEG extended (.51), 8 bits"): lambda _: wrapped_jpeg(
        EYE, jpeg_frame(1, 0xC1), JPEG_EXTENDED
    ),
    ("DICOM", "JPEG lossless (.57)"): gdcm_photo(JPEG_LOSSLESS),
    ("DICOM", "JPEG lossless (.70)"): gdcm_photo(JPEG_LOSSLESS_SV1),
    ("DICOM", "RLE"): photo(syntax=RLE),
    ("DICOM", "JPEG-LS lossless (.80)"): gdcm_photo(JPEG_LS),
    ("DICOM", "JPEG-LS near-lossless (.81)"): lambda folder: photo_bytes(
        EYE, syntax="1.2.840.10008.1.2.4.81", frame=gdcm_frame(EYE, JPEG_LS, folder)
    ),
    ("DICOM", "JPEG 2000 (.90, .91)"): gdcm_photo(JPEG_2000),
    ("DICOM", "Explicit VR Big Endian"): lambda _: photo_bytes(EYE).replace(
        EXPLICIT.encode() + b"\0", BIG_ENDIAN.encode() + b"\0"
    ),
    ("DICOM", "YBR_FULL, uncompressed"): photo(PhotometricInterpretation="YBR_FULL"),
    ("DICOM", "YBR_FULL_422, uncompressed"): photo(
        stored=EYE[..., :2].tobytes(), PhotometricInterpretation="YBR_FULL_422"
    ),
    ("DICOM", "grayscale"): photo(
        stored=GREY.tobytes(), SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2"
    ),
    ("DICOM", "palette"): photo(PhotometricInterpretation="PALETTE COLOR"),
    ("DICOM", "Ophthalmic Photography 16 Bit"): photo(SOPClassUID=PHOTO_16),
    ("DICOM", "another kind of object"): photo(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
    ("DICOM", "several frames"): photo(NumberOfFrames=2),
    ("DICOM", "bytes behind the data set"): lambda _: photo_bytes(EYE) * 2,
    ("DICOM", "no planar configuration, or neither 0 nor 1"): photo(PlanarConfiguration=None),
    ("DICOM", "a JPEG whose colours are not those the data set names"): lambda _: wrapped_jpeg(
        EYE, jpeg_bytes(EYE), PhotometricInterpretation="RGB"
    ),
    ("DICOM", "both eyes, or eyes that contradict each other"): photo(ImageLaterality="B"),
    ("others", "GIF, WebP, HEIC, AVIF, JPEG 2000, PDF"): [
        b"GIF89a" + bytes(99),
        b"RIFF\0\0\0\0WEBP" + bytes(99),
        b"\0\0\0\x18ftypheic" + bytes(99),
        b"\0\0\0\x18ftypavif" + bytes(99),
        b"\xff\x4f\xff\x51" + bytes(99),
        b"%PDF-1.7" + bytes(99),
    ],
}
ROWS = {(kind, text): outcome for kind, text, outcome in ROW.findall(GUIDE.read_text("utf-8"))}


def test_every_row_has_its_file_and_every_file_its_row():
    assert set(ROWS) == set(FILES)


@pytest.mark.parametrize("row", list(FILES), ids=" ".join)
def test_the_row_is_true(row, tmp_path):
    build, outcome = FILES[row], ROWS[row]
    for data in build if isinstance(build, list) else [build(tmp_path)]:
        if outcome == "refused":
            with pytest.raises(ImageError):
                decode_image(data)
            continue
        decoded = decode_image(data, target_px=6)
        assert decoded.reduction == (8 if "1/8" in outcome else 1)
        assert decoded.full_size_px == EYE.shape[:2]
        assert decoded.image_hwc.shape == (64 // decoded.reduction, 64 // decoded.reduction, 3)
        assert bool(decoded.warnings) == ("with a warning" in outcome)
        exact = row[0] != "JPEG" and "JPEG" not in row[1] and "YBR" not in row[1]
        if exact or "lossless" in row[1]:
            np.testing.assert_array_equal(decoded.image_hwc, EYE)
