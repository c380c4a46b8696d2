"""Judge from cheap statistics whether a picture can be a gradable colour fundus photograph.

This gate is deliberately permissive: it refuses what no model should be asked about (no
colour of a fundus, blank, black, burnt out, without any detail, damaged, hardly any field in
the frame, too few pixels a degree). The fine judgement is the model's gradability head;
`edge_runtime.eye_pipeline` combines both. `edge_runtime.fundus.field_measures` takes the
statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.fundus.field_measures import measure_field
from edge_runtime.fundus.fov import FieldOfView

__all__ = [
    "CaptureProtocol",
    "FieldSquare",
    "FramedImage",
    "QualityLimits",
    "QualityReport",
    "assess_image",
]

# As a share of the protocol's angle: 45 and 50 degrees count as one protocol, 30 and 45 do not.
_SAME_ANGLE = 0.15


class FramedImage(Protocol):
    """What is used of `edge_runtime.image.DecodedImage`."""

    @property
    def image_hwc(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""

    @property
    def reduction(self) -> int:
        """The k of a decode at 1/k."""

    @property
    def field_degrees(self) -> float | None:
        """Horizontal field of view that the file names, or None."""


class FieldSquare(Protocol):
    """What is used of `edge_runtime.preprocess.Preprocessed`."""

    @property
    def image_hwc(self) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 RGB, black outside the field."""

    @property
    def field_of_view(self) -> FieldOfView:
        """The circle in pixels of the decoded image."""


