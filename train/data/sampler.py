"""Which eyes a step sees: shuffled epochs without end, resumable at every batch.

The order is a function of (seed, epoch) and nothing else: not of the number of processes
or workers, nor of where the pictures lie. So a run from shards sees the batches of a run
from memory, and its whole state is three integers.

The shuffle is complete, not within a window: an eye's pictures lie side by side in a shard
and are read in one piece of tens of kilobytes or more, which solid-state and parallel file
systems serve at random as well as in order. On a single spinning disk it is slow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import CheckpointError, ConfigError

__all__ = ["EpochSampler"]

Indices = npt.NDArray[np.int64]


class EpochSampler:
    """Index batches that walk through shuffled epochs; one batch may cross a seam.

    Attributes:
        num_items: eyes of the data set.
        batch_size: eyes of the global batch; no more than there are.
        seed: of the shuffles.
        position: eyes handed out since the start.
    """

    def __init__(self, num_items: int, batch_size: int, seed: int) -> None:
        """Start at the first batch.

        Raises:
            ConfigError: there is nothing to draw from, or a batch would be empty.
        """
        if num_items < 1 or batch_size < 1:
            raise ConfigError(
                f"{num_items} eyes cannot give batches of {batch_size}; both must be at least 1"
            )
        self.num_items, self.batch_size, self.seed = num_items, min(batch_size, num_items), seed
        self.position = 0
        self._forget()

    def _forget(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._drawn = 0  # epochs drawn from _rng so far
        self._order: Indices = np.empty(0, np.int64)  # of epoch _drawn - 1

    def _epoch(self, epoch: int) -> Indices:
        """The order of one epoch; earlier ones are drawn again only when going back."""
        if epoch < self._drawn - 1:
            self._forget()
        while self._drawn <= epoch:
            self._order = self._rng.permutation(self.num_items)
            self._drawn += 1
        return self._order

    def __iter__(self) -> Iterator[Indices]:
        """Batches from here on, without end; `position` moves with them."""
        while True:
            yield self.draw()

    def draw(self) -> Indices:
        """The next batch: (batch_size,) int64, each index in [0, num_items)."""
        parts, missing = [], self.batch_size
        while missing:
            epoch, offset = divmod(self.position, self.num_items)
            part = self._epoch(epoch)[offset : offset + missing]
            parts.append(part)
            self.position += len(part)
            missing -= len(part)
        return np.concatenate(parts)

    def skip(self, num_batches: int) -> None:
        """Move on as if `num_batches` had been drawn."""
        self.position += num_batches * self.batch_size

    def state_dict(self) -> dict[str, int]:
        """Everything needed to go on: JSON integers."""
        epoch, offset = divmod(self.position, self.num_items)
        return {
            "seed": self.seed,
            "num_items": self.num_items,
            "batch_size": self.batch_size,
            "epoch": epoch,
            "offset": offset,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state` was taken.

        Raises:
            CheckpointError: it was taken over other data, another batch size or another seed.
        """
        own = self.state_dict()
        if set(state) != set(own):
            raise CheckpointError(f"sampler state has {sorted(state)}, not {sorted(own)}")
        for name in ("seed", "num_items", "batch_size"):
            if state[name] != own[name]:
                raise CheckpointError(
                    f"sampler state has {name} {state[name]}, this run has {own[name]}; resume "
                    "with the data and settings of the interrupted run"
                )
        if not 0 <= state["offset"] < self.num_items or state["epoch"] < 0:
            raise CheckpointError(
                f"sampler state is at epoch {state['epoch']}, offset {state['offset']}; an epoch "
                f"has {self.num_items} eyes"
            )
        self.position = state["epoch"] * self.num_items + state["offset"]
