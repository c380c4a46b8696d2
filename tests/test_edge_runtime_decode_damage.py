"""Damaged files of every format: refused or decoded, never a crash, no error of another type.

Whether a pixel of an earlier picture can appear in a later one is asked in `test_faults_leaks.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
from fundus_factory import centred_fundus
from picture_factory import ENCODERS

from edge_runtime.errors import ImageError, ImageUnreadableError
from edge_runtime.image import decode_image

FORMATS = list(ENCODERS)


def is_refused(data: bytes) -> bool:
    """Whether the file is refused; anything else raised fails the test."""
    try:
        decode_image(data)
    except ImageError:
        return True
    return False


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_refused(name):
    side = 48 if name.startswith("jpeg") else 24
    data = ENCODERS[name](centred_fundus(side))
    assert decode_image(data).image_hwc.shape == (side, side, 3)
    for length in range(len(data)):
        with pytest.raises(ImageUnreadableError):
            decode_image(data[:length])


@pytest.mark.slow
def test_every_truncation_of_a_larger_jpeg_is_refused():
    image = centred_fundus(200)
    noise = np.random.default_rng(1).integers(-9, 10, image.shape)
    data = ENCODERS["jpeg"](np.clip(image + noise, 0, 255).astype(np.uint8))
    assert len(data) > 9000
    for length in range(len(data)):
        with pytest.raises(ImageUnreadableError):
            decode_image(data[:length])


@pytest.mark.parametrize("name", FORMATS)
def test_byte_flips_never_leave_the_error_tree(name, rng):
    data = ENCODERS[name](centred_fundus(32))
    refused = 0
    head = min(len(data), 700)
    for _ in range(150):
        broken = bytearray(data)
        for position in rng.integers(0, (head, len(data))[int(rng.integers(2))], 4):
            broken[position] = rng.integers(256)
        refused += is_refused(bytes(broken))
    assert refused > 0


@pytest.mark.parametrize("name", FORMATS)
def test_random_bytes_behind_a_signature_are_refused(name, rng):
    head = ENCODERS[name](centred_fundus(32))[:160]
    for keep in (4, 8, 16, 132, 160):
        for _ in range(10):
            with pytest.raises(ImageError):
                decode_image(head[:keep] + rng.bytes(300))
