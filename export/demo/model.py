"""What report.json says, as frozen dataclasses that refuse unknown, missing or non-finite values.

Every number comes from synthetic eyes. `split` words: train, val, test. Shares are 0..1,
intervals two-sided 95 %, resampled by patient. None means 'not measured', never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.bundle_parts.gate_record import GateReport
from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.result import NOTICE
from edge_runtime.strict_json import dataclass_to_dict, read_dataclass

__all__ = [
    "ARMS",
    "REPORT_SCHEMA_VERSION",
    "DataSummary",
    "DemoReport",
    "LabelAuroc",
    "Latency",
    "MeanAuroc",
    "ModelRow",
    "OperatingPointRow",
    "PretrainingSummary",
    "ProbeAuroc",
    "ScreeningSummary",
    "SplitPerformance",
    "Target",
    "UnreadableFiles",
]

REPORT_SCHEMA_VERSION = 1
ARMS = ("oct_informed", "cfp_only", "shuffled_oct", "no_pretraining")
_SCALES = ("smoke", "small", "full")
_GAINS = {
    "macular_edema": "edema_auroc_gain",
    "myopic_schisis": "schisis_auroc_gain",
    "glaucoma": "glaucoma_auroc_gain",
}
_RELATIONS = (">", ">=", "<", "<=", "==")


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; it must be {rule}")


def _require_ordered(name: str, value: float, interval: tuple[float, float]) -> None:
    _require(interval[0] <= interval[1], name, interval, "[low, high] with low <= high")
    _require(0.0 <= value <= 1.0, name, value, "in 0..1")


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """Synthetic patients and eyes.

    Attributes:
        num_patients: Patients of all splits.
        num_eyes: Split -> eyes.
        prevalence: Label -> share of all eyes.
        excluded: Eyes left out because no field of view was found.
    """

    num_patients: int
    num_eyes: Mapping[str, int]
    prevalence: Mapping[str, float]
    excluded: int


@dataclass(frozen=True, kw_only=True)
class ProbeAuroc:
    """Test AUROC of a linear probe: mean and standard deviation over draws of its labels."""

    auroc_mean: float
    auroc_sd: float


@dataclass(frozen=True, kw_only=True)
class PretrainingSummary:
    """What the OCT taught the photograph's encoder, with the controls that can refute it.

    Attributes:
        num_labels: Labels each probe was fitted with.
        arms: Arm (see ARMS) -> label -> AUROC of the probe.
        edema_auroc_gain: Macular edema, oct_informed minus cfp_only; likewise the next two.
        gradient_leak: Largest gradient of the OCT<-CFP loss with respect to OCT pixels; must be 0.
        gradient_leak_control: The same of a route that reads the OCT; 0 means the check is blind.
        shuffled_oct_loss_ratio: OCT loss with another eye's scans / with the right ones.
        flatten_error_rows: Statistic -> error of the image-only flattening in scan rows.
        num_steps: Optimiser steps of every arm.
        seconds_per_arm: Arm -> wall-clock seconds.
    """

    num_labels: int
    arms: Mapping[str, Mapping[str, ProbeAuroc]]
    edema_auroc_gain: float | None
    schisis_auroc_gain: float | None
    glaucoma_auroc_gain: float | None
    gradient_leak: float
    gradient_leak_control: float
    shuffled_oct_loss_ratio: float
    flatten_error_rows: Mapping[str, float]
    num_steps: int
    seconds_per_arm: Mapping[str, float]

    def __post_init__(self) -> None:
        """Refuse arms that nobody can name and gains that the arms do not give."""
        for arm in self.arms:
            _require(arm in ARMS, "arms", arm, f"one of {', '.join(ARMS)}")
        for label, name in _GAINS.items():
            gain, expected = getattr(self, name), self.gain(label)
            agrees = gain == expected or (
                gain is not None and expected is not None and not abs(gain - expected) >= 1e-3
            )
            _require(agrees, name, gain, f"oct_informed minus cfp_only, {expected}")

    def gain(self, label: str) -> float | None:
        """Return oct_informed minus cfp_only for a label, None where either is missing."""
        informed = self.arms.get("oct_informed", {}).get(label)
        plain = self.arms.get("cfp_only", {}).get(label)
        if informed is None or plain is None:
            return None
        return informed.auroc_mean - plain.auroc_mean


@dataclass(frozen=True, kw_only=True)
class LabelAuroc:
    """Test AUROC of one label."""

    auroc: float
    interval: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse an unordered interval."""
        _require_ordered("auroc", self.auroc, self.interval)


