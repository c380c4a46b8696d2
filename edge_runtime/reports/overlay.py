"""Draw class evidence over the preprocessed picture: model attention, not lesions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.result import EVIDENCE_CAPTION, Evidence, FieldResult

__all__ = ["overlay_png"]

_TILE_PX = 320
_TITLE_PX = 28
# Orange speaks for the disease, blue against it: a pair that colour-blind readers tell apart.
_FOR_RGB = np.array([255, 140, 0], np.float32)
_AGAINST_RGB = np.array([0, 110, 255], np.float32)
_MAX_OPACITY = 0.6


def overlay_png(eye: str, field: FieldResult) -> bytes:
    """Return a PNG: the picture, then one tile a label with its evidence on top.

    All tiles share one colour scale, the largest absolute evidence of the field, so that a label
    without evidence looks empty.

    Args:
        eye: Which eye, for the title.
        field: One picture of it.

    Raises:
        ValueError: If the field carries no evidence, or was read back without its picture.
    """
    evidence = field.evidence
    if evidence is None or evidence.image_hwc is None:
        raise ValueError("the field has no evidence maps; screen with evidence=True")
    picture = _resize(evidence.image_hwc).astype(np.uint8)
    scale = float(np.abs(evidence.maps_lhw).max()) or 1.0
    tiles = [_titled(picture, f"{eye}: {field.disposition.value}")]
    for index, label in enumerate(field.labels):
        title = f"{label.name} {label.probability:.2f} / {label.threshold:.2f}"
        tiles.append(_titled(_blend(picture, evidence, index, scale), title))
    sheet = np.concatenate(tiles, axis=1)
    caption = _text_bar(f"{EVIDENCE_CAPTION}; research use only", sheet.shape[1])
    ok, encoded = cv2.imencode(".png", np.concatenate([sheet, caption])[:, :, ::-1])
    if not ok:
        raise ValueError("OpenCV could not encode the overlay as PNG")
    return encoded.tobytes()


def _blend(
    picture: NDArray[np.uint8], evidence: Evidence, index: int, scale: float
) -> NDArray[np.uint8]:
    values = _resize(evidence.maps_lhw[index])[..., None] / scale  # -1..1
    colour = np.where(values > 0.0, _FOR_RGB, _AGAINST_RGB)
    inside = picture.any(axis=2, keepdims=True)
    opacity = np.abs(values) * _MAX_OPACITY * inside
    grey = picture.mean(axis=2, keepdims=True)  # orange would drown in a fundus's own colour
    mixed = grey * (1.0 - opacity) + colour * opacity
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def _resize(
    image: NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.float64],
) -> NDArray[np.float32]:
    resized = cv2.resize(image, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _titled(image: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    return np.concatenate([_text_bar(title, image.shape[1]), image])


def _text_bar(text: str, width_px: int) -> NDArray[np.uint8]:
    bar = np.zeros((_TITLE_PX, width_px, 3), np.uint8)
    cv2.putText(bar, text, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return bar
