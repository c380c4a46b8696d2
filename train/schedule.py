"""Learning rate, gradient step and batches: the small engine every training stage shares."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from edge_runtime.errors import ConfigError

__all__ = ["Progress", "StepGuard", "batches", "cosine_rate", "seed_everything"]

Progress = Callable[[int, int, str], None]
_LOGGER = logging.getLogger(__name__)


def cosine_rate(step: int, num_steps: int, peak: float, *, warmup: int = 40) -> float:
    """Linear warm-up, then a half cosine down to 5 % of the peak."""
    ramp = min(1.0, (step + 1) / max(1, min(warmup, num_steps // 4)))
    return peak * ramp * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / num_steps)))


def seed_everything(seed: int) -> torch.Generator:
    """Seed torch's global generator (weights, dropout) and return one for masks and draws."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def batches(num_items: int, batch_size: int, num_steps: int, seed: int) -> Iterator[torch.Tensor]:
    """`num_steps` index batches that walk through shuffled epochs without end."""
    rng = np.random.default_rng(seed)
    queue = np.empty(0, np.int64)
    size = min(batch_size, num_items)
    for _ in range(num_steps):
        if len(queue) < size:
            queue = np.concatenate([queue, rng.permutation(num_items)])
        picked, queue = queue[:size], queue[size:]
        yield torch.from_numpy(picked.copy())


class StepGuard:
    """One optimiser step with clipping; a non-finite gradient skips the step, loudly."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, clip: float = 1.0) -> None:
        """Wrap an optimiser; `clip` is the largest gradient norm."""
        self.optimizer, self.clip, self.num_skipped = optimizer, clip, 0

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """Backward and update at learning rate `rate` (scaled by a group's 'scale').

        Raises:
            ConfigError: ten steps were skipped; the settings diverge.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            return
        self.num_skipped += 1
        _LOGGER.warning("non-finite gradient; step skipped (%d so far)", self.num_skipped)
        if self.num_skipped >= 10:
            raise ConfigError("10 steps had non-finite gradients; lower the learning rate")
