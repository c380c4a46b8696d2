"""The commands `pretrain`, `finetune` and `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["evaluate", "finetune", "pretrain"]

_Folder = click.Path(file_okay=False, path_type=Path)


def _show_progress() -> Callable[[int, int, str], None]:
    """A progress callback that rewrites one line on a terminal and is sparse elsewhere."""

    def show(done: int, total: int, text: str) -> None:
        if done == total or done % 100 == 0:
            click.echo(f"  step {done}/{total}  {text}", err=True)

    return show


def _report(record: dict[str, Any], as_json: bool, sentence: str) -> None:
    click.echo(json.dumps(record, allow_nan=False) if as_json else sentence)


@click.command()
@click.option("--data", type=_Folder, required=True, help="Data set folder with index.csv.")
@click.option("--out", type=_Folder, required=True, help="Checkpoint folder to write.")
@click.option("--routes", default="oct_informed", show_default=True, help="Route table.")
@click.option("--num-steps", default=1000, show_default=True, help="Optimiser steps.")
@click.option("--size-px", default=96, show_default=True, help="Side of the network input.")
@click.option(
    "--oct-target", default="flattened", show_default=True, type=click.Choice(["flattened", "raw"])
)
@click.option("--seed", default=0, show_default=True, help="Draws weights, batches and masks.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def pretrain(
    data: Path,
    out: Path,
    routes: str,
    num_steps: int,
    size_px: int,
    oct_target: str,
    seed: int,
    as_json: bool,
) -> None:
    """Learn a CFP encoder by cross-modal masked reconstruction.

    \b
    Example:
        edge-screen pretrain --data runs/eyes --out runs/encoder --num-steps 1500
    """  # noqa: D301
    from train.dataset_arrays import load_split
    from train.encoder import EncoderConfig
    from train.oct_targets import OctTargetConfig
    from train.pretrain import PretrainConfig, save_pretrained
    from train.pretrain import pretrain as run

    config = PretrainConfig(
        routes=routes,
        num_steps=num_steps,
        seed=seed,
        encoder=EncoderConfig(size_px=size_px),
        oct_target=OctTargetConfig(kind=oct_target),
    )
    arrays = load_split(data, "train", size_px=size_px, with_oct=True)
    done = run(arrays, config, progress=_show_progress())
    save_pretrained(out, done)
    _report({"out": str(out), "metrics": done.metrics}, as_json, f"encoder checkpoint in {out}")


@click.command()
@click.option("--encoder", type=_Folder, required=True, help="Checkpoint that pretrain wrote.")
@click.option("--data", type=_Folder, required=True, help="Data set folder with index.csv.")
@click.option("--out", type=_Folder, required=True, help="Checkpoint folder to write.")
@click.option("--num-labeled", default=0, show_default=True, help="Labelled eyes; 0 = all.")
@click.option("--num-steps", default=600, show_default=True, help="Steps after the heads'.")
@click.option("--seed", default=0, show_default=True, help="Draws eyes and batches.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def finetune(
    encoder: Path, data: Path, out: Path, num_labeled: int, num_steps: int, seed: int, as_json: bool
) -> None:
    """Add disease and gradability heads to an encoder and train them: the teacher.

    \b
    Example:
        edge-screen finetune --encoder runs/encoder --data runs/eyes --out runs/teacher
    """  # noqa: D301
    from train.dataset_arrays import load_split
    from train.finetune import FinetuneConfig, save_finetuned
    from train.finetune import finetune as run
    from train.pretrain import load_encoder

    model, _ = load_encoder(encoder)
    arrays = load_split(data, "train", size_px=model.config.size_px, with_oct=False)
    config = FinetuneConfig(num_labeled=num_labeled, num_steps=num_steps, seed=seed)
    teacher = run(model, arrays, config, progress=_show_progress())
    save_finetuned(out, teacher, config, data_fingerprint=arrays.fingerprint)
    _report({"out": str(out)}, as_json, f"teacher checkpoint in {out}")


@click.command()
@click.argument("teacher", type=_Folder)
@click.option("--data", type=_Folder, required=True, help="Data set folder with index.csv.")
@click.option(
    "--split",
    default="val",
    show_default=True,
    type=click.Choice(["val", "test"]),
    help="Choose on val; report on test, once.",
)
@click.option("--num-draws", default=2000, show_default=True, help="Bootstrap draws of patients.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap draws.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    teacher: Path, data: Path, split: str, num_draws: int, seed: int, as_json: bool
) -> None:
    """AUROC of a teacher per disease, with 95 % intervals that resample patients.

    \b
    Example:
        edge-screen evaluate runs/teacher --data runs/eyes --split test
    """  # noqa: D301
    from train.dataset_arrays import load_split
    from train.evaluate import evaluate_logits, teacher_logits
    from train.teacher import load_teacher

    model, _ = load_teacher(teacher)
    arrays = load_split(data, split, size_px=model.encoder.config.size_px, with_oct=False)
    logits = teacher_logits(model, arrays.images_nhwc)
    report = evaluate_logits(logits, arrays, model.label_names, num_draws=num_draws, seed=seed)
    if as_json:
        click.echo(json.dumps({"split": split, **report.to_dict()}, allow_nan=False))
        return
    for label in (*report.labels, report.gradability):
        counts = f"{label.num_positive} positive, {label.num_negative} negative eyes"
        if label.auroc is None:
            click.echo(f"{label.name:18s} not scored: {counts}")
            continue
        low, high = label.auroc.low, label.auroc.high
        click.echo(
            f"{label.name:18s} AUROC {label.auroc.value:.3f} [{low:.3f}, {high:.3f}]  {counts}"
        )
    if report.mean_auroc is not None:
        click.echo(f"{'mean of diseases':18s} AUROC {report.mean_auroc.value:.3f}")
