"""The answer of one examination: typed, immutable, and unable to hold an unsafe 'no refer'.

Every field has its place in `docs/vendor.md`. Two rules are checked on construction, so that no
code path can break them: an eye is 'no refer' only if it was read, gradable, run and wholly
negative, with no label in an abstention band; an examination is 'no refer' only if it has eyes
and every one of them is 'no refer'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "EVIDENCE_CAPTION",
    "NOTICE",
    "SCHEMA_VERSION",
    "BundleIdentity",
    "Decision",
    "EngineIdentity",
    "Evidence",
    "EyeQuality",
    "EyeResult",
    "LabelResult",
    "ScreeningResult",
]

SCHEMA_VERSION = 2
NOTICE = "research use only; not a medical device"
EVIDENCE_CAPTION = "model attention, not lesions"


class Decision(str, Enum):
    """What is said about an eye or an examination."""

    REFER = "refer"
    NO_REFER = "no_refer"
    UNGRADABLE = "ungradable"


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """One disease of one eye: positive when `probability` >= `threshold`.

    With an abstention band, it is doubtful from `doubtful_from` up to the threshold.
    """

    name: str
    probability: float
    threshold: float
    doubtful_from: float | None = None

    def __post_init__(self) -> None:
        """Refuse a value outside 0..1 (NaN included): it could compare as negative."""
        _check_unit_range(f"probability of {self.name!r}", self.probability)
        _check_unit_range(f"threshold of {self.name!r}", self.threshold)
        if self.doubtful_from is not None and not 0.0 <= self.doubtful_from <= self.threshold:
            raise ValueError(f"band of {self.name!r} from {self.doubtful_from!r} passes threshold")

    @property
    def is_positive(self) -> bool:
        """Whether the probability reaches the operating point."""
        return self.probability >= self.threshold

    @property
    def is_doubtful(self) -> bool:
        """Whether the probability lies in the abstention band: neither positive nor negative."""
        return not self.is_positive and (
            self.doubtful_from is not None and self.probability >= self.doubtful_from
        )

    @property
    def decision(self) -> str:
        """'positive', 'doubtful' or 'negative'."""
        return "positive" if self.is_positive else "doubtful" if self.is_doubtful else "negative"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the label."""
        return {
            "name": self.name,
            "probability": self.probability,
            "threshold": self.threshold,
            "doubtful_from": self.doubtful_from,
            "decision": self.decision,
        }


