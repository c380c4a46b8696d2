"""Which attention to compute with: torch's fused kernel, or the formula written out."""

from __future__ import annotations

import torch

__all__ = ["use_fused"]


def use_fused(device: torch.device) -> bool:
    """Whether `scaled_dot_product_attention` is the faster one where the network runs.

    On CUDA it is, and it needs no memory for the attention matrix. On the CPU the bfloat16
    backward of the fused kernel is several times slower at our token counts. Not measured
    on CUDA by this project. The two differ in rounding, not in what they compute.

    Args:
        device: where the network will run.
    """
    return device.type == "cuda"
