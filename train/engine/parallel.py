"""One model over several ranks: DDP or FSDP2, compiled blocks, and whole tensors back from both.

A transformer block is a child of a container named `blocks`; blocks are what is compiled
and what FSDP gathers one at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from train.engine.distributed import current_ranks

__all__ = [
    "compile_blocks",
    "full_optimizer_tensors",
    "full_weights",
    "load_optimizer_tensors",
    "load_weights_anywhere",
    "spread",
    "without_sync",
]


def transformer_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Every block of every encoder and decoder."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "blocks":
            yield from module.children()


def compile_blocks(model: nn.Module) -> None:
    """Compile each block in place; names of weights stay as they are."""
    for block in transformer_blocks(model):
        block.compile()


def spread(module: nn.Module, kind: str, *, some_idle: bool = False) -> nn.Module:
    """Make a module's gradients those of all ranks; on one rank it is returned as it is.

    Weights and buffers of rank 0 are given to all with 'ddp'; with 'fsdp' they must be the
    same already, which they are when drawn from one seed. Buffers stay local afterwards: a
    BatchNorm normalises by its own slice, whatever the number of ranks.

    Args:
        module: what is trained.
        kind: 'ddp' or 'fsdp'.
        some_idle: some of its weights never get a gradient, which DDP must look for.
    """
    if current_ranks().world_size == 1:
        return module
    if kind == "ddp":
        return DistributedDataParallel(
            module,
            gradient_as_bucket_view=True,
            find_unused_parameters=some_idle,
            **_local_buffers(),
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (current_ranks().world_size,))
    for block in transformer_blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)  # in place: it changes the module's class
    return module


def _local_buffers() -> dict[str, Any]:
    """DDP's option for it, whose name changed with torch 2.13."""
    names = inspect.signature(DistributedDataParallel).parameters
    new = "forward_sync_buffers"
    return {new if new in names else "broadcast_buffers": False}


def without_sync(module: nn.Module) -> AbstractContextManager[Any]:
    """Inside it, backward adds to local gradients only: for all slices but a rank's last."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    # FSDP must reduce every time: its unsharded gradients would not fit, and means of means
    # of equal slices are the same mean.
    return nullcontext()


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """A plain contiguous copy on the CPU of a plain or sharded tensor; every rank must ask."""
    tensor = getattr(tensor.detach(), "full_tensor", lambda: tensor.detach())()
    return tensor.cpu().contiguous().clone()


def _placed_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor where, and sharded as, another one is."""
    whole = whole.to(like.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements)


def full_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> whole weight or buffer on the CPU, as `model.state_dict()` names them."""
    return {name: _whole(tensor) for name, tensor in model.state_dict().items()}


def load_weights_anywhere(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `full_weights`; the caller has compared names and shapes."""
    own = model.state_dict()
    model.load_state_dict({name: _placed_like(tensors[name], own[name]) for name in own})


def full_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """'PARAMETER/KEY' -> whole tensor, such as 'cfp_encoder.position/exp_avg'."""
    return {
        f"{name}/{key}": _whole(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """The inverse of `full_optimizer_tensors`, for a fresh optimizer."""
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        owner, _, key = name.rpartition("/")
        parameter = parameters[owner]
        # AdamW counts its steps in a tensor on the CPU; the rest has the weight's shape.
        whole = value if key == "step" else value.reshape(parameter.shape)
        placed = value.clone() if key == "step" else _placed_like(whole, parameter.detach())
        optimizer.state[parameter][key] = placed