@dataclass(frozen=True, kw_only=True)
class EyeQuality:
    """Whether the eye can be judged, with reasons in words when it cannot.

    Attributes:
        gradable: False as soon as one gate refused the eye.
        gradable_probability: P(gradable) of the model, None when the model was not run.
        gradable_threshold: Below it the eye is ungradable.
        reasons: Why the eye is ungradable; empty exactly when it is gradable.
        measures: Image statistics of the quality gate (units in their names).
    """

    gradable: bool
    gradable_probability: float | None
    gradable_threshold: float
    reasons: tuple[str, ...]
    measures: Mapping[str, float]

    def __post_init__(self) -> None:
        """Tie the flag to its reasons, and refuse values outside 0..1."""
        if self.gradable == bool(self.reasons):
            raise ValueError(f"gradable={self.gradable} does not fit reasons {self.reasons!r}")
        _check_unit_range("gradable_threshold", self.gradable_threshold)
        if self.gradable_probability is not None:
            _check_unit_range("gradable_probability", self.gradable_probability)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object; a measure that is not finite becomes null."""
        measures = {
            k: round(v, 6) if math.isfinite(v) else None for k, v in sorted(self.measures.items())
        }
        return {
            "gradable": self.gradable,
            "gradable_probability": self.gradable_probability,
            "gradable_threshold": self.gradable_threshold,
            "reasons": list(self.reasons),
            "measures": measures,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Class evidence before pooling, one low-resolution map a label: attention, not lesions.

    Attributes:
        label_names: L names in the bundle's order.
        maps_lhw: float32 (L, h, w) in logits; the spatial mean of a map is the label's logit.
        image_hwc: uint8 (S, S, 3) RGB, the preprocessed picture that the maps lie on.
        field_of_view_px: Centre x, centre y, radius in pixels of the full-size upright picture.
    """

    label_names: tuple[str, ...]
    maps_lhw: NDArray[np.float32] = field(repr=False)
    image_hwc: NDArray[np.uint8] = field(repr=False)
    field_of_view_px: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object: maps as nested lists, the picture left out."""
        cx_px, cy_px, radius_px = self.field_of_view_px
        maps = [
            {"label": name, "map_hw": [[round(float(v), 4) for v in row] for row in map_hw]}
            for name, map_hw in zip(self.label_names, self.maps_lhw, strict=True)
        ]
        return {
            "caption": EVIDENCE_CAPTION,
            "field_of_view_px": {"cx": cx_px, "cy": cy_px, "radius": radius_px},
            "maps": maps,
        }


@dataclass(frozen=True, kw_only=True)
class EyeResult:
    """One eye: disposition, quality, labels, optional evidence, stage times, error text."""

    eye: str
    image_sha256: str | None
    disposition: Decision
    quality: EyeQuality
    labels: tuple[LabelResult, ...] = ()
    evidence: Evidence | None = None
    timings_ms: Mapping[str, float]
    error: str | None = None

    def __post_init__(self) -> None:
        """Allow a decision only for an eye that was read, gradable and run."""
        decided = self.disposition is not Decision.UNGRADABLE
        readable = self.error is None and self.image_sha256 is not None
        if decided and not (readable and self.quality.gradable and self.labels):
            raise ValueError(f"{self.disposition.value!r} for an eye that could not be judged")
        if decided and (self.disposition is Decision.REFER) != self.any_positive:
            raise ValueError(f"{self.disposition.value!r} contradicts the labels")
        doubtful = any(label.is_doubtful for label in self.labels)
        if self.disposition is Decision.NO_REFER and doubtful:
            raise ValueError("'no_refer' for an eye with a doubtful label")

    @property
    def any_positive(self) -> bool:
        """Whether at least one label reached its operating point."""
        return any(label.is_positive for label in self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the eye."""
        return {
            "eye": self.eye,
            "image_sha256": self.image_sha256,
            "disposition": self.disposition.value,
            "quality": self.quality.to_dict(),
            "labels": [label.to_dict() for label in self.labels],
            "evidence": None if self.evidence is None else self.evidence.to_dict(),
            "timings_ms": {k: round(v, 3) for k, v in self.timings_ms.items()},
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class BundleIdentity:
    """Which bundle answered: `sha256` is the hash of its bundle.json."""

    name: str
    version: str
    sha256: str
    key_id: str | None


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """Which engine and precision computed the logits.

    `int8_gate` is how the bundle's gate ended: 'passed', 'not_shown' or 'failed'; with INT8,
    anything but 'passed' was taken because the caller said so.
    `details` says on what, in texts: versions, the GPU, the kind of memory, why this engine.
    """

    name: str
    precision: str
    int8_gate: str
    details: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object `engine`."""
        return {
            "name": self.name,
            "precision": self.precision,
            "int8_gate": self.int8_gate,
            "details": dict(self.details),
        }


@dataclass(frozen=True, kw_only=True)
class ScreeningResult:
    """One examination. The worst eye decides; see the module's two rules."""

    examination_id: str | None
    disposition: Decision
    eyes: tuple[EyeResult, ...]
    bundle: BundleIdentity
    engine: EngineIdentity
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a 'no refer' that not every eye carries."""
        dispositions = [eye.disposition for eye in self.eyes]
        all_clear = bool(dispositions) and all(d is Decision.NO_REFER for d in dispositions)
        if (self.disposition is Decision.NO_REFER) != all_clear:
            raise ValueError(f"{self.disposition.value!r} contradicts the eyes {dispositions}")
        if (self.disposition is Decision.REFER) != (Decision.REFER in dispositions):
            raise ValueError(f"{self.disposition.value!r} contradicts the eyes {dispositions}")

    @property
    def decided(self) -> bool:
        """Whether the examination ended in refer or no refer."""
        return self.disposition is not Decision.UNGRADABLE

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the examination (docs/vendor.md)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "examination_id": self.examination_id,
            "disposition": self.disposition.value,
            "eyes": [eye.to_dict() for eye in self.eyes],
            "bundle": vars(self.bundle).copy(),
            "engine": self.engine.to_dict(),
            "warnings": list(self.warnings),
            "notice": NOTICE,
        }

    def to_json(self) -> str:
        """Return one line of strict JSON (no NaN, no Infinity)."""
        return json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":"))


def _check_unit_range(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value!r}, not within 0..1")
