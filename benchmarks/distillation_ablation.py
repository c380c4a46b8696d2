"""What each part of distillation brings, on synthetic eyes: every arm against one teacher.

    python benchmarks/distillation_ablation.py --out runs/ablation
    python benchmarks/distillation_ablation.py --out runs/long --num-patients 10000

Every arm has the same student, seed and number of optimiser steps; arms with the label-free
stage spend half of them there. Scores are mean AUROC over diseases on gradable test eyes, the
difference to the teacher paired, with its 95 % interval over test patients. Data, teacher and
finished arms in --out are kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(file_okay=False, path_type=Path)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Changed settings of the two stages; `label_free` None = the task stage alone."""

    task: dict[str, Any]
    label_free: dict[str, Any] | None = None


# Each loss of the label-free stage is left out once.
ARMS = {
    "labels alone": Arm(task={"soft_weight": 0.0, "true_weight": 1.0, "feature_weight": 0.0}),
    "task KD": Arm(task={"feature_weight": 0.0}),
    "task KD + embedding": Arm(task={}),
    "task KD + embedding, mixup": Arm(task={"mixup": True}),
    "label-free, then task KD": Arm(task={}, label_free={}),
    "  without queue similarity": Arm(task={}, label_free={"similarity_weight": 0.0}),
    "  without relations": Arm(task={}, label_free={"relation_weight": 0.0}),
    "  without features": Arm(task={}, label_free={"feature_weight": 0.0}),
    "  without logits": Arm(task={}, label_free={"soft_weight": 0.0}),
    "  without mixup": Arm(task={}, label_free={"mixup": False}),
}


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for data, teacher and results.")
@click.option("--num-patients", default=1200, show_default=True, help="A fifth are test patients.")
@click.option("--size-px", default=96, show_default=True, help="Side of the networks' pictures.")
@click.option("--pretrain-steps", default=400, show_default=True)
@click.option("--finetune-steps", default=300, show_default=True)
@click.option("--num-steps", default=500, show_default=True, help="Steps of every arm, in all.")
@click.option("--arms", default="", help="Numbers of arms to run, such as 0,1,4; default: all.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(out: Path, arms: str, as_json: bool, **options: Any) -> None:
    """Run every arm and print the table."""
    data = out / "data"
    _make_data(data, options)
    _make_teacher(out, data, options)
    names = list(ARMS)
    chosen = [names[int(one)] for one in arms.split(",")] if arms else names
    rows = [_run_arm(out, data, name, options) for name in chosen]
    report = {
        "synthetic": True,
        "options": options,
        "load_average": os.getloadavg()[0],
        "rows": rows,
    }
    click.echo(json.dumps(report) if as_json else _table(rows, options))


def _make_data(data: Path, options: dict[str, Any]) -> None:
    from train.phantom.writer import generate_dataset

    if not (data / "index.csv").exists():
        generate_dataset(
            data, num_patients=options["num_patients"], seed=options["seed"], image_px=128
        )


def _make_teacher(out: Path, data: Path, options: dict[str, Any]) -> None:
    from train.dataset_arrays import load_split
    from train.encoder import EncoderConfig
    from train.finetune import FinetuneConfig, finetune, save_finetuned
    from train.pretrain import pretrain, pretrained_record, save_pretrained
    from train.pretrain_config import PretrainConfig

    if (out / "teacher" / "config.json").exists():
        return
    train = load_split(data, "train", size_px=options["size_px"], with_oct=True)
    encoder = EncoderConfig(size_px=options["size_px"])
    seed = options["seed"]
    settings = PretrainConfig(num_steps=options["pretrain_steps"], seed=seed, encoder=encoder)
    learnt = pretrain(train, settings)
    save_pretrained(out / "encoder", learnt)
    task = FinetuneConfig(head_steps=150, num_steps=options["finetune_steps"], seed=seed)
    teacher = finetune(learnt.model.cfp_encoder, train, task)
    record = pretrained_record(out / "encoder")
    save_finetuned(
        out / "teacher", teacher, task, data_fingerprint=train.fingerprint, pretrained=record
    )


def _run_arm(out: Path, data: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Teach, compare, keep; a finished arm is read back."""
    from distill.comparison import compare_checkpoints
    from distill.label_free import LabelFreeConfig
    from distill.stage import distill_checkpoint
    from distill.teaching import DistillConfig

    folder = out / "arms" / f"{list(ARMS).index(name)}"
    kept = folder / "row.json"
    if kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return row
    arm, seed = ARMS[name], options["seed"]
    half = options["num_steps"] // 2
    before = None
    if arm.label_free is not None:
        before = replace(LabelFreeConfig(num_steps=half, seed=seed), **arm.label_free)
    steps = options["num_steps"] - (half if before else 0)
    task = replace(DistillConfig(num_steps=steps, seed=seed), **arm.task)
    started, cpu = time.monotonic(), time.process_time()
    distill_checkpoint(out / "teacher", data, folder, task, label_free=before)
    found, _ = compare_checkpoints(out / "teacher", folder, data, split="test", seed=seed)
    row = {
        "arm": name,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        **found.to_dict(),
    }
    kept.write_text(json.dumps(row), encoding="utf-8")
    return row


def _table(rows: list[dict[str, Any]], options: dict[str, Any]) -> str:
    first = rows[0]
    teacher = first["teacher"]
    lines = [
        f"synthetic eyes; {first['num_patients']} test patients, {first['num_eyes']} gradable "
        f"eyes; {options['num_steps']} steps an arm, seed {options['seed']}",
        f"teacher {teacher['value']:.4f} [{teacher['low']:.4f}, {teacher['high']:.4f}]; student "
        f"{first['num_parameters'] / 1e6:.2f} million weights",
        f"{'arm':<30}{'student':>9}{'minus teacher [95 %]':>32}{'ratio':>9}{'CPU s':>8}",
    ]
    for row in rows:
        apart = row["difference"]
        interval = f"{apart['value']:+.4f} [{apart['low']:+.4f}, {apart['high']:+.4f}]"
        lines.append(
            f"{row['arm']:<30}{row['student']['value']:>9.4f}{interval:>32}"
            f"{row['ratio']['value']:>9.4f}{row['cpu_seconds']:>8.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
