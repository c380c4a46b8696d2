"""The label-free stage: the student learns to see as the teacher sees, from photographs alone.

loss = similarity_weight * KL over a queue of earlier pictures
     + relation_weight   * KL between self-similarities of places, at two depths
     + feature_weight    * dense feature loss at two depths
     + soft_weight       * BCE to the teacher's probabilities

Both networks see the same tensor, blended in pairs, over a long schedule; no label is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from distill.augment import AugmentConfig
from distill.label_free_objective import LabelFreeObjective
from distill.loop import LoopConfig, StatesConfig, loop_config, run_steps
from distill.student import Student
from distill.teacher_view import TeacherEye
from distill.views import Pictures
from edge_runtime.errors import ConfigError
from train.dataset_arrays import SplitArrays
from train.device import CPU, device_of
from train.schedule import Progress, seed_everything
from train.teacher import Teacher

__all__ = ["LabelFree", "LabelFreeConfig", "learn_to_see"]


@dataclass(frozen=True, kw_only=True)
class LabelFreeConfig:
    """All settings of the label-free stage; saved whole.

    Attributes:
        num_steps: optimiser steps.
        batch_size: eyes a step.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's.
        similarity_weight: of the loss over the queue.
        relation_weight: of the loss between places.
        feature_weight: of the dense feature loss.
        soft_weight: of the loss to the teacher's probabilities.
        queue_size: earlier pictures kept; a quarter to a half of a small set.
        similarity_temperature: of the softmax over the queue.
        relation_temperature: of the softmax over places.
        mixup: blend every picture with another of its batch, for both networks.
        bfloat16: run both networks in bfloat16; losses stay float32.
        seed: draws maps, batches and views.
        augment: how far a view may differ from its photograph.
    """

    num_steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    similarity_weight: float = 1.0
    relation_weight: float = 1.0
    feature_weight: float = 0.5
    soft_weight: float = 1.0
    queue_size: int = 1024
    similarity_temperature: float = 0.07
    relation_temperature: float = 0.1
    mixup: bool = True
    bfloat16: bool = True
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            raise ConfigError(f"loss weights {self.weights} must be >= 0, one of them above 0")
        if min(self.similarity_temperature, self.relation_temperature) <= 0:
            raise ConfigError(
                f"temperatures {self.similarity_temperature} and {self.relation_temperature} "
                "must be above 0"
            )
        if self.queue_size < 2:
            raise ConfigError(f"queue_size is {self.queue_size}; it must be at least 2")
        self.loop()

    @property
    def weights(self) -> dict[str, float]:
        """Loss -> weight."""
        return {
            "similarity": self.similarity_weight,
            "relation": self.relation_weight,
            "feature": self.feature_weight,
            "soft": self.soft_weight,
        }

    def loop(self) -> LoopConfig:
        """What the step loop needs of it.

        Raises:
            ConfigError: a setting is out of range.
        """
        return loop_config(self, mixup=self.mixup)


@dataclass(frozen=True, kw_only=True)
class LabelFree:
    """What the stage leaves: settings and the mean of each loss over its last 50 steps."""

    config: LabelFreeConfig
    training: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self.config), "training": self.training}


def learn_to_see(
    teacher: Teacher,
    student: Student,
    train: SplitArrays,
    config: LabelFreeConfig,
    *,
    progress: Progress | None = None,
    device: torch.device | None = None,
    states: StatesConfig | None = None,
) -> LabelFree:
    """Train a student without labels, in place.

    Args:
        teacher: in evaluation mode; not changed, and afterwards where it was.
        student: afterwards on the CPU, in evaluation mode.
        train: photographs at the larger of the two networks' sizes; labels are not read.
        config: the settings.
        progress: called with (steps done, steps, text).
        device: where both networks run; None = the CPU.
        states: where to keep what a stopped run goes on from; None = nowhere.

    Raises:
        ConfigError: sizes do not fit, or training diverges.
        CheckpointError: the state to go on from is damaged or of another run.
    """
    home, where = device_of(teacher), device or CPU
    generator = seed_everything(config.seed)
    pictures = Pictures(
        train,
        (),
        teacher_px=teacher.encoder.config.size_px,
        student_px=student.config.size_px,
        device=where,
    )
    try:
        eye = TeacherEye(teacher.to(where), bfloat16=config.bfloat16)
        student.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective = LabelFreeObjective(student.eval(), eye, pictures, config).to(where)
        student.train()
        training = run_steps(
            objective, pictures, config.loop(), generator, progress=progress, states=states
        )
    finally:
        teacher.to(home)
    student.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    student.to(CPU).eval()
    return LabelFree(config=config, training=training)
