"""How a run is executed, apart from what it computes: ranks, slices, saving, resuming."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import ConfigError

__all__ = ["PARALLEL_KINDS", "EngineConfig"]

PARALLEL_KINDS = ("ddp", "fsdp")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Execution settings; none of them is part of the method.

    The global batch consists of `num_slices` slices of equal size. A slice is what the
    model sees at once: masks, BatchNorm statistics, the routes' shares and their mean losses
    belong to a slice. The loss of a step is the mean over its slices. Ranks only divide the
    slices among themselves, so a run means the same on 1, 2, 4 or 8 of them.

    Attributes:
        num_slices: slices of the global batch, a multiple of the number of ranks; 0 = the
            number in the state that is resumed, else one a rank. More slices than ranks
            accumulate gradients.
        parallel: 'ddp' (every rank holds all weights) or 'fsdp' (weights, gradients and the
            optimizer's state sharded). Without torchrun both are a plain run.
        compile_blocks: torch.compile every transformer block.
        huge_gradient: a step whose gradient norm is above it is skipped like a non-finite one.
        states: folder of training states; None = none are written.
        save_every: steps between states; 0 = only after the last step.
        keep_states: newest states kept.
        resume: go on from the newest state in `states`; start anew where there is none.
        resume_step: go on from this step's state instead.
    """

    num_slices: int = 0
    parallel: str = "ddp"
    compile_blocks: bool = False
    huge_gradient: float = math.inf
    states: Path | None = None
    save_every: int = 0
    keep_states: int = 3
    resume: bool = False
    resume_step: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.parallel not in PARALLEL_KINDS:
            raise ConfigError(f"parallel is {self.parallel!r}; choose from {PARALLEL_KINDS}")
        if self.num_slices < 0 or self.save_every < 0 or self.keep_states < 1:
            raise ConfigError(
                f"num_slices {self.num_slices} and save_every {self.save_every} cannot be "
                f"negative and keep_states {self.keep_states} must be at least 1"
            )
        if not self.huge_gradient > 0:
            raise ConfigError(f"huge_gradient is {self.huge_gradient}; it must be above 0")
        if self.states is None and (self.resume or self.resume_step is not None):
            raise ConfigError("resuming needs the folder of states; give it as `states`")
