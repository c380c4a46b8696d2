"""Judge from cheap statistics whether a picture can be a gradable colour fundus photograph.

This gate is deliberately permissive: it refuses what no model should be asked about (no
colour, blank, black, burnt out, without any detail, hardly any field in the frame). The
fine judgement is the model's gradability head; `edge_runtime.eye_pipeline` combines both.
All statistics are taken on one small canonical square, so they do not depend on the
model's input size, and inside the field only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.fov import FieldOfView

__all__ = ["FieldSquare", "FramedImage", "QualityLimits", "QualityReport", "assess_image"]

_CANONICAL_PX = 96
_FIELD_FRACTION = 0.9  # of the half side: clear of the rim's vignette and of the mask's edge
_BURNT_LEVEL = 250  # of the green channel, which saturates last in a fundus
_BLACK_LEVEL = 12  # of luma: camera black plus JPEG noise
_DETAIL_SIGMA_PX = 2.0  # of the canonical square: vessels are narrower, shading is wider
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class FramedImage(Protocol):
    """What is used of `edge_runtime.image.DecodedImage`."""

    @property
    def image_hwc(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""


class FieldSquare(Protocol):
    """What is used of `edge_runtime.preprocess.Preprocessed`."""

    @property
    def image_hwc(self) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 RGB, black outside the field."""

    @property
    def field_of_view(self) -> FieldOfView:
        """The circle in pixels of the decoded image."""


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """Where the gate refuses; stored in the bundle.

    Attributes:
        min_colour: least mean of (max - min) / max over R, G, B; 0 is grey.
        min_red_excess: least (mean R - mean B) / mean luma of the field.
        min_luma: least median luma of the field, 0 to 255.
        max_black: largest share of the field that is black.
        max_burnt: largest share of the field whose green is saturated.
        min_detail: least contrast finer than shading, relative to brightness.
        max_detail: largest such contrast; beyond it the picture is noise or text.
        max_centre_offset: largest distance of circle centre and frame centre, in radii.
        min_visible: least share of the circle's bounding box inside the frame.
        min_field_share: least field diameter over the frame's short side.
    """

    min_colour: float = 0.1
    min_red_excess: float = 0.1
    min_luma: float = 20
    max_black: float = 0.5
    max_burnt: float = 0.25
    min_detail: float = 0.005
    max_detail: float = 0.5
    max_centre_offset: float = 0.25
    min_visible: float = 0.5
    min_field_share: float = 0.4

    def __post_init__(self) -> None:
        """Check that every limit is a finite number that is not negative.

        Raises:
            ConfigError: naming the limit.
        """
        for name, value in asdict(self).items():
            if type(value) not in (int, float) or not 0 <= value < float("inf"):
                raise ConfigError(f"quality limit {name} is {value!r}; it must be a number >= 0")

    def to_dict(self) -> dict[str, float]:
        """Return the limits as JSON numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QualityLimits:
        """Build limits from `to_dict`'s output.

        Raises:
            BundleFormatError: a key is unknown or missing, or a value is out of its range.
        """
        names = {f.name for f in fields(cls)}
        if set(values) != names:
            raise BundleFormatError(
                f"quality_limits has unknown keys {sorted(set(values) - names)} and lacks "
                f"{sorted(names - set(values))}; export the bundle again"
            )
        try:
            return cls(**values)
        except ConfigError as error:
            raise BundleFormatError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """The gate's answer.

    Attributes:
        gradable: no reason was found against it.
        reasons: of "not a colour fundus photograph", "dark", "overexposed", "blur",
            "off-centre", "small field".
        measures: every statistic by name, for the record.
    """

    gradable: bool
    reasons: tuple[str, ...]
    measures: dict[str, float]


def assess_image(
    decoded: FramedImage, preprocessed: FieldSquare, limits: QualityLimits
) -> QualityReport:
    """Measure one image and compare with the limits.

    Args:
        decoded: the image as decoded, for the field's place in the frame.
        preprocessed: the model's input of the same image.
        limits: of the bundle.

    Returns:
        Whether the model may be asked, with every reason against it.
    """
    measures = _field_measures(preprocessed.image_hwc)
    measures |= _frame_measures(preprocessed.field_of_view, decoded.image_hwc.shape[:2])
    reasons = _reasons(measures, limits)
    return QualityReport(gradable=not reasons, reasons=reasons, measures=measures)


def _reasons(measures: Mapping[str, float], limits: QualityLimits) -> tuple[str, ...]:
    """Every word that applies, the most basic first."""
    m = measures
    dark = m["luma"] < limits.min_luma or m["black_share"] > limits.max_black
    found = {
        # Colour of a black field is noise: 'dark' says it already.
        "not a colour fundus photograph": not dark
        and (
            m["colour"] < limits.min_colour
            or m["red_excess"] < limits.min_red_excess
            or m["detail"] > limits.max_detail
        ),
        "dark": dark,
        "overexposed": m["burnt_share"] > limits.max_burnt,
        "blur": m["detail"] < limits.min_detail,
        "off-centre": m["centre_offset"] > limits.max_centre_offset
        or m["visible_share"] < limits.min_visible,
        "small field": m["field_share"] < limits.min_field_share,
    }
    return tuple(word for word, applies in found.items() if applies)


def _field_measures(image_hwc: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Colour, brightness and detail inside the field."""
    side = (_CANONICAL_PX, _CANONICAL_PX)
    small = image_hwc
    if image_hwc.shape[:2] != side:
        small = np.asarray(cv2.resize(image_hwc, side, interpolation=cv2.INTER_AREA), np.uint8)
    inside = _field(_CANONICAL_PX)
    rgb = small[inside].astype(np.float32)
    luma = rgb @ np.array(_LUMA, np.float32)
    brightness = max(float(luma.mean()), 1.0)
    spread = rgb.max(1) - rgb.min(1)
    red, _, blue = (float(v) for v in rgb.mean(0))
    return {
        "colour": float(spread.mean() / max(float(rgb.max(1).mean()), 1.0)),
        "red_excess": (red - blue) / brightness,
        "luma": float(np.median(luma)),
        "black_share": float((luma < _BLACK_LEVEL).mean()),
        "burnt_share": float((rgb[:, 1] >= _BURNT_LEVEL).mean()),
        "detail": _detail(small, inside) / brightness,
    }


