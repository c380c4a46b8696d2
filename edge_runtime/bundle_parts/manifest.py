"""What bundle.json says, as frozen dataclasses that refuse unknown, missing or impossible values.

A manifest is `calibrated` when every label and the gradability head have a temperature
and an operating point, and there is an INT8 record. Only then may a screener use it; how the
gate ended, and what a screener does with that, is in `edge_runtime.bundle_parts.gate_record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_runtime.bundle_parts.int8_record import Int8Record
from edge_runtime.bundle_parts.label_spec import AbstentionBand, HeldOut, LabelSpec, OperatingPoint
from edge_runtime.errors import BundleFormatError
from edge_runtime.strict_json import (
    JsonValue,
    canonical_sha256,
    dataclass_to_dict,
    read_dataclass,
)
from edge_runtime.value_rules import (
    require,
    require_count,
    require_sha256,
    require_share,
    require_text,
    require_unique,
)

if TYPE_CHECKING:
    from edge_runtime.fundus.quality import QualityLimits
    from edge_runtime.preprocess import PreprocessSpec

__all__ = [
    "FLOAT_FILES",
    "INT8_FILES",
    "OPTIONAL_INT8_FILES",
    "SCHEMA_VERSION",
    "SYNTHETIC_WARNING",
    "AbstentionBand",
    "GoldenTolerances",
    "HeldOut",
    "Int8Record",
    "LabelSpec",
    "Manifest",
    "OperatingPoint",
    "Protocol",
]

SCHEMA_VERSION = 3
SYNTHETIC_WARNING = "trained on synthetic eyes only; the answer says nothing about a real eye"
FLOAT_FILES = ("MODEL_CARD.md", "golden.npz", "model.fp32.onnx")
INT8_FILES = ("model.int8-cpu.onnx", "model.int8.onnx")
OPTIONAL_INT8_FILES = ("model.int8fp16.onnx",)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the pictures must be taken.

    Attributes:
        fields_per_eye: photographs an eye.
        field_degrees: diameter of the field of view.
        cameras: families of cameras.
        min_pixels_per_degree: of the file; a picture with fewer is ungradable. None: any.
        warn_pixels_per_degree: a picture with fewer carries a warning. None: none does.
    """

    fields_per_eye: int
    field_degrees: float
    cameras: tuple[str, ...]
    min_pixels_per_degree: float | None
    warn_pixels_per_degree: float | None

    def __post_init__(self) -> None:
        """Refuse impossible counts, angles and densities, and a missing camera list."""
        require(self.fields_per_eye in (1, 2), "fields_per_eye", self.fields_per_eye, "1 or 2")
        require(0.0 < self.field_degrees <= 200.0, "field_degrees", self.field_degrees, "in 0..200")
        require(len(self.cameras) > 0, "cameras", self.cameras, "at least one camera family")
        for camera in self.cameras:
            require_text("cameras", camera)
        require_unique("cameras", self.cameras)
        least, enough = self.min_pixels_per_degree, self.warn_pixels_per_degree
        for name, value in (("min", least), ("warn", enough)):
            allowed = value is None or 0.0 < value <= 1000.0
            require(allowed, f"{name}_pixels_per_degree", value, "null or in 0..1000")
        if least is not None and enough is not None:
            require(enough >= least, "warn_pixels_per_degree", enough, f"at least {least:g}")


