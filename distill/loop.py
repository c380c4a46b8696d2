"""The step loop of every stage of distillation: batches in, losses out, states on the way.

A stage is an `Objective`: the student, what is thrown away afterwards, and named losses. The
loop draws views, sums the losses by their weights, steps, and can stop and go on at any step:
states are written by `train.engine.state`, whole or not at all, never pickle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from distill.augment import AugmentConfig
from distill.views import Pictures, View
from edge_runtime.errors import CheckpointError, ConfigError
from train.data.sampler import EpochSampler
from train.engine.parallel import (
    full_optimizer_tensors,
    full_weights,
    load_optimizer_tensors,
    load_weights_anywhere,
)
from train.engine.state import TrainingState, load_state, require_same_run, save_state
from train.schedule import Progress, StepGuard, cosine_rate

__all__ = ["LoopConfig", "Objective", "StatesConfig", "loop_config", "run_steps"]

_RECENT, _SHOWN, _KEPT_STATES = 50, 20, 2


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How a stage walks.

    Attributes:
        num_steps: optimiser steps.
        batch_size: eyes a step.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's.
        mixup: blend every picture with another of its batch.
        augment: how far a view may differ from its photograph.
        seed: of the batches.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    mixup: bool
    augment: AugmentConfig
    seed: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.num_steps < 1 or self.batch_size < 2:
            raise ConfigError(
                f"num_steps {self.num_steps} must be >= 1 and batch_size {self.batch_size} >= 2"
            )
        if not 0 < self.learning_rate < 1 or self.weight_decay < 0:
            raise ConfigError(
                f"learning_rate {self.learning_rate} must be in (0, 1) and weight_decay "
                f"{self.weight_decay} >= 0"
            )


class _Walks(Protocol):
    """Settings of a stage, as far as the loop goes by them."""

    @property
    def num_steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def augment(self) -> AugmentConfig: ...
    @property
    def seed(self) -> int: ...


def loop_config(stage: _Walks, *, mixup: bool) -> LoopConfig:
    """What the step loop needs of a stage's settings.

    Raises:
        ConfigError: a setting is out of range.
    """
    return LoopConfig(
        num_steps=stage.num_steps,
        batch_size=stage.batch_size,
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        mixup=mixup,
        augment=stage.augment,
        seed=stage.seed,
    )


@dataclass(frozen=True, kw_only=True)
class StatesConfig:
    """Where a run keeps what it needs to go on after a stop.

    Attributes:
        folder: of the states of one stage.
        save_every: steps between states, at least 1.
        resume: go on from the newest state; start anew where there is none.
        identity: settings and data of the run, JSON-able; a resumed run must have the same.
    """

    folder: Path
    save_every: int
    resume: bool
    identity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an interval that never comes."""
        if self.save_every < 1:
            raise ConfigError(f"save_every is {self.save_every}; it must be at least 1")


class Objective(nn.Module, ABC):
    """What a stage goes down on; its parameters are what the stage trains.

    Attributes:
        weights: name -> weight of each loss.
    """

    weights: Mapping[str, float]

    @abstractmethod
    def losses(self, view: View) -> dict[str, torch.Tensor]:
        """Name -> scalar float32 loss of one batch."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Called after every step; most stages have nothing to do."""
        del step, num_steps


def run_steps(
    objective: Objective,
    pictures: Pictures,
    config: LoopConfig,
    generator: torch.Generator,
    *,
    progress: Progress | None = None,
    states: StatesConfig | None = None,
) -> dict[str, float]:
    """Train.

    Args:
        objective: on its device; left in the mode it was given in.
        pictures: what is looked at.
        config: the settings.
        generator: draws the views.
        progress: called with (steps done, steps, text).
        states: where to keep states; None = nowhere.

    Returns:
        Mean of each loss over the last 50 steps ('loss_NAME'), and 'skipped_steps'.

    Raises:
        ConfigError: training diverges.
        CheckpointError: the state to go on from is damaged or of another run.
    """
    return _Loop(objective, pictures, config, generator, states).run(progress)


