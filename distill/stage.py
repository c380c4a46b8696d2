"""Distillation as a stage of the chain: a teacher and a data set in, a student checkpoint out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distill.teaching import DistillConfig, Distilled, TeacherRecord, distill, save_distilled
from edge_runtime.errors import DataError
from train.checkpoint import weights_sha256
from train.data.index import read_index
from train.data.origin import read_origin
from train.dataset_arrays import load_split
from train.schedule import Progress
from train.teacher import load_teacher

__all__ = ["distill_checkpoint", "read_teacher_record"]


def distill_checkpoint(
    teacher_dir: Path,
    data_dir: Path,
    out: Path,
    config: DistillConfig,
    *,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> Distilled:
    """Load, teach, save. The student takes the teacher's picture size.

    `device` is where both networks run; None = the CPU.

    Returns:
        What was saved.

    Raises:
        CheckpointError, DataError, ConfigError: teacher, data set or settings cannot be used.
    """
    teacher, record = load_teacher(teacher_dir)
    size_px = teacher.encoder.config.size_px
    config = replace(config, student=replace(config.student, size_px=size_px))
    index = read_index(data_dir)
    if not index.split("train"):
        raise DataError(f"{data_dir} has no visit in 'train'; distillation learns from it")
    train = load_split(index, "train", size_px=size_px, with_oct=False)
    val = load_split(index, "val", size_px=size_px, with_oct=False) if index.split("val") else None
    origin = read_origin(data_dir, fingerprint=train.fingerprint)
    done = distill(teacher, train, config, val=val, progress=progress, device=device)
    save_distilled(out, done, teacher=read_teacher_record(teacher_dir, record), origin=origin)
    return done


def read_teacher_record(folder: Path, config: dict[str, Any]) -> TeacherRecord:
    """Fingerprint of a teacher's weights, and the seeds that its config.json names.

    Those are of fine-tuning and, where the teacher came from an encoder's checkpoint, of
    pretraining.
    """
    before = config.get("pretrained")
    stages = {**config, **(before if isinstance(before, dict) else {})}
    seeds = {
        name: value["seed"]
        for name, value in stages.items()
        if isinstance(value, dict) and isinstance(value.get("seed"), int)
    }
    return TeacherRecord(sha256=weights_sha256(folder), seeds=seeds)