@dataclass(frozen=True, kw_only=True)
class MeanAuroc:
    """Mean of the labels' test AUROC."""

    value: float
    interval: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse an unordered interval."""
        _require_ordered("mean_auroc", self.value, self.interval)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles of one inference at batch 1, warm, in milliseconds."""

    p50: float
    p99: float

    def __post_init__(self) -> None:
        """Refuse percentiles out of order."""
        _require(0.0 <= self.p50 <= self.p99, "p99", self.p99, f"at least p50 = {self.p50}")


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model; `latency_ms` is None for a model that never runs on a device."""

    name: str
    labels: Mapping[str, LabelAuroc]
    mean_auroc: MeanAuroc
    size_mib: float
    latency_ms: Latency | None
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class SplitPerformance:
    """Sensitivity and specificity of a fixed threshold on one split."""

    sensitivity: float
    sensitivity_interval: tuple[float, float]
    specificity: float
    specificity_interval: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse unordered intervals."""
        _require_ordered("sensitivity", self.sensitivity, self.sensitivity_interval)
        _require_ordered("specificity", self.specificity, self.specificity_interval)


@dataclass(frozen=True, kw_only=True)
class OperatingPointRow:
    """A threshold chosen on `val`, and what it reached there and on untouched `test` eyes."""

    label: str
    threshold: float
    target: str
    val: SplitPerformance
    test: SplitPerformance


@dataclass(frozen=True, kw_only=True)
class UnreadableFiles:
    """Damaged files given to the screener, and how many came back as 'no refer' (must be 0).

    They are screened under operating points that no picture reaches, so that every readable
    picture is 'no refer' whatever the model says of it. `num_control_no_refer` intact pictures
    of `num_control` were: without any, the check would be blind.
    """

    num: int
    num_no_refer: int
    num_control: int
    num_control_no_refer: int


@dataclass(frozen=True, kw_only=True)
class ScreeningSummary:
    """Held-out camera pictures, screened end to end with the signed bundle.

    Attributes:
        num_pictures: Pictures given to the screener.
        dispositions: refer, no_refer, ungradable -> eyes.
        agreement: Truth in words (such as 'diseased') -> disposition -> eyes.
        unreadable_files: The damaged files.
        eyes: ScreeningResult JSON objects, one an examination.
    """

    num_pictures: int
    dispositions: Mapping[str, int]
    agreement: Mapping[str, Mapping[str, int]]
    unreadable_files: UnreadableFiles
    eyes: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One number that the issue asks for: met when `value relation limit` holds.

    `value` None means not measured, which is never met; `note` says why a target was missed.
    """

    name: str
    value: float | None
    relation: str
    limit: float
    met: bool
    unit: str
    note: str

    def __post_init__(self) -> None:
        """Refuse a verdict that the numbers do not give."""
        _require(self.relation in _RELATIONS, "relation", self.relation, " ".join(_RELATIONS))
        verdict = _holds(self.value, self.relation, self.limit)
        _require(self.met == verdict, "met", self.met, f"{verdict}: {self.name} = {self.value}")

    @classmethod
    def judge(
        cls,
        *,
        name: str,
        value: float | None,
        relation: str,
        limit: float,
        unit: str = "",
        note: str = "",
    ) -> Target:
        """Return the target with its verdict."""
        met = _holds(value, relation, limit)
        return cls(
            name=name, value=value, relation=relation, limit=limit, met=met, unit=unit, note=note
        )


def _holds(value: float | None, relation: str, limit: float) -> bool:
    if value is None:
        return False
    verdicts = {
        ">": value > limit,
        ">=": value >= limit,
        "<": value < limit,
        "<=": value <= limit,
        "==": value == limit,
    }
    return verdicts.get(relation, False)


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """All of report.json."""

    schema_version: int = REPORT_SCHEMA_VERSION
    synthetic: bool = True
    scale: str
    seed: int
    code_version: str
    machine: Mapping[str, str]
    duration_s: Mapping[str, float]
    data: DataSummary
    pretraining: PretrainingSummary
    models: tuple[ModelRow, ...]
    student_to_teacher_ratio: float
    int8_mean_auroc_drop: float
    operating_points: tuple[OperatingPointRow, ...]
    gate: GateReport
    screening: ScreeningSummary
    targets: tuple[Target, ...]
    notice: str = NOTICE

    def __post_init__(self) -> None:
        """Refuse a report that does not say what it is."""
        version = self.schema_version
        _require(version == REPORT_SCHEMA_VERSION, "schema_version", version, "1")
        _require(self.synthetic, "synthetic", self.synthetic, "true: the demo has no real eyes")
        _require(self.scale in _SCALES, "scale", self.scale, ", ".join(_SCALES))
        _require(self.notice == NOTICE, "notice", self.notice, repr(NOTICE))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        plain: dict[str, Any] = dataclass_to_dict(self)
        return plain

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DemoReport:
        """Read the JSON object.

        Raises:
            ConfigError: A key is unknown or missing, or a value is of the wrong type, not
                finite or impossible; the message begins with its path.
        """
        try:
            return read_dataclass(cls, dataclass_to_dict(value))
        except BundleFormatError as error:
            raise ConfigError(f"report: {error}") from error
