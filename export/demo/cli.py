"""The command `demo`: the whole chain at one of three scales."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from train.console import device_option

__all__ = ["demo"]


@click.command()
@click.option(
    "--scale",
    type=click.Choice(["smoke", "small", "full"]),
    default="smoke",
    show_default=True,
    help="smoke: minutes. small: under an hour. full: designed for a GPU.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/demo"),
    show_default=True, help="Folder; an earlier demo in it is replaced.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True,
    help="Draws eyes, weights and batches.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="Processes that draw eyes; 0 = one a core."
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print the report's targets as JSON.")
def demo(scale: str, out: Path, seed: int, workers: int, device: str, as_json: bool) -> None:
    """Synthetic eyes to screened pictures: phantom, pretrain, finetune, distill, export,
    calibrate, evaluate, screen; with report.json and report.html.

    \b
    Example:
        edge-screen demo --scale smoke --out runs/demo
    """  # noqa: D205, D301
    from export.demo.chain import DemoRun, prepare_folder
    from export.demo.presets import preset
    from train.device import pick_device

    size = preset(scale)
    click.echo(f"demo, scale {scale}: {size.cost}", err=True)
    prepare_folder(out, size, seed)
    run = DemoRun(
        out,
        size,
        seed=seed,
        workers=workers or len(os.sched_getaffinity(0)),
        say=lambda text: click.echo(text, err=True),
        device=pick_device(device),
    )
    report = run.run()
    if as_json:
        click.echo(json.dumps([vars(target) for target in report.targets], allow_nan=False))
        return
    for target in report.targets:
        word = "met    " if target.met else "NOT MET"
        shown = "not measured" if target.value is None else f"{target.value:.4f}"
        click.echo(f"{word} {target.name}: {shown} ({target.relation} {target.limit})")
    click.echo(f"All figures are of synthetic eyes. Read {out / 'report.html'}")
    click.echo(report.notice)
