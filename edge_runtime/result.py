"""The answer of one examination: typed, immutable, and unable to hold an unsafe 'no refer'.

An examination has eyes, an eye has fields (pictures). Every member has its place in
`docs/vendor.md`. Four rules are checked on construction, so that no code path can break them: a
field is 'no refer' only if it was read, gradable, run and wholly negative, with no label in an
abstention band; an eye only if it has fields and every one of them is; an examination only if it
has eyes and every one of them is, and if no picture, known by its file or by the model's input made
of it, lies under two of its fields.
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
    "FieldResult",
    "LabelResult",
    "ScreeningResult",
]

SCHEMA_VERSION = 3
NOTICE = "research use only; not a medical device"
EVIDENCE_CAPTION = "model attention, not lesions"


class Decision(str, Enum):
    """What is said about a field, an eye or an examination."""

    REFER = "refer"
    NO_REFER = "no_refer"
    UNGRADABLE = "ungradable"


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """One disease in one field: positive when `probability` >= `threshold`.

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
    """Whether a field of the eye can be judged, with reasons in words when it cannot.

    Attributes:
        gradable: False as soon as one gate refused the picture.
        gradable_probability: P(gradable) of the model, None when the model was not run.
        gradable_threshold: Below it the field is ungradable.
        reasons: Why the field is ungradable; empty exactly when it is gradable.
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
        maps_lhw: (L, h, w) in logits, float32; the spatial mean of a map is the label's logit.
            Read back from JSON, float64 with four decimals.
        image_hwc: uint8 (S, S, 3) RGB, the preprocessed picture that the maps lie on; None when
            read back from JSON, which holds no picture.
        field_of_view_px: Centre x, centre y, radius in pixels of the full-size upright picture.
    """

    label_names: tuple[str, ...]
    maps_lhw: NDArray[np.float32] | NDArray[np.float64] = field(repr=False)
    image_hwc: NDArray[np.uint8] | None = field(repr=False)
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
class FieldResult:
    """One picture of an eye: disposition, quality, labels, evidence if asked, times, error text.

    A field that the protocol asks for and that was not given has `image_sha256` None and is
    ungradable.

    Attributes:
        image_sha256: Of the file's bytes; None where none could be read.
        input_sha256: Of the bytes of the model's input, (S, S, 3) uint8, made of that file. None
            where the model was not asked, and in an examination of a single picture.
    """

    image_sha256: str | None
    input_sha256: str | None = None
    disposition: Decision
    quality: EyeQuality
    labels: tuple[LabelResult, ...] = ()
    evidence: Evidence | None = None
    timings_ms: Mapping[str, float]
    error: str | None = None

    def __post_init__(self) -> None:
        """Allow a decision only for a picture that was read, gradable and run."""
        decided = self.disposition is not Decision.UNGRADABLE
        if self.input_sha256 is not None and self.image_sha256 is None:
            raise ValueError("an input of the model without the file that it was made of")
        readable = self.error is None and self.image_sha256 is not None
        if decided and not (readable and self.quality.gradable and self.labels):
            raise ValueError(f"{self.disposition.value!r} for a field that could not be judged")
        if decided and (self.disposition is Decision.REFER) != self.any_positive:
            raise ValueError(f"{self.disposition.value!r} contradicts the labels")
        doubtful = any(label.is_doubtful for label in self.labels)
        if self.disposition is Decision.NO_REFER and doubtful:
            raise ValueError("'no_refer' for a field with a doubtful label")

    def is_same_picture(self, other: FieldResult) -> bool:
        """Whether both are one file, or files that are one picture to the model."""
        pairs = (
            (self.image_sha256, other.image_sha256),
            (self.input_sha256, other.input_sha256),
        )
        return any(mine is not None and mine == theirs for mine, theirs in pairs)

    @property
    def any_positive(self) -> bool:
        """Whether at least one label reached its operating point."""
        return any(label.is_positive for label in self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the field."""
        return {
            "image_sha256": self.image_sha256,
            "input_sha256": self.input_sha256,
            "disposition": self.disposition.value,
            "quality": self.quality.to_dict(),
            "labels": [label.to_dict() for label in self.labels],
            "evidence": None if self.evidence is None else self.evidence.to_dict(),
            "timings_ms": {k: round(v, 3) for k, v in self.timings_ms.items()},
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class EyeResult:
    """One eye: its disposition, and the fields that it rests on, in the order given.

    `fields` has one entry for every picture given and for every further one that the protocol
    asks for; with a protocol of one field, that is `fields[0]`.
    """

    eye: str
    disposition: Decision
    fields: tuple[FieldResult, ...]

    def __post_init__(self) -> None:
        """Refuse no field, and a disposition that the fields do not carry."""
        if not self.fields:
            raise ValueError("an eye without a field; one that is missing has an entry, too")
        _check_worst_decides(self.disposition, [one.disposition for one in self.fields], "fields")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the eye is ungradable: what its fields say, once each; empty when it is decided."""
        if self.disposition is not Decision.UNGRADABLE:
            return ()
        return tuple(dict.fromkeys(text for one in self.fields for text in one.quality.reasons))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the eye."""
        return {
            "eye": self.eye,
            "disposition": self.disposition.value,
            "reasons": list(self.reasons),
            "fields": [one.to_dict() for one in self.fields],
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
    """One examination. The worst eye decides; see the rules of the module."""

    examination_id: str | None
    disposition: Decision
    eyes: tuple[EyeResult, ...]
    bundle: BundleIdentity
    engine: EngineIdentity
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an eye twice, a disposition no eye carries, a 'no refer' on a shared picture."""
        names = [eye.eye for eye in self.eyes]
        if len(set(names)) < len(names):
            raise ValueError(f"an eye is listed twice: {names}; its pictures are its fields")
        _check_worst_decides(self.disposition, [eye.disposition for eye in self.eyes], "eyes")
        _check_each_clears_itself([one for eye in self.eyes for one in eye.fields])

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

    @classmethod
    def from_dict(cls, value: object) -> ScreeningResult:
        """Read back what `to_dict` gave; all but the pictures under evidence maps is there.

        Raises:
            DataError: Another schema version, an unknown or missing key, or a value that the
                rules of this module, or the other values, contradict.
        """
        from edge_runtime.result_reader import read_result

        return read_result(value)

    @classmethod
    def from_json(cls, text: str) -> ScreeningResult:
        """Read back one line of `to_json`.

        Raises:
            DataError: As `from_dict`, or no strict JSON.
        """
        from edge_runtime.result_reader import parse_result

        return parse_result(text)


def _check_worst_decides(found: Decision, parts: list[Decision], name: str) -> None:
    """'refer' exactly when a part refers, 'no refer' exactly when there are parts and all are."""
    all_clear = bool(parts) and all(part is Decision.NO_REFER for part in parts)
    any_refers = Decision.REFER in parts
    if (found is Decision.NO_REFER) != all_clear or (found is Decision.REFER) != any_refers:
        words = [part.value for part in parts]
        raise ValueError(f"{found.value!r} contradicts the {name} {words}")


def _check_each_clears_itself(fields: list[FieldResult]) -> None:
    """No picture clears two fields; beside another file, it must be known which input it was."""
    clear = [one for one in fields if one.disposition is Decision.NO_REFER]
    if any(sum(one.is_same_picture(other) for other in fields) > 1 for one in clear):
        raise ValueError("'no_refer' for a picture that lies under two fields")
    num_files = sum(one.image_sha256 is not None for one in fields)
    if num_files > 1 and any(one.input_sha256 is None for one in clear):
        raise ValueError("'no_refer' beside another picture, without the hash of the model's input")


def _check_unit_range(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value!r}, not within 0..1")
