"""An answer is believed only when an honest child could have given it for this very picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fundus_factory import centred_fundus, jpeg_bytes
from hypothesis import given
from hypothesis import strategies as st
from isolation_factory import SETTINGS, load

from edge_runtime.errors import FieldOfViewError, ImageUnreadableError
from edge_runtime.isolation.answers import (
    Failure,
    Loaded,
    Refusal,
    Sent,
    input_bytes,
    pack_failure,
    pack_loaded,
    pack_refusal,
    read_answer,
)
from edge_runtime.isolation.wire import HEAD_BYTES, Frame, FrameHead, WireError, pack_head
from edge_runtime.loading import InProcessLoader

DATA = jpeg_bytes(centred_fundus(200))
SHA256 = hashlib.sha256(DATA).hexdigest()
SENT = Sent(number=5, sha256=SHA256, num_bytes=len(DATA), settings=SETTINGS)
PICTURE = load(InProcessLoader(SETTINGS), DATA)
HONEST = pack_loaded(5, PICTURE, 1.5)


def test_an_honest_answer_comes_through_whole() -> None:
    answer = read_answer(HONEST, SENT)
    assert isinstance(answer, Loaded)
    assert answer.quality_ms == 1.5
    assert answer.picture.report == PICTURE.report
    assert answer.picture.preprocessed.field_of_view == PICTURE.preprocessed.field_of_view
    assert np.array_equal(
        answer.picture.preprocessed.image_hwc, PICTURE.preprocessed.image_hwc, equal_nan=False
    )
    assert len(HONEST.data) == input_bytes(SETTINGS)


def test_a_refusal_comes_through_as_the_same_error() -> None:
    frame = pack_refusal(5, SHA256, FieldOfViewError("nothing\nround; again"))
    answer = read_answer(frame, SENT)
    assert answer == Refusal(error="FieldOfViewError", message="nothing round; again")
    assert isinstance(answer, Refusal)
    assert type(answer.as_error()) is FieldOfViewError
    long = read_answer(pack_refusal(5, SHA256, ImageUnreadableError("x" * 9000)), SENT)
    assert isinstance(long, Refusal)
    assert len(long.message) == 1000


def test_a_failure_comes_through_by_its_type() -> None:
    assert read_answer(pack_failure(5, SHA256, "KeyError"), SENT) == Failure(error="KeyError")


Change = Callable[[dict[str, Any]], None]


def put(path: str, value: object) -> Change:
    """Return a change of one value of the text; a path like 'decoded.format'."""

    def change(said: dict[str, Any]) -> None:
        *outer, last = path.split(".")
        for name in outer:
            said = said[name]
        said[last] = value

    return change


LIES = {
    "another picture": put("sha256", "0" * 64),
    "facts of another picture": put("decoded.sha256", "0" * 64),
    "another file size": put("decoded.num_bytes", len(DATA) + 1),
    "no height": put("decoded.full_size_px", [0, 200]),
    "one side": put("decoded.full_size_px", [200]),
    "too many pixels": put("decoded.full_size_px", [100_000, 100_000]),
    "a size that is no number": put("decoded.full_size_px", ["200", 200]),
    "reduction 0": put("decoded.reduction", 0),
    "reduction 16": put("decoded.reduction", 16),
    "format with a bell": put("decoded.format", "jp\x07eg"),
    "long format": put("decoded.format", "j" * 17),
    "warning with an escape": put("decoded.warnings", ["\x1b[2J"]),
    "long warning": put("decoded.warnings", ["w" * 1001]),
    "many warnings": put("preprocessed.warnings", ["w"] * 65),
    "warnings that are text": put("preprocessed.warnings", "none"),
    "pixels in the text": put("decoded.image_hwc", [1, 2, 3]),
    "an unknown fact": put("decoded.patient", "4711"),
    "radius 0": put("preprocessed.field_of_view.radius_px", 0),
    "radius huge": put("preprocessed.field_of_view.radius_px", 1e6),
    "centre far away": put("preprocessed.field_of_view.cx_px", -1e9),
    "clipped more than whole": put("preprocessed.field_of_view.clipped_fraction", 1.1),
    "gradable with a reason": put("report.reasons", ["blur"]),
    "not gradable without a reason": put("report.gradable", False),
    "a reason that is nothing": put("report", {"gradable": False, "reasons": [""], "measures": {}}),
    "many measures": put("report.measures", {str(n): 1.0 for n in range(65)}),
    "a measure that is text": put("report.measures", {"luma": "bright"}),
    "no report": put("report", None),
    "no facts": put("decoded", None),
    "no time": put("quality_ms", None),
    "negative time": put("quality_ms", -1.0),
    "a message beside a picture": put("message", "and yet"),
    "an unknown key": put("verdict", "healthy"),
    "a refusal with pixels": put("error", "ImageUnreadableError"),
}


@pytest.mark.parametrize("name", LIES)
def test_no_lie_is_believed(name: str) -> None:
    said = json.loads(HONEST.text)
    LIES[name](said)
    with pytest.raises(WireError):
        read_answer(replace(HONEST, text=json.dumps(said).encode()), SENT)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("KeyError", "not an error of a picture"),
        ("EngineError", "not an error of a picture"),
        ("DecoderStoppedError", "a child cannot say that it was stopped"),
        ("ImageUnreadableError", ""),
        ("ImageUnreadableError", "\x1b[31m"),
        ("ImageUnreadableError", "m" * 1001),
        ("no name", None),
        ("", None),
        ("E" * 65, None),
    ],
)
def test_no_made_up_refusal_is_believed(error: str, message: str | None) -> None:
    said = {**json.loads(pack_failure(5, SHA256, "KeyError").text)}
    said |= {"error": error, "message": message}
    with pytest.raises(WireError):
        read_answer(Frame(number=5, text=json.dumps(said).encode()), SENT)


@pytest.mark.parametrize("size", [0, 1, -1])
def test_pixels_of_another_size_are_not_believed(size: int) -> None:
    data = HONEST.data[:size] if size <= 0 else HONEST.data + bytes(size)
    with pytest.raises(WireError, match="bytes of pixels"):
        read_answer(replace(HONEST, data=data), SENT)


def test_the_answer_to_another_request_is_not_believed() -> None:
    with pytest.raises(WireError, match="number 4, not 5"):
        read_answer(replace(HONEST, number=4), SENT)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_not_believed(word: str) -> None:
    text = HONEST.text.replace(b'"quality_ms": 1.5', f'"quality_ms": {word}'.encode())
    assert text != HONEST.text
    with pytest.raises(WireError):
        read_answer(replace(HONEST, text=text), SENT)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_damaged_text_is_refused_or_says_the_same(noise: bytes, at: int, byte: int) -> None:
    at = at % len(HONEST.text)
    texts = (noise, HONEST.text[:at], HONEST.text[:at] + bytes([byte]) + HONEST.text[at + 1 :])
    for text in texts:
        try:
            answer = read_answer(replace(HONEST, text=text), SENT)
        except WireError:
            continue
        assert isinstance(answer, Loaded)  # a digit or a letter of a warning became another


@given(st.integers(0, 2**64 - 1), st.binary(max_size=99), st.binary(max_size=99))
def test_heads_come_back(number: int, text: bytes, data: bytes) -> None:
    head = pack_head(Frame(number=number, text=text, data=data))
    assert len(head) == HEAD_BYTES
    assert FrameHead.parse(head, max_data_bytes=99) == FrameHead(
        number=number, num_text_bytes=len(text), num_data_bytes=len(data)
    )
