"""Compare INT8 with FP32 on the same `val` eyes and refuse INT8 that lost too much.

INT8 is refused when any of these holds (method: paired differences, patients resampled):

1. the mean AUROC drop over the disease labels exceeds `max_auroc_drop`;
2. one label's AUROC drop exceeds it and the loss is real: its interval lies above zero;
3. one label's sensitivity at the shipped threshold falls by more than `max_sensitivity_drop`
   and by more than one eye, which is the resolution of the set;
4. with `require_bounds`, the upper end of an interval of 2. or 3. exceeds its limit: INT8 must
   be shown to be no worse. That takes hundreds of diseased eyes and is what a release needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.operating_point import share_right
from calibration.probability import probabilities
from edge_runtime.errors import ConfigError, GateRefusedError
from edge_runtime.manifest import GateLabel, GateReport
from edge_runtime.metrics import auroc, paired_cluster_bootstrap

__all__ = ["GateCase", "GateLimits", "GateOutcome", "judge", "require_passed"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """How much INT8 may lose; shares, not percent."""

    max_auroc_drop: float = 0.01
    max_sensitivity_drop: float = 0.02
    require_bounds: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_auroc_drop", "max_sensitivity_drop"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in 0..1")


@dataclass(frozen=True, kw_only=True)
class GateCase:
    """One label on the eyes where it is known: N eyes, both models, one threshold.

    `in_mean` is False for the gradability head, which is no disease.
    """

    name: str
    patient_ids: NDArray[np.str_]
    labels: FloatArray
    logits_fp32: FloatArray
    logits_int8: FloatArray
    temperature: float
    threshold: float
    in_mean: bool = True

    def decisions(self, logits: FloatArray) -> NDArray[np.bool_]:
        """(N,) whether each eye is positive."""
        called: NDArray[np.bool_] = probabilities(logits, self.temperature) >= self.threshold
        return called


@dataclass(frozen=True, kw_only=True)
class GateOutcome:
    """The report that goes into the bundle, and why INT8 was refused (empty when it passed)."""

    report: GateReport
    reasons: tuple[str, ...]


def judge(
    cases: Sequence[GateCase],
    limits: GateLimits,
    *,
    num_images: int,
    split: str = "val",
    num_draws: int = 2000,
    seed: int = 0,
) -> GateOutcome:
    """Measure every label and decide.

    Raises:
        ValueError: no disease label is given, or a label has only one class.
    """
    diseases = [case for case in cases if case.in_mean]
    if not diseases:
        raise ValueError("the gate needs at least one disease label")
    labels, reasons, flips = [], [], 0
    for case in cases:
        label, found = _judge_label(case, limits, num_draws, seed)
        labels.append(label)
        reasons += found
        flips += int(np.sum(case.decisions(case.logits_fp32) != case.decisions(case.logits_int8)))
    names = {case.name for case in diseases}
    mean_drop = float(np.mean([label.drop for label in labels if label.name in names]))
    if mean_drop > limits.max_auroc_drop:
        reasons.insert(
            0, f"the mean AUROC falls by {mean_drop:.4f}, the limit is {limits.max_auroc_drop:.4f}"
        )
    report = GateReport(
        passed=not reasons,
        limit_auroc_drop=limits.max_auroc_drop,
        limit_sensitivity_drop=limits.max_sensitivity_drop,
        labels=tuple(labels),
        mean_auroc_drop=mean_drop,
        decision_flips=flips,
        num_images=num_images,
        split=split,
    )
    return GateOutcome(report=report, reasons=tuple(reasons))


def require_passed(outcome: GateOutcome) -> None:
    """Raise GateRefusedError with every number that was over its limit, if any was."""
    if outcome.report.passed:
        return
    raise GateRefusedError(
        f"INT8 is refused on {outcome.report.num_images} {outcome.report.split} images: "
        f"{'; '.join(outcome.reasons)}. Nothing was written; use more INT8-calibration images, "
        "another --method, or train the student for longer"
    )


def _judge_label(
    case: GateCase, limits: GateLimits, num_draws: int, seed: int
) -> tuple[GateLabel, list[str]]:
    auroc_fp32 = auroc(case.labels, case.logits_fp32)
    auroc_int8 = auroc(case.labels, case.logits_int8)
    interval = paired_cluster_bootstrap(
        auroc,
        case.patient_ids,
        case.labels,
        case.logits_fp32,
        case.logits_int8,
        num_draws=num_draws,
        seed=seed,
    )
    sensitivity = [_sensitivity(case, case.logits_fp32), _sensitivity(case, case.logits_int8)]
    label = GateLabel(
        name=case.name,
        auroc_fp32=auroc_fp32,
        auroc_int8=auroc_int8,
        drop=auroc_fp32 - auroc_int8,
        drop_interval=(interval.low, interval.high),
        sensitivity_fp32=sensitivity[0],
        sensitivity_int8=sensitivity[1],
    )
    reasons = _loss_reasons(case, label, limits)
    if limits.require_bounds:
        reasons += _bound_reasons(case, label, limits, num_draws, seed)
    return label, reasons


def _loss_reasons(case: GateCase, label: GateLabel, limits: GateLimits) -> list[str]:
    """Rules 2 and 3."""
    reasons = []
    low, high = label.drop_interval
    if label.drop > limits.max_auroc_drop and low > 0.0:
        reasons.append(
            f"{case.name}: AUROC falls by {label.drop:.4f} (95 % interval {low:.4f} to {high:.4f}) "
            f"from {label.auroc_fp32:.4f}, the limit is {limits.max_auroc_drop:.4f}"
        )
    drop = label.sensitivity_fp32 - label.sensitivity_int8
    num_positive = int(np.sum(case.labels == 1))
    eyes_lost = round(drop * num_positive)
    if drop > limits.max_sensitivity_drop and eyes_lost > 1:
        reasons.append(
            f"{case.name}: sensitivity falls by {drop:.4f} ({eyes_lost} of {num_positive} eyes) "
            f"from {label.sensitivity_fp32:.4f}, the limit is {limits.max_sensitivity_drop:.4f}"
        )
    return reasons


def _bound_reasons(
    case: GateCase, label: GateLabel, limits: GateLimits, num_draws: int, seed: int
) -> list[str]:
    """Rule 4: non-inferiority, one-sided 97.5 % by the two-sided 95 % interval."""
    reasons = []
    if label.drop_interval[1] > limits.max_auroc_drop:
        reasons.append(
            f"{case.name}: the AUROC drop may be as large as {label.drop_interval[1]:.4f}, to be "
            f"shown is at most {limits.max_auroc_drop:.4f}"
        )
    interval = paired_cluster_bootstrap(
        share_right,
        case.patient_ids,
        case.labels == 1,
        case.decisions(case.logits_fp32),
        case.decisions(case.logits_int8),
        num_draws=num_draws,
        seed=seed,
    )
    if interval.high > limits.max_sensitivity_drop:
        reasons.append(
            f"{case.name}: the sensitivity drop may be as large as {interval.high:.4f}, to be "
            f"shown is at most {limits.max_sensitivity_drop:.4f}"
        )
    return reasons


def _sensitivity(case: GateCase, logits: FloatArray) -> float:
    return share_right(case.labels == 1, case.decisions(logits))
