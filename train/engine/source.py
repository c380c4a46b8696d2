"""Where batches come from: the protocol that the loop reads, and pictures held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["BatchSource", "EyeBatch", "MemorySource"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EyeBatch:
    """What one slice of a batch needs, on the CPU.

    Attributes:
        images_nhwc: (N, S, S, 3) uint8, preprocessed by the runtime.
        oct_targets_nvzx: (N, V, side, side) float32, from `make_oct_targets`.
    """

    images_nhwc: torch.Tensor
    oct_targets_nvzx: torch.Tensor

    def to(self, device: torch.device) -> EyeBatch:
        """The same on another device; asynchronous from pinned memory."""
        return EyeBatch(
            images_nhwc=self.images_nhwc.to(device, non_blocking=True),
            oct_targets_nvzx=self.oct_targets_nvzx.to(device, non_blocking=True),
        )


class BatchSource(Protocol):
    """A data set that can be drawn from by eye number."""

    def __len__(self) -> int:
        """Number of eyes."""
        ...

    def stream(self, picked: Iterable[Indices]) -> Iterator[EyeBatch]:
        """One batch for each array of eye numbers, in order; may read ahead.

        Raises:
            DataError: an eye cannot be read. Never another eye in its place.
        """
        ...

    def settling_images(self) -> torch.Tensor:
        """(M, S, S, 3) uint8 photographs to settle BatchNorm on."""
        ...

    def fitting_targets(self) -> torch.Tensor:
        """(M, V, side, side) float32 targets to fit whitened components on."""
        ...


class MemorySource:
    """A split in memory; batches are indexed when they are asked for."""

    def __init__(
        self, images_nhwc: torch.Tensor, oct_targets_nvzx: torch.Tensor, pairing: torch.Tensor
    ) -> None:
        """Hold photographs and targets by eye; `pairing[i]` is whose OCT goes with CFP i."""
        self.images, self.targets, self.pairing = images_nhwc, oct_targets_nvzx, pairing

    def __len__(self) -> int:
        """Number of eyes."""
        return len(self.images)

    def stream(self, picked: Iterable[Indices]) -> Iterator[EyeBatch]:
        """One batch for each array of eye numbers."""
        for eyes in picked:
            index = torch.from_numpy(eyes)
            yield EyeBatch(
                images_nhwc=self.images[index], oct_targets_nvzx=self.targets[self.pairing[index]]
            )

    def settling_images(self) -> torch.Tensor:
        """Every photograph."""
        return self.images

    def fitting_targets(self) -> torch.Tensor:
        """Every target."""
        return self.targets
