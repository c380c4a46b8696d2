"""Why INT8 has not passed the gate, in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.gate_case import GateLimits
from calibration.gate_shares import LEVEL, judge_auroc
from edge_runtime.bundle_parts.gate_record import (
    FAILED,
    NOT_SHOWN,
    GateLabel,
    GateSubgroup,
    PairedShare,
)
from edge_runtime.metrics import Interval

__all__ = ["label_reasons", "mean_reasons", "subgroup_reasons"]


def mean_reasons(mean_drop: float, limits: GateLimits) -> list[str]:
    """A mean AUROC drop over its limit."""
    if mean_drop <= limits.max_auroc_drop:
        return []
    return [f"the mean AUROC falls by {mean_drop:.4f}, the limit is {limits.max_auroc_drop:.4f}"]


def subgroup_reasons(subgroups: Sequence[GateSubgroup], limits: GateLimits) -> list[str]:
    """Losses measured in a subgroup."""
    reasons = []
    for group in subgroups:
        where = f"{group.label} where {group.attribute} is {group.value}"
        for name in ("sensitivity", "specificity"):
            share = getattr(group, name)
            if share is not None and share.status == FAILED:
                limit = getattr(limits, f"max_{name}_drop")
                reasons.append(_fall(where, name, share, limit))
    return reasons


def label_reasons(label: GateLabel, limits: GateLimits) -> list[str]:
    """What one label lost, or what its eyes are too few to show."""
    reasons = []
    low, high = label.drop_interval
    limit, needed = limits.max_auroc_drop, label.num_patients_needed
    interval = Interval(value=label.drop, low=low, high=high, level=LEVEL)
    status = judge_auroc(interval, limit)
    if status == FAILED:
        reasons.append(
            f"{label.name}: AUROC falls by {label.drop:.4f} (95 % interval {low:.4f} to "
            f"{high:.4f}) from {label.auroc_fp32:.4f}, the limit is {limit:.4f}"
        )
    elif status == NOT_SHOWN:
        reasons.append(
            f"{label.name}: the AUROC drop may be as large as {high:.4f}, to be shown is less "
            f"than {limit:.4f}: {label.num_patients} patients"
            + (f", about {needed} are needed" if needed is not None else "")
        )
    for name in ("sensitivity", "specificity"):
        share, limit = getattr(label, name), getattr(limits, f"max_{name}_drop")
        if share.status == FAILED:
            reasons.append(_fall(label.name, name, share, limit))
        elif share.status == NOT_SHOWN:
            reasons.append(
                f"{label.name}: the {name} drop may be as large as {share.drop_interval[1]:.4f}, "
                f"to be shown is less than {limit:.4f}: {share.num_patients} patients of this "
                f"class, about {share.num_patients_needed} are needed"
            )
    return reasons


def _fall(where: str, name: str, share: PairedShare, limit: float) -> str:
    return (
        f"{where}: {name} falls by {share.drop:.4f} ({share.lost - share.gained} of "
        f"{share.num_eyes} eyes) from {share.fp32:.4f}, the limit is {limit:.4f}"
    )
