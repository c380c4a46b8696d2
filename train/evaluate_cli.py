"""The command group `edge-screen evaluate`: what a teacher, an encoder or a reader is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from train.card.cli import card
from train.console import (
    FOLDER,
    device_option,
    draws_option,
    json_option,
    report_record,
    seed_option,
    show_progress,
)
from train.readers_cli import readers

if TYPE_CHECKING:
    from train.evaluate import ClassificationReport

__all__ = ["evaluate"]

_data_option = click.option(
    "--data", type=FOLDER, required=True, help="Data set folder with index.csv."
)


@click.group()
def evaluate() -> None:
    """Measure a teacher, an encoder on sixteen tasks, two encoders, or models over data sets."""


@evaluate.command()
@click.argument("teacher", type=FOLDER)
@_data_option
@click.option(
    "--split",
    default="val",
    show_default=True,
    type=click.Choice(["val", "test"]),
    help="Choose on val; report on test, once.",
)
@draws_option
@seed_option("Of the bootstrap draws.")
@device_option
@json_option
def teacher(
    teacher: Path, data: Path, split: str, num_draws: int, seed: int, device: str, as_json: bool
) -> None:
    """AUROC of a teacher per disease, with 95 % intervals that resample patients.

    \b
    Example:
        edge-screen evaluate teacher runs/teacher --data runs/eyes --split test
    """  # noqa: D301
    from train.data.origin import read_origin
    from train.dataset_arrays import load_split
    from train.device import pick_device
    from train.evaluate import evaluate_logits, teacher_logits
    from train.teacher import load_teacher

    chosen = pick_device(device)
    model, _ = load_teacher(teacher)
    arrays = load_split(data, split, size_px=model.encoder.config.size_px, with_oct=False)
    origin = read_origin(data, fingerprint=arrays.fingerprint)
    logits = teacher_logits(model.to(chosen), arrays.images_nhwc)
    report = evaluate_logits(logits, arrays, model.label_names, num_draws=num_draws, seed=seed)
    report_record({"split": split, **report.to_dict()}, origin, as_json, _auroc_lines(report))


def _auroc_lines(report: ClassificationReport) -> list[str]:
    lines = []
    for label in (*report.labels, report.gradability):
        counts = f"{label.num_positive} positive, {label.num_negative} negative eyes"
        if label.auroc is None:
            lines.append(f"{label.name:18s} not scored: {counts}")
            continue
        value, low, high = label.auroc.value, label.auroc.low, label.auroc.high
        lines.append(f"{label.name:18s} AUROC {value:.3f} [{low:.3f}, {high:.3f}]  {counts}")
    if report.mean_auroc is not None:
        lines.append(f"{'mean of diseases':18s} AUROC {report.mean_auroc.value:.3f}")
    return lines


@evaluate.command()
@click.argument("checkpoint", type=FOLDER, required=False)
@_data_option
@click.option("--untrained", is_flag=True, help="No checkpoint: the arm without pretraining.")
@click.option(
    "--size-px",
    type=click.IntRange(32),
    help="Side of the network input with --untrained. [default: 96]",
)
@click.option("--out", type=FOLDER, default=None, help="Folder for results and predictions.")
@click.option("--tasks", "names", default=None, help="Some of the sixteen, comma-separated.")
@click.option(
    "--budgets",
    default="100,300,1000",
    show_default=True,
    help="Labelled eyes of classification, comma-separated.",
)
@click.option(
    "--num-masks",
    type=click.IntRange(0),
    default=300,
    show_default=True,
    help="Training eyes of segmentation; 0 = all that have masks.",
)
@click.option(
    "--readouts",
    default="probe,finetune",
    show_default=True,
    help="Of classification, comma-separated.",
)
@draws_option
@seed_option("Draws labels and fine-tuning batches.")
@device_option
@json_option
def tasks(
    checkpoint: Path | None,
    data: Path,
    untrained: bool,
    size_px: int | None,
    out: Path | None,
    names: str | None,
    budgets: str,
    num_masks: int,
    readouts: str,
    num_draws: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure the encoder in CHECKPOINT on the sixteen downstream tasks.

    Labels come from the training split, settings were fixed beforehand, the test split is
    only scored. A task that the data set cannot measure is a line that says why.

    \b
    Example:
        edge-screen evaluate tasks runs/encoder --data runs/eyes --out runs/tasks
        edge-screen evaluate tasks --untrained --data runs/eyes --tasks glaucoma,cfp_to_oct
    """  # noqa: D301
    from train.data.origin import read_origin
    from train.device import pick_device
    from train.encoder import EncoderConfig
    from train.pretrain import load_pretrained, random_encoder
    from train.tasks.data import load_task_data
    from train.tasks.heads import heads_of
    from train.tasks.run import run_tasks
    from train.tasks.run_files import save_run
    from train.tasks.segmentation import SegmentationSettings
    from train.tasks.settings import TaskSettings
    from train.tasks.table import run_lines

    if (checkpoint is None) != untrained:
        raise click.UsageError("give the folder of a checkpoint, or --untrained, and not both")
    if checkpoint is not None and size_px is not None:
        raise click.UsageError("--size-px goes with --untrained; a checkpoint has its own size")
    masks = SegmentationSettings(num_labeled=num_masks)
    settings = TaskSettings(
        budgets=_numbers(budgets),
        readouts=tuple(readouts.split(",")),
        num_draws=num_draws,
        segmentation=None if masks == SegmentationSettings() else masks,
    )
    chosen = pick_device(device)
    arm = None if checkpoint is None else load_pretrained(checkpoint)
    config = EncoderConfig(size_px=size_px or 96) if arm is None else arm.config.encoder
    arrays = load_task_data(data, config.size_px)
    origin = read_origin(data, fingerprint=arrays.test.fingerprint)
    if arm is None:
        encoder = random_encoder(config, arrays.train, seed=seed).to(chosen)
    else:
        encoder = arm.model.to(chosen).cfp_encoder
    run = run_tasks(
        encoder,
        arrays,
        settings,
        seed=seed,
        tasks=None if names is None else names.split(","),
        retrieval_heads=None if arm is None else heads_of(arm),
        progress=show_progress(),
    )
    sentences = run_lines(run)
    elsewhere = arm is not None and arm.data_fingerprint != origin.fingerprint
    if elsewhere:
        sentences.append(
            "note: the encoder was pretrained on another data set; nobody checked that its "
            "patients are not among these test eyes"
        )
    if out is not None:
        save_run(out, run)
        sentences.append(f"results and predictions in {out}")
    record = {**run.to_dict(), "pretrained_on_other_data": elsewhere}
    report_record(record, origin, as_json, sentences)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is no list of numbers; write 100,300,1000") from error


