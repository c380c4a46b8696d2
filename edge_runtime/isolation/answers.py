"""What a child says about a picture, and what its parent believes of it.

Facts of dataclasses cross by their type hints (`edge_runtime.strict_json`), so a field that is
added to one crosses, too, or is refused loudly; the one array that crosses is the model's input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edge_runtime import errors
from edge_runtime.errors import BundleFormatError, DecoderStoppedError, ImageError
from edge_runtime.fundus.quality import QualityReport
from edge_runtime.image import DecodedImage
from edge_runtime.isolation.wire import Frame, WireError
from edge_runtime.loading import LoadedPicture, LoadSettings
from edge_runtime.preprocess import Preprocessed
from edge_runtime.strict_json import dataclass_to_dict, parse_json_object, read_dataclass

__all__ = [
    "Failure",
    "Loaded",
    "Refusal",
    "Sent",
    "input_bytes",
    "pack_failure",
    "pack_loaded",
    "pack_refusal",
    "read_answer",
]

# A child that was stopped says nothing: that one is its parent's to raise.
_IMAGE_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ImageError) and kind is not DecoderStoppedError
}
_MAX_MESSAGE = 1000
_MAX_WARNINGS = 32
_MAX_MEASURES = 64
_FAR = 4.0  # frame sides from the frame within which the centre and radius of a field must lie


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What the parent knows of the picture that it sent."""

    number: int
    sha256: str
    num_bytes: int
    settings: LoadSettings


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The picture could be used."""

    picture: LoadedPicture
    quality_ms: float


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The picture cannot be used: an `ImageError` by its name, and its message."""

    error: str
    message: str

    def as_error(self) -> ImageError:
        """Return the error as it would have been raised in this process."""
        return _IMAGE_ERRORS[self.error](self.message)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The child failed, and ends: the type of an error that is not about the picture."""

    error: str


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The text of an answer; what is None belongs to another outcome."""

    sha256: str
    error: str | None
    message: str | None
    decoded: Mapping[str, Any] | None
    preprocessed: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    quality_ms: float | None


def input_bytes(settings: LoadSettings) -> int:
    """Return the size of the model's input: (S, S, 3) uint8."""
    return settings.spec.size_px**2 * 3


def pack_loaded(number: int, picture: LoadedPicture, quality_ms: float) -> Frame:
    """Return the frame of a picture that could be used."""
    answer = _answer(
        picture.decoded.sha256,
        decoded=_facts(picture.decoded),
        preprocessed=_facts(picture.preprocessed),
        report=_facts(picture.report),
        quality_ms=quality_ms,
    )
    data = np.ascontiguousarray(picture.preprocessed.image_hwc).tobytes()
    return Frame(number=number, text=answer, data=data)


def pack_refusal(number: int, sha256: str, error: ImageError) -> Frame:
    """Return the frame of a picture that cannot be used."""
    message = "".join(one if one.isprintable() else " " for one in str(error))
    text = _answer(sha256, error=type(error).__name__, message=message[:_MAX_MESSAGE])
    return Frame(number=number, text=text)


def pack_failure(number: int, sha256: str, error: str) -> Frame:
    """Return the frame of a child that cannot go on; `error` is the name of a type."""
    return Frame(number=number, text=_answer(sha256, error=error))


def read_answer(frame: Frame, sent: Sent) -> Loaded | Refusal | Failure:
    """Check an answer against what was sent.

    Raises:
        WireError: It belongs to another picture, or says what no honest child can say.
    """
    _require(frame.number == sent.number, f"it has number {frame.number}, not {sent.number}")
    try:
        parsed = parse_json_object(frame.text, name="the answer")
        answer = read_dataclass(_Answer, parsed)
        _require(answer.sha256 == sent.sha256, "it is about another picture")
        if answer.error is None:
            return _read_loaded(answer, frame.data, sent)
    except BundleFormatError as error:
        raise WireError(str(error)) from error
    _require(not frame.data, "it refuses the picture and sends pixels")
    _require(answer.error.isidentifier() and len(answer.error) <= 64, "its error has no name")
    if answer.message is None:
        return Failure(error=answer.error)
    _require(answer.error in _IMAGE_ERRORS, "its error is none that a picture can have")
    _require_text(answer.message)
    return Refusal(error=answer.error, message=answer.message)


