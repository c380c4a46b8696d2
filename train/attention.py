"""Which attention to compute with: torch's fused kernel, or the formula written out."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["choose_attention", "use_fused"]


def use_fused(device: torch.device) -> bool:
    """Whether `scaled_dot_product_attention` is the faster one where the network runs.

    On CUDA it is, and it needs no memory for the attention matrix. On the CPU the bfloat16
    backward of the fused kernel is several times slower at our token counts. Not measured
    on CUDA by this project. The two differ in rounding, not in what they compute.

    Args:
        device: where the network will run.
    """
    return device.type == "cuda"


def choose_attention(model: nn.Module, device: torch.device) -> None:
    """Set every attention of a model (`fused_attn`, as timm names it) for its device."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", use_fused(device))  # noqa: B010 - not nn.Module's own
