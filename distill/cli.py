"""The command `edge-screen distill`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click

__all__ = ["distill"]

_FOLDER = click.Path(file_okay=False, path_type=Path)
_NOTICE = "research use only; not a medical device"


@click.command()
@click.option("--teacher", "teacher_dir", type=_FOLDER, required=True, help="What finetune wrote.")
@click.option("--data", "data_dir", type=_FOLDER, required=True, help="Data set with train, val.")
@click.option("--out", type=_FOLDER, required=True, help="Student checkpoint folder to write.")
@click.option("--num-steps", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def distill(
    teacher_dir: Path,
    data_dir: Path,
    out: Path,
    num_steps: int,
    batch_size: int,
    seed: int,
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

    done = distill_checkpoint(
        teacher_dir,
        data_dir,
        out,
        DistillConfig(num_steps=num_steps, batch_size=batch_size, seed=seed),
        progress=_show_progress(),
    )
    if as_json:
        click.echo(json.dumps({"out": str(out), "metrics": done.metrics, "notice": _NOTICE}))
        return
    click.echo(f"student checkpoint in {out}")
    for name, value in (*done.training.items(), *done.val.items()):
        click.echo(f"  {name:<24}{value:.4f}")
    click.echo(_NOTICE)


def _show_progress() -> Callable[[int, int, str], None]:
    """Rewrite one line on a terminal; elsewhere a line now and then."""
    on_terminal = sys.stderr.isatty()

    def show(done: int, total: int, text: str) -> None:
        if on_terminal:
            end = "\n" if done == total else ""
            click.echo(f"\r\033[Kstep {done}/{total}  {text}{end}", err=True, nl=False)
        elif done == total or done % 200 == 0:
            click.echo(f"step {done}/{total}  {text}", err=True)

    return show
