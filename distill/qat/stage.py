"""QAT from files to files: a student and its teacher in, a new student checkpoint out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from distill.qat.training import QatConfig, QuantizationAware, train_rounded
from distill.records import (
    load_train_val,
    read_teacher_record,
    read_training_index,
    require_same_teacher,
)
from distill.stage import SaveConfig
from distill.student import load_student, save_student
from train.checkpoint import weights_sha256
from train.data.origin import read_origin
from train.schedule import Progress
from train.teacher import load_teacher

__all__ = ["qat_checkpoint"]


def qat_checkpoint(
    student_dir: Path,
    teacher_dir: Path,
    data_dir: Path,
    out: Path,
    config: QatConfig,
    *,
    save: SaveConfig | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> QuantizationAware:
    """Train a student that the INT8 gate refused with INT8 rounding in between.

    The new checkpoint keeps the record of the old one and adds 'qat': settings, what was
    measured, and the activation ranges at the end. INT8 calibration measures its own.

    Args:
        student_dir: what distillation wrote; not changed.
        teacher_dir: the teacher that taught it.
        data_dir: data set with 'train'.
        out: student checkpoint to write.
        config: the settings.
        save: where to keep states; None = nowhere.
        progress: called with (steps done, steps, text).
        device: where both networks run; None = the CPU.

    Raises:
        CheckpointError, DataError, ConfigError: student, teacher, data set or settings cannot be
            used, or the teacher is another one.
    """
    student, record = load_student(student_dir)
    teacher, teacher_config = load_teacher(teacher_dir)
    taught_by = read_teacher_record(teacher_dir, teacher_config)
    require_same_teacher(student_dir, student, record, teacher, taught_by)
    size_px = max(teacher.encoder.config.size_px, student.config.size_px)
    train, val = load_train_val(read_training_index(data_dir), size_px)
    identity = {
        "data": train.fingerprint,
        "teacher": taught_by.sha256,
        "student": weights_sha256(student_dir),
        "settings": asdict(config),
    }
    done = train_rounded(
        teacher,
        student,
        train,
        config,
        val=val,
        progress=progress,
        device=device,
        states=None if save is None else save.of_stage("qat", identity),
    )
    measured = {"training": done.training, "val": done.val.get("float", {})}
    origin = read_origin(data_dir, fingerprint=train.fingerprint)
    own = {
        "qat": {**done.to_dict(), "student_sha256": identity["student"]},
        "metrics": measured,
        "training_data": asdict(origin),
        "data_fingerprint": origin.fingerprint,
    }
    save_student(out, done.student, {**record, **own})
    return done