@dataclass(frozen=True, kw_only=True)
class GoldenTolerances:
    """How many golden images there are and how far a probability may differ on a machine."""

    num_images: int
    atol_probability_fp32: float
    atol_probability_int8: float

    def __post_init__(self) -> None:
        """Refuse no image and tolerances outside 0..1."""
        require_count("num_images", self.num_images)
        require_share("atol_probability_fp32", self.atol_probability_fp32)
        require_share("atol_probability_int8", self.atol_probability_int8)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of bundle.json. `files` is filled by `bundle.write_manifest`."""

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    intended_use: str
    labels: tuple[LabelSpec, ...]
    gradability: LabelSpec
    protocol: Protocol
    preprocessing: Mapping[str, JsonValue]
    preprocessing_sha256: str
    quality_limits: Mapping[str, JsonValue]
    golden: GoldenTolerances
    int8: Int8Record | None
    metrics: Mapping[str, JsonValue]
    provenance: Mapping[str, JsonValue]
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what the parts alone cannot see."""
        version = self.schema_version
        require(version == SCHEMA_VERSION, "schema_version", version, f"{SCHEMA_VERSION}")
        for name in ("name", "version", "intended_use"):
            require_text(name, getattr(self, name))
        require(len(self.labels) > 0, "labels", self.labels, "at least one label")
        require_unique("labels", (*self.label_names, self.gradability.name))
        band = self.gradability.abstention
        require(band is None, "gradability.abstention", band, "null: it decides no disease")
        self._check_preprocessing()
        self._check_gate_labels()
        for name, digest in self.files.items():
            known = name in (*self.required_files, *self.optional_files)
            require(known, f"files.{name}", digest, "left out: unknown file")
            require_sha256(f"files.{name}", digest)

    def _check_preprocessing(self) -> None:
        require(
            len(self.quality_limits) > 0, "quality_limits", {}, "the limits of the quality gate"
        )
        actual = canonical_sha256(dataclass_to_dict(self.preprocessing))
        stated = self.preprocessing_sha256
        require(
            stated == actual, "preprocessing_sha256", stated, f"{actual}, the hash of preprocessing"
        )

    def _check_gate_labels(self) -> None:
        if self.int8 is None:
            return
        judged = tuple(label.name for label in self.int8.gate.labels)
        allowed = {*self.label_names, self.gradability.name}
        covers = set(self.label_names) <= set(judged) <= allowed
        require(covers, "int8.gate.labels", judged, f"the labels {self.label_names}")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the disease labels in the order of the model's logits."""
        return tuple(label.name for label in self.labels)

    @property
    def required_files(self) -> tuple[str, ...]:
        """Sorted names of the files that must be there, but bundle.json and bundle.sig."""
        return tuple(sorted(FLOAT_FILES + (INT8_FILES if self.int8 is not None else ())))

    @property
    def optional_files(self) -> tuple[str, ...]:
        """Sorted names of the files that may be there: the one for strongly typed builds."""
        return OPTIONAL_INT8_FILES if self.int8 is not None else ()

    @property
    def expected_files(self) -> tuple[str, ...]:
        """Sorted names of the required files and of the optional ones that `files` names."""
        named = tuple(name for name in self.optional_files if name in self.files)
        return tuple(sorted(self.required_files + named))

    @property
    def calibrated(self) -> bool:
        """Whether every output can become a decision and INT8 files are there."""
        outputs = (*self.labels, self.gradability)
        return self.int8 is not None and all(output.calibrated for output in outputs)

    @property
    def is_synthetic(self) -> bool:
        """Whether the maker states that the model learned from synthetic eyes only.

        `provenance.synthetic` is what export copies from the student's record.
        """
        return self.provenance.get("synthetic") is True

    def preprocess_spec(self) -> PreprocessSpec:
        """Return `preprocessing` as the spec that `edge_runtime.preprocess` executes."""
        from edge_runtime.preprocess import PreprocessSpec

        return PreprocessSpec.from_dict(dict(self.preprocessing))

    def quality(self) -> QualityLimits:
        """Return `quality_limits` as the limits that `edge_runtime.fundus.quality` applies."""
        from edge_runtime.fundus.quality import QualityLimits

        return QualityLimits.from_dict(dict(self.quality_limits))

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the manifest as plain JSON types; `from_dict` is its inverse."""
        return dict(dataclass_to_dict(self))

    @classmethod
    def from_dict(cls, value: JsonValue) -> Manifest:
        """Read a parsed bundle.json.

        Raises:
            BundleFormatError: A key is unknown or missing, or a value is wrong; the
                message begins with the key's full path.
        """
        version = value.get("schema_version", SCHEMA_VERSION) if isinstance(value, dict) else None
        if isinstance(version, int) and version != SCHEMA_VERSION:  # before any key that differs
            raise BundleFormatError(
                f"bundle.json: schema_version is {version} and this program reads "
                f"{SCHEMA_VERSION}: the bundle was made by another version of edge-screen; ask its "
                "maker for one of this version"
            )
        try:
            return read_dataclass(cls, value)
        except BundleFormatError as error:
            raise BundleFormatError(f"bundle.json: {error}") from error
