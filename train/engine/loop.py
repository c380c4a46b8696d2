"""The step loop of pretraining: batches in, losses out, states on the way.

With one slice on one rank it computes what a plain loop computes, to the bit. Everything
that is drawn is drawn by step and slice, never by rank, so neither the number of ranks nor
a kill in between changes what a step sees.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edge_runtime.errors import CheckpointError, ConfigError
from train.arrays import normalize_cfp
from train.data.sampler import EpochSampler
from train.engine.distributed import all_agree, barrier, current_ranks, gather_rows, total
from train.engine.parallel import (
    compile_blocks,
    full_optimizer_tensors,
    full_weights,
    load_optimizer_tensors,
    load_weights_anywhere,
    spread,
    without_sync,
)
from train.engine.settings import EngineConfig
from train.engine.source import BatchSource, EyeBatch, Indices
from train.engine.state import TrainingState, load_state, require_same_run, save_state
from train.pretrain_model import PretrainModel
from train.schedule import Progress, StepGuard, cosine_rate

__all__ = ["LoopConfig", "PretrainLoop", "SliceLoss"]

_RECENT = 50  # steps whose losses are kept, for progress and the final metrics
_SHOWN = 20  # steps between two lines of progress


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the loop needs to know of a run.

    Attributes:
        num_steps: steps of the whole run, also when it is resumed.
        batch_size: eyes of the global batch.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's.
        bfloat16: run the networks in bfloat16; losses stay float32.
        seed: of batches and of the masks of all slices but the first.
        identity: JSON-able settings and fingerprint that a resumed run must share.
        engine: how it is executed.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    bfloat16: bool
    seed: int
    identity: Mapping[str, Any]
    engine: EngineConfig


class SliceLoss(torch.nn.Module):
    """The one place where the loop calls the model: a slice in, tensors out.

    Plain tensors, because that is what DDP's and FSDP's hooks find in an output.
    """

    def __init__(self, model: PretrainModel, *, bfloat16: bool) -> None:
        """Wrap the model that is trained."""
        super().__init__()
        self.model, self.use_bfloat16 = model, bfloat16

    def forward(
        self, batch: EyeBatch, generator: torch.Generator, done: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss to go down on and, detached, that of each route; float32 scalars.

        `done` is the share of the steps already done, by which weights of routes may change.
        """
        device, scans = batch.images_nhwc.device, batch.oct_targets_nvzx
        with torch.autocast(device.type, torch.bfloat16, enabled=self.use_bfloat16):
            outputs = self.model(
                normalize_cfp(batch.images_nhwc),
                scans,
                scans,
                generator,
                present_nv=batch.present_nv,
                structure_ntk=batch.structure_ntk,
                quality_nk=batch.quality_nk,
            )
        parts = {name: output.loss.detach() for name, output in outputs.items()}
        return self.model.total_loss(outputs, done=done), parts


