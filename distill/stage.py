"""Distillation as a stage of the chain: a teacher and a data set in, a student checkpoint out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.origin import read_origin
from distill.teaching import DistillConfig, Distilled, TeacherRecord, distill, save_distilled
from edge_runtime.errors import CheckpointError, DataError
from train.data.index import read_index
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
) -> Distilled:
    """Load, teach, save. The student takes the teacher's picture size.

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
    done = distill(teacher, train, config, val=val, progress=progress)
    save_distilled(out, done, teacher=read_teacher_record(teacher_dir, record), origin=origin)
    return done


def read_teacher_record(folder: Path, config: dict[str, Any]) -> TeacherRecord:
    """Fingerprint of a teacher's weights, and the seeds that its config.json names."""
    try:
        data = (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(f"teacher weights cannot be read: {error}") from error
    stages = {
        name: value["seed"]
        for name, value in config.items()
        if isinstance(value, dict) and isinstance(value.get("seed"), int)
    }
    return TeacherRecord(sha256=hashlib.sha256(data).hexdigest(), seeds=stages)
