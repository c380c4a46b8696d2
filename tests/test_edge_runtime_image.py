from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from fundus_factory import (
    centred_fundus,
    exif_block,
    jpeg_bytes,
    png_bytes,
    png_chunk,
    sof_offset,
    with_exif,
    with_size,
)
from picture_factory import ENCODERS

from edge_runtime.errors import ConfigError, ImageError, ImageLimitError, ImageUnreadableError
from edge_runtime.image import (
    DecodedImage,
    DecodeLimits,
    ImageHeader,
    decode_image,
    inspect_image,
    read_image,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def eye():
    return centred_fundus(64)


def ihdr(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def test_png_round_trip_is_exact(eye):
    data = png_bytes(eye)
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_hwc, eye)
    assert decoded.image_hwc.dtype == np.uint8
    assert decoded.image_hwc.flags.c_contiguous
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()
    assert (decoded.format, decoded.num_bytes, decoded.reduction) == ("png", len(data), 1)
    assert decoded.full_size_px == (64, 64)
    assert decoded.warnings == ()


def test_jpeg_is_rgb_not_bgr(eye):
    decoded = decode_image(jpeg_bytes(eye, quality=98))
    assert decoded.format == "jpeg"
    assert np.abs(decoded.image_hwc.astype(int) - eye).mean() < 3
    red, _, blue = decoded.image_hwc.reshape(-1, 3).mean(0)
    assert red > 2 * blue


@pytest.mark.parametrize(
    ("target_px", "reduction"),
    # 0.95 / 1.15 of the short side 502 is 414.7: 51 at 1/8, 103 at 1/4, 207 at 1/2.
    [(None, 1), (51, 8), (52, 4), (103, 4), (104, 2), (207, 2), (208, 1)],
)
def test_reduction_keeps_the_target(target_px, reduction):
    image = np.pad(centred_fundus(502), ((0, 0), (50, 51), (0, 0)))
    decoded = decode_image(jpeg_bytes(image), target_px=target_px)
    assert decoded.reduction == reduction
    assert decoded.image_hwc.shape[:2] == (-(-502 // reduction), -(-603 // reduction))
    assert decoded.full_size_px == (502, 603)


def test_max_reduction_bounds_k_and_png_is_never_reduced():
    image = centred_fundus(512)
    assert decode_image(jpeg_bytes(image), target_px=32).reduction == 8
    assert decode_image(jpeg_bytes(image), target_px=32, max_reduction=2).reduction == 2
    assert decode_image(png_bytes(image), target_px=32).reduction == 1


def test_bytes_that_are_no_image(rng):
    assert issubclass(ImageUnreadableError, ImageError)
    for data in (rng.bytes(5000), b"hello, this is a text file\n" * 50, b"\xff\xd8\xff", SIGNATURE):
        with pytest.raises(ImageUnreadableError):
            decode_image(data)
    with pytest.raises(ImageUnreadableError, match="empty"):
        decode_image(b"")


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (b"II+\x00", "BigTIFF"),
        (b"GIF89a", "GIF"),
        (b"RIFF\x00\x00\x00\x00WEBP", "WebP"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
    ],
)
def test_other_formats_are_named(magic, name):
    with pytest.raises(ImageUnreadableError, match=rf"{name}.*supported: JPEG, PNG, TIFF"):
        decode_image(magic + bytes(300))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_huge_claim_costs_neither_time_nor_memory(kind, eye):
    data = with_size(jpeg_bytes(eye), 65500, 65500)
    if kind == "png":
        data = SIGNATURE + ihdr(60000, 60000) + png_chunk(b"IDAT", zlib.compress(bytes(10)))
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ImageLimitError, match="megapixels"):
        decode_image(data)
    assert time.process_time() - start < 0.1
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_png_whose_data_is_shorter_than_its_claim_is_refused():
    short = zlib.compress(bytes(1000))
    data = SIGNATURE + ihdr(256, 256) + png_chunk(b"IDAT", short) + png_chunk(b"IEND", b"")
    with pytest.raises(ImageUnreadableError):
        decode_image(data)


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_inspection_says_what_decoding_gives(kind, eye):
    image = eye[:40]
    data = ENCODERS[kind](image)
    header, decoded = inspect_image(data), decode_image(data)
    assert isinstance(header, ImageHeader)
    assert header.format == decoded.format == kind.partition("-")[0]
    assert header.stored_size_px == header.upright_size_px == (40, 64)
    assert header.upright_size_px == decoded.full_size_px == decoded.image_hwc.shape[:2]
    assert (header.bits, header.channels, header.orientation) == (8, 3, 1)
    assert (header.num_scans > 1) == (kind == "jpeg-progressive")
    assert header.icc_profile is None
    assert header.trailing_bytes == 0
    assert header.laterality == decoded.laterality
    assert header.warnings == decoded.warnings == ()


def test_inspection_decodes_nothing(monkeypatch, eye):
    files = [encode(eye) for encode in ENCODERS.values()]
    for target in ("cv2.imdecode", "simplejpeg.decode_jpeg"):
        monkeypatch.setattr(target, None)
    for module, name in (("tiff", "_UNPACK"), ("dicom", "decode_stored"), ("dicom", "decode_rle")):
        monkeypatch.setattr(f"edge_runtime.formats.{module}.{name}", None, raising=True)
    monkeypatch.setattr("edge_runtime.formats.tiff._UNPACK", dict.fromkeys((5, 8, 32773)))
    for data in files:
        assert inspect_image(data).stored_size_px == (64, 64)


def test_inspection_of_a_turned_file_and_of_bytes_behind_its_end(eye):
    data = with_exif(jpeg_bytes(eye[:40]), exif_block(6)) + bytes(7)
    header = inspect_image(data)
    assert (header.stored_size_px, header.upright_size_px) == ((40, 64), (64, 40))
    assert (header.orientation, header.trailing_bytes) == (6, 7)
    assert decode_image(data).warnings == header.warnings
    assert len(header.warnings) == 2


def test_inspection_holds_the_limits(eye):
    for data in (encode(eye) for encode in ENCODERS.values()):
        for limits in (DecodeLimits(max_megapixels=0.004), DecodeLimits(max_megabytes=0.0005)):
            with pytest.raises(ImageLimitError):
                inspect_image(data, limits=limits)
    with pytest.raises(ImageLimitError, match="scans"):
        inspect_image(jpeg_bytes(eye, progressive=True), limits=DecodeLimits(max_scans=2))


def test_file_size_limit(tmp_path, eye):
    data = png_bytes(eye)
    limits = DecodeLimits(max_megabytes=(len(data) - 1) / 1e6)
    path = tmp_path / "eye.png"
    path.write_bytes(data)
    with pytest.raises(ImageLimitError, match="MB"):
        decode_image(data, limits=limits)
    with pytest.raises(ImageLimitError, match="MB"):
        read_image(path, limits=limits)
    exact = DecodeLimits(max_megabytes=len(data) / 1e6)
    assert read_image(path, limits=exact).num_bytes == len(data)


def test_scan_limit(eye):
    data = jpeg_bytes(eye, progressive=True)
    with pytest.raises(ImageLimitError, match="scans"):
        decode_image(data, limits=DecodeLimits(max_scans=2))
    assert decode_image(data).image_hwc.shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["max_megapixels", "max_megabytes", "max_scans"])
