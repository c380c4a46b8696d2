"""Train a student with INT8 rounding in between, towards the teacher, for a short while."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from distill.augment import AugmentConfig
from distill.loop import LoopConfig, Objective, StatesConfig, loop_config, run_steps
from distill.qat.measure_ranges import measure_ranges
from distill.qat.rounded_student import RoundedStudent
from distill.student import Student
from distill.task_objective import TaskObjective, task_objective
from distill.teacher_view import TeacherEye
from distill.teaching import measure
from distill.views import Pictures, View
from edge_runtime.errors import ConfigError
from train.dataset_arrays import SplitArrays
from train.device import CPU, device_of
from train.schedule import Progress, seed_everything
from train.teacher import Teacher

__all__ = ["QatConfig", "QuantizationAware", "train_rounded"]

_QUARTERS = 4


@dataclass(frozen=True, kw_only=True)
class QatConfig:
    """All settings of quantisation-aware training; saved whole.

    Attributes:
        num_steps: optimiser steps; a tenth of the task stage is usual.
        batch_size: eyes a step.
        learning_rate: peak of the schedule, far below the task stage's.
        weight_decay: AdamW's.
        soft_weight: of the loss to the teacher's probabilities.
        true_weight: of the loss to true labels, where known.
        feature_weight: of the loss to the teacher's embedding.
        laterality_weight: of the loss to which eye it is.
        percentile: share of an activation's values inside its range, in percent.
        num_range_images: training photographs on which ranges are measured.
        seed: draws batches and views.
        augment: how far a view may differ from its photograph.
    """

    num_steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    soft_weight: float = 0.7
    true_weight: float = 0.3
    feature_weight: float = 0.5
    laterality_weight: float = 0.1
    percentile: float = 99.99
    num_range_images: int = 256
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if min(self.weights.values()) < 0 or self.soft_weight == 0:
            raise ConfigError(f"loss weights {self.weights} must be >= 0, soft above 0")
        if not 50.0 < self.percentile <= 100.0 or self.num_range_images < 1:
            raise ConfigError(
                f"percentile {self.percentile} must be above 50 and at most 100, "
                f"num_range_images {self.num_range_images} at least 1"
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
        return loop_config(self, mixup=False)


@dataclass(frozen=True, kw_only=True)
class QuantizationAware:
    """What the stage leaves.

    Attributes:
        student: the one given, its weights changed, in evaluation mode.
        config: the settings.
        training: mean of each loss over the last 50 steps, and skipped steps.
        val: of the validation split: 'float' of the new weights, 'rounded' of the same with INT8
            rounding, 'rounded_before' of the old weights with rounding; empty without a split.
        ranges: activation -> largest absolute value that INT8 held at the end.
    """

    student: Student
    config: QatConfig
    training: dict[str, float]
    val: dict[str, dict[str, float]]
    ranges: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, without the student."""
        return {
            **asdict(self.config),
            "training": self.training,
            "val": self.val,
            "ranges": self.ranges,
        }


class _RoundedObjective(Objective):
    """The task's losses; ranges are measured again after each quarter but the last."""

    def __init__(self, task: TaskObjective, pictures: Pictures, config: QatConfig) -> None:
        super().__init__()
        self.task, self.weights = task, task.weights
        self._pictures, self._config = pictures, config
        numbers = np.random.default_rng(config.seed).permutation(len(pictures))
        self._picked = torch.from_numpy(numbers[: config.num_range_images])

    def losses(self, view: View) -> dict[str, torch.Tensor]:
        """Each of `weights`."""
        return self.task.losses(view)

    def measure_ranges(self) -> None:
        """On the same photographs each time, so that only the weights' change shows."""
        assert isinstance(self.task.network, RoundedStudent)
        measure_ranges(
            self.task.network, self._pictures, self._picked, percentile=self._config.percentile
        )

    def after_step(self, step: int, num_steps: int) -> None:
        """Ranges follow the weights, and stand still while the last quarter settles on them."""
        quarter = max(1, num_steps // _QUARTERS)
        if step % quarter == 0 and step <= num_steps - quarter:
            self.measure_ranges()


def train_rounded(
    teacher: Teacher,
    student: Student,
    train: SplitArrays,
    config: QatConfig,
    *,
    val: SplitArrays | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
    states: StatesConfig | None = None,
) -> QuantizationAware:
    """Train a taught student with INT8 rounding, in place.

    Args:
        teacher: the one that taught it; not changed, and afterwards where it was.
        student: afterwards on the CPU, in evaluation mode.
        train: photographs at the larger of the two networks' sizes.
        config: the settings.
        val: measured before and after, not used for any choice.
        progress: called with (steps done, steps, text).
        device: where both networks run; None = the CPU.
        states: where to keep what a stopped run goes on from; None = nowhere.

    Raises:
        ConfigError: sizes do not fit, the backbone has no INT8 form, or training diverges.
        CheckpointError: the state to go on from is damaged or of another run.
    """
    home, where = device_of(teacher), device or CPU
    generator = seed_everything(config.seed)
    pictures = Pictures(
        train,
        teacher.label_names,
        teacher_px=teacher.encoder.config.size_px,
        student_px=student.config.size_px,
        device=where,
    )
    try:
        # The teacher may run in bfloat16; rounding to an integer grid needs float32.
        eye = TeacherEye(teacher.to(where), bfloat16=True)
        student.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rounded = RoundedStudent(student.eval()).to(where)
        task = task_objective(
            rounded,
            student.width,
            eye,
            pictures,
            weights=config.weights,
            bfloat16=False,
            seed=config.seed,
        )
        objective = _RoundedObjective(task, pictures, config)
        objective.measure_ranges()
        before = {} if val is None else {"rounded_before": _measure(teacher, rounded, val)}
        training = run_steps(
            objective, pictures, config.loop(), generator, progress=progress, states=states
        )
        after = {}
        if val is not None:
            after["rounded"] = _measure(teacher, rounded, val)
            size_px = student.config.size_px
            after["float"] = measure(teacher, student.eval(), val, student_px=size_px)
    finally:
        teacher.to(home)
    student.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return QuantizationAware(
        student=student.to(CPU).eval(),
        config=config,
        training=training,
        val={**before, **after},
        ranges=rounded.range_values(),
    )


def _measure(teacher: Teacher, rounded: RoundedStudent, val: SplitArrays) -> dict[str, float]:
    return measure(teacher, rounded.eval(), val, student_px=rounded.student.config.size_px)
