"""Image in, decision out: the one class that a camera vendor embeds.

    with Screener.open(bundle_dir) as screener:
        result = screener.screen(Examination.both(od=od_bytes, os=os_bytes))

`screen` may be called from several threads at once: nothing is written after `open`. Whatever
goes wrong with an eye after `open` (missing, damaged, no field of view, engine failure, lateness,
an error nobody foresaw) makes that eye 'ungradable' with its reason, and leaves the other alone.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.decision import patient_disposition
from edge_runtime.engines import Engine, open_engine
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.errors import BundleFormatError, ConfigError, GateRefusedError
from edge_runtime.examination import Examination
from edge_runtime.eye_pipeline import EyePipeline
from edge_runtime.gate_record import PASSED
from edge_runtime.golden_check import require_golden
from edge_runtime.laterality import SAME_SIDE, look_alike
from edge_runtime.manifest import SYNTHETIC_WARNING
from edge_runtime.opencv_floor import require_opencv
from edge_runtime.result import (
    BundleIdentity,
    Decision,
    EngineIdentity,
    EyeResult,
    ScreeningResult,
)

__all__ = ["FP16_WARNING", "FP32_WARNING", "SAME_IMAGE", "UNPROVEN_WARNING", "Screener"]

_log = logging.getLogger(__name__)

SAME_IMAGE = "same image given for two eyes"
FP32_WARNING = (
    "answered by the FP32 model; the operating points were set on the INT8 model's scores"
)
UNPROVEN_WARNING = "answered by an INT8 model whose gate ended as '{status}'; taken on demand"
FP16_WARNING = (
    "answered by the FP16 model; the operating points were set on the INT8 model's scores"
)
_OTHER_SCORES = {"fp32": FP32_WARNING, "fp16": FP16_WARNING}


class Screener:
    """A verified bundle on an open engine. Use as a context manager, or call `close`."""

    def __init__(
        self, bundle: Bundle, engine: Engine, *, allow_unproven_int8: bool = False
    ) -> None:
        """Join a verified bundle and an engine opened on it; `Screener.open` does both.

        Args:
            bundle: As `read_bundle` gave it.
            engine: Opened on the bundle.
            allow_unproven_int8: Answer with an INT8 model whose gate did not pass; every result
                says so.

        Raises:
            GateRefusedError: If the engine is INT8 and the gate did not pass.
            BundleFormatError: If the bundle is not calibrated, or asks for more than one field
                an eye, which this version cannot decide.
        """
        manifest = bundle.manifest
        if not manifest.calibrated:
            raise BundleFormatError(
                f"bundle {manifest.name!r} has no operating points or no INT8 record; "
                "run `edge-screen calibrate` on it"
            )
        if manifest.protocol.fields_per_eye != 1:
            raise BundleFormatError(
                f"bundle {manifest.name!r} wants {manifest.protocol.fields_per_eye} fields an "
                "eye; this version decides one field an eye"
            )
        if not allow_unproven_int8:
            _require_proven(bundle, engine.precision)
        self._bundle = bundle
        self._engine = engine
        self._warnings = _standing_warnings(bundle, engine)
        self._pipeline = EyePipeline(
            manifest=manifest,
            engine=engine,
            spec=manifest.preprocess_spec(),
            limits=manifest.quality(),
        )

    @classmethod
    def open(
        cls,
        bundle_dir: Path | str,
        *,
        trusted_keys: Path | str | None = None,
        engine: str = "auto",
        precision: str = "int8",
        num_threads: int = 1,
        allow_unproven_int8: bool = False,
        cache_dir: Path | str | None = None,
        tensorrt: TrtOptions | None = None,
    ) -> Screener:
        """Verify the bundle (signature, hashes, content) and open the engine on its bytes.

        Args:
            bundle_dir: Folder of the bundle.
            trusted_keys: Public key file, or folder of `*.pub`; None looks where
                `edge_runtime.signing.find_trusted_keys` says, never inside the bundle.
            engine: "auto", "onnxruntime" or "tensorrt"; see `edge_runtime.engines.open_engine`.
            precision: "int8", "fp32", or "fp16" (TensorRT only).
            num_threads: Threads inside one run of ONNX Runtime.
            cache_dir: Where `edge-screen engine build` put its engines; None: its default.
            tensorrt: How to run a TensorRT engine; None: the defaults.
            allow_unproven_int8: Answer with an INT8 model whose gate did not pass; every result
                says so.

        Raises:
            GateRefusedError: If INT8 is asked for and the gate did not pass.
            BundleError: If the bundle cannot be trusted or used.
            ConfigError: If an argument is out of range.
            EngineError: If the engine cannot be opened, or OpenCV is too old to decode with.
            VerificationError: If a TensorRT engine does not give the bundle's recorded answers.
        """
        require_opencv()
        explicit = None if trusted_keys is None else Path(trusted_keys)
        bundle = read_bundle(Path(bundle_dir), trusted_keys=explicit)
        opened = open_engine(
            bundle,
            engine=engine,
            precision=precision,
            num_threads=num_threads,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            tensorrt=tensorrt,
        )
        try:
            screener = cls(bundle, opened, allow_unproven_int8=allow_unproven_int8)
            if opened.name == "tensorrt":  # compiled on this device, by nobody checked before
                require_golden(bundle, opened)
            return screener
        except BaseException:
            opened.close()
            raise

    @property
    def bundle(self) -> Bundle:
        """The verified bundle."""
        return self._bundle

    @property
    def engine(self) -> Engine:
        """The open engine; its `facts` say what it runs on."""
        return self._engine

    def screen(
        self,
        examination: Examination | bytes | Path,
        *,
        evidence: bool = False,
        deadline_ms: float | None = None,
    ) -> ScreeningResult:
        """Decide one examination.

        Args:
            examination: The eyes, or one picture (bytes or path) of an unspecified eye.
            evidence: Whether to keep class-evidence maps (attention, not lesions).
            deadline_ms: Time allowed for the whole examination. It is looked at between stages;
                an eye that is not finished by then is ungradable.

        Returns:
            A result for every input; image and engine failures are 'ungradable' eyes in it.

        Raises:
            ConfigError: If `deadline_ms` is not positive.
        """
        if not isinstance(examination, Examination):
            examination = Examination.single(examination)
        if deadline_ms is not None and not deadline_ms > 0.0:
            raise ConfigError(f"deadline_ms is {deadline_ms}; give a positive number or None")
        deadline_at = None if deadline_ms is None else time.perf_counter() + deadline_ms / 1e3
        eyes: list[EyeResult] = []
        warnings = list(self._warnings)
        for eye in examination.eyes:
            result, eye_warnings = self._pipeline.screen(
                eye, evidence=evidence, deadline_at=deadline_at
            )
            eyes.append(result)
            warnings.extend(f"{eye.eye}: {warning}" for warning in eye_warnings)
        hashes = [eye.image_sha256 for eye in eyes if eye.image_sha256 is not None]
        if len(set(hashes)) < len(hashes):
            warnings.append(SAME_IMAGE)
        elif look_alike({eye.eye: eye.quality.measures.get("disc_side") for eye in eyes}):
            warnings.append(SAME_SIDE)
        return self._result(examination, _refuse_shared_images(eyes), warnings)

    def warmup(self, n: int = 3) -> None:
        """Run the engine `n` times on a grey picture, so that the first patient does not wait.

        Raises:
            EngineError: If the engine fails: better now than with a patient.
        """
        size_px = self._pipeline.spec.size_px
        grey = np.full((1, size_px, size_px, 3), 128, np.uint8)
        for _ in range(n):
            self._engine.run(grey)

    def close(self) -> None:
        """Release the engine; a later `screen` returns ungradable eyes."""
        self._engine.close()

    def __enter__(self) -> Screener:
        """Return the screener itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the engine."""
        self.close()

    def _result(
        self, examination: Examination, eyes: list[EyeResult], warnings: list[str]
    ) -> ScreeningResult:
        bundle = self._bundle
        return ScreeningResult(
            examination_id=examination.examination_id,
            disposition=patient_disposition(eye.disposition for eye in eyes),
            eyes=tuple(eyes),
            bundle=BundleIdentity(
                name=bundle.manifest.name,
                version=bundle.manifest.version,
                sha256=bundle.sha256,
                key_id=bundle.key_id,
            ),
            engine=EngineIdentity(
                name=self._engine.name,
                precision=self._engine.precision,
                int8_gate=_gate_status(bundle),
                details=self._engine.facts.details,
            ),
            warnings=tuple(warnings),
        )


def _standing_warnings(bundle: Bundle, engine: Engine) -> tuple[str, ...]:
    """Return what every answer of this bundle on this engine must say about itself."""
    warnings = []
    if bundle.manifest.is_synthetic:
        warnings.append(SYNTHETIC_WARNING)
    if engine.precision in _OTHER_SCORES:
        warnings.append(_OTHER_SCORES[engine.precision])
    if engine.precision.startswith("int8") and _gate_status(bundle) != PASSED:
        warnings.append(UNPROVEN_WARNING.format(status=_gate_status(bundle)))
    return (*warnings, *engine.facts.warnings)


def _gate_status(bundle: Bundle) -> str:
    """How the gate of a calibrated bundle ended."""
    assert bundle.manifest.int8 is not None
    return bundle.manifest.int8.gate.status


def _require_proven(bundle: Bundle, precision: str) -> None:
    if not precision.startswith("int8") or _gate_status(bundle) == PASSED:
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


def _refuse_shared_images(eyes: list[EyeResult]) -> list[EyeResult]:
    """Take back a 'no refer' that rests on the picture of another eye.

    The same file under two eyes means that one eye was never photographed; which one, nobody
    knows. A 'refer' stands, because it is the safe answer for either.
    """
    counts = Counter(eye.image_sha256 for eye in eyes)
    return [
        _as_shared(eye)
        if eye.disposition is Decision.NO_REFER and counts[eye.image_sha256] > 1
        else eye
        for eye in eyes
    ]


def _as_shared(eye: EyeResult) -> EyeResult:
    _log.info("eye %s: %s", eye.eye, SAME_IMAGE)
    quality = replace(eye.quality, gradable=False, reasons=(SAME_IMAGE,))
    return replace(eye, disposition=Decision.UNGRADABLE, quality=quality)
