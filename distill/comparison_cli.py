"""The command `edge-screen compare-student`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.result import NOTICE

if TYPE_CHECKING:
    from distill.comparison import StudentComparison
    from edge_runtime.metrics import Interval

__all__ = ["compare_student"]

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("compare-student")
@click.option("--teacher", "teacher_dir", type=_FOLDER, required=True, help="What finetune wrote.")
@click.option("--student", "student_dir", type=_FOLDER, required=True, help="What distill wrote.")
@click.option("--data", "data_dir", type=_FOLDER, required=True, help="Data set folder.")
@click.option(
    "--split", type=click.Choice(["val", "test"]), default="test", show_default=True, help="Split."
)
@click.option("--num-draws", type=click.IntRange(100), default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare_student(
    teacher_dir: Path,
    student_dir: Path,
    data_dir: Path,
    split: str,
    num_draws: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare a student's mean AUROC with its teacher's, paired, with intervals over patients.

    Each network sees the photographs at its own size, as the runtime prepares them.

    \b
    Example:
      edge-screen compare-student --teacher runs/teacher --student runs/student --data runs/eyes
    """  # noqa: D301 (click needs the backspace itself)
    from distill.comparison import compare_checkpoints

    found, origin = compare_checkpoints(
        teacher_dir, student_dir, data_dir, split=split, num_draws=num_draws, seed=seed
    )
    if as_json:
        data = {"synthetic": origin.synthetic, "fingerprint": origin.fingerprint, "split": split}
        click.echo(json.dumps({**found.to_dict(), "data": data, "notice": NOTICE}))
        return
    _show(found)
    click.echo(f"data: {split}, {origin.sentence}")
    click.echo(NOTICE)


def _show(found: StudentComparison) -> None:
    click.echo(f"{found.num_eyes} gradable eyes of {found.num_patients} patients")
    for name, (teacher, student) in found.by_label.items():
        click.echo(f"  {name:<24}teacher {teacher:.4f}   student {student:.4f}")
    _row("teacher, mean AUROC", found.teacher)
    _row("student, mean AUROC", found.student)
    _row("student minus teacher", found.difference)
    _row("student / teacher", found.ratio)
    click.echo(f"student: {found.num_parameters / 1e6:.2f} million weights")


def _row(name: str, one: Interval) -> None:
    level = f"{100 * one.level:.0f} %"
    click.echo(f"{name:<24}{one.value:.4f}   {level} {one.low:.4f} to {one.high:.4f}")