class PretrainLoop:
    """One run, new or resumed.

    Attributes:
        step: steps done.
        guard: counts skipped steps.
        recent: route -> losses of the last 50 steps; NaN where one was not finite.
        seconds: of this process's steps: 'starting' is the first one, in which workers start
            and kernels are chosen; 'total' all later ones and 'waiting' for data in them.
    """

    def __init__(
        self,
        model: PretrainModel,
        source: BatchSource,
        config: LoopConfig,
        generator: torch.Generator,
        *,
        device: torch.device,
    ) -> None:
        """Set everything up, and go back to a saved state if the config says so.

        Args:
            model: on its device already.
            source: the eyes.
            config: the run.
            generator: draws the masks of the first slice.
            device: where batches are moved to.

        Raises:
            ConfigError: slices do not divide the batch, or ranks the slices.
            CheckpointError: the state is damaged or of another run.
        """
        self.model, self.source, self.config = model, source, config
        self.step = 0
        self.device = device
        self.sampler = EpochSampler(len(source), config.batch_size, config.seed)
        state = self._saved_state()
        self.num_slices = self._count_slices(state)
        if config.engine.compile_blocks:
            compile_blocks(model)
        self.generators = self._mask_generators(generator)
        model.train()
        self.trained = spread(
            SliceLoss(model, bfloat16=config.bfloat16),
            config.engine.parallel,
            some_idle=any(route.is_joint for route in model.routes),  # the OCT encoder's blocks
        )
        self.guard = StepGuard(
            torch.optim.AdamW(
                model.parameters(),
                lr=config.learning_rate,
                betas=(0.9, 0.95),
                weight_decay=config.weight_decay,
            ),
            huge=config.engine.huge_gradient,
            agree=all_agree,
        )
        names = [route.name for route in model.routes]
        self.recent = {name: deque[float](maxlen=_RECENT) for name in names}
        self.seconds = dict.fromkeys(("starting", "total", "waiting"), 0.0)
        if state is not None:
            self._restore(state)

    def run(self, progress: Progress | None = None) -> None:
        """Do the steps that are left.

        Raises:
            ConfigError: training diverges.
            DataError: an eye cannot be read.
        """
        batches = self.source.stream(self._own_slices())
        while self.step < self.config.num_steps:
            started = time.perf_counter()
            waiting = self._one_step(batches)
            self._count_time(time.perf_counter() - started, waiting)
            self._save_when_due()
            self._show(progress)
        if self.guard.num_skipped == self.config.num_steps:
            raise ConfigError(
                f"all {self.config.num_steps} steps were skipped; lower the learning rate"
            )

    def metrics(self) -> dict[str, float]:
        """Mean loss of each route over the last steps, and the number of skipped steps."""
        # A skipped step's loss is no number; it is counted in skipped_steps instead.
        means = {f"loss {name}": float(np.nanmean(losses)) for name, losses in self.recent.items()}
        return {**means, "skipped_steps": float(self.guard.num_skipped)}

    def weights(self) -> dict[str, torch.Tensor]:
        """Whole weights and buffers on the CPU; every rank must ask."""
        return full_weights(self.model)

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP has cut the model's weights up."""
        return hasattr(next(self.model.parameters()), "placements")

    # One step ---------------------------------------------------------------------------

    def _one_step(self, batches: Iterator[EyeBatch]) -> float:
        """Do it; returns the seconds spent waiting for data."""
        waiting = 0.0
        own = self._own_generators()
        sums = dict.fromkeys(self.recent, 0.0)
        rate = cosine_rate(self.step, self.config.num_steps, self.config.learning_rate)
        for number, generator in enumerate(own, start=1):
            asked = time.perf_counter()
            batch = next(batches)
            waiting += time.perf_counter() - asked
            batch = batch.to(self.device)
            is_last = number == len(own)
            # Ranks are averaged, a rank's slices are summed.
            with nullcontext() if is_last else without_sync(self.trained):
                loss, parts = self.trained(batch, generator, self.step / self.config.num_steps)
                loss = loss if len(own) == 1 else loss / len(own)
                if is_last:
                    self.guard.step(loss, rate)
                else:
                    self.guard.accumulate(loss)
            for name, part in parts.items():
                sums[name] += float(part)
        self._note(sums)
        self.sampler.skip(1)
        self.step += 1
        return waiting

    def _count_time(self, seconds: float, waiting: float) -> None:
        if not self.seconds["starting"]:
            self.seconds["starting"] = seconds
            return
        self.seconds["total"] += seconds
        self.seconds["waiting"] += waiting

    def _note(self, sums: Mapping[str, float]) -> None:
        values = list(sums.values())
        if current_ranks().world_size > 1:
            values = total(torch.tensor(values, dtype=torch.float64)).tolist()
        for losses, value in zip(self.recent.values(), values, strict=True):
            mean = value / self.num_slices
            losses.append(mean if math.isfinite(mean) else math.nan)

    def _show(self, progress: Progress | None) -> None:
        if progress is None or not current_ranks().is_main:
            return
        if self.step % _SHOWN == 0 or self.step == self.config.num_steps:
            shown = {name: list(losses)[-_SHOWN:] for name, losses in self.recent.items()}
            text = " ".join(f"{name} {np.nanmean(last):.3f}" for name, last in shown.items())
            progress(self.step, self.config.num_steps, text)

    # Slices -----------------------------------------------------------------------------

    def _count_slices(self, state: TrainingState | None) -> int:
        ranks, asked = current_ranks().world_size, self.config.engine.num_slices
        if state is not None and asked not in (0, state.num_slices):
            raise ConfigError(
                f"num_slices is {asked}, the interrupted run had {state.num_slices}; keep that"
            )
        count = state.num_slices if state is not None else asked or ranks
        size = self.sampler.batch_size
        if count % ranks:
            raise ConfigError(
                f"{count} slices cannot be divided among {ranks} ranks; use a number of ranks "
                f"that divides {count}"
            )
        if size % count or size // count < 2:
            raise ConfigError(
                f"a batch of {size} eyes cannot be cut into {count} equal slices of at least 2"
            )
        return count

    def _mask_generators(self, first: torch.Generator) -> list[torch.Generator]:
        """One a slice, the same on every rank."""
        rest = np.random.SeedSequence(self.config.seed).generate_state(self.num_slices - 1)
        return [first, *(torch.Generator().manual_seed(int(seed)) for seed in rest)]

    def _own_range(self) -> range:
        """Which slices this rank does."""
        ranks = current_ranks()
        each = self.num_slices // ranks.world_size
        return range(ranks.rank * each, (ranks.rank + 1) * each)

    def _own_generators(self) -> list[torch.Generator]:
        return [self.generators[number] for number in self._own_range()]

    def _own_slices(self) -> Iterator[Indices]:
        """Eye numbers of this rank's slices from here to the end; may be drawn ahead."""
        ahead = EpochSampler(len(self.source), self.config.batch_size, self.config.seed)
        ahead.load_state_dict(self.sampler.state_dict())
        for _ in range(self.step, self.config.num_steps):
            slices = ahead.draw().reshape(self.num_slices, -1)
            yield from (slices[number] for number in self._own_range())

    # States -----------------------------------------------------------------------------

    def _saved_state(self) -> TrainingState | None:
        engine = self.config.engine
        if engine.states is None or not (engine.resume or engine.resume_step is not None):
            return None
        state = load_state(engine.states, step=engine.resume_step)
        if state is not None:
            require_same_run(state.identity, self.config.identity)
        return state

    def _save_when_due(self) -> None:
        engine = self.config.engine
        is_last = self.step == self.config.num_steps
        due = is_last or (engine.save_every > 0 and self.step % engine.save_every == 0)
        if engine.states is None or not due:
            return
        state = self._capture()
        if current_ranks().is_main:
            save_state(engine.states, state, keep=engine.keep_states)
        barrier()

    def _capture(self) -> TrainingState:
        weights, optimizer = full_weights(self.model), self.guard.optimizer
        moments = full_optimizer_tensors(self.model, optimizer)
        masks = torch.stack([one.get_state() for one in self._own_generators()])
        tensors = {
            **{f"model.{name}": value for name, value in weights.items()},
            **{f"optimizer.{name}": value for name, value in moments.items()},
            **{
                f"recent.{name}": torch.tensor(list(losses), dtype=torch.float64)
                for name, losses in self.recent.items()
            },
            # No step draws from torch's own generator; it is kept for layers that would.
            "random.torch": torch.get_rng_state(),
            "random.masks": gather_rows(masks),
        }
        return TrainingState(
            step=self.step,
            num_skipped=self.guard.num_skipped,
            num_slices=self.num_slices,
            world_size=current_ranks().world_size,
            sampler=self.sampler.state_dict(),
            identity=self.config.identity,
            tensors=tensors,
        )

    def _restore(self, state: TrainingState) -> None:
        try:
            load_weights_anywhere(self.model, state.group("model."))
            load_optimizer_tensors(self.model, self.guard.optimizer, state.group("optimizer."))
            self.sampler.load_state_dict(state.sampler)
            for one, saved in zip(self.generators, state.tensors["random.masks"], strict=True):
                one.set_state(saved.clone())  # it reads from the start of the storage
            torch.set_rng_state(state.tensors["random.torch"])
            for name, losses in self.recent.items():
                losses.extend(state.tensors[f"recent.{name}"].tolist())
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"training state of step {state.step} does not fit this version: {error!r}; "
                "start the run anew"
            ) from error
        self.step, self.guard.num_skipped = state.step, state.num_skipped
