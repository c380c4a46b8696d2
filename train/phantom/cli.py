"""The command `edge-screen phantom`: write a data set of synthetic eyes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.errors import ConfigError

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from train.phantom.writer import DatasetSummary

__all__ = ["phantom"]

_EPILOG = "Example: edge-screen phantom --out data/phantom --num-patients 500 --seed 0 --camera 8"


@click.command(epilog=_EPILOG)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="New or empty folder to write to."
)
@click.option("--num-patients", required=True, type=int, help="Patients; each has two eyes.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--image-px", default=128, show_default=True, help="Side of photographs, width of scans."
)
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option(
    "--camera", default=0, show_default=True, help="Also write N full-size JPEGs of test eyes."
)
@click.option(
    "--camera-width-px", default=3000, show_default=True, help="Width of the camera JPEGs."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def phantom(
    out: Path,
    num_patients: int,
    seed: int,
    image_px: int,
    workers: int,
    camera: int,
    camera_width_px: int,
    as_json: bool,
) -> None:
    """Write synthetic eyes: paired photographs and OCT scans with masks and truth.

    The pictures are drawn, not taken: they train and test the software and say nothing
    about real eyes.
    """
    from train.phantom.camera import require_width_px
    from train.phantom.camera_set import write_camera_set
    from train.phantom.writer import generate_dataset

    if camera < 0:
        raise ConfigError(f"--camera is {camera}; give 0 or more")
    require_width_px(camera_width_px)
    with _bar(max(1, num_patients), "patients") as bar:
        summary = generate_dataset(
            out,
            num_patients=num_patients,
            seed=seed,
            image_px=image_px,
            num_workers=workers,
            progress=lambda _done, _total: bar.update(1),
        )
    written = 0
    if camera:
        with _bar(camera, "camera pictures") as bar:
            written = write_camera_set(
                out,
                seed=seed,
                num_patients=num_patients,
                num_pictures=camera,
                width_px=camera_width_px,
                progress=lambda _done, _total: bar.update(1),
            )
    _report(out, summary, written, as_json)


def _bar(length: int, label: str) -> ProgressBar[int]:
    """A progress bar on stderr, which leaves stdout to the summary."""
    return click.progressbar(length=length, label=label, file=sys.stderr)


def _report(out: Path, summary: DatasetSummary, num_camera: int, as_json: bool) -> None:
    values = {
        "out": str(out),
        "synthetic": True,
        "num_patients": summary.num_patients,
        "num_eyes": summary.num_eyes,
        "num_camera_pictures": num_camera,
        "seconds": round(summary.seconds, 3),
        "triples_per_second": round(summary.triples_per_second, 1),
        "counts": summary.counts,
    }
    if as_json:
        click.echo(json.dumps(values, sort_keys=True))
        return
    click.echo(
        f"{summary.num_eyes} synthetic eyes of {summary.num_patients} patients in {out}: "
        f"{summary.seconds:.1f} s, {summary.triples_per_second:.1f} triples/s; "
        f"{num_camera} camera pictures"
    )
    for split, counts in summary.counts.items():
        click.echo(f"  {split:5}  " + "  ".join(f"{k} {v}" for k, v in counts.items()))
