"""Pictures of the page: arrays in, pixels and PNG data URIs out.

Legend: H, W photograph; Z, X B-scan (depth, lateral); h, w evidence map. Photographs are RGB.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError
from export.demo.charts import RocCurve

__all__ = [
    "ReportPictures",
    "ScreenedEye",
    "Triple",
    "enlarged",
    "evidence_overlay",
    "evidence_scale",
    "png_uri",
    "z_scored_to_grey",
]

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]
_MAX_SIDE_PX = 384  # larger photographs are shrunk: the page shows them at about 240 px
_MIN_DRAWN_PX = 256
_WINDOW_SD = 2.5  # z-scored scans are shown from -2.5 to 2.5 standard deviations
_EVIDENCE_RGB = (0, 229, 255)  # cyan stands out from every retina, also without colour vision


@dataclass(frozen=True, kw_only=True, eq=False)
class Triple:
    """One eye as the pretraining saw it.

    Attributes:
        eye: OD or OS; empty if it is not known.
        truth: What the eye has, in words.
        cfp_hwc: Photograph, uint8 (H, W, 3).
        oct_h: Horizontal B-scan, uint8 (Z, X); `oct_v` the vertical one.
        cfp_masked_hwc: Photograph with the masked patches removed, uint8.
        cfp_reconstructed_hwc: Photograph rebuilt from the visible patches, uint8.
        oct_target_h: What the OCT route had to predict, z-scored floats (z, x); `oct_target_v`.
        oct_predicted_h: Its prediction from the photograph alone, z-scored; `oct_predicted_v`.
    """

    eye: str
    truth: str
    cfp_hwc: ByteArray
    oct_h: ByteArray
    oct_v: ByteArray
    cfp_masked_hwc: ByteArray
    cfp_reconstructed_hwc: ByteArray
    oct_target_h: FloatArray
    oct_target_v: FloatArray
    oct_predicted_h: FloatArray
    oct_predicted_v: FloatArray

    def __post_init__(self) -> None:
        """Refuse arrays of another type or shape."""
        for name in ("cfp_hwc", "cfp_masked_hwc", "cfp_reconstructed_hwc"):
            _require_photograph(name, getattr(self, name))
        for name in ("oct_h", "oct_v"):
            _require_picture(name, getattr(self, name), ndim=2)
        for side in "hv":
            for name in (f"oct_target_{side}", f"oct_predicted_{side}"):
                _require_finite_map(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScreenedEye:
    """One screened eye.

    Attributes:
        examination: Which examination it belongs to; both eyes of one are shown together.
        eye: OD, OS or unspecified.
        image_hwc: Preprocessed photograph, uint8 (H, W, 3).
        evidence_hw: Class evidence of `label` in logits, float (h, w); None if there is none.
        label: The label furthest above its threshold, or nearest below; None if not run.
        probability: Its probability, and `threshold` its operating point.
        disposition: refer, no_refer or ungradable.
        truth: What the eye has, in words.
        reason: Why it is ungradable, in words; empty otherwise.
    """

    examination: str
    eye: str
    image_hwc: ByteArray
    evidence_hw: FloatArray | None
    label: str | None
    probability: float | None
    threshold: float | None
    disposition: str
    truth: str
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse arrays of another type or shape."""
        _require_photograph("image_hwc", self.image_hwc)
        if self.evidence_hw is not None:
            _require_finite_map("evidence_hw", self.evidence_hw)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportPictures:
    """Everything on the page that is not a number of report.json."""

    triples: tuple[Triple, ...]
    screened: tuple[ScreenedEye, ...]
    roc: tuple[RocCurve, ...]


def _require_picture(name: str, pixels: npt.NDArray[np.generic], *, ndim: int) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != ndim or 0 in pixels.shape:
        raise ConfigError(f"{name} is {pixels.dtype} {pixels.shape}; give uint8 with {ndim} axes")


def _require_photograph(name: str, pixels: npt.NDArray[np.generic]) -> None:
    _require_picture(name, pixels, ndim=3)
    if pixels.shape[2] != 3:
        raise ConfigError(f"{name} has {pixels.shape[2]} channels; give RGB")


def _require_finite_map(name: str, values: FloatArray) -> None:
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ConfigError(f"{name} {values.shape} must be a finite float map of two axes")


def enlarged(image_hwc: ByteArray) -> ByteArray:
    """Return a small photograph at 256 px or more, so that a line drawn on it is thin."""
    factor = _MIN_DRAWN_PX / min(image_hwc.shape[:2])
    if factor <= 1.0:
        return image_hwc
    size = (round(factor * image_hwc.shape[1]), round(factor * image_hwc.shape[0]))
    return cv2.resize(image_hwc, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def png_uri(pixels: ByteArray) -> str:
    """Return a data URI of a PNG.

    Args:
        pixels: uint8, grey (H, W) or RGB (H, W, 3); shrunk to 384 px if larger.
    """
    factor = _MAX_SIDE_PX / max(pixels.shape[:2])
    if factor < 1.0:
        size = tuple(max(1, round(factor * side)) for side in pixels.shape[1::-1])
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ConfigError(f"a picture of shape {pixels.shape} could not be encoded as PNG")
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def z_scored_to_grey(values_zx: FloatArray) -> ByteArray:
    """Return z-scored values as uint8 grey: -2.5 is black, 2.5 is white.

    Target and prediction share this fixed window, so that a faint prediction looks faint.
    """
    share = (np.asarray(values_zx, np.float64) + _WINDOW_SD) / (2 * _WINDOW_SD)
    return (np.clip(share, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def evidence_scale(eyes: Sequence[ScreenedEye]) -> float:
    """Return the evidence in logits that is drawn full, shared by all pictures; at least 1."""
    maps = [eye.evidence_hw.ravel() for eye in eyes if eye.evidence_hw is not None]
    positive = [values[values > 0] for values in maps]
    pooled = np.concatenate(positive) if positive else np.zeros(0)
    return max(1.0, float(np.percentile(pooled, 95))) if pooled.size else 1.0


def evidence_overlay(image_hwc: ByteArray, evidence_hw: FloatArray, *, scale: float) -> ByteArray:
    """Lay positive class evidence over a photograph: cyan, more opaque where stronger.

    Args:
        image_hwc: uint8 (H, W, 3) RGB.
        evidence_hw: Logits (h, w), covering the whole picture.
        scale: Logits drawn with full strength.

    Returns:
        uint8 (H, W, 3), with the line of half strength drawn in white.
    """
    height, width = image_hwc.shape[:2]
    map_hw = np.asarray(evidence_hw, np.float32)
    spread = cv2.resize(map_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    strength = np.clip(spread / scale, 0.0, 1.0)
    opacity = 0.62 * strength[..., None]
    mixed = image_hwc * (1.0 - opacity) + np.array(_EVIDENCE_RGB) * opacity
    drawn = np.ascontiguousarray((mixed + 0.5).astype(np.uint8))
    half = (strength >= 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(half, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, (255, 255, 255), max(1, width // 160))
    return drawn