def _detail(small: npt.NDArray[np.uint8], inside: npt.NDArray[np.bool_]) -> float:
    """Standard deviation of luma around its Gaussian mean, in grey levels.

    Only lit pixels away from unlit ones count, and the mean is normalised by the same
    Gaussian of them (normalised convolution; Knutsson and Westin, 1993): neither the black
    surround nor the straight edge of a cut field is detail.
    """
    luma = small.astype(np.float32) @ np.array(_LUMA, np.float32)
    lit = (inside & (luma >= _BLACK_LEVEL)).astype(np.uint8)
    lit = np.asarray(cv2.erode(lit, np.ones((3, 3), np.uint8)), np.uint8)
    chosen = lit.astype(bool)
    if not chosen.any():
        return 0.0
    weight = lit.astype(np.float32)
    blurred = cv2.GaussianBlur(luma * weight, (0, 0), _DETAIL_SIGMA_PX)
    covered = cv2.GaussianBlur(weight, (0, 0), _DETAIL_SIGMA_PX)
    return float((luma[chosen] - blurred[chosen] / covered[chosen]).std())


def _frame_measures(view: FieldOfView, shape_hw: tuple[int, ...]) -> dict[str, float]:
    """Where the field lies in the frame."""
    height, width = shape_hw
    offset = np.hypot(view.cx_px - width / 2, view.cy_px - height / 2)
    return {
        "centre_offset": float(offset / view.radius_px),
        "visible_share": 1 - view.clipped_fraction,
        "field_share": 2 * view.radius_px / min(height, width),
    }


@lru_cache(maxsize=2)
def _field(side_px: int) -> npt.NDArray[np.bool_]:
    """(S, S) bool: inside `_FIELD_FRACTION` of the half side."""
    offset = 2 * np.arange(side_px) + 1 - side_px
    mask = offset[:, None] ** 2 + offset**2 <= (_FIELD_FRACTION * side_px) ** 2
    mask.setflags(write=False)
    return np.asarray(mask, np.bool_)
