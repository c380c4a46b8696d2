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

from edge_runtime.bundle import read_bundle
from edge_runtime.checks.agreement import EngineRequest
from edge_runtime.checks.doctor import diagnose
from edge_runtime.checks.verify import verify_bundle
from edge_runtime.commands.checks_text import (
    bundle_text,
    doctor_text,
    verification_text,
)
from edge_runtime.errors import EngineError
from edge_runtime.result import NOTICE
from edge_runtime.signed_report import write_signed_report

__all__ = [
    "VerifyRequest",
    "run_doctor",
    "run_inspect",
    "run_verify",
]

REPORT_SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What the operator asked `edge-screen verify` for."""

    bundle_dir: Path
    trusted_keys: Path | None
    engine: EngineRequest | None
    report_path: Path | None
    signing_key: Path | None


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


def _echo_json(value: dict[str, Any]) -> None:
    """Print one line of strict JSON; a pipe sees it at once."""
    click.echo(json.dumps(value, allow_nan=False, separators=(",", ":")))
