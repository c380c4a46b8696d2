"""All settings of a run of the sixteen tasks; saved whole beside its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_runtime.errors import ConfigError
from train.tasks.multi_head import MultiHeadConfig

__all__ = ["READOUTS", "TaskSettings"]

READOUTS = ("probe", "finetune")


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """How the tasks are measured; the same for every arm of a comparison.

    Attributes:
        budgets: labelled training eyes of classification, ascending.
        readouts: of classification: 'probe' (encoder frozen) and 'finetune'.
        probe_draws: label draws of a probe; fine-tuning has one draw a seed.
        finetune: of the joint fine-tuning.
        shots: labelled patients a class in the few-shot tasks, ascending.
        few_shot_draws: draws of those patients, at least ten.
        few_shot_strength: inverse L2 penalty of the few-shot probe. One patient a class
            leaves nothing to choose it on, so it is fixed.
        num_oct_components: whitened OCT components that retrieval compares.
        num_draws: bootstrap draws of patients.
        bootstrap_seed: of those draws.
        segmentation: a `train.tasks.segmentation.SegmentationSettings`; None = its defaults.
    """

    budgets: tuple[int, ...] = (100, 300, 1000)
    readouts: tuple[str, ...] = READOUTS
    probe_draws: int = 10
    finetune: MultiHeadConfig = field(default_factory=MultiHeadConfig)
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    few_shot_draws: int = 10
    few_shot_strength: float = 0.003
    num_oct_components: int = 16
    num_draws: int = 2000
    bootstrap_seed: int = 0
    segmentation: Any = None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        for name, values in (("budgets", self.budgets), ("shots", self.shots)):
            if not values or values[0] < 1 or list(values) != sorted(set(values)):
                raise ConfigError(f"{name} are {values}; give ascending numbers from 1")
        unknown = sorted(set(self.readouts) - set(READOUTS))
        if unknown or not self.readouts:
            raise ConfigError(f"readouts are {self.readouts}; choose among {READOUTS}")
        if self.probe_draws < 1 or self.num_draws < 100:
            raise ConfigError(
                f"probe_draws {self.probe_draws} must be >= 1 and num_draws {self.num_draws} >= 100"
            )
        if self.few_shot_draws < 10:
            raise ConfigError(
                f"few_shot_draws is {self.few_shot_draws}; a few-shot result needs 10 or more"
            )
        if self.few_shot_strength <= 0 or self.num_oct_components < 1:
            raise ConfigError(
                f"few_shot_strength {self.few_shot_strength} must be > 0 and num_oct_components "
                f"{self.num_oct_components} >= 1"
            )
