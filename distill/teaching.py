"""Teach a student: the teacher looks at the same pictures, labelled or not, and is imitated.

loss = soft_weight * BCE(student, teacher's probabilities)
     + true_weight * BCE(student, known labels)
     + feature_weight * (1 - cos(map(student embedding), standardised teacher embedding))

Teacher and student see the same changed view of a photograph, so what the teacher says is
about what the student sees. The final weights are kept; `val` is reported, never chosen on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.agreement import agreement, student_logits
from distill.augment import AugmentConfig, augment_batch
from distill.losses import FeatureScale, feature_loss, soft_label_loss
from distill.student import Student, StudentConfig, StudentOutput, save_student
from edge_runtime.errors import ConfigError
from train.arrays import normalize_cfp
from train.data.origin import DataOrigin
from train.dataset_arrays import SplitArrays
from train.device import CPU, device_of
from train.evaluate import teacher_logits
from train.finetune import masked_bce
from train.labels import GRADABLE
from train.schedule import Progress, StepGuard, batches, cosine_rate, seed_everything
from train.teacher import Teacher, TeacherOutput

__all__ = [
    "DistillConfig",
    "Distilled",
    "TeacherRecord",
    "distill",
    "save_distilled",
    "true_labels",
]

_NUM_SCALE_IMAGES = 1024  # enough for a mean and a deviation a channel


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """All settings of distillation; saved whole.

    Attributes:
        num_steps: optimiser steps.
        batch_size: eyes a step.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's.
        soft_weight: of the loss to the teacher's probabilities.
        true_weight: of the loss to true labels, where known.
        feature_weight: of the loss to the teacher's embedding.
        bfloat16: run both networks in bfloat16; losses stay float32.
        seed: draws weights, batches and views.
        student: shape of the student.
        augment: how far a view may differ from its photograph.
    """

    num_steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    soft_weight: float = 0.7
    true_weight: float = 0.3
    feature_weight: float = 0.5
    bfloat16: bool = True
    seed: int = 0
    student: StudentConfig = field(default_factory=StudentConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.num_steps < 1 or self.batch_size < 2:
            raise ConfigError(
                f"num_steps {self.num_steps} must be >= 1 and batch_size {self.batch_size} >= 2"
            )
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate {self.learning_rate} must be in (0, 1)")
        weights = (self.soft_weight, self.true_weight, self.feature_weight)
        if min(weights) < 0 or self.soft_weight == 0:
            raise ConfigError(f"loss weights {weights} must be >= 0, soft_weight above 0")


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A taught student in evaluation mode, its settings, and what was measured.

    Attributes:
        student: on the CPU, contiguous.
        config: how it was taught.
        training: mean of each loss over the last 50 steps, and skipped steps.
        val: what `agreement` says of the validation split; empty without one.
    """

    student: Student
    config: DistillConfig
    training: dict[str, float]
    val: dict[str, float]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """As JSON types."""
        return {"training": self.training, "val": self.val}


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """Which teacher it was: SHA-256 of its weights and the seeds of its own training."""

    sha256: str
    seeds: dict[str, int]


def true_labels(data: SplitArrays, label_names: tuple[str, ...]) -> torch.Tensor:
    """(N, L + 1) float32 of diseases and gradability; NaN = unknown.

    A column that the data set does not have is unknown throughout: distillation needs no
    labels. Diseases of an ungradable eye are unknown too: what cannot be seen must not be
    learnt as absent.
    """
    unknown = np.full(len(data), np.nan, np.float32)
    names = (*label_names, GRADABLE)
    columns = [data.label(n) if n in data.label_names else unknown for n in names]
    table = torch.from_numpy(np.stack(columns, 1))
    table[table[:, -1] == 0, :-1] = torch.nan
    return table


