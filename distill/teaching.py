"""The task stage: the teacher looks at the same pictures, labelled or not, and is imitated.

loss = soft_weight * BCE(student, teacher's probabilities)
     + true_weight * BCE(student, known labels)
     + feature_weight * (1 - cos(map(student embedding), standardised teacher embedding))
     + laterality_weight * BCE(student, which eye it is)

Teacher and student see the same changed view of a photograph, so what the teacher says is
about what the student sees. The final weights are kept; `val` is reported, never chosen on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.agreement import agreement, laterality_accuracy, pictures_at, student_logits
from distill.augment import AugmentConfig
from distill.loop import LoopConfig, StatesConfig, loop_config, run_steps
from distill.quant_lint import Finding, refuse_bad_backbone
from distill.records import TeacherRecord
from distill.student import Student, StudentConfig, save_student
from distill.task_objective import task_objective
from distill.teacher_view import TeacherEye
from distill.views import Pictures, true_labels
from edge_runtime.errors import ConfigError
from train.data.origin import DataOrigin
from train.dataset_arrays import SplitArrays
from train.device import CPU, device_of
from train.evaluate import teacher_logits
from train.schedule import Progress, seed_everything
from train.teacher import Teacher

__all__ = [
    "DistillConfig",
    "Distilled",
    "TeacherRecord",
    "distill",
    "measure",
    "save_distilled",
    "to_device",
    "true_labels",
]


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """All settings of the task stage; saved whole.

    Attributes:
        num_steps: optimiser steps.
        batch_size: eyes a step.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's.
        soft_weight: of the loss to the teacher's probabilities.
        true_weight: of the loss to true labels, where known.
        feature_weight: of the loss to the teacher's embedding.
        laterality_weight: of the loss to which eye it is.
        mixup: blend every picture with another of its batch, for both networks.
        bfloat16: run both networks in bfloat16; losses stay float32.
        seed: draws weights, batches and views.
        student: shape of the student.
        allow_quant_lint: teach a backbone that INT8 is known to treat badly.
        augment: how far a view may differ from its photograph.
    """

    num_steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    soft_weight: float = 0.7
    true_weight: float = 0.3
    feature_weight: float = 0.5
    laterality_weight: float = 0.1
    mixup: bool = False
    bfloat16: bool = True
    seed: int = 0
    student: StudentConfig = field(default_factory=StudentConfig)
    allow_quant_lint: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if min(self.weights.values()) < 0 or self.soft_weight + self.true_weight == 0:
            raise ConfigError(
                f"loss weights {self.weights} must be >= 0, soft or true above 0: the student "
                "has to learn the task from one of them"
            )
        self.loop()

    @property
    def weights(self) -> dict[str, float]:
        """Loss -> weight."""
        return {
            "soft": self.soft_weight,
            "true": self.true_weight,
            "feature": self.feature_weight,
            "laterality": self.laterality_weight,
        }

    def loop(self) -> LoopConfig:
        """What the step loop needs of it.

        Raises:
            ConfigError: a setting is out of range.
        """
        return loop_config(self, mixup=self.mixup)


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A taught student in evaluation mode, its settings, and what was measured.

    Attributes:
        student: on the CPU, contiguous.
        config: how it was taught.
        training: mean of each loss over the last 50 steps, and skipped steps.
        val: what `measure` says of the validation split; empty without one.
        findings: what quant-lint says of the backbone.
    """

    student: Student
    config: DistillConfig
    training: dict[str, float]
    val: dict[str, float]
    findings: tuple[Finding, ...]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """As JSON types."""
        return {"training": self.training, "val": self.val}


def distill(
    teacher: Teacher,
    train: SplitArrays,
    config: DistillConfig,
    *,
    start: Student | None = None,
    val: SplitArrays | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
    states: StatesConfig | None = None,
) -> Distilled:
    """Teach a student the task.

    Args:
        teacher: in evaluation mode; not changed, and afterwards where it was.
        train: every training photograph, with whatever labels it has, at the larger of the two
            networks' sizes.
        config: the settings.
        start: student to go on with, changed in place; None = a fresh one of `config.student`.
        val: measured at the end, not used for any choice.
        progress: called with (steps done, steps, text).
        device: where both networks run; None = the CPU.
        states: where to keep what a stopped run goes on from; None = nowhere.

    Raises:
        ConfigError: sizes or shapes do not fit, quant-lint refuses the backbone, or training
            diverges.
        CheckpointError: the state to go on from is damaged or of another run.
    """
    findings = refuse_bad_backbone(config.student, allowed=config.allow_quant_lint)
    if start is not None and (start.config, start.label_names) != (
        config.student,
        teacher.label_names,
    ):
        raise ConfigError(
            f"the student to go on with is {start.config} for {start.label_names}, the settings "
            f"say {config.student} for {teacher.label_names}; use those of one run"
        )
    home, where = device_of(teacher), device or CPU
    generator = seed_everything(config.seed)
    pictures = Pictures(
        train,
        teacher.label_names,
        teacher_px=teacher.encoder.config.size_px,
        student_px=config.student.size_px,
        device=where,
    )
    try:
        eye = TeacherEye(teacher.to(where), bfloat16=config.bfloat16)
        student = to_device(start or Student(config.student, teacher.label_names), where)
        objective = task_objective(
            student,
            student.width,
            eye,
            pictures,
            weights=config.weights,
            bfloat16=config.bfloat16,
            seed=config.seed,
        )
        student.train()
        training = run_steps(
            objective, pictures, config.loop(), generator, progress=progress, states=states
        )
        # Convolutions ran with channels last; a checkpoint has them first.
        student.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        size_px = config.student.size_px
        measured = {} if val is None else measure(teacher, student, val, student_px=size_px)
    finally:
        teacher.to(home)
    return Distilled(
        student=student.to(CPU),
        config=config,
        training=training,
        val=measured,
        findings=findings,
    )


def to_device(student: Student, device: torch.device) -> Student:
    """Move a student in the memory format that convolutions are fastest in."""
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return student


def measure(
    teacher: Teacher, student: nn.Module, val: SplitArrays, *, student_px: int
) -> dict[str, float]:
    """`agreement` and, where a side is known, the share of right ones; each at its own size.

    Args:
        teacher: in evaluation mode.
        student: gives a `StudentOutput`: a student, or one with INT8 rounding.
        val: the split.
        student_px: side of the student's pictures.
    """
    theirs = pictures_at(val.images_nhwc, teacher.encoder.config.size_px)
    ours = pictures_at(val.images_nhwc, student_px)
    numbers = agreement(
        teacher_logits(teacher, theirs), student_logits(student, ours), val, teacher.label_names
    )
    if (val.eyes == "").all():
        return numbers
    return {**numbers, "laterality_accuracy": laterality_accuracy(student, ours, val.eyes)}


def save_distilled(
    folder: Path,
    distilled: Distilled,
    *,
    teacher: TeacherRecord,
    origin: DataOrigin,
    earlier: Mapping[str, Any] | None = None,
) -> None:
    """Write a 'student' checkpoint that says everything about how it was taught.

    Args:
        folder: checkpoint folder.
        distilled: what was taught.
        teacher: which one.
        origin: the data.
        earlier: records of the stages before, such as 'label_free'; None = there were none.
    """
    record: dict[str, Any] = {
        **(earlier or {}),
        "distill": asdict(distilled.config),
        "teacher": asdict(teacher),
        "training_data": asdict(origin),
        "metrics": distilled.metrics,
        "quant_lint": [finding.to_dict() for finding in distilled.findings],
        "data_fingerprint": origin.fingerprint,
    }
    save_student(folder, distilled.student, record)