def _read_loaded(answer: _Answer, data: bytes, sent: Sent) -> Loaded:
    size_px = sent.settings.spec.size_px
    _require(len(data) == input_bytes(sent.settings), f"it has {len(data)} bytes of pixels")
    image_hwc = np.frombuffer(data, np.uint8).reshape(size_px, size_px, 3).copy()
    picture = LoadedPicture(
        decoded=read_dataclass(
            DecodedImage,
            answer.decoded,
            path="decoded",
            given={"image_hwc": np.empty((0, 0, 3), np.uint8)},
        ),
        preprocessed=read_dataclass(
            Preprocessed, answer.preprocessed, path="preprocessed", given={"image_hwc": image_hwc}
        ),
        report=read_dataclass(QualityReport, answer.report, path="report"),
    )
    _check_decoded(picture.decoded, sent)
    _check_preprocessed(picture.preprocessed, picture.decoded)
    _check_report(picture.report)
    _require(
        answer.message is None and answer.quality_ms is not None and answer.quality_ms >= 0,
        "its outcome is mixed",
    )
    return Loaded(picture=picture, quality_ms=answer.quality_ms or 0.0)


def _check_decoded(decoded: DecodedImage, sent: Sent) -> None:
    height, width = decoded.full_size_px
    most = sent.settings.decode.max_megapixels * 1e6
    _require(height > 0 and width > 0 and height * width <= most, f"its size is {height}x{width}")
    _require(1 <= decoded.reduction <= 8, f"its reduction is {decoded.reduction}")
    _require(decoded.sha256 == sent.sha256, "its facts are about another picture")
    _require(decoded.num_bytes == sent.num_bytes, f"its file has {decoded.num_bytes} bytes")
    _require(len(decoded.format) <= 16, "its format has no name")
    for one in fields(decoded):  # also a field that is added later: any text may be shown
        if isinstance(getattr(decoded, one.name), str):
            _require_text(getattr(decoded, one.name))
    _require_texts(decoded.warnings)


def _check_preprocessed(preprocessed: Preprocessed, decoded: DecodedImage) -> None:
    view, far = preprocessed.field_of_view, _FAR * max(decoded.full_size_px)
    _require(
        0 < view.radius_px <= far
        and max(abs(view.cx_px), abs(view.cy_px)) <= far
        and 0 <= view.clipped_fraction <= 1,
        "its field of view lies far outside the picture",
    )
    _require_texts(preprocessed.warnings)


def _check_report(report: QualityReport) -> None:
    _require(report.gradable == (not report.reasons), "its gate contradicts itself")
    _require(len(report.measures) <= _MAX_MEASURES, "it has too many measures")
    _require_texts(report.reasons)
    _require_texts(report.warnings)
    _require_texts(tuple(report.measures))


def _require_texts(texts: tuple[str, ...]) -> None:
    _require(len(texts) <= max(_MAX_WARNINGS, _MAX_MEASURES), f"it has {len(texts)} texts")
    for text in texts:
        _require_text(text)


def _require_text(text: str) -> None:
    _require(0 < len(text) <= _MAX_MESSAGE and text.isprintable(), "its text cannot be shown")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise WireError(what)


def _answer(sha256: str, **said: Any) -> bytes:
    empty = {field.name: None for field in fields(_Answer)}
    return json.dumps({**empty, "sha256": sha256, **said}, allow_nan=False).encode()


def _facts(value: Any) -> dict[str, Any]:
    """Every field of a dataclass but arrays, as JSON types."""
    items = {one.name: getattr(value, one.name) for one in fields(value)}
    return {
        name: dataclass_to_dict(item)
        for name, item in items.items()
        if not isinstance(item, np.ndarray)
    }
