"""What the stages of distillation read before they begin: which teacher, which eyes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.student import Student
from edge_runtime.errors import ConfigError, DataError
from train.checkpoint import weights_sha256
from train.data.index import DataIndex, read_index
from train.dataset_arrays import SplitArrays, load_split
from train.teacher import Teacher

__all__ = [
    "TeacherRecord",
    "load_train_val",
    "read_teacher_record",
    "read_training_index",
    "require_same_teacher",
]


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """Which teacher it was: SHA-256 of its weights and the seeds of its own training."""

    sha256: str
    seeds: dict[str, int]


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


def require_same_teacher(
    student_dir: Path,
    student: Student,
    record: Mapping[str, Any],
    teacher: Teacher,
    taught_by: TeacherRecord,
) -> None:
    """Refuse a student that another teacher taught.

    Raises:
        ConfigError: the fingerprints or the labels differ.
    """
    known = record.get("teacher")
    sha256 = known.get("sha256") if isinstance(known, dict) else None
    if sha256 != taught_by.sha256 or student.label_names != teacher.label_names:
        raise ConfigError(
            f"{student_dir} was taught by the teacher {sha256}, not by {taught_by.sha256}; give "
            "that one (--teacher)"
        )


def read_training_index(data_dir: Path) -> DataIndex:
    """Index of a data set with training eyes.

    Raises:
        DataError: the data set breaks its contract, or nothing is in 'train'.
    """
    index = read_index(data_dir)
    if not index.split("train"):
        raise DataError(f"{data_dir} has no visit in 'train'; distillation learns from it")
    return index


def load_train_val(index: DataIndex, size_px: int) -> tuple[SplitArrays, SplitArrays | None]:
    """'train', and 'val' where there is one."""
    train = load_split(index, "train", size_px=size_px, with_oct=False)
    if not index.split("val"):
        return train, None
    return train, load_split(index, "val", size_px=size_px, with_oct=False)