def test_limits_must_be_positive(name):
    with pytest.raises(ConfigError, match=name):
        DecodeLimits(**{name: 0})


def test_grayscale_is_refused_as_no_fundus_photograph(eye):
    gray = eye[..., 1]
    jpeg = bytes(cv2.imencode(".jpg", gray)[1])
    for data in (jpeg, png_bytes(gray)):
        with pytest.raises(ImageUnreadableError, match="not a colour fundus photograph"):
            decode_image(data)


def test_cmyk_is_refused(eye):
    data = jpeg_bytes(eye)
    at = sof_offset(data)
    frame = data[at + 4 : at + 10 - 1] + b"\x04" + data[at + 10 : at + 19] + b"\x04\x11\x00"
    cmyk = data[:at] + b"\xff\xc0\x00\x14" + frame + data[at + 19 :]
    with pytest.raises(ImageUnreadableError, match="CMYK"):
        decode_image(cmyk)


def test_png_kinds_that_are_refused(eye):
    with pytest.raises(ImageUnreadableError, match="16 bits"):
        decode_image(png_bytes(eye.astype(np.uint16) * 257))
    body = png_chunk(b"PLTE", bytes(6)) + png_chunk(b"IDAT", zlib.compress(bytes(4 * 3)))
    palette = SIGNATURE + ihdr(3, 3, 8, 3) + body + png_chunk(b"IEND", b"")
    with pytest.raises(ImageUnreadableError, match="palette"):
        decode_image(palette)


