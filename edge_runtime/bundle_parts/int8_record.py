"""How a bundle's INT8 models were made, and the comparison with FP32 that they went through."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.bundle_parts.gate_record import GateReport
from edge_runtime.value_rules import (
    require,
    require_count,
    require_sha256,
    require_text,
    require_unique,
)

__all__ = ["Int8Record"]


@dataclass(frozen=True, kw_only=True)
class Int8Record:
    """How the INT8 files were made, and how the gate ended.

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
        """Refuse a record that is not reproducible."""
        require_text("method", self.method)
        if self.percentile is not None:
            require(0.0 < self.percentile <= 100.0, "percentile", self.percentile, "in 0..100")
        require_sha256("fingerprint", self.fingerprint)
        require_count("num_images", self.num_images)
        require_unique("float_nodes", self.float_nodes)
