"""No pixel of an earlier picture appears in a later one: A, damaged B, A again.

A is decoded once as it is and once as its negative, which differs in every pixel. What B gives
must be the same after both, bit for bit: a buffer that was not overwritten would show which A was
before. And A must give the same pixels after B as before it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import pytest
from conftest import Scale
from fault_pictures import FORMATS, PictureFormat, picture
from image_fuzz import make_mutant

from edge_runtime.errors import ImageError
from edge_runtime.image import decode_image
from edge_runtime.preprocess import PreprocessSpec, load_for_model

pytestmark = pytest.mark.faults

Pixels = np.ndarray
Decode = Callable[[bytes], Pixels]
_SPEC = PreprocessSpec(size_px=32)


def decoded(data: bytes) -> Pixels:
    return decode_image(data).image_hwc


def reduced(data: bytes) -> Pixels:
    return decode_image(data, target_px=48).image_hwc


def prepared(data: bytes) -> Pixels:
    return load_for_model(data, _SPEC)[1].image_hwc


def outcome(decode: Decode, data: bytes) -> Pixels | str:
    """The pixels, or the reason why there are none."""
    try:
        return decode(data)
    except ImageError as error:
        return str(error)


def same(one: Pixels | str, other: Pixels | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    return bool(np.array_equal(one, other))


@lru_cache(maxsize=64)
def both_kinds(form: PictureFormat, *, in_field_only: bool = False) -> tuple[bytes, bytes]:
    """A fundus and its negative in a format; the field is found only if the rest stays black."""
    image = picture("256px", 0)
    negative = 255 - image
    if in_field_only:
        negative[image.max(axis=2) == 0] = 0
    return form.encode(image), form.encode(negative)


def leaks(decode: Decode, form: PictureFormat, later: bytes) -> list[str]:
    """What is wrong with decoding `later` after each of two pictures in `form`."""
    first, negative = both_kinds(form, in_field_only=decode is prepared)
    # Results stay alive: memory that is handed out twice would change them.
    before, copy = decode(first), decode(first).copy()
    after_first = outcome(decode, later)
    again = decode(first)
    inverse, inverse_copy = decode(negative), decode(negative).copy()
    after_negative = outcome(decode, later)
    problems = {
        "B depends on what was decoded before it": not same(after_first, after_negative),
        "A changed by decoding B": not same(before, copy) or not same(again, copy),
        "the negative changed by decoding B": not same(inverse, inverse_copy),
    }
    return [name for name, found in problems.items() if found]


@pytest.mark.parametrize("decode", [decoded, reduced, prepared])
def test_no_pixel_of_another_picture(
    decode: Decode, scale: Scale, say: Callable[[str], None]
) -> None:
    num = scale(len(FORMATS), 1000)
    num_decoded, found = 0, []
    for index in range(num):
        form = FORMATS[(index // len(FORMATS) + index) % len(FORMATS)]
        later = make_mutant("256px", 5, index)
        num_decoded += not isinstance(outcome(decode, later.data), str)
        for problem in leaks(decode, form, later.data):
            found.append(f"{problem}: {form.name}, then mutant {index} ({later.way})")
    say(f"{num} triples A-B-A ({decode.__name__}), {num_decoded} of B gave pixels; leaks: {found}")
    assert found == []
    assert 0 < num_decoded < num


def test_the_two_pictures_differ_in_every_pixel() -> None:
    for form in FORMATS:
        first, negative = (decoded(data).astype(int) for data in both_kinds(form))
        # The rim of a JPEG's disc rings; elsewhere black meets white and orange meets blue.
        assert (np.abs(first - negative).max(axis=2) > 8).mean() > 0.999


def keeping() -> Decode:
    """The fault of OpenCV 4.10: a used buffer is handed out, filled as far as the file goes."""
    buffer = np.zeros((256, 256, 3), np.uint8)

    def decode(data: bytes) -> Pixels:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if pixels is not None:
            rows = min(256, int(256 * len(data) / 20_000))
            buffer[:rows] = cv2.resize(pixels, (256, 256))[:rows]
        return buffer.copy()

    return decode


def sharing() -> Decode:
    """A decoder that gives away its own buffer."""
    buffer = np.zeros((256, 256, 3), np.uint8)

    def decode(data: bytes) -> Pixels:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        buffer[...] = cv2.resize(pixels, (256, 256))
        return buffer

    return decode


def test_the_check_sees_a_buffer_that_was_not_overwritten() -> None:
    whole = FORMATS[0].encode(picture("256px", 1))
    cut = whole[: len(whole) // 3] + b"\xff\xd9"
    assert leaks(keeping(), FORMATS[0], cut) == ["B depends on what was decoded before it"]
    assert leaks(decoded, FORMATS[0], cut) == []


def test_the_check_sees_a_buffer_that_is_handed_out_twice() -> None:
    whole = FORMATS[0].encode(picture("256px", 1))
    found = leaks(sharing(), FORMATS[0], whole)
    assert "A changed by decoding B" in found
    assert leaks(decoded, FORMATS[0], whole) == []
