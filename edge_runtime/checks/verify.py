"""Does this bundle, on this machine, compute what its maker recorded?

In order: signature, every hash (both by `read_bundle`, which raises), the decoder's version,
preprocessing of one encoded picture bit for bit, the golden pictures through FP32 and INT8
(probabilities within the bundle's own tolerances, the same decision for every label), and one
golden picture through the portable INT8 file, which must load here and agree with the INT8 form
that screens. When an engine is named, `edge_runtime.checks.agreement` holds it against ONNX
Runtime.

A decision counts as changed only where the expected probability is further from the threshold
than the tolerance: closer to it, an honest difference in rounding may fall on either side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.bundle_parts.golden import GoldenVectors
from edge_runtime.checks.agreement import Agreement, EngineRequest, compare_engines
from edge_runtime.checks.golden import compare_golden
from edge_runtime.engines import PRECISIONS, Engine, open_engine
from edge_runtime.errors import BundleFormatError, EdgeScreenError, EngineError, VerificationError
from edge_runtime.opencv_floor import opencv_problem
from edge_runtime.preprocess import load_for_model
from edge_runtime.result import NOTICE

__all__ = ["Check", "VerificationReport", "verify_bundle"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked, in words a technician can read."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """Every check of one bundle on one machine."""

    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    synthetic: bool
    key_id: str | None
    trusted_from: str | None
    checks: tuple[Check, ...]
    agreement: Agreement | None = None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of `edge-screen verify --json`."""
        return {"passed": self.passed, **asdict(self), "notice": NOTICE}

    def raise_if_failed(self) -> None:
        """Raise VerificationError naming every check that failed."""
        failed = [f"{check.name}: {check.detail}" for check in self.checks if not check.passed]
        engine_alone = all(c.passed or c.name.startswith("engine ") for c in self.checks)
        if failed and engine_alone:
            raise VerificationError(
                f"bundle {self.bundle_name!r} is not verified with the engine that was named "
                f"({'; '.join(failed)}); do not screen with that engine here; every other check "
                "passed"
            )
        if failed:
            raise VerificationError(
                f"bundle {self.bundle_name!r} is not reproduced on this machine "
                f"({'; '.join(failed)}); do not screen with it here"
            )


def verify_bundle(
    bundle_dir: Path | str,
    *,
    trusted_keys: Path | str | None = None,
    request: EngineRequest | None = None,
) -> VerificationReport:
    """Verify a bundle on this machine.

    Args:
        bundle_dir: The bundle.
        trusted_keys: As for `Screener.open`.
        request: An engine to hold against ONNX Runtime on top of the other checks.

    Returns:
        A report whose checks may have failed; `raise_if_failed` turns it into an error.

    Raises:
        BundleError: If the signature, a hash or the content is wrong: nothing is run then.
    """
    explicit = None if trusted_keys is None else Path(trusted_keys)
    bundle = read_bundle(Path(bundle_dir), trusted_keys=explicit)
    if not bundle.manifest.calibrated:
        raise BundleFormatError(
            "the bundle has no operating points or no INT8 record, so there is no decision to "
            "verify; run `edge-screen calibrate` on it"
        )
    golden = bundle.golden()
    checks = [
        Check(name="signature", passed=True, detail=f"Ed25519 by key {bundle.key_id}"),
        Check(name="hashes", passed=True, detail=f"{len(bundle.contents)} files"),
        _check_decoder(),
        _check_preprocessing(bundle, golden),
        *(_check_precision(bundle, precision) for precision in PRECISIONS),
        _check_portable(bundle),
    ]
    agreement = None
    if request is not None:
        agreement, check = _check_engine(bundle, request)
        checks.append(check)
    return VerificationReport(
        bundle_name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        bundle_sha256=bundle.sha256,
        synthetic=bundle.manifest.is_synthetic,
        key_id=bundle.key_id,
        trusted_from=bundle.trusted_from,
        checks=tuple(checks),
        agreement=agreement,
    )


def _check_engine(bundle: Bundle, request: EngineRequest) -> tuple[Agreement | None, Check]:
    """Hold the engine against ONNX Runtime; an engine that fails is a check that failed."""
    name = f"engine {request.engine}"
    try:
        found = compare_engines(bundle, request)
    except EngineError as error:
        return None, Check(name=name, passed=False, detail=str(error))
    counts = (
        f"{found.precision} against {found.reference} on {found.num_golden} golden pictures and "
        f"{found.num_pictures} photographs ({len(found.not_compared)} ungradable ones left out): "
        f"largest difference {found.max_difference:.2e} (allowed {found.atol_probability:.2e}), "
        f"{found.num_changed} decisions changed, {len(found.flips) - found.num_changed} more "
        "within the tolerance of a threshold"
    )
    problem = found.problem
    detail = counts if problem is None else f"{problem}: {counts}"
    return found, Check(name=name, passed=problem is None, detail=detail)


def _check_decoder() -> Check:
    problem = opencv_problem()
    detail = problem or f"OpenCV {cv2.__version__}"
    return Check(name="decoder", passed=problem is None, detail=detail)


def _check_preprocessing(bundle: Bundle, golden: GoldenVectors) -> Check:
    """Decode and preprocess the encoded picture; every pixel must be as recorded."""
    name = "preprocessing"
    try:
        _, prepared = load_for_model(golden.encoded, bundle.manifest.preprocess_spec())
    except EdgeScreenError as error:
        return Check(name=name, passed=False, detail=str(error))
    difference = np.abs(prepared.image_hwc.astype(int) - golden.encoded_image_hwc.astype(int))
    num_pixels = int(np.count_nonzero(difference.any(axis=-1)))
    if num_pixels == 0:
        return Check(name=name, passed=True, detail="one encoded picture, bit for bit")
    detail = f"{num_pixels} pixels differ, by up to {int(difference.max())} levels"
    return Check(name=name, passed=False, detail=detail)


def _check_precision(bundle: Bundle, precision: str) -> Check:
    """Run every golden picture and compare probabilities and decisions."""
    name = f"golden {precision}"
    try:
        return _check_golden(
            bundle, name, open_engine(bundle, engine="onnxruntime", precision=precision)
        )
    except EdgeScreenError as error:
        return Check(name=name, passed=False, detail=str(error))


def _check_portable(bundle: Bundle) -> Check:
    """Load model.int8.onnx, which no CPU screens with, and hold one picture against the CPU form.

    The file is for TensorRT. Both carry the same integers, so the CPU form's golden outputs are
    what it must give; one picture is enough to see a file that does not load or is another model.
    """
    name = "portable int8"
    try:
        return _check_golden(bundle, name, _open_portable(bundle), num_pictures=1)
    except EdgeScreenError as error:
        return Check(name=name, passed=False, detail=str(error))


def _check_golden(
    bundle: Bundle, name: str, engine: Engine, *, num_pictures: int | None = None
) -> Check:
    """Compare and close the engine."""
    try:
        found = compare_golden(bundle, engine, num_pictures=num_pictures)
    finally:
        engine.close()
    return Check(name=name, passed=found.passed, detail=found.detail)


def _open_portable(bundle: Bundle) -> Engine:
    from edge_runtime.engines.ort import OrtEngine

    return OrtEngine(
        bundle.model_bytes("int8"),
        precision="int8",
        size_px=bundle.manifest.preprocess_spec().size_px,
        num_labels=len(bundle.manifest.labels),
    )
