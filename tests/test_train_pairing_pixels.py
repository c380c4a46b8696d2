"""Picture bytes: originals pass unchanged, the rest is converted without loss or refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from dataset_factory import make_cfp, make_scan

from train.pairing.pixels import CfpFile, decode_cfp, decode_grey, encode_png, grey_from_array
from train.pairing.reasons import Reason


def _encode(ending, image):
    done, data = cv2.imencode(ending, image)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_photographs_pass_as_they_are(ending):
    data = _encode(ending, make_cfp(1)[..., ::-1])
    assert decode_cfp(data, allow_grey=False) == CfpFile(data=data, suffix=ending)


@pytest.mark.parametrize("ending", [".tiff", ".bmp"])
def test_other_formats_become_png_with_equal_pixels(ending):
    image = np.ascontiguousarray(make_cfp(1)[..., ::-1])
    found = decode_cfp(_encode(ending, image), allow_grey=False)
    assert found.suffix == ".png"
    decoded = cv2.imdecode(np.frombuffer(found.data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded, image)


def test_a_picture_without_colour_is_no_photograph():
    grey = make_cfp(1)[..., 1]
    three = np.repeat(grey[..., None], 3, axis=2)
    for data in (_encode(".jpg", three), _encode(".png", three), _encode(".tiff", grey)):
        assert decode_cfp(data, allow_grey=False).reason is Reason.NOT_COLOUR
        assert isinstance(decode_cfp(data, allow_grey=True), CfpFile)
    assert decode_cfp(_encode(".png", grey), allow_grey=False).reason is Reason.NOT_COLOUR


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tiff"])
def test_a_cut_file_is_refused(ending):
    photo = _encode(ending, make_cfp(1)[..., ::-1])
    scan = _encode(ending, make_scan(1))
    if ending != ".tiff":  # a TIFF's pixels may lie before its directory
        assert decode_cfp(photo[:-200], allow_grey=False).reason is Reason.UNREADABLE_IMAGE
        assert decode_grey(scan[:-200]).reason is Reason.UNREADABLE_IMAGE
    for data in (b"", b"no picture", photo[:60]):
        assert decode_cfp(data, allow_grey=False).reason is Reason.UNREADABLE_IMAGE
        assert decode_grey(data).reason is Reason.UNREADABLE_IMAGE


def test_scans_become_grey_pixels():
    scan = make_scan(1)
    np.testing.assert_array_equal(decode_grey(_encode(".png", scan)), scan)
    three = np.repeat(scan[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_grey(_encode(".tiff", three)), scan)
    sixteen = scan.astype(np.uint16) * 256 + 77
    np.testing.assert_array_equal(decode_grey(_encode(".png", sixteen)), scan)


def test_bits_are_halved_by_what_is_used():
    scan = make_scan(1)
    np.testing.assert_array_equal(grey_from_array(scan.astype(np.uint16) << 4, num_bits=12), scan)
    assert grey_from_array(scan.astype(np.float32), num_bits=8).reason is Reason.UNREADABLE_IMAGE
    over = np.full((4, 4), 65535, np.uint16)  # more than the 12 bits it claims: no wrap-around
    assert int(grey_from_array(over, num_bits=12).min()) == 255


def test_a_drawing_on_the_scan_is_refused():
    drawn = np.repeat(make_scan(1)[..., None], 3, axis=2)
    drawn[40, :, :] = (0, 255, 0)
    assert decode_grey(encode_png(drawn)).reason is Reason.NOT_GREY