class CaptureProtocol(Protocol):
    """What is used of `edge_runtime.bundle_parts.manifest.Protocol`."""

    @property
    def field_degrees(self) -> float:
        """Diameter of the field of view."""

    @property
    def min_pixels_per_degree(self) -> float | None:
        """Fewer are refused; None: any number is accepted."""

    @property
    def warn_pixels_per_degree(self) -> float | None:
        """Fewer are accepted with a warning; None: never."""


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """Where the gate refuses; stored in the bundle.

    Attributes:
        min_colour: least mean of (max - min) / max over R, G, B; 0 is grey.
        min_red_excess: least (mean R - mean B) / mean luma of the field.
        min_warm_share: least share of the lit field with red >= green >= blue.
        min_hue_spread: least spread of hue: a tinted grey picture has none.
        max_hue_spread: largest spread of hue: scenes and screens have many colours.
        max_edge_contrast: largest 95th percentile of the gradient of log luma.
        max_roughness: largest mean of that gradient.
        min_luma: least median luma of the field, 0 to 255.
        max_black: largest share of the field that is black.
        max_burnt: largest share of the field whose green is saturated.
        min_detail: least contrast finer than shading, relative to brightness.
        max_detail: largest such contrast; beyond it the picture is noise or text.
        max_shadow: largest share of the field below 0.4 of its median luma.
        max_glare: largest share of the field above 1.8 times its median luma.
        max_flat: largest share of the field without even noise: overwritten or lost data.
        max_step: largest share of a row that steps the same way: shifted blocks, a lid's edge.
        max_centre_offset: largest distance of circle centre and frame centre, in radii.
        min_visible: least share of the circle's bounding box inside the frame.
        min_field_share: least field diameter over the frame's short side.
    """

    min_colour: float = 0.1
    min_red_excess: float = 0.1
    min_warm_share: float = 0.55
    min_hue_spread: float = 0.01
    max_hue_spread: float = 0.23
    max_edge_contrast: float = 0.22
    max_roughness: float = 0.075
    min_luma: float = 20
    max_black: float = 0.25
    max_burnt: float = 0.25
    min_detail: float = 0.01
    max_detail: float = 0.5
    max_shadow: float = 0.4
    max_glare: float = 0.25
    max_flat: float = 0.1
    max_step: float = 0.92
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
            "artefact", "off-centre", "small field", "too few pixels per degree".
        measures: every statistic by name, for the record.
        warnings: what an operator should know of a picture that is accepted.
    """

    gradable: bool
    reasons: tuple[str, ...]
    measures: dict[str, float]
    warnings: tuple[str, ...] = ()


def assess_image(
    decoded: FramedImage,
    preprocessed: FieldSquare,
    limits: QualityLimits,
    *,
    protocol: CaptureProtocol | None = None,
) -> QualityReport:
    """Measure one image and compare with the limits.

    Args:
        decoded: the image as decoded, for the field's place in the frame.
        preprocessed: the model's input of the same image.
        limits: of the bundle.
        protocol: of the bundle; None where the field's angle is not known, and pixels per
            degree can neither be measured nor be judged. An angle that the file names takes the
            place of the protocol's in both.

    Returns:
        Whether the model may be asked, with every reason against it.
    """
    view = preprocessed.field_of_view
    measures = measure_field(preprocessed.image_hwc)
    measures |= _frame_measures(view, decoded.image_hwc.shape[:2])
    reasons = _reasons(measures, limits)
    warnings: tuple[str, ...] = ()
    if protocol is not None:
        degrees = decoded.field_degrees or protocol.field_degrees
        density = 2 * view.radius_px * decoded.reduction / degrees
        measures["pixels_per_degree"] = density
        reason, warnings = _judge_density(density, protocol)
        reasons += reason
        warnings = (*_angle_warning(degrees, protocol), *warnings)
    return QualityReport(
        gradable=not reasons, reasons=reasons, measures=measures, warnings=warnings
    )


def _angle_warning(degrees: float, protocol: CaptureProtocol) -> tuple[str, ...]:
    if abs(degrees / protocol.field_degrees - 1.0) <= _SAME_ANGLE:
        return ()
    return (
        f"the file says a field of {degrees:g} degrees, the protocol {protocol.field_degrees:g}: "
        "outside of what the bundle was made for",
    )


def _judge_density(
    density: float, protocol: CaptureProtocol
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reasons and warnings; the lower limit is a reason, so it needs no warning beside it."""
    least, enough = protocol.min_pixels_per_degree, protocol.warn_pixels_per_degree
    if least is not None and density < least:
        return ("too few pixels per degree",), ()
    if enough is not None and density < enough:
        return (), (
            f"{density:.1f} pixels per degree; the bundle recommends at least {enough:g}: small "
            "lesions may be lost",
        )
    return (), ()


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
            or m["warm_share"] < limits.min_warm_share
            or m["detail"] > limits.max_detail
            or m["edge_contrast"] > limits.max_edge_contrast
            or m["roughness"] > limits.max_roughness
            or not limits.min_hue_spread <= m["hue_spread"] <= limits.max_hue_spread
        ),
        "dark": dark,
        "overexposed": m["burnt_share"] > limits.max_burnt,
        "blur": m["detail"] < limits.min_detail,
        # Of a statistic that is no number, every comparison is false: it would pass them all.
        "artefact": not np.isfinite(list(m.values())).all()
        or (
            not dark
            and (
                m["shadow_share"] > limits.max_shadow
                or m["glare_share"] > limits.max_glare
                or m["flat_share"] > limits.max_flat
                or m["step_share"] > limits.max_step
            )
        ),
        "off-centre": m["centre_offset"] > limits.max_centre_offset
        or m["visible_share"] < limits.min_visible,
        "small field": m["field_share"] < limits.min_field_share,
    }
    return tuple(word for word, applies in found.items() if applies)


def _frame_measures(view: FieldOfView, shape_hw: tuple[int, ...]) -> dict[str, float]:
    """Where the field lies in the frame."""
    height, width = shape_hw
    offset = np.hypot(view.cx_px - width / 2, view.cy_px - height / 2)
    return {
        "centre_offset": float(offset / view.radius_px),
        "visible_share": 1 - view.clipped_fraction,
        "field_share": 2 * view.radius_px / min(height, width),
    }
