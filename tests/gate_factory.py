"""Gate records as they stand in a bundle, one for each way in which the gate can end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge_runtime.bundle_parts.gate_record import (
    GateFlip,
    GateLabel,
    GateReport,
    GateSubgroup,
    PairedShare,
)

__all__ = ["gate_label", "gate_report", "paired_share"]


def paired_share(**changes: Any) -> PairedShare:
    values: dict[str, Any] = {
        "fp32": 0.9,
        "int8": 0.898,
        "num_eyes": 1000,
        "num_patients": 600,
        "lost": 3,
        "gained": 1,
        "design_effect": 1.2,
        "drop_interval": (-0.003, 0.008),
        "num_patients_needed": 240,
        "status": "passed",
    }
    return PairedShare(**{**values, **changes})


def gate_label(name: str, **changes: Any) -> GateLabel:
    values: dict[str, Any] = {
        "name": name,
        "required": True,
        "auroc_fp32": 0.92,
        "auroc_int8": 0.918,
        "drop": 0.002,
        "drop_interval": (-0.003, 0.006),
        "num_patients": 700,
        "num_patients_needed": 180,
        "sensitivity": paired_share(),
        "specificity": paired_share(),
        "num_flips": 1,
        "max_probability_change": 0.04,
        "status": "passed",
    }
    return GateLabel(**{**values, **changes})


def gate_report(names: Sequence[str], status: str = "passed", **changes: Any) -> GateReport:
    """A whole record; one that did not pass has it from the first label's sensitivity."""
    judged = [gate_label(name) for name in names]
    if status != "passed":
        share = paired_share(status=status, drop_interval=(-0.01, 0.03), num_patients_needed=900)
        judged[0] = replace(judged[0], sensitivity=share, status=status)
    subgroup = GateSubgroup(
        attribute="site",
        value="clinic-a",
        label=names[0],
        num_eyes=90,
        num_patients=50,
        num_flips=1,
        sensitivity=None,
        specificity=paired_share(num_eyes=80, num_patients=45),
    )
    flip = GateFlip(
        label=names[0],
        image_sha256="c0ffee00" * 8,
        truth=0,
        probability_fp32=0.49,
        probability_int8=0.51,
    )
    values: dict[str, Any] = {
        "rule": "v2: a rule in words",
        "status": status,
        "limit_auroc_drop": 0.01,
        "limit_sensitivity_drop": 0.02,
        "limit_specificity_drop": 0.02,
        "level": 0.95,
        "num_folds": 5,
        "labels": tuple(judged),
        "mean_auroc_drop": 0.002,
        "decision_flips": 1,
        "num_decisions": 2400,
        "max_probability_change": 0.04,
        "num_images": 1200,
        "num_patients": 700,
        "split": "val",
        "subgroups": (subgroup,),
        "flips": (flip,),
        "reasons": () if status == "passed" else (f"{names[0]}: sensitivity, and its numbers",),
    }
    return GateReport(**{**values, **changes})
