"""How a bundle's INT8 models were made, and the comparison with FP32 that let them through."""

from __future__ import annotations

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

__all__ = ["GateLabel", "GateReport", "Int8Record"]


@dataclass(frozen=True, kw_only=True)
class GateLabel:
    """INT8 against FP32 for one label; drop = auroc_fp32 - auroc_int8, paired 95 % interval."""

    name: str
    auroc_fp32: float
    auroc_int8: float
    drop: float
    drop_interval: tuple[float, float]
    sensitivity_fp32: float
    sensitivity_int8: float

    def __post_init__(self) -> None:
        """Refuse shares outside 0..1 and an unordered interval."""
        require_name("name", self.name)
        for name in ("auroc_fp32", "auroc_int8", "sensitivity_fp32", "sensitivity_int8"):
            require_share(name, getattr(self, name))
        require_share("drop", self.drop, low=-1.0)
        require_interval("drop_interval", self.drop_interval, low=-1.0)


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """Outcome of the gate that compares INT8 with FP32 on `split`."""

    passed: bool
    limit_auroc_drop: float
    limit_sensitivity_drop: float
    labels: tuple[GateLabel, ...]
    mean_auroc_drop: float
    decision_flips: int
    num_images: int
    split: str

    def __post_init__(self) -> None:
        """Refuse a gate without labels, without images or with impossible numbers."""
        require_share("limit_auroc_drop", self.limit_auroc_drop)
        require_share("limit_sensitivity_drop", self.limit_sensitivity_drop)
        require(len(self.labels) > 0, "labels", self.labels, "at least one label")
        require_unique("labels", tuple(label.name for label in self.labels))
        require_share("mean_auroc_drop", self.mean_auroc_drop, low=-1.0)
        require(self.decision_flips >= 0, "decision_flips", self.decision_flips, "at least 0")
        require_count("num_images", self.num_images)
        require_text("split", self.split)


@dataclass(frozen=True, kw_only=True)
class Int8Record:
    """How the INT8 files were made; a bundle holds them only when the gate has passed.

    `percentile` (0..100) is null for methods without one; `fingerprint` is the SHA-256
    of the INT8-calibration images; `float_nodes` were left in float32.
    """

    method: str
    percentile: float | None
    fingerprint: str
    num_images: int
    float_nodes: tuple[str, ...]
    gate: GateReport

    def __post_init__(self) -> None:
        """Refuse a record whose gate has not passed or that is not reproducible."""
        require_text("method", self.method)
        if self.percentile is not None:
            require(0.0 < self.percentile <= 100.0, "percentile", self.percentile, "in 0..100")
        require_sha256("fingerprint", self.fingerprint)
        require_count("num_images", self.num_images)
        require_unique("float_nodes", self.float_nodes)
        require(
            self.gate.passed, "gate.passed", self.gate.passed, "true: refused INT8 is not released"
        )
