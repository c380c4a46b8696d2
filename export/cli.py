"""The command `edge-screen export`."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["export"]

_FOLDER = click.Path(file_okay=False, path_type=Path)
_NOTICE = "research use only; not a medical device"


@click.command()
@click.option("--student", "student_dir", type=_FOLDER, required=True, help="What distill wrote.")
@click.option("--data", "data_dir", type=_FOLDER, required=True, help="Golden pictures from val.")
@click.option("--out", type=_FOLDER, required=True, help="Bundle folder, new or empty.")
@click.option("--name", required=True, help="Name of the model.")
@click.option("--version", "model_version", required=True, help="Version of the model.")
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    help="Camera family it may be used with; repeat. May be left out for phantom data only.",
)
@click.option(
    "--field-degrees",
    type=click.FloatRange(0, 200, min_open=True),
    default=45.0,
    show_default=True,
    help="Field of view of the photographs.",
)
@click.option(
    "--fields-per-eye",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="Photographs of an eye that its decision needs. Operating points stay those of one.",
)
@click.option(
    "--min-pixels-per-degree",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Fewer are ungradable. With neither limit: 28 and 35; for phantom data 1 and none.",
)
@click.option(
    "--warn-pixels-per-degree",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Fewer are answered with a warning.",
)
@click.option("--num-golden", type=click.IntRange(2, 256), default=8, show_default=True)
@click.option(
    "--max-size-mib",
    type=click.FloatRange(0, min_open=True),
    default=100.0,
    show_default=True,
    help="Refuse a larger model.fp32.onnx.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(
    student_dir: Path,
    data_dir: Path,
    out: Path,
    name: str,
    model_version: str,
    cameras: tuple[str, ...],
    field_degrees: float,
    fields_per_eye: int,
    min_pixels_per_degree: float | None,
    warn_pixels_per_degree: float | None,
    num_golden: int,
    max_size_mib: float,
    as_json: bool,
) -> None:
    """Write a student as a bundle: ONNX, golden vectors, model card; unsigned, uncalibrated.

    The file is compared with the student before anything is written (exit code 9 if it
    differs). Next: `edge-screen calibrate`.

    \b
    Example:
      edge-screen export --student runs/student --data runs/eyes --out runs/bundle \\
        --name fundus --version 0.1.0
    """  # noqa: D301 (click needs the backspace itself)
    from export.assemble import ExportConfig, assemble_bundle

    config = ExportConfig(
        name=name,
        version=model_version,
        cameras=cameras,
        field_degrees=field_degrees,
        fields_per_eye=fields_per_eye,
        min_pixels_per_degree=min_pixels_per_degree,
        warn_pixels_per_degree=warn_pixels_per_degree,
        num_golden=num_golden,
        max_size_mib=max_size_mib,
    )
    done = assemble_bundle(student_dir, data_dir, out, config)
    if as_json:
        content = {
            "out": str(out),
            "labels": list(done.manifest.label_names),
            "num_golden": done.manifest.golden.num_images,
            "parity": done.parity.to_dict(),
            "files": dict(done.manifest.files),
            "notice": _NOTICE,
        }
        click.echo(json.dumps(content, indent=2))
        return
    click.echo(f"bundle in {out}: unsigned, not calibrated; next: edge-screen calibrate {out}")
    for output in done.parity.outputs:
        click.echo(f"  {output.name:<20} within {output.relative:.1e} of its range of the student")
    click.echo(_NOTICE)
