"""The commands `pretrain` and `finetune`."""

from __future__ import annotations

from pathlib import Path

import click

from train.console import device_option, report_record, show_progress
from train.routes import ROUTE_TABLES

__all__ = ["finetune", "pretrain"]

_Folder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--data", type=_Folder, required=True, help="Data set folder with index.csv.")
@click.option("--out", type=_Folder, required=True, help="Checkpoint folder to write.")
@click.option(
    "--routes",
    type=click.Choice(sorted(ROUTE_TABLES)),
    default="oct_informed",
    show_default=True,
    help="Route table.",
)
@click.option(
    "--num-steps",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Optimiser steps.",
)
@click.option("--size-px", default=96, show_default=True, help="Side of the network input.")
@click.option(
    "--oct-target", default="flattened", show_default=True, type=click.Choice(["flattened", "raw"])
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Draws weights, batches and masks.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def pretrain(
    data: Path,
    out: Path,
    routes: str,
    num_steps: int,
    size_px: int,
    oct_target: str,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Learn a CFP encoder by cross-modal masked reconstruction.

    \b
    Example:
        edge-screen pretrain --data runs/eyes --out runs/encoder --num-steps 1500
    """  # noqa: D301
    from train.data.origin import read_origin
    from train.dataset_arrays import load_split
    from train.device import pick_device
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
    chosen = pick_device(device)
    arrays = load_split(data, "train", size_px=size_px, with_oct=True)
    origin = read_origin(data, fingerprint=arrays.fingerprint)
    done = run(arrays, config, progress=show_progress(), device=chosen)
    save_pretrained(out, done)
    record = {"out": str(out), "metrics": done.metrics}
    report_record(record, origin, as_json, [f"encoder checkpoint in {out}"])


@click.command()
@click.option("--encoder", type=_Folder, required=True, help="Checkpoint that pretrain wrote.")
@click.option("--data", type=_Folder, required=True, help="Data set folder with index.csv.")
@click.option("--out", type=_Folder, required=True, help="Checkpoint folder to write.")
@click.option(
    "--num-labeled",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Labelled eyes; 0 = all.",
)
@click.option(
    "--num-steps",
    type=click.IntRange(1),
    default=600,
    show_default=True,
    help="Steps after the heads'.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Draws eyes and batches.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def finetune(
    encoder: Path,
    data: Path,
    out: Path,
    num_labeled: int,
    num_steps: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Add disease and gradability heads to an encoder and train them: the teacher.

    \b
    Example:
        edge-screen finetune --encoder runs/encoder --data runs/eyes --out runs/teacher
    """  # noqa: D301
    from train.data.origin import read_origin
    from train.dataset_arrays import load_split
    from train.device import pick_device
    from train.finetune import FinetuneConfig, save_finetuned
    from train.finetune import finetune as run
    from train.pretrain import load_encoder, pretrained_record

    chosen, pretrained = pick_device(device), pretrained_record(encoder)
    model, _ = load_encoder(encoder)
    arrays = load_split(data, "train", size_px=model.config.size_px, with_oct=False)
    origin = read_origin(data, fingerprint=arrays.fingerprint)
    config = FinetuneConfig(num_labeled=num_labeled, num_steps=num_steps, seed=seed)
    teacher = run(model, arrays, config, progress=show_progress(), device=chosen)
    save_finetuned(out, teacher, config, data_fingerprint=arrays.fingerprint, pretrained=pretrained)
    record = {"out": str(out), "metrics": teacher.metrics}
    report_record(record, origin, as_json, [f"teacher checkpoint in {out}"])