def test_alpha_only_where_opaque(eye):
    rgba = np.dstack([eye, np.full((64, 64), 255, np.uint8)])
    np.testing.assert_array_equal(decode_image(png_bytes(rgba)).image_hwc, eye)
    rgba[5, 5, 3] = 254
    with pytest.raises(ImageUnreadableError, match="transparent"):
        decode_image(png_bytes(rgba))


@pytest.mark.parametrize("name", [b"tRNS", b"acTL"])
def test_png_with_colour_key_or_animation(name, eye):
    data = png_bytes(eye)
    with pytest.raises(ImageUnreadableError, match=r"transparent|animated"):
        decode_image(data[:33] + png_chunk(name, bytes(6)) + data[33:])


def test_png_changed_byte_fails_its_crc(eye):
    data = bytearray(png_bytes(eye))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageUnreadableError, match="CRC"):
        decode_image(bytes(data))
    with pytest.raises(ImageUnreadableError, match="more bytes"):
        decode_image(png_bytes(eye) + b"x")


# How an upright image must be stored so that the orientation brings it back (EXIF 2.32).
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_gives_the_upright_pixels(value):
    upright = centred_fundus(64)[:40]
    stored = png_bytes(np.ascontiguousarray(STORED[value](upright)))
    data = stored[:33] + png_chunk(b"eXIf", exif_block(value)) + stored[33:]
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_hwc, upright)
    assert decoded.full_size_px == (40, 64)
    assert decoded.warnings == (() if value == 1 else (f"EXIF orientation {value} was applied",))


@pytest.mark.parametrize("target_px", [None, 24])
@pytest.mark.parametrize("value", range(1, 9))
def test_jpeg_orientation_agrees_with_opencv(value, target_px):
    # 256 is a multiple of every reduction, so the comparison is exact.
    plain = jpeg_bytes(centred_fundus(256)[:128])
    data = with_exif(plain, exif_block(value))
    decoded = decode_image(data, target_px=target_px)
    flags = {1: cv2.IMREAD_COLOR, 4: cv2.IMREAD_REDUCED_COLOR_4}[decoded.reduction]
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1]
    np.testing.assert_array_equal(decoded.image_hwc, expected)


def test_malformed_exif_is_said_and_the_pixels_used_as_stored(eye):
    plain = jpeg_bytes(eye)
    decoded = decode_image(with_exif(plain, exif_block(0)))
    assert "used as stored" in decoded.warnings[0]
    np.testing.assert_array_equal(decoded.image_hwc, decode_image(plain).image_hwc)


def test_read_image_refuses_what_is_no_file(tmp_path):
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageUnreadableError, match="cannot be read"):
            read_image(path)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ImageUnreadableError, match="empty"):
        read_image(empty)


def test_read_image_equals_decode_image(tmp_path, eye):
    path = tmp_path / "eye.jpg"
    path.write_bytes(jpeg_bytes(eye))
    read = read_image(path, target_px=16)
    decoded = decode_image(path.read_bytes(), target_px=16)
    assert isinstance(read, DecodedImage)
    np.testing.assert_array_equal(read.image_hwc, decoded.image_hwc)
    assert read.sha256 == decoded.sha256


def test_arguments_out_of_range(eye):
    for arguments in ({"target_px": 0}, {"max_reduction": 3}):
        with pytest.raises(ConfigError):
            decode_image(png_bytes(eye), **arguments)


def test_importing_leaves_opencv_threads_alone():
    code = "import cv2; n = cv2.getNumThreads()"
    code += "; import edge_runtime.preprocess, edge_runtime.fundus.quality"
    code += "; assert cv2.getNumThreads() == n"
    subprocess.run([sys.executable, "-c", code], check=True)