class _Loop:
    def __init__(
        self,
        objective: Objective,
        pictures: Pictures,
        config: LoopConfig,
        generator: torch.Generator,
        states: StatesConfig | None,
    ) -> None:
        self.objective, self.pictures, self.config = objective, pictures, config
        self.generator, self.states, self.step = generator, states, 0
        self.sampler = EpochSampler(len(pictures), config.batch_size, config.seed)
        trained = [one for one in objective.parameters() if one.requires_grad]
        self.guard = StepGuard(
            torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        )
        self.recent = {name: deque[float](maxlen=_RECENT) for name in objective.weights}
        state = None
        if states is not None and states.resume:
            state = load_state(states.folder)
        if state is not None:
            self._restore(state)

    def run(self, progress: Progress | None) -> dict[str, float]:
        num_steps = self.config.num_steps
        while self.step < num_steps:
            self._one_step()
            self._save_when_due()
            due = self.step % _SHOWN == 0 or self.step == num_steps
            if progress is not None and due:
                progress(self.step, num_steps, self._text())
        means = {f"loss_{name}": value for name, value in _means(self.recent, _RECENT).items()}
        return {**means, "skipped_steps": float(self.guard.num_skipped)}

    def _one_step(self) -> None:
        config = self.config
        picked = torch.from_numpy(self.sampler.draw())
        view = self.pictures.changed(picked, config.augment, self.generator, mixup=config.mixup)
        losses = self.objective.losses(view)
        total = sum(self.objective.weights[name] * loss for name, loss in losses.items())
        assert isinstance(total, torch.Tensor)
        self.guard.step(total, cosine_rate(self.step, config.num_steps, config.learning_rate))
        for name, loss in losses.items():
            self.recent[name].append(float(loss.detach()))
        self.step += 1
        self.objective.after_step(self.step, config.num_steps)

    def _text(self) -> str:
        means = _means(self.recent, _SHOWN)
        return " ".join(f"{name} {value:.3f}" for name, value in means.items())

    def _save_when_due(self) -> None:
        states = self.states
        if states is None:
            return
        if self.step % states.save_every == 0 or self.step == self.config.num_steps:
            save_state(states.folder, self._capture(states), keep=_KEPT_STATES)

    def _capture(self, states: StatesConfig) -> TrainingState:
        weights = full_weights(self.objective)
        moments = full_optimizer_tensors(self.objective, self.guard.optimizer)
        tensors = {
            **{f"model.{name}": value for name, value in weights.items()},
            **{f"optimizer.{name}": value for name, value in moments.items()},
            **{
                f"recent.{name}": torch.tensor(list(losses), dtype=torch.float64)
                for name, losses in self.recent.items()
            },
            "random.views": self.generator.get_state(),
            "random.torch": torch.get_rng_state(),
        }
        return TrainingState(
            step=self.step,
            num_skipped=self.guard.num_skipped,
            num_slices=1,
            world_size=1,
            sampler=self.sampler.state_dict(),
            identity=states.identity,
            tensors=tensors,
        )

    def _restore(self, state: TrainingState) -> None:
        assert self.states is not None
        require_same_run(state.identity, self.states.identity)
        try:
            load_weights_anywhere(self.objective, state.group("model."))
            optimizer = self.guard.optimizer
            load_optimizer_tensors(self.objective, optimizer, state.group("optimizer."))
            self.sampler.load_state_dict(state.sampler)
            self.generator.set_state(state.tensors["random.views"].clone())
            torch.set_rng_state(state.tensors["random.torch"].clone())
            for name, losses in self.recent.items():
                losses.extend(state.tensors[f"recent.{name}"].tolist())
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"training state of step {state.step} does not fit this version: {error!r}; "
                "start the run anew"
            ) from error
        self.step, self.guard.num_skipped = state.step, state.num_skipped


def _means(recent: Mapping[str, deque[float]], num: int) -> dict[str, float]:
    """Mean of each loss over the last steps; a skipped step's is no number and is left out."""
    columns = {name: np.array(list(losses)[-num:]) for name, losses in recent.items()}
    known = {name: values[np.isfinite(values)] for name, values in columns.items()}
    return {name: float(values.mean()) for name, values in known.items() if len(values)}