@evaluate.command()
@click.argument("run_a", type=FOLDER)
@click.argument("run_b", type=FOLDER)
@draws_option
@seed_option("Of the bootstrap draws.")
@json_option
def compare(run_a: Path, run_b: Path, num_draws: int, seed: int, as_json: bool) -> None:
    """Paired differences of two runs that `evaluate tasks --out` wrote, RUN_A minus RUN_B.

    Both must be of one data set and one protocol. Intervals and p values come from the same
    resamples of patients; p is also corrected over the tasks (Holm).

    \b
    Example:
        edge-screen evaluate compare runs/tasks-oct runs/tasks-cfp
    """  # noqa: D301
    from train.data.origin import DataOrigin
    from train.tasks.compare import compare_runs
    from train.tasks.run_files import load_run
    from train.tasks.table import comparison_lines

    a, b = load_run(run_a), load_run(run_b)
    found = compare_runs(a, b, num_draws=num_draws, seed=seed)
    origin = DataOrigin(synthetic=a.synthetic, fingerprint=a.data_fingerprint)
    record = {"a": str(run_a), "b": str(run_b), "rows": [one.to_dict() for one in found]}
    sentences = [f"A: {run_a}, seed {a.seed}", f"B: {run_b}, seed {b.seed}"]
    report_record(record, origin, as_json, [*sentences, *comparison_lines(found)])


evaluate.add_command(card)
evaluate.add_command(readers)
