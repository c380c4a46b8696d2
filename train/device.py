"""Where the networks run: on the CPU, or on one CUDA device. Never run on CUDA so far.

Data stay in host memory; a batch is moved after it was picked. What is drawn (weights,
batches, masks, views) is drawn on the CPU and moved, so a seed draws the same everywhere.
"""

from __future__ import annotations

import torch
from torch import nn

from edge_runtime.errors import ConfigError

__all__ = ["CPU", "device_of", "pick_device"]

CPU = torch.device("cpu")


def pick_device(name: str = "auto") -> torch.device:
    """Device by name.

    Args:
        name: 'cpu', 'cuda', or 'auto' for CUDA where there is some and the CPU elsewhere.

    Raises:
        ConfigError: another name, or CUDA by name where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {name!r}; choose 'auto', 'cpu' or 'cuda'")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ConfigError("device is 'cuda', but torch sees no CUDA device; use 'cpu' or 'auto'")
    return torch.device("cuda") if present and name != "cpu" else CPU


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are; the CPU for one that has none."""
    first = next(model.parameters(), None)
    return CPU if first is None else first.device
