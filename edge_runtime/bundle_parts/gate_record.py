"""The gate's record in a bundle: what INT8 was compared with FP32 on, by which rule, and the end.

Three ends are told apart. `passed`: shown to be no worse than the limits allow. `failed`: a loss
beyond a limit was measured. `not_shown`: neither, because the eyes are too few; the record says
how many patients are needed. A screener answers with INT8 only after `passed`, or when it is
told aloud to do otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_runtime.value_rules import (
    require,
    require_count,
    require_interval,
    require_name,
    require_sha256,
    require_share,
    require_text,
    require_unique,
)

__all__ = [
    "FAILED",
    "NOT_SHOWN",
    "PASSED",
    "GateFlip",
    "GateLabel",
    "GateReport",
    "GateSubgroup",
    "PairedShare",
    "worst_status",
]

PASSED, NOT_SHOWN, FAILED = "passed", "not_shown", "failed"
_BEST_FIRST = (PASSED, NOT_SHOWN, FAILED)


def worst_status(statuses: Iterable[str]) -> str:
    """Return the worst: one failure fails all, and all must have passed to pass."""
    return max(statuses, key=_BEST_FIRST.index)


def _require_status(value: str) -> None:
    require(value in _BEST_FIRST, "status", value, "passed, not_shown or failed")


@dataclass(frozen=True, kw_only=True)
class PairedShare:
    """Sensitivity or specificity of both models on the same eyes, and the difference.

    `lost` eyes are right in FP32 and wrong in INT8, `gained` the other way round;
    `design_effect` is how many eyes count as one because patients have two;
    `drop_interval` is the interval of fp32 - int8 at the report's level.
    """

    fp32: float
    int8: float
    num_eyes: int
    num_patients: int
    lost: int
    gained: int
    design_effect: float
    drop_interval: tuple[float, float]
    num_patients_needed: int
    status: str

    def __post_init__(self) -> None:
        """Refuse shares and counts that cannot be."""
        require_share("fp32", self.fp32)
        require_share("int8", self.int8)
        for name in ("num_eyes", "num_patients", "num_patients_needed"):
            require_count(name, getattr(self, name))
        for name in ("lost", "gained"):
            count = getattr(self, name)
            require(0 <= count <= self.num_eyes, name, count, f"in 0..{self.num_eyes}")
        require(self.design_effect >= 1.0, "design_effect", self.design_effect, "at least 1")
        require_interval("drop_interval", self.drop_interval, low=-1.0)
        _require_status(self.status)

    @property
    def drop(self) -> float:
        """Share of the eyes that INT8 lost more than it gained."""
        return (self.lost - self.gained) / self.num_eyes


@dataclass(frozen=True, kw_only=True)
class GateLabel:
    """INT8 against FP32 for one label; drop = auroc_fp32 - auroc_int8, paired interval.

    About `num_patients_needed` patients would bring the upper end of that interval below the
    limit if the drop stayed as it is; null where the drop itself is not below it.

    `num_flips` and `max_probability_change` are at the threshold and temperature that ship;
    `sensitivity` and `specificity` are at thresholds chosen on other patients. A label that is not
    `required` (the gradability head, whose ungradable eyes are few) can fail the gate by a measured
    loss, but it need not be shown to pass.
    """

    name: str
    required: bool
    auroc_fp32: float
    auroc_int8: float
    drop: float
    drop_interval: tuple[float, float]
    num_patients: int
    num_patients_needed: int | None
    sensitivity: PairedShare
    specificity: PairedShare
    num_flips: int
    max_probability_change: float
    status: str

    def __post_init__(self) -> None:
        """Refuse shares outside 0..1, an unordered interval and a status better than its parts."""
        require_name("name", self.name)
        for name in ("auroc_fp32", "auroc_int8", "max_probability_change"):
            require_share(name, getattr(self, name))
        require_share("drop", self.drop, low=-1.0)
        require_interval("drop_interval", self.drop_interval, low=-1.0)
        require_count("num_patients", self.num_patients)
        if self.num_patients_needed is not None:
            require_count("num_patients_needed", self.num_patients_needed)
        require(self.num_flips >= 0, "num_flips", self.num_flips, "at least 0")
        _require_status(self.status)
        parts = worst_status((self.sensitivity.status, self.specificity.status))
        honest = worst_status((parts, self.status)) == self.status
        require(honest, "status", self.status, f"no better than its parts, {parts}")


@dataclass(frozen=True, kw_only=True)
class GateSubgroup:
    """One label in one subgroup, e.g. attribute 'site', value 'clinic-a'.

    `sensitivity` or `specificity` is null where the class has too few eyes to print.
    """

    attribute: str
    value: str
    label: str
    num_eyes: int
    num_patients: int
    num_flips: int
    sensitivity: PairedShare | None
    specificity: PairedShare | None

    def __post_init__(self) -> None:
        """Refuse empty names and impossible counts."""
        require_name("attribute", self.attribute)
        require_text("value", self.value)
        require_name("label", self.label)
        require_count("num_eyes", self.num_eyes)
        require_count("num_patients", self.num_patients)
        inside = 0 <= self.num_flips <= self.num_eyes
        require(inside, "num_flips", self.num_flips, f"in 0..{self.num_eyes}")

    @property
    def failed(self) -> bool:
        """Whether a loss was measured in this subgroup."""
        return any(
            share is not None and share.status == FAILED
            for share in (self.sensitivity, self.specificity)
        )


@dataclass(frozen=True, kw_only=True)
class GateFlip:
    """One eye that INT8 decides differently for one label; `truth` is 0 or 1."""

    label: str
    image_sha256: str
    truth: int
    probability_fp32: float
    probability_int8: float

    def __post_init__(self) -> None:
        """Refuse what is no label, hash or probability."""
        require_name("label", self.label)
        require_sha256("image_sha256", self.image_sha256)
        require(self.truth in (0, 1), "truth", self.truth, "0 or 1")
        require_share("probability_fp32", self.probability_fp32)
        require_share("probability_int8", self.probability_int8)


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """Outcome of the gate that compares INT8 with FP32 on `split`.

    `rule` says in words how it was judged; `level` is the coverage of every two-sided interval;
    `num_folds` the groups of patients, each judged at thresholds chosen on the others.
    `reasons` say why the status is not 'passed' and are empty when it is.
    """

    rule: str
    status: str
    limit_auroc_drop: float
    limit_sensitivity_drop: float
    limit_specificity_drop: float
    level: float
    num_folds: int
    labels: tuple[GateLabel, ...]
    mean_auroc_drop: float
    decision_flips: int
    num_decisions: int
    max_probability_change: float
    num_images: int
    num_patients: int
    split: str
    subgroups: tuple[GateSubgroup, ...]
    flips: tuple[GateFlip, ...]
    reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a gate without labels or images, with impossible numbers, or that says too much.

        The status must be one that the numbers in the same record carry.
        """
        require_text("rule", self.rule)
        _require_status(self.status)
        for name in ("auroc", "sensitivity", "specificity"):
            require_share(f"limit_{name}_drop", getattr(self, f"limit_{name}_drop"))
        require(0.0 < self.level < 1.0, "level", self.level, "between 0 and 1")
        require(self.num_folds >= 2, "num_folds", self.num_folds, "at least 2")
        require(len(self.labels) > 0, "labels", self.labels, "at least one label")
        require_unique("labels", tuple(label.name for label in self.labels))
        require_share("mean_auroc_drop", self.mean_auroc_drop, low=-1.0)
        require_share("max_probability_change", self.max_probability_change)
        for name in ("num_images", "num_patients", "num_decisions"):
            require_count(name, getattr(self, name))
        listed = len(self.flips)
        require(self.decision_flips == listed, "decision_flips", self.decision_flips, f"{listed}")
        require_text("split", self.split)
        self._check_status()

    @property
    def passed(self) -> bool:
        """Whether INT8 was shown to be no worse than the limits allow."""
        return self.status == PASSED

    @property
    def num_patients_needed(self) -> int:
        """Patients that would show it for every required label, if INT8 lost nothing in truth."""
        required = [one for one in self.labels if one.required]
        shares = [part for one in required for part in (one.sensitivity, one.specificity)]
        ranked = [one.num_patients_needed for one in required if one.num_patients_needed]
        return max(*ranked, *(part.num_patients_needed for part in shares))

    def _check_status(self) -> None:
        silent = len(self.reasons) == 0
        require(silent == self.passed, "reasons", self.reasons, "given unless the gate passed")
        required = [label for label in self.labels if label.required]
        require(len(required) > 0, "labels", self.labels, "at least one that is required")
        counting = [label for label in self.labels if label.required or label.status == FAILED]
        parts = worst_status(label.status for label in counting)
        if any(group.failed for group in self.subgroups) or (
            self.mean_auroc_drop > self.limit_auroc_drop
        ):
            parts = FAILED
        honest = worst_status((parts, self.status)) == self.status
        require(honest, "status", self.status, f"no better than its parts, {parts}")
        if not self.passed:
            return
        for label in required:
            highs = (
                (label.drop_interval[1], self.limit_auroc_drop),
                (label.sensitivity.drop_interval[1], self.limit_sensitivity_drop),
                (label.specificity.drop_interval[1], self.limit_specificity_drop),
            )
            carried = all(high < limit for high, limit in highs)
            require(carried, "status", self.status, f"not passed: intervals of {label.name}")