def distill(
    teacher: Teacher,
    train: SplitArrays,
    config: DistillConfig,
    *,
    val: SplitArrays | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> Distilled:
    """Teach a fresh student.

    Args:
        teacher: in evaluation mode; not changed, and afterwards where it was.
        train: every training photograph, with whatever labels it has.
        config: the settings.
        val: measured at the end, not used for any choice.
        progress: called with (steps done, steps, text).
        device: where both networks run; None = the CPU.

    Raises:
        ConfigError: the teacher takes another picture size, or training diverges.
    """
    teacher_px = teacher.encoder.config.size_px
    if teacher_px != config.student.size_px or train.images_nhwc.shape[1] != teacher_px:
        raise ConfigError(
            f"the teacher takes {teacher_px} px, the student {config.student.size_px} px and the "
            f"pictures have {train.images_nhwc.shape[1]} px; use one size"
        )
    home = device_of(teacher)
    try:
        run = _Run(teacher, train, config, device or CPU)
        training = run.steps(progress)
        student = run.student.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        measured = {} if val is None else _measure(teacher, student, val)
    finally:
        teacher.to(home)
    return Distilled(student=student.to(CPU), config=config, training=training, val=measured)


def _measure(teacher: Teacher, student: Student, val: SplitArrays) -> dict[str, float]:
    scores = student_logits(student, val.images_nhwc)
    return agreement(teacher_logits(teacher, val.images_nhwc), scores, val, teacher.label_names)


class _Run:
    """The state of one distillation."""

    def __init__(
        self, teacher: Teacher, train: SplitArrays, config: DistillConfig, device: torch.device
    ) -> None:
        self.generator = seed_everything(config.seed)
        self.teacher, self.config, self.device = teacher.to(device).eval(), config, device
        self.images = train.images_tensor()
        self.labels = true_labels(train, teacher.label_names)
        # The pictures are NHWC in memory, and convolutions are faster that way too.
        self.student = Student(config.student, teacher.label_names)
        self.student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        width = teacher.encoder.config.width
        self.feature_map = nn.Linear(config.student.channels[-1], width).to(device)
        picked = np.random.default_rng(config.seed).permutation(len(train))[:_NUM_SCALE_IMAGES]
        self.scale = FeatureScale(self._look(self._pictures(torch.from_numpy(picked))).embedding)
        parameters = [*self.student.parameters(), *self.feature_map.parameters()]
        self.guard = StepGuard(
            torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        )

    def steps(self, progress: Progress | None) -> dict[str, float]:
        """Train; returns the mean of each loss over the last 50 steps."""
        config = self.config
        self.student.train()
        recent: list[dict[str, float]] = []
        drawn = batches(len(self.images), config.batch_size, config.num_steps, config.seed)
        for step, picked in enumerate(drawn):
            losses = self._losses(picked)
            total = sum(self._weights()[name] * loss for name, loss in losses.items())
            assert isinstance(total, torch.Tensor)
            self.guard.step(total, cosine_rate(step, config.num_steps, config.learning_rate))
            recent.append({name: float(loss.detach()) for name, loss in losses.items()})
            if progress is not None and ((step + 1) % 20 == 0 or step + 1 == config.num_steps):
                progress(step + 1, config.num_steps, _text(recent[-20:]))
        return {**_means(recent[-50:]), "skipped_steps": float(self.guard.num_skipped)}

    def _losses(self, picked: torch.Tensor) -> dict[str, torch.Tensor]:
        config = self.config
        view = augment_batch(self._pictures(picked), config.augment, self.generator)
        target = self._look(view)
        with self._autocast():
            output = self.student(view.contiguous(memory_format=torch.channels_last))
        logits = _all_logits(output)
        mapped = self.feature_map(output.embedding.float())
        return {
            "soft": soft_label_loss(logits, _all_logits(target)),
            "true": masked_bce(logits, self.labels[picked].to(self.device)),
            "feature": feature_loss(mapped, self.scale(target.embedding)),
        }

    def _weights(self) -> dict[str, float]:
        config = self.config
        return {
            "soft": config.soft_weight,
            "true": config.true_weight,
            "feature": config.feature_weight,
        }

    def _look(self, view_nchw: torch.Tensor) -> TeacherOutput:
        """What the teacher says of a view."""
        with torch.no_grad(), self._autocast():
            output: TeacherOutput = self.teacher(view_nchw)
        return output

    def _pictures(self, picked: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised photographs, moved after they were picked."""
        return normalize_cfp(self.images[picked].to(self.device))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16)


def _all_logits(output: StudentOutput | TeacherOutput) -> torch.Tensor:
    return torch.cat([output.logits.float(), output.gradability_logit.float()], 1)


def _means(losses: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each loss; a skipped step's is no number and is left out."""
    columns = {name: np.array([row[name] for row in losses]) for name in losses[0]}
    known = {name: values[np.isfinite(values)] for name, values in columns.items()}
    return {f"loss_{name}": float(values.mean()) for name, values in known.items() if len(values)}


def _text(losses: list[dict[str, float]]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in _means(losses).items())


def save_distilled(
    folder: Path, distilled: Distilled, *, teacher: TeacherRecord, origin: DataOrigin
) -> None:
    """Write a 'student' checkpoint that says everything about how it was taught."""
    record: dict[str, Any] = {
        "distill": asdict(distilled.config),
        "teacher": asdict(teacher),
        "training_data": asdict(origin),
        "metrics": distilled.metrics,
        "data_fingerprint": origin.fingerprint,
    }
    save_student(folder, distilled.student, record)
