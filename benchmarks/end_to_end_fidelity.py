"""What the short cuts cost, for `end_to_end.py`: pixels against a full decode, and decisions.

Pixels: our square beside a full decode whose same box is reduced by area averaging and masked
alike. The peak signal-to-noise ratio of the whole square is held against the target; that of the
field alone, which the black around it cannot flatter, stands beside it. Decisions: the whole
Screener on the file beside the whole Screener on a PNG of its full decode, which has no short cut
to take.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from end_to_end_bundle import Material
from end_to_end_pictures import Picture
from end_to_end_pipelines import labels_of, open_contestant
from end_to_end_race import Row
from numpy.typing import NDArray

from edge_runtime.image import decode_image
from edge_runtime.preprocess import PreprocessSpec, crop_box, load_for_model

__all__ = ["decision_rows", "fidelity_rows", "full_decode_png", "psnr_of"]

_PSNR_TARGET_DB = 48.0
Pixels = NDArray[np.uint8]


def fidelity_rows(material: Material, pictures: list[Picture]) -> list[Row]:
    """Worst and median over the pictures, of the whole square and of the field alone."""
    if not pictures:
        return []
    spec = PreprocessSpec(size_px=material.size_px)
    found = [psnr_of(picture.data, spec) for picture in pictures]
    rows = []
    for what, values in zip(("square", "field alone"), zip(*found, strict=True), strict=True):
        title = f"{material.size_px} px, PSNR of the {what} to full decode + area"
        target = _PSNR_TARGET_DB if what == "square" else None
        rows += [
            Row(
                name=f"{title}, worst of {len(found)}", value=min(values), target=target, unit="dB"
            ),
            Row(name=f"{title}, median", value=float(np.median(values)), unit="dB"),
        ]
    return rows


def psnr_of(data: bytes, spec: PreprocessSpec) -> tuple[float, float]:
    """PSNR in dB of the whole square and of the pixels of the field; 99 where nothing differs."""
    decoded, ours = load_for_model(data, spec)
    left, top, side = (value * decoded.reduction for value in crop_box(ours.field_of_view))
    square = _black_framed(decode_image(data).image_hwc, left, top, side)
    size = (spec.size_px, spec.size_px)
    reference = cv2.resize(square, size, interpolation=cv2.INTER_AREA)
    inside = ours.image_hwc.any(axis=2)  # the mask, and the few black pixels of the field
    error = (ours.image_hwc[inside].astype(np.float64) - reference[inside]) ** 2
    return _decibels(error.sum() / ours.image_hwc.size), _decibels(error.mean())


def _decibels(mean_square: float) -> float:
    return 99.0 if mean_square == 0 else float(10 * np.log10(255**2 / mean_square))


def _black_framed(image: Pixels, left: int, top: int, side: int) -> Pixels:
    """The square at (left, top), black where it leaves the image."""
    height, width = image.shape[:2]
    square = np.zeros((side, side, 3), np.uint8)
    y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return square


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What must not change: the eye's disposition, and every label's decision."""

    disposition: str
    decisions: tuple[str, ...]


def decision_rows(material: Material, pictures: list[Picture], *, what: str) -> list[Row]:
    """How many of the pictures are decided otherwise after a full decode, and how far p moves."""
    contestant = open_contestant("ours int8", material)
    changed, turned, reached, moved = 0, 0, 0, [0.0]
    for picture in pictures:
        results = [contestant.run(picture.data), contestant.run(full_decode_png(picture.data))]
        changed += len({_answer(result) for result in results}) > 1
        turned += len({result.disposition for result in results}) > 1
        both = all(contestant.reached(result) for result in results)
        reached += both
        if both:
            first, second = (_probabilities(result) for result in results)
            moved.append(float(np.abs(first - second).max()))
    title = f"{material.size_px} px, {len(pictures)} {what}"
    target = 0.0 if material.trained else None  # random weights decide nothing
    return [
        Row(
            name=f"{title}: any label decided otherwise after a full decode",
            value=changed,
            target=target,
            at_least=False,
            unit="pictures",
        ),
        Row(name=f"{title}: of these with another disposition", value=turned, unit="pictures"),
        Row(name=f"{title}: that reach the model both ways", value=reached, unit="pictures"),
        Row(name=f"{title}: largest change of a probability", value=max(moved), unit=""),
    ]


def full_decode_png(data: bytes) -> bytes:
    """The full decode, upright, as a PNG: no reduced decode is possible from it."""
    full = decode_image(data).image_hwc
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(full[..., ::-1]), fast)
    assert done
    return bytes(encoded.tobytes())


def _answer(result) -> _Answer:
    return _Answer(
        disposition=str(result.disposition),
        decisions=tuple(label.decision for label in labels_of(result)),
    )


def _probabilities(result) -> NDArray[np.float64]:
    return np.array([label.probability for label in labels_of(result)])
