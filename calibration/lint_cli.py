"""The command `edge-screen lint-onnx`: rules of the INT8 graph, and where a file builds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from calibration.lint import Finding
    from calibration.tensorrt_versions import BuildVerdict

__all__ = ["lint_onnx"]

_KIND_WORDS = {
    "float": "float, as model.fp32.onnx",
    "portable": "symmetric INT8, as model.int8.onnx",
    "half": "INT8 with float16, as model.int8fp16.onnx",
    "cpu": "uint8 form for ONNX Runtime, as model.int8-cpu.onnx",
}


@click.command("lint-onnx")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def lint_onnx(model: Path, as_json: bool) -> None:
    """Check MODEL.onnx against the Q/DQ rules, and say which TensorRT builds it and why.

    What the file is, its pairs say. Ends with exit code 4 if a rule is broken. It judges the
    graph; it does not build an engine.

    \b
    Example:
      edge-screen lint-onnx runs/bundle/model.int8.onnx
    """  # noqa: D301 (click needs the backspace itself)
    from calibration.lint import advice, kind_of
    from calibration.tensorrt_versions import judge_builds
    from edge_runtime.errors import BundleFormatError

    data = _read(model)
    kind = kind_of(data)
    findings, notes, verdicts = _findings(kind, data), advice(data), judge_builds(data)
    if as_json:
        content = {
            "model": str(model),
            "kind": kind,
            "findings": [asdict(finding) for finding in findings],
            "advice": [asdict(note) for note in notes],
            "tensorrt": [asdict(verdict) for verdict in verdicts],
        }
        click.echo(json.dumps(content, indent=2))
    else:
        click.echo("\n".join(_lines(model, kind, findings, notes, verdicts)))
    if findings:
        raise BundleFormatError(f"{model} breaks {len(findings)} rules; they are listed above")


def _read(model: Path) -> bytes:
    from edge_runtime.errors import BundleFormatError

    try:
        return model.read_bytes()
    except OSError as error:
        raise BundleFormatError(f"{model} cannot be read: {error}; check the path") from error


def _findings(kind: str, data: bytes) -> list[Finding]:
    from calibration.lint import lint_cpu, lint_float, lint_half, lint_portable

    judges = {
        "float": lint_float,
        "portable": lint_portable,
        "half": lint_half,
        "cpu": lint_cpu,
    }
    return judges[kind](data)


def _lines(
    model: Path,
    kind: str,
    findings: list[Finding],
    notes: list[Finding],
    verdicts: tuple[BuildVerdict, ...],
) -> list[str]:
    lines = [f"{model}: {_KIND_WORDS[kind]}"]
    lines += [f"{one.rule:6} {one.node}: {one.message}" for one in findings] or [
        "no rule is broken"
    ]
    lines += [f"advice {one.rule}: {one.message}" for one in notes]
    for verdict in verdicts:
        builds = verdict.typing if verdict.builds else f"no: {'; '.join(verdict.reasons)}"
        lines.append(f"TensorRT {verdict.version:6} {builds}")
    return lines
