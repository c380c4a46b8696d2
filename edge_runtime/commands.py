"""What the device commands do; `edge_runtime.cli` only declares them.

Imports NumPy and OpenCV, so it is itself imported when a command runs and not for --help.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import cv2

from edge_runtime.agreement import EngineRequest
from edge_runtime.bundle import read_bundle
from edge_runtime.doctor import diagnose
from edge_runtime.errors import ConfigError, EngineError
from edge_runtime.examination import Examination
from edge_runtime.overlay import overlay_png
from edge_runtime.report_text import (
    bundle_text,
    doctor_text,
    engine_text,
    screening_text,
    verification_text,
)
from edge_runtime.result import NOTICE, ScreeningResult
from edge_runtime.screener import Screener
from edge_runtime.signed_report import write_signed_report
from edge_runtime.verify import verify_bundle

__all__ = [
    "ScreenRequest",
    "VerifyRequest",
    "run_doctor",
    "run_inspect",
    "run_screen",
    "run_verify",
]

UNGRADABLE_EXIT_CODE = 3
REPORT_SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ScreenRequest:
    """What the operator asked `edge-screen screen` for.

    `inputs` holds one entry an examination: (image,) of an unspecified eye, or (od, os).
    """

    bundle_dir: Path
    inputs: tuple[tuple[Path | None, ...], ...]
    examination_id: str | None
    evidence_dir: Path | None
    precision: str
    trusted_keys: Path | None
    allow_unproven_int8: bool
    engine: str
    cache_dir: Path | None


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What the operator asked `edge-screen verify` for."""

    bundle_dir: Path
    trusted_keys: Path | None
    engine: EngineRequest | None
    report_path: Path | None
    signing_key: Path | None


def run_screen(request: ScreenRequest, *, as_json: bool) -> int:
    """Screen in the order given; return 0, or 3 when an examination is ungradable."""
    cv2.setNumThreads(1)  # one image a thread; OpenCV's own pool only adds CPU time
    all_decided = True
    if request.evidence_dir is not None:
        _make_folder(request.evidence_dir)
    with Screener.open(
        request.bundle_dir,
        trusted_keys=request.trusted_keys,
        allow_unproven_int8=request.allow_unproven_int8,
        engine=request.engine,
        precision=request.precision,
        cache_dir=request.cache_dir,
    ) as screener:
        for index, paths in enumerate(request.inputs):
            examination = _examination(paths, request.examination_id)
            result = screener.screen(examination, evidence=request.evidence_dir is not None)
            if as_json:
                _echo_json({"input_index": index, **result.to_dict()})
            else:
                click.echo(screening_text(result, paths, index))
            if request.evidence_dir is not None:
                _write_overlays(request.evidence_dir, index, result)
            all_decided &= result.decided
        chosen = engine_text(screener.engine)
    if not as_json:
        click.echo(chosen)
        click.echo(NOTICE)
    return 0 if all_decided else UNGRADABLE_EXIT_CODE


def run_inspect(
    bundle_dir: Path, trusted_keys: Path | None, *, require_signature: bool, as_json: bool
) -> None:
    """Print what the bundle says about itself, once it is verified."""
    bundle = read_bundle(bundle_dir, trusted_keys=trusted_keys, require_signature=require_signature)
    if not as_json:
        click.echo(bundle_text(bundle))
        return
    _echo_json(
        {
            "sha256": bundle.sha256,
            "key_id": bundle.key_id,
            "trusted_from": bundle.trusted_from,
            "calibrated": bundle.manifest.calibrated,
            "synthetic": bundle.manifest.is_synthetic,
            "manifest": bundle.manifest.to_dict(),
            "notice": NOTICE,
        }
    )


def run_verify(request: VerifyRequest, *, as_json: bool) -> None:
    """Print the report, write it if asked; raise VerificationError (exit 10) on a failed check."""
    cv2.setNumThreads(1)
    report = verify_bundle(
        request.bundle_dir, trusted_keys=request.trusted_keys, request=request.engine
    )
    if as_json:
        _echo_json(report.to_dict())
    else:
        click.echo(verification_text(report))
    if request.report_path is not None and request.signing_key is not None:
        key_id = write_signed_report(
            request.report_path,
            {
                "schema_version": REPORT_SCHEMA_VERSION,
                "verified_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "machine": diagnose().to_dict(),
                **report.to_dict(),
            },
            request.signing_key,
        )
        click.echo(f"report written, signed by key {key_id}", err=True)
    report.raise_if_failed()


def run_doctor(*, as_json: bool) -> int:
    """Print the state of the machine; return 5 when nothing can be screened on it, else 0."""
    report = diagnose()
    if as_json:
        _echo_json(report.to_dict())
    else:
        click.echo(doctor_text(report))
    return 0 if report.can_screen else EngineError.exit_code


def _examination(paths: tuple[Path | None, ...], examination_id: str | None) -> Examination:
    if len(paths) == 1:
        return Examination.single(paths[0], examination_id=examination_id)
    od, os = paths
    return Examination.both(od=od, os=os, examination_id=examination_id)


def _write_overlays(folder: Path, index: int, result: ScreeningResult) -> None:
    """Write one PNG an eye that was run; names carry the position, never a file name."""
    for eye in result.eyes:
        if eye.evidence is None:
            continue
        path = folder / f"{index:04d}_{eye.eye}.png"
        try:
            path.write_bytes(overlay_png(eye))
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror})") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--evidence-dir {folder} cannot be made ({error.strerror}); name another folder"
        ) from error


def _echo_json(value: dict[str, Any]) -> None:
    """Print one line of strict JSON; a pipe sees it at once."""
    click.echo(json.dumps(value, allow_nan=False, separators=(",", ":")))
