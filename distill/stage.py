"""Distillation as a stage of the chain: a teacher and a data set in, a student checkpoint out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill.backbone import load_backbone_weights
from distill.label_free import LabelFreeConfig, learn_to_see
from distill.loop import StatesConfig
from distill.quant_lint import refuse_bad_backbone
from distill.records import load_train_val, read_teacher_record, read_training_index
from distill.student import Student
from distill.teaching import DistillConfig, Distilled, distill, save_distilled
from edge_runtime.errors import CheckpointError
from train.data.origin import read_origin
from train.schedule import Progress, seed_everything
from train.teacher import load_teacher

__all__ = [
    "SaveConfig",
    "distill_checkpoint",
    "read_teacher_record",
]


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """Whether a run can be gone on with after a stop.

    Attributes:
        folder: of the states, one folder a stage inside it.
        save_every: steps between states.
        resume: go on from the newest states; start anew where there are none.
    """

    folder: Path
    save_every: int
    resume: bool

    def of_stage(self, name: str, identity: Mapping[str, Any]) -> StatesConfig:
        """The same for one stage."""
        return StatesConfig(
            folder=self.folder / name,
            save_every=self.save_every,
            resume=self.resume,
            identity=identity,
        )


def distill_checkpoint(
    teacher_dir: Path,
    data_dir: Path,
    out: Path,
    config: DistillConfig,
    *,
    label_free: LabelFreeConfig | None = None,
    size_px: int | None = None,
    backbone_weights: Path | None = None,
    save: SaveConfig | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> Distilled:
    """Load, teach, save.

    Args:
        teacher_dir: what finetune wrote.
        data_dir: data set; 'train' is learnt from, 'val' is measured where there is one.
        out: student checkpoint to write.
        config: the task stage; the student's picture size in it is replaced.
        label_free: the stage before it; None = left out.
        size_px: the student's picture size; None = the teacher's.
        backbone_weights: safetensors file of the same timm network to begin with; None = random
            weights.
        save: where to keep states; None = nowhere.
        progress: called with (steps done, steps, text), for each stage.
        device: where both networks run; None = the CPU.

    Returns:
        What was saved.

    Raises:
        CheckpointError, DataError, ConfigError: teacher, data set or settings cannot be used.
    """
    teacher, teacher_config = load_teacher(teacher_dir)
    teacher_px = teacher.encoder.config.size_px
    config = replace(config, student=replace(config.student, size_px=size_px or teacher_px))
    if not config.allow_quant_lint:
        refuse_bad_backbone(config.student, allowed=False)  # before the long work
    record = read_teacher_record(teacher_dir, teacher_config)
    index = read_training_index(data_dir)
    train, val = load_train_val(index, max(teacher_px, config.student.size_px))
    # Without anything before it the task stage draws its own student, as the demo's does.
    student: Student | None = None
    earlier: dict[str, Any] = {}
    if label_free is not None or backbone_weights is not None:
        seed_everything(config.seed)
        student = Student(config.student, teacher.label_names)
    if student is not None and backbone_weights is not None:
        load_backbone_weights(student.backbone, backbone_weights)
        earlier["backbone_weights_sha256"] = _sha256(backbone_weights)
    identity = {"data": train.fingerprint, "teacher": record.sha256, **earlier}
    if student is not None and label_free is not None:
        named = {**identity, "settings": asdict(label_free), "student": asdict(config.student)}
        done = learn_to_see(
            teacher,
            student,
            train,
            label_free,
            progress=progress,
            device=device,
            states=None if save is None else save.of_stage("label_free", named),
        )
        earlier["label_free"] = done.to_dict()
    named = {**identity, "settings": asdict(config), "label_free": earlier.get("label_free")}
    taught = distill(
        teacher,
        train,
        config,
        start=student,
        val=val,
        progress=progress,
        device=device,
        states=None if save is None else save.of_stage("task", named),
    )
    origin = read_origin(data_dir, fingerprint=train.fingerprint)
    save_distilled(out, taught, teacher=record, origin=origin, earlier=earlier)
    return taught


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"backbone weights {path} cannot be read: {error}") from error
