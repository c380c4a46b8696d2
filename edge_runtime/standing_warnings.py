"""What every answer of a bundle on an engine must say about itself, and when there must be none."""

from __future__ import annotations

from edge_runtime.bundle import Bundle
from edge_runtime.bundle_parts.gate_record import PASSED
from edge_runtime.bundle_parts.manifest import SYNTHETIC_WARNING
from edge_runtime.engines import Engine
from edge_runtime.errors import GateRefusedError

__all__ = [
    "FP16_WARNING",
    "FP32_WARNING",
    "UNPROVEN_WARNING",
    "gate_status",
    "require_proven",
    "standing_warnings",
]

FP32_WARNING = (
    "answered by the FP32 model; the operating points were set on the INT8 model's scores"
)
UNPROVEN_WARNING = "answered by an INT8 model whose gate ended as '{status}'; taken on demand"
FP16_WARNING = (
    "answered by the FP16 model; the operating points were set on the INT8 model's scores"
)
_OTHER_SCORES = {"fp32": FP32_WARNING, "fp16": FP16_WARNING}


def standing_warnings(bundle: Bundle, engine: Engine) -> tuple[str, ...]:
    """Return what every answer of this bundle on this engine must say about itself."""
    warnings = []
    if bundle.manifest.is_synthetic:
        warnings.append(SYNTHETIC_WARNING)
    if engine.precision in _OTHER_SCORES:
        warnings.append(_OTHER_SCORES[engine.precision])
    if engine.precision.startswith("int8") and gate_status(bundle) != PASSED:
        warnings.append(UNPROVEN_WARNING.format(status=gate_status(bundle)))
    return (*warnings, *engine.facts.warnings)


def gate_status(bundle: Bundle) -> str:
    """How the gate of a calibrated bundle ended."""
    assert bundle.manifest.int8 is not None
    return bundle.manifest.int8.gate.status


def require_proven(bundle: Bundle, precision: str) -> None:
    """Refuse to answer with an INT8 model that is not shown to be as good as FP32.

    Raises:
        GateRefusedError: The precision is INT8 and the gate did not pass.
    """
    if not precision.startswith("int8") or gate_status(bundle) == PASSED:
        return
    record = bundle.manifest.int8
    assert record is not None
    gate = record.gate
    raise GateRefusedError(
        f"the INT8 model of bundle {bundle.manifest.name!r} has not passed its gate against FP32 "
        f"({gate.status} on {gate.num_patients} patients; about {gate.num_patients_needed} of each "
        "class are needed; `edge-screen inspect --json` has the reasons). Calibrate it with more "
        "patients, run --precision fp32, or take it as it is with --allow-unproven-int8 "
        "(allow_unproven_int8=True in Python), which "
        "every result then records"
    )
