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
        oct_targets_nvzx: (N, V, side, side) float32, from `make_oct_targets`; zeros where a
            scan is missing.
        present_nv: (N, V) bool, the scans that exist; None = all of them.
        structure_ntk: (N, T, K) structural maps; None where no switch needs them.
        quality_nk: (N, K) how far each map can be trusted.
    """

    images_nhwc: torch.Tensor
    oct_targets_nvzx: torch.Tensor
    present_nv: torch.Tensor | None = None
    structure_ntk: torch.Tensor | None = None
    quality_nk: torch.Tensor | None = None

    def to(self, device: torch.device) -> EyeBatch:
        """The same on another device; asynchronous from pinned memory."""

        def moved(part: torch.Tensor | None) -> torch.Tensor | None:
            return None if part is None else part.to(device, non_blocking=True)

        return EyeBatch(
            images_nhwc=self.images_nhwc.to(device, non_blocking=True),
            oct_targets_nvzx=self.oct_targets_nvzx.to(device, non_blocking=True),
            present_nv=moved(self.present_nv),
            structure_ntk=moved(self.structure_ntk),
            quality_nk=moved(self.quality_nk),
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
        self,
        images_nhwc: torch.Tensor,
        oct_targets_nvzx: torch.Tensor,
        pairing: torch.Tensor,
        *,
        present_nv: torch.Tensor | None = None,
        structure: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Hold photographs and targets by eye.

        Args:
            images_nhwc: (N, S, S, 3) uint8.
            oct_targets_nvzx: (N, V, side, side) float32.
            pairing: (N,) whose OCT goes with each CFP.
            present_nv: (N, V) bool, which scans of an eye exist; None = all.
            structure: maps (N, T, K) and quality (N, K) of each CFP.
        """
        self.images, self.targets, self.pairing = images_nhwc, oct_targets_nvzx, pairing
        self.present_nv, self.structure = present_nv, structure

    def __len__(self) -> int:
        """Number of eyes."""
        return len(self.images)

    def stream(self, picked: Iterable[Indices]) -> Iterator[EyeBatch]:
        """One batch for each array of eye numbers."""
        for eyes in picked:
            index = torch.from_numpy(eyes)
            scans = self.pairing[index]
            maps, quality = (None, None) if self.structure is None else self.structure
            yield EyeBatch(
                images_nhwc=self.images[index],
                oct_targets_nvzx=self.targets[scans],
                present_nv=None if self.present_nv is None else self.present_nv[scans],
                structure_ntk=None if maps is None else maps[index],
                quality_nk=None if quality is None else quality[index],
            )

    def settling_images(self) -> torch.Tensor:
        """Every photograph."""
        return self.images

    def fitting_targets(self) -> torch.Tensor:
        """Every target of an eye whose scans are all there."""
        return self.targets if self.present_nv is None else self.targets[self.present_nv.all(1)]
