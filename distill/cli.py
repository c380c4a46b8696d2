"""The command `edge-screen distill`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.result import NOTICE
from train.console import FOLDER, device_option, json_option, save_every_option, show_progress

if TYPE_CHECKING:
    from distill.stage import SaveConfig

__all__ = ["distill"]

# What has no meaning for a student that is taught already.
_NOT_WITH_QAT = (
    "backbone",
    "size_px",
    "backbone_weights",
    "label_free_steps",
    "mixup",
    "allow_quant_lint",
)


@click.command()
@click.option("--teacher", "teacher_dir", type=FOLDER, required=True, help="What finetune wrote.")
@click.option("--data", "data_dir", type=FOLDER, required=True, help="Data set with train, val.")
@click.option("--out", type=FOLDER, required=True, help="Student checkpoint folder to write.")
@click.option(
    "--backbone",
    default="compact",
    show_default=True,
    help="Name in the catalogue, or of a timm network; see quant-lint.",
)
@click.option("--size-px", type=click.IntRange(32), help="Student's pictures; default: teacher's.")
@click.option(
    "--backbone-weights",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Safetensors file of the same network to begin with; nothing is ever downloaded.",
)
@click.option(
    "--label-free-steps",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Steps of the stage that reads no label; 0 = leave it out.",
)
@click.option(
    "--num-steps",
    type=click.IntRange(1),
    help="Steps of the task stage [1000], or with --qat of that [500].",
)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
@click.option("--mixup", is_flag=True, help="Blend pictures in the task stage, too.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--allow-quant-lint", is_flag=True, help="Teach a backbone that quant-lint refuses.")
@click.option(
    "--qat",
    "student_dir",
    type=FOLDER,
    help="Instead: train this student with INT8 rounding in between.",
)
@save_every_option
@click.option("--resume", is_flag=True, help="Go on from the newest states in OUT/states.")
@device_option
@json_option
def distill(out: Path, student_dir: Path | None, as_json: bool, **options: Any) -> None:
    """Teach a compact student to answer as the teacher does, on all training photographs.

    Labels are used where there are any. How close the student came is measured on val. With
    --qat a student that the INT8 gate refused is trained further with INT8 rounding.

    \b
    Example:
      edge-screen distill --teacher runs/teacher --data runs/eyes --out runs/student
      edge-screen distill --qat runs/student --teacher runs/teacher --data runs/eyes \\
        --out runs/student-qat
    """  # noqa: D301 (click needs the backspace itself)
    if student_dir is None:
        metrics, numbers = _taught(out, options)
    else:
        _refuse_with_qat(click.get_current_context())
        metrics, numbers = _trained_rounded(out, student_dir, options)
    if as_json:
        click.echo(json.dumps({"out": str(out), "metrics": metrics, "notice": NOTICE}))
        return
    click.echo(f"student checkpoint in {out}")
    for name, value in numbers.items():
        click.echo(f"  {name:<34}{value:.4f}")
    click.echo(NOTICE)


def _taught(out: Path, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    from distill.catalogue import student_config
    from distill.label_free import LabelFreeConfig
    from distill.stage import distill_checkpoint
    from distill.teaching import DistillConfig
    from train.device import pick_device

    common = {"batch_size": options["batch_size"], "seed": options["seed"]}
    steps = {} if options["num_steps"] is None else {"num_steps": options["num_steps"]}
    before = None
    if options["label_free_steps"]:
        before = LabelFreeConfig(num_steps=options["label_free_steps"], **common)
    shape = student_config(options["backbone"], size_px=options["size_px"] or 96)
    done = distill_checkpoint(
        options["teacher_dir"],
        options["data_dir"],
        out,
        DistillConfig(
            student=shape,
            mixup=options["mixup"],
            allow_quant_lint=options["allow_quant_lint"],
            **steps,
            **common,
        ),
        label_free=before,
        size_px=options["size_px"],
        backbone_weights=options["backbone_weights"],
        save=_save_config(out, options),
        progress=show_progress(),
        device=pick_device(options["device"]),
    )
    return done.metrics, {**done.training, **done.val}


def _trained_rounded(
    out: Path, student_dir: Path, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, float]]:
    from distill.qat.stage import qat_checkpoint
    from distill.qat.training import QatConfig
    from train.device import pick_device

    common = {"batch_size": options["batch_size"], "seed": options["seed"]}
    steps = {} if options["num_steps"] is None else {"num_steps": options["num_steps"]}
    done = qat_checkpoint(
        student_dir,
        options["teacher_dir"],
        options["data_dir"],
        out,
        QatConfig(**steps, **common),
        save=_save_config(out, options),
        progress=show_progress(),
        device=pick_device(options["device"]),
    )
    flat = {f"{kind}_{k}": v for kind, values in done.val.items() for k, v in values.items()}
    return {"training": done.training, "val": done.val}, {**done.training, **flat}


def _refuse_with_qat(ctx: click.Context) -> None:
    from click.core import ParameterSource

    given = [
        name
        for name in _NOT_WITH_QAT
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{names} cannot be used with --qat: the student is built already")


def _save_config(out: Path, options: dict[str, Any]) -> SaveConfig | None:
    """States in OUT/states, or none."""
    from distill.stage import SaveConfig
    from edge_runtime.errors import ConfigError

    if not options["save_every"]:
        if options["resume"]:
            raise ConfigError("--resume needs --save-every, so that the run can be resumed again")
        return None
    return SaveConfig(
        folder=out / "states", save_every=options["save_every"], resume=options["resume"]
    )
