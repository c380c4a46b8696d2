"""Ranks: what torchrun says, the process group, and the few collectives that training needs.

Without torchrun there is one rank and every function here returns what it was given.
CPU with gloo is tested with two processes; CUDA with NCCL is written and was never run.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from edge_runtime.errors import ConfigError
from train.device import CPU

__all__ = [
    "Ranks",
    "all_agree",
    "barrier",
    "current_ranks",
    "gather_rows",
    "process_group",
    "total",
]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which process of how many this one is; rank 0 writes, logs and shows progress."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0


def current_ranks() -> Ranks:
    """This process among those of the process group; rank 0 of 1 where there is none."""
    if not _active():
        return Ranks()
    return Ranks(rank=distributed.get_rank(), world_size=distributed.get_world_size())


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started; does nothing in a process started otherwise.

    Args:
        device: the CPU, or CUDA without a number.

    Yields:
        Where this rank computes: the CPU, or the CUDA device of its local rank.

    Raises:
        ConfigError: torchrun started more processes than there are CUDA devices.
    """
    if not distributed.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield device
        return
    own = _local_device(device, int(os.environ["LOCAL_RANK"]))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        if not current_ranks().is_main:
            logging.getLogger("train").setLevel(logging.ERROR)
        yield own
    finally:
        # DDP and FSDP objects hold on to the groups in cycles: unless they go first, gloo's
        # threads now and then outlive the group and abort the process at its end.
        gc.collect()
        distributed.destroy_process_group()


def _local_device(device: torch.device, local_rank: int) -> torch.device:
    if device.type != "cuda":
        return device
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"local rank {local_rank} has no CUDA device, torch sees "
            f"{torch.cuda.device_count()}; start at most that many processes a machine"
        )
    return torch.device("cuda", local_rank)


def _active() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _wire() -> torch.device:
    """Where tensors must lie for a collective."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return CPU


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum over ranks, the same bits on each; NaN if one rank has NaN."""
    if not _active():
        return values
    summed = values.to(_wire())
    distributed.all_reduce(summed)
    return summed.to(values.device)


def all_agree(flag: bool) -> bool:
    """True on every rank if it is True on every rank, else False on every rank."""
    if not _active():
        return flag
    return bool(total(torch.tensor([0 if flag else 1])).item() == 0)


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """(n, ...) of each rank, the same shape on all -> (ranks * n, ...) in the order of ranks."""
    if not _active():
        return rows
    own = rows.contiguous().to(_wire())
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own)
    return torch.cat(parts).to(rows.device)


def barrier() -> None:
    """Wait for every rank."""
    if _active():
        distributed.barrier()
