"""The command `edge-screen distill`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_runtime.result import NOTICE
from train.console import device_option, show_progress

__all__ = ["distill"]

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--teacher", "teacher_dir", type=_FOLDER, required=True, help="What finetune wrote.")
@click.option("--data", "data_dir", type=_FOLDER, required=True, help="Data set with train, val.")
@click.option("--out", type=_FOLDER, required=True, help="Student checkpoint folder to write.")
@click.option("--num-steps", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def distill(
    teacher_dir: Path,
    data_dir: Path,
    out: Path,
    num_steps: int,
    batch_size: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Teach a compact student to answer as the teacher does, on all training photographs.

    Labels are used where there are any. How close the student came is measured on val.

    \b
    Example:
      edge-screen distill --teacher runs/teacher --data runs/eyes --out runs/student
    """  # noqa: D301 (click needs the backspace itself)
    from distill.stage import distill_checkpoint
    from distill.teaching import DistillConfig
    from train.device import pick_device

    done = distill_checkpoint(
        teacher_dir,
        data_dir,
        out,
        DistillConfig(num_steps=num_steps, batch_size=batch_size, seed=seed),
        progress=show_progress(),
        device=pick_device(device),
    )
    if as_json:
        click.echo(json.dumps({"out": str(out), "metrics": done.metrics, "notice": NOTICE}))
        return
    click.echo(f"student checkpoint in {out}")
    for name, value in (*done.training.items(), *done.val.items()):
        click.echo(f"  {name:<24}{value:.4f}")
    click.echo(NOTICE)
