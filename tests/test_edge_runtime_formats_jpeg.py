"""JPEG: the pixels of the decoder that came before, and every warning of libjpeg a refusal."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
from fundus_factory import centred_fundus, fundus, jpeg_bytes
from picture_factory import SAMPLINGS, sampled_jpeg

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.header import DecodeLimits
from edge_runtime.formats.jpeg import open_jpeg
from edge_runtime.image import decode_image

REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def opencv_pixels(data: bytes, reduction: int) -> np.ndarray:
    flags = REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1]


def ours(data: bytes, reduction: int) -> np.ndarray:
    return open_jpeg(data, DecodeLimits()).decode(reduction)


@pytest.mark.parametrize("reduction", list(REDUCED))
@pytest.mark.parametrize("sampling", list(SAMPLINGS))
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("height", "width"), [(128, 160), (121, 155), (67, 200), (33, 31)])
def test_pixels_equal_opencv(height, width, progressive, sampling, reduction):
    """PreprocessSpec keeps its version: bundles made with OpenCV's decoder see the same pixels."""
    image = fundus(height, width, cx=width / 2, cy=height / 2, radius=0.47 * height)
    data = sampled_jpeg(image, sampling, progressive=progressive)
    np.testing.assert_array_equal(ours(data, reduction), opencv_pixels(data, reduction))


def camera_jpegs(real_data_dir):
    files = sorted((real_data_dir / "fullres" / "images").glob("*.jp*g"))
    if not files:
        pytest.skip("no camera JPEGs in fullres/images of the folder of real images")
    return files


def test_pixels_of_a_camera_original_equal_opencv(real_data_dir):
    data = camera_jpegs(real_data_dir)[0].read_bytes()
    np.testing.assert_array_equal(ours(data, 8), opencv_pixels(data, 8))


@pytest.mark.slow
@pytest.mark.parametrize("reduction", list(REDUCED))
def test_pixels_of_every_camera_original_equal_opencv(real_data_dir, reduction):
    for path in camera_jpegs(real_data_dir):
        data = path.read_bytes()
        np.testing.assert_array_equal(ours(data, reduction), opencv_pixels(data, reduction))


def scan_start(data: bytes) -> int:
    return data.index(b"\xff\xda") + 14


# The rows of damage that other decoders let through: cut with the end put back, a page of
# zeros, random bytes. Each must be seen at every scale, because a smaller scale reads less.
@pytest.mark.parametrize("target_px", [None, 150, 75, 37])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_damage_that_others_decode_is_refused(share, progressive, target_px):
    image = centred_fundus(512)
    noise = np.random.default_rng(3).integers(-9, 10, image.shape)
    data = jpeg_bytes(np.clip(image + noise, 0, 255).astype(np.uint8), progressive=progressive)
    assert (
        decode_image(data, target_px=target_px).reduction
        == {None: 1, 150: 2, 75: 4, 37: 8}[target_px]
    )
    at = scan_start(data) + int(share * (len(data) - scan_start(data) - 6000))
    rows = {
        "cut with a fake end": data[:at].rstrip(b"\xff") + b"\xff\xd9",
        "zero page": data[:at] + bytes(4096) + data[at + 4096 :],
        "random bytes": data[:at] + np.random.default_rng(1).bytes(512) + data[at + 512 :],
        "zero tail": data[:at] + bytes(len(data) - at),
        "cut": data[:at],
    }
    for damaged in rows.values():
        with pytest.raises(ImageUnreadableError):
            decode_image(damaged, target_px=target_px)


def test_the_refusal_has_the_words_of_libjpeg():
    data = jpeg_bytes(centred_fundus(128))
    cut = data[: len(data) // 2].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(ImageUnreadableError, match="premature end of data segment"):
        decode_image(cut)


@pytest.mark.parametrize("reduction", list(REDUCED))
@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_anywhere_with_the_end_put_back_is_refused(progressive, reduction):
    """No grey fill can come through: there is no length at which the decoder is content."""
    data = jpeg_bytes(centred_fundus(64), progressive=progressive)
    assert ours(data, reduction).shape == (64 // reduction, 64 // reduction, 3)
    for length in range(data.index(b"\xff\xda") + 2, len(data) - 2):
        with pytest.raises(ImageUnreadableError):
            ours(data[:length].rstrip(b"\xff") + b"\xff\xd9", reduction)


def test_a_single_flipped_bit_is_not_always_seen():
    """What strict decoding cannot do; only the camera's SHA-256 catches these."""
    data = jpeg_bytes(centred_fundus(96))
    whole, passed = decode_image(data).image_hwc, 0
    for position in range(scan_start(data), len(data) - 2, 7):
        flipped = data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]
        try:
            passed += not np.array_equal(decode_image(flipped).image_hwc, whole)
        except ImageUnreadableError:
            continue
    assert passed > 0, "say so in the guides if every flipped bit is seen now"


def test_colour_space_is_read_from_the_files_own_markers():
    image = centred_fundus(64)
    assert open_jpeg(jpeg_bytes(image), DecodeLimits()).colour_space == "YCbCr"
    rgb = with_adobe_rgb(jpeg_bytes(image))
    assert open_jpeg(rgb, DecodeLimits()).colour_space == "RGB"
    # The components are then taken as they are: luma becomes red.
    luma = cv2.imdecode(np.frombuffer(jpeg_bytes(image), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.abs(decode_image(rgb).image_hwc[..., 0].astype(int) - luma).max() <= 1


def with_adobe_rgb(jpeg: bytes) -> bytes:
    """Replace the JFIF segment by Adobe's with transform 0: the components are RGB."""
    assert jpeg[2:4] == b"\xff\xe0"
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5) + jpeg[end:]


@pytest.mark.parametrize("colorspace", ["RGB", "BGR"])
def test_red_stays_red(colorspace):
    """A swap of channels must be seen: the fundus is much redder than blue."""
    image = centred_fundus(96)
    stored = image if colorspace == "RGB" else np.ascontiguousarray(image[..., ::-1])
    data = simplejpeg.encode_jpeg(stored, quality=95, colorspace=colorspace)
    red, _, blue = decode_image(data).image_hwc.reshape(-1, 3).mean(0)
    assert red > 2 * blue


def test_extended_sequential_frames_decode_as_baseline():
    data = jpeg_bytes(centred_fundus(64))
    at = data.index(b"\xff\xc0")
    extended = data[:at] + b"\xff\xc1" + data[at + 2 :]
    np.testing.assert_array_equal(ours(extended, 2), ours(data, 2))


def test_lack_of_memory_is_not_the_files_fault(monkeypatch):
    def fail(*_, **__):
        raise ValueError("Insufficient memory (case 4)")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    with pytest.raises(MemoryError, match="case 4"):
        decode_image(jpeg_bytes(centred_fundus(64)))
