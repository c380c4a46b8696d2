"""Damaged files of every format: refused or decoded, never another patient's pixels, never a crash.

The counts are small here. The long run of the triples, `test_a_thousand_triples`, is slow.
"""

from __future__ import annotations

import numpy as np
import pytest
from fundus_factory import centred_fundus
from picture_factory import ENCODERS, damaged

from edge_runtime.errors import ImageError, ImageUnreadableError
from edge_runtime.formats.bmp import BmpFile
from edge_runtime.image import decode_image

FORMATS = list(ENCODERS)
NUM_TRIPLES = 12  # a format in the fast tests


def outcome(data: bytes, target_px: int | None) -> np.ndarray | None:
    """The pixels, or None where the file is refused; anything else raised fails the test."""
    try:
        return decode_image(data, target_px=target_px).image_hwc
    except ImageError:
        return None


def check_triples(name: str, num_triples: int, *, side: int = 64) -> int:
    """Decode A, a damaged B, A again; return how many B were decoded.

    B is decoded behind A and behind A's inverse, which differ in every sample, and between two
    buffers of their size that are freed: memory that B did not write would show the
    difference, and so would a decoder that keeps a part of A.
    """
    encode = ENCODERS[name]
    a = centred_fundus(side, seed=1)
    before = {text: encode(image) for text, image in (("a", a), ("inverse", 255 - a))}
    expected = {text: decode_image(data).image_hwc for text, data in before.items()}
    b = encode(centred_fundus(side, seed=2))
    rng = np.random.default_rng([20261128, sum(map(ord, name))])
    num_decoded = 0
    for index in range(num_triples):
        broken = damaged(b, rng)
        target_px = (None, side // 3)[index % 2]
        seen = []
        for text, data in before.items():
            np.testing.assert_array_equal(decode_image(data).image_hwc, expected[text])
            seen.append(outcome(broken, target_px))
            np.testing.assert_array_equal(decode_image(data).image_hwc, expected[text])
        first, second = seen
        assert (first is None) == (second is None)
        if first is not None:
            np.testing.assert_array_equal(first, second)
            num_decoded += 1
    return num_decoded


@pytest.mark.parametrize("name", FORMATS)
def test_no_pixel_of_an_earlier_image(name):
    check_triples(name, NUM_TRIPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_thousand_triples(name, num_triples):
    num_decoded = check_triples(name, num_triples)
    print(f"{name}: {num_triples} triples, {num_decoded} damaged files decoded")


def test_the_triples_would_see_leftover_pixels(monkeypatch):
    """The check must fail for a decoder that returns the memory of the picture before."""
    a = centred_fundus(64, seed=1)
    whole = [ENCODERS["bmp"](image) for image in (a, 255 - a)]
    honest, memory = BmpFile.decode, [np.zeros((64, 64, 3), np.uint8)]

    def forgetful(self, reduction):
        pixels = honest(self, reduction)
        if self.data in whole:
            memory[0] = pixels
        elif pixels.shape == memory[0].shape:
            pixels[-1:] = memory[0][-1:]
        return pixels

    monkeypatch.setattr(BmpFile, "decode", forgetful)
    with pytest.raises(AssertionError):
        check_triples("bmp", 40)


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
        refused += outcome(bytes(broken), None) is None
    assert refused > 0


@pytest.mark.parametrize("name", FORMATS)
def test_random_bytes_behind_a_signature_are_refused(name, rng):
    head = ENCODERS[name](centred_fundus(32))[:160]
    for keep in (4, 8, 16, 132, 160):
        for _ in range(10):
            with pytest.raises(ImageError):
                decode_image(head[:keep] + rng.bytes(300))
