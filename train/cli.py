"""The commands `pretrain` and `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from train.console import (
    FOLDER,
    device_option,
    json_option,
    report_record,
    save_every_option,
    seed_option,
    show_progress,
)
from train.engine.settings import PARALLEL_KINDS
from train.routes import ROUTE_TABLES
from train.structure.config import ATTENTION_FORMS

__all__ = ["finetune", "pretrain"]


@click.command()
@click.option("--data", type=FOLDER, help="Data set folder with index.csv, read into memory.")
@click.option("--shards", type=FOLDER, help="Instead: folder that `edge-screen data shard` wrote.")
@click.option("--out", type=FOLDER, required=True, help="Checkpoint folder to write.")
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
@click.option(
    "--batch-size", type=click.IntRange(2), default=64, show_default=True, help="Eyes a step."
)
@click.option("--learning-rate", default=1.2e-3, show_default=True, help="Peak of the schedule.")
@click.option("--size-px", default=96, show_default=True, help="Side of the network input.")
@click.option("--width", default=128, show_default=True, help="Token width of the encoder.")
@click.option("--depth", default=1, show_default=True, help="Transformer blocks of the encoder.")
@click.option("--num-heads", default=4, show_default=True, help="Attention heads of a block.")
@click.option(
    "--oct-target",
    default="flattened",
    show_default=True,
    type=click.Choice(["flattened", "normalized", "raw"]),
)
@click.option(
    "--num-components",
    type=click.IntRange(0),
    default=12,
    show_default=True,
    help="Whitened OCT components with a loss of their own; 0 = pixels alone.",
)
@click.option(
    "--decoder-depth", type=click.IntRange(1), default=1, show_default=True, help="Cross-attention."
)
@click.option(
    "--num-paired",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Eyes whose OCT is used; 0 = every one that has it.",
)
@click.option("--shuffle-oct", is_flag=True, help="Control: every CFP with another patient's OCT.")
@click.option(
    "--hide-weight",
    default=1.0,
    show_default=True,
    help="Structure switch 1: how much likelier patches of disc and macula are hidden.",
)
@click.option(
    "--attention",
    type=click.Choice(ATTENTION_FORMS),
    default="off",
    show_default=True,
    help="Structure switch 2: where OCT queries look.",
)
@click.option(
    "--loss-alpha",
    default=0.0,
    show_default=True,
    help="Structure switch 3: how much more patches of disc and macula count.",
)
@click.option(
    "--target-weight",
    default=0.0,
    show_default=True,
    help="Structure switch 4: weight of predicting the maps.",
)
@seed_option("Draws weights, batches and masks.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Processes a rank that prepare batches from shards.",
)
@save_every_option
@click.option("--keep-states", type=click.IntRange(1), default=3, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the newest state in OUT/states.")
@click.option("--resume-step", type=click.IntRange(0), help="Go on from this step's state instead.")
@click.option(
    "--num-slices",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Slices of a batch, a multiple of the ranks; 0 = as resumed, else one a rank.",
)
@click.option(
    "--parallel",
    type=click.Choice(PARALLEL_KINDS),
    default="ddp",
    show_default=True,
    help="How weights lie on the ranks that torchrun starts.",
)
@click.option("--compile-blocks", is_flag=True, help="torch.compile the transformer blocks.")
@device_option
@json_option
def pretrain(out: Path, device: str, as_json: bool, **options: Any) -> None:
    """Learn a CFP encoder by cross-modal masked reconstruction.

    \b
    Example:
        edge-screen pretrain --data runs/eyes --out runs/encoder --num-steps 1500
        edge-screen pretrain --shards runs/shards --out runs/encoder --save-every 500 --resume
    """  # noqa: D301
    from train.device import pick_device
    from train.engine.command import run_pretrain
    from train.engine.distributed import current_ranks, process_group

    with process_group(pick_device(device)) as own_device:
        record, origin = run_pretrain(out, own_device, options)
        if current_ranks().is_main:
            report_record(record, origin, as_json, [f"encoder checkpoint in {out}"])


@click.command()
@click.option("--encoder", type=FOLDER, required=True, help="Checkpoint that pretrain wrote.")
@click.option("--data", type=FOLDER, required=True, help="Data set folder with index.csv.")
@click.option("--out", type=FOLDER, required=True, help="Checkpoint folder to write.")
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
@seed_option("Draws eyes and batches.")
@device_option
@json_option
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
