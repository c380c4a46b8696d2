"""Whether one AUROC, one sensitivity or one specificity passed, failed or was not shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from calibration.gate_case import GateCase, GateLimits
from calibration.paired_shares import PairedCounts, num_patients_needed, paired_interval
from edge_runtime.bundle_parts.gate_record import (
    FAILED,
    NOT_SHOWN,
    PASSED,
    GateSubgroup,
    PairedShare,
)
from edge_runtime.metrics import Interval

__all__ = ["LEVEL", "auroc_patients_needed", "judge_auroc", "judge_share", "judge_subgroups"]

#: Of every two-sided interval: each bound is one-sided at 97.5 %.
LEVEL = 0.95
#: A share of fewer eyes is not printed for a subgroup.
MIN_SUBGROUP_EYES = 20


def judge_auroc(interval: Interval, limit: float) -> str:
    """Status of an AUROC drop, given with its paired interval."""
    if interval.high < limit:
        return PASSED
    return FAILED if interval.value > limit and interval.low > 0.0 else NOT_SHOWN


def auroc_patients_needed(interval: Interval, num_patients: int, limit: float) -> int | None:
    """Patients at which the upper half of the interval, as 1 / sqrt(patients), fits the limit.

    None where the drop itself is not below the limit.
    """
    if interval.value >= limit:
        return None
    ratio = (interval.high - interval.value) / (limit - interval.value)
    return max(1, math.floor(num_patients * ratio**2) + 1)


def judge_share(counts: PairedCounts, limit: float, *, is_sensitivity: bool) -> PairedShare:
    """A share with its status.

    A drop over the limit fails where its interval lies above zero; of sensitivity, already where
    it is more than one eye, because a missed disease weighs more than a false alarm.
    """
    interval = paired_interval(counts, LEVEL)
    status = PASSED if interval.high < limit else NOT_SHOWN
    is_real = counts.lost - counts.gained > 1 if is_sensitivity else interval.low > 0.0
    if counts.drop > limit and is_real:
        status = FAILED
    return _record(counts, interval, limit, status)


def _record(counts: PairedCounts, interval: Interval, limit: float, status: str) -> PairedShare:
    right_int8 = counts.num_right_fp32 - counts.lost + counts.gained
    return PairedShare(
        fp32=counts.num_right_fp32 / counts.num_eyes,
        int8=right_int8 / counts.num_eyes,
        num_eyes=counts.num_eyes,
        num_patients=counts.num_patients,
        lost=counts.lost,
        gained=counts.gained,
        design_effect=counts.design_effect,
        drop_interval=(interval.low, interval.high),
        num_patients_needed=num_patients_needed(counts, limit, LEVEL),
        status=status,
    )


def judge_subgroups(cases: Sequence[GateCase], limits: GateLimits) -> Iterator[GateSubgroup]:
    """Every label in every subgroup, in the order of the cases and of the values."""
    members = [
        (case, attribute, str(value), values == value)
        for case in cases
        for attribute, values in case.groups.items()
        for value in np.unique(values)
    ]
    for case, attribute, value, inside in members:
        yield GateSubgroup(
            attribute=attribute,
            value=value,
            label=case.name,
            num_eyes=int(np.count_nonzero(inside)),
            num_patients=len(np.unique(case.patient_ids[inside])),
            num_flips=int(np.count_nonzero(case.flipped & inside)),
            sensitivity=_subgroup_share(
                case.pairs(1, inside), limits.max_sensitivity_drop, 2 * len(members)
            ),
            specificity=_subgroup_share(
                case.pairs(0, inside), limits.max_specificity_drop, 2 * len(members)
            ),
        )


def _subgroup_share(
    counts: PairedCounts | None, limit: float, num_tests: int
) -> PairedShare | None:
    """A share of one subgroup; it fails on an interval widened for the number of tests."""
    if counts is None or counts.num_eyes < MIN_SUBGROUP_EYES:
        return None
    interval = paired_interval(counts, LEVEL)
    status = PASSED if interval.high < limit else NOT_SHOWN
    strict = paired_interval(counts, 1.0 - (1.0 - LEVEL) / num_tests)
    if counts.drop > limit and strict.low > 0.0:
        status = FAILED
    return _record(counts, interval, limit, status)
