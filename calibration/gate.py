"""Compare INT8 with FP32 on the same `val` eyes: passed, failed, or not shown.

For every label: the AUROC drop (patients resampled in pairs), and the drops of sensitivity and
of specificity (`calibration.paired_shares`) at thresholds chosen on other patients.

- passed: the upper end of every interval is below its limit, for every disease. All of them must
  hold, so the joint claim needs no correction for their number (intersection-union test).
- failed: the mean AUROC drop exceeds its limit; or a label's AUROC or specificity drop does and its
  interval lies above zero; or a sensitivity drop does, by more than one eye, which is the
  resolution of a set; or, in a subgroup, a drop does and its interval, widened for the number of
  subgroups (Bonferroni), lies above zero.
- not shown: neither. The eyes are too few, and the report says how many patients are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.gate_case import GateCase, GateLimits
from calibration.gate_reasons import label_reasons, mean_reasons, subgroup_reasons
from calibration.gate_shares import (
    LEVEL,
    auroc_patients_needed,
    judge_auroc,
    judge_share,
    judge_subgroups,
)
from edge_runtime.bundle_parts.gate_record import (
    FAILED,
    GateFlip,
    GateLabel,
    GateReport,
    worst_status,
)
from edge_runtime.errors import GateRefusedError
from edge_runtime.metrics import auroc, paired_cluster_bootstrap

__all__ = ["RULE", "GateCase", "GateLimits", "GateOutcome", "judge", "require_not_failed"]

RULE = (
    "v2: upper ends of all 95 % intervals below the limits; AUROC by patient bootstrap, Se and Sp "
    "by Tango on Rao-Scott counts at cross-fitted thresholds; a measured loss fails"
)


@dataclass(frozen=True, kw_only=True)
class GateOutcome:
    """The report that goes into the bundle."""

    report: GateReport

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why INT8 has not passed; empty when it has."""
        return self.report.reasons


def judge(
    cases: Sequence[GateCase],
    limits: GateLimits,
    *,
    num_images: int,
    split: str = "val",
    num_draws: int = 2000,
    seed: int = 0,
) -> GateOutcome:
    """Measure every label and every subgroup, and decide.

    Raises:
        ValueError: no disease label is given, or a label has only one class.
    """
    if not any(case.is_disease for case in cases):
        raise ValueError("the gate needs at least one disease label")
    labels = [_judge_label(case, limits, num_draws, seed) for case in cases]
    subgroups = tuple(judge_subgroups(cases, limits))
    mean_drop = float(np.mean([label.drop for label in labels if label.required]))
    flips = tuple(flip for case in cases for flip in _flips(case))
    reasons = [*mean_reasons(mean_drop, limits), *subgroup_reasons(subgroups, limits)]
    failed = bool(reasons)
    for label in labels:
        if label.required or label.status == FAILED:
            reasons += label_reasons(label, limits)
    counting = [one.status for one in labels if one.required or one.status == FAILED]
    report = GateReport(
        rule=RULE,
        status=FAILED if failed else worst_status(counting),
        limit_auroc_drop=limits.max_auroc_drop,
        limit_sensitivity_drop=limits.max_sensitivity_drop,
        limit_specificity_drop=limits.max_specificity_drop,
        level=LEVEL,
        num_folds=min(case.held_out.num_folds for case in cases),
        labels=tuple(labels),
        mean_auroc_drop=mean_drop,
        decision_flips=len(flips),
        num_decisions=sum(case.labels.size for case in cases),
        max_probability_change=max(label.max_probability_change for label in labels),
        num_images=num_images,
        num_patients=len({name for case in cases for name in case.patient_ids.tolist()}),
        split=split,
        subgroups=subgroups,
        flips=flips,
        reasons=tuple(reasons),
    )
    return GateOutcome(report=report)


def require_not_failed(outcome: GateOutcome, *, found: str = "") -> None:
    """Raise GateRefusedError with every number that is over its limit, if a loss was measured.

    `found` is what a search for better INT8 ended with.
    """
    report = outcome.report
    if report.status != FAILED:
        return
    raise GateRefusedError(
        f"INT8 is refused on {report.num_images} {report.split} images: "
        f"{'; '.join(report.reasons)}. {f'Search: {found}. ' if found else ''}"
        "Nothing was written; let --search revert layers, use more INT8-calibration images, "
        "another --method, or train the student for longer; --write-failed writes the bundle "
        "all the same, and `screen` refuses its INT8 model"
    )


def _judge_label(case: GateCase, limits: GateLimits, num_draws: int, seed: int) -> GateLabel:
    interval = paired_cluster_bootstrap(
        auroc,
        case.patient_ids,
        case.labels,
        case.logits_fp32,
        case.logits_int8,
        num_draws=num_draws,
        seed=seed,
        level=LEVEL,
    )
    diseased, healthy = case.pairs(1), case.pairs(0)
    assert diseased is not None  # the AUROC above needs both classes
    assert healthy is not None
    sensitivity = judge_share(diseased, limits.max_sensitivity_drop, is_sensitivity=True)
    specificity = judge_share(healthy, limits.max_specificity_drop, is_sensitivity=False)
    change = case.probability(case.logits_fp32) - case.probability(case.logits_int8)
    num_patients = len(np.unique(case.patient_ids))
    auroc_status = judge_auroc(interval, limits.max_auroc_drop)
    return GateLabel(
        name=case.name,
        required=case.is_disease,
        auroc_fp32=auroc(case.labels, case.logits_fp32),
        auroc_int8=auroc(case.labels, case.logits_int8),
        drop=interval.value,
        drop_interval=(interval.low, interval.high),
        num_patients=num_patients,
        num_patients_needed=auroc_patients_needed(interval, num_patients, limits.max_auroc_drop),
        sensitivity=sensitivity,
        specificity=specificity,
        num_flips=int(np.count_nonzero(case.flipped)),
        max_probability_change=float(np.abs(change).max()),
        status=worst_status((auroc_status, sensitivity.status, specificity.status)),
    )


def _flips(case: GateCase) -> Iterator[GateFlip]:
    fp32, int8 = case.probability(case.logits_fp32), case.probability(case.logits_int8)
    for i in np.flatnonzero(case.flipped).tolist():
        yield GateFlip(
            label=case.name,
            image_sha256=str(case.image_sha256[i]),
            truth=int(case.labels[i]),
            probability_fp32=float(fp32[i]),
            probability_int8=float(int8[i]),
        )
