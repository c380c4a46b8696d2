"""Learning rate, gradient step and batches: the small engine every training stage shares."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import torch

from edge_runtime.errors import ConfigError
from train.data.sampler import EpochSampler

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
    sampler = EpochSampler(num_items, batch_size, seed)
    for _ in range(num_steps):
        yield torch.from_numpy(sampler.draw())


class StepGuard:
    """One optimiser step with clipping; a non-finite or huge gradient skips it, loudly."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        clip: float = 1.0,
        huge: float = math.inf,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        """Wrap an optimiser.

        Args:
            optimizer: its groups may have a 'scale' of the learning rate.
            clip: the largest gradient norm; larger gradients are shortened.
            huge: a step with a larger norm than this is skipped.
            agree: given whether this rank can step, says whether every rank can.
        """
        self.optimizer, self.clip, self.huge, self.num_skipped = optimizer, clip, huge, 0
        self._agree, self._pending = agree, False

    def accumulate(self, loss: torch.Tensor) -> None:
        """Backward only: add to the gradients of the step that follows."""
        if not self._pending:
            self.optimizer.zero_grad()
        self._pending = True
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """Backward and update at learning rate `rate` (scaled by a group's 'scale').

        Raises:
            ConfigError: ten steps were skipped; the settings diverge.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.accumulate(loss)
        self._pending = False
        if self._agree(self._clip_gradients()):
            self.optimizer.step()
            return
        self.num_skipped += 1
        kind = "non-finite" if self.huge == math.inf else "non-finite or huge"
        _LOGGER.warning("%s gradient; step skipped (%d so far)", kind, self.num_skipped)
        if self.num_skipped >= 10:
            raise ConfigError(f"10 steps had {kind} gradients; lower the learning rate")

    def _clip_gradients(self) -> bool:
        """Shorten the gradients; whether a step along them is safe."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = getattr(norm, "full_tensor", lambda: norm)()  # sharded by FSDP
        torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        return bool(torch.isfinite(norm)) and (self.huge == math.inf or float(norm) <= self.huge)
