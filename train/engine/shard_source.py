"""Eyes from shards: worker processes decode, preprocess and make targets ahead of the step.

A worker's job is one slice of one batch, because flattening B-scans costs far less an eye
when many are done together. Workers hold no state: a job is eye numbers, its result the
slice. So their number changes neither the batches nor their order, and a run can be resumed
with another number of them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from edge_runtime.errors import ConfigError, DataError, ImageError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.scans import decode_scan
from train.data.shard_reader import EyeFiles, ShardReader
from train.engine.source import EyeBatch, Indices
from train.oct_targets import OctTargetConfig, make_oct_targets

__all__ = ["ShardSource"]

_FITTED = 4096  # eyes that components are fitted and BatchNorm is settled on
_SETTLING_BYTES = 512 << 20  # bounds the photographs among them
_CHUNK = 64

_Slice = tuple[torch.Tensor, torch.Tensor] | str  # photographs and targets, or what is wrong


class _Slices(Dataset[_Slice]):
    """Eye numbers -> a slice; runs in the workers."""

    def __init__(
        self,
        reader: ShardReader,
        pairing: Indices,
        spec: PreprocessSpec,
        oct_target: OctTargetConfig,
    ) -> None:
        self.reader, self.pairing, self.spec, self.oct_target = reader, pairing, spec, oct_target

    def __getitem__(self, eyes: Indices) -> _Slice:
        try:
            files = [self.reader.read(int(eye)) for eye in eyes]
            partners = [
                own if self.pairing[eye] == eye else self.reader.read(int(self.pairing[eye]))
                for eye, own in zip(eyes, files, strict=True)
            ]
            images = np.stack([_photograph(one, self.spec) for one in files])
            targets = _targets([_scans(one) for one in partners], self.oct_target)
        except DataError as error:
            # As a value: an exception from a worker would arrive wrapped in its traceback.
            return str(error)
        return torch.from_numpy(images), torch.from_numpy(targets)


def _photograph(files: EyeFiles, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """(S, S, 3) uint8, by the runtime's preprocessing."""
    try:
        _, preprocessed = load_for_model(files.cfp, spec)
    except ImageError as error:
        raise DataError(f"{files.where}: cfp: {error}; shard the data without it") from error
    return preprocessed.image_hwc


def _scans(files: EyeFiles) -> npt.NDArray[np.uint8]:
    """(2, Z, X) uint8: horizontal, vertical."""
    try:
        return np.stack([decode_scan(files.oct_h, "oct_h"), decode_scan(files.oct_v, "oct_v")])
    except (DataError, ValueError) as error:
        raise DataError(f"{files.where}: {error}") from error


def _targets(
    scans: list[npt.NDArray[np.uint8]], config: OctTargetConfig
) -> npt.NDArray[np.float32]:
    """(N, 2, side, side) float32; scans of one shape are done together."""
    shapes = {one.shape for one in scans}
    out = np.empty((len(scans), 2, config.side_px, config.side_px), np.float32)
    for shape in shapes:
        same = [k for k, one in enumerate(scans) if one.shape == shape]
        out[same] = make_oct_targets(np.stack([scans[k] for k in same]), config)
    return out


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)  # workers are the parallelism


class ShardSource:
    """A `BatchSource` over shards."""

    def __init__(
        self,
        reader: ShardReader,
        pairing: torch.Tensor,
        *,
        size_px: int,
        oct_target: OctTargetConfig,
        num_workers: int,
        pin_memory: bool = False,
    ) -> None:
        """Prepare to read; no worker starts before `stream`.

        Args:
            reader: the shards.
            pairing: (N,) whose OCT goes with each CFP.
            size_px: S of the runtime's preprocessing.
            oct_target: what the B-scans become.
            num_workers: processes; 0 = none, every batch is made when it is asked for.
            pin_memory: hand out page-locked batches, for CUDA.
        """
        if num_workers < 0:
            raise ConfigError(f"num_workers is {num_workers}; it cannot be negative")
        self.reader, self.num_workers, self.pin_memory = reader, num_workers, pin_memory
        spec = PreprocessSpec(size_px=size_px)
        self._slices = _Slices(reader, pairing.numpy(), spec, oct_target)
        own = np.arange(len(reader))
        self._own_slices = _Slices(reader, own, spec, oct_target)
        self._sample: EyeBatch | None = None

    def __len__(self) -> int:
        """Number of eyes."""
        return len(self.reader)

    def stream(self, picked: Iterable[Indices]) -> Iterator[EyeBatch]:
        """One batch for each array of eye numbers, made ahead by the workers.

        Raises:
            DataError: an eye cannot be read; names shard and key.
        """
        return self._stream(self._slices, picked)

    def _stream(self, slices: _Slices, picked: Iterable[Indices]) -> Iterator[EyeBatch]:
        loader = DataLoader(
            slices,
            sampler=picked,
            batch_size=None,
            num_workers=self.num_workers,
            worker_init_fn=_start_worker,
            multiprocessing_context=_workers_context() if self.num_workers else None,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # else it would draw from torch's own
        )
        for made in loader:
            if isinstance(made, str):
                raise DataError(made)
            images, targets = made
            yield EyeBatch(images_nhwc=images, oct_targets_nvzx=targets)

    def settling_images(self) -> torch.Tensor:
        """The first photographs of the fitting sample, as many as fit in 512 MiB."""
        images = self._fitting_sample().images_nhwc
        return images[: max(2, _SETTLING_BYTES // images[0].numel())]

    def fitting_targets(self) -> torch.Tensor:
        """Targets of up to 4096 eyes, each its own."""
        return self._fitting_sample().oct_targets_nvzx

    def _fitting_sample(self) -> EyeBatch:
        """All eyes where there are few, else a drawn sample: the first could be one clinic's."""
        if self._sample is None:
            eyes = np.arange(len(self))
            if len(eyes) > _FITTED:
                eyes = np.random.default_rng(0).choice(eyes, _FITTED, replace=False)
            chunks = [eyes[k : k + _CHUNK] for k in range(0, len(eyes), _CHUNK)]
            parts = list(self._stream(self._own_slices, chunks))
            self._sample = EyeBatch(
                images_nhwc=torch.cat([one.images_nhwc for one in parts]),
                oct_targets_nvzx=torch.cat([one.oct_targets_nvzx for one in parts]),
            )
        return self._sample


def _workers_context() -> multiprocessing.context.ForkServerContext:
    """Workers forked from a clean process: not from one with threads, CUDA or a process group."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
