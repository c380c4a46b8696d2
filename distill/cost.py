"""What a backbone costs: weights and multiply-accumulates, counted on the built network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distill.backbone import build_backbone
from distill.student import StudentConfig

__all__ = ["Cost", "backbone_cost"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one picture.

    Attributes:
        num_parameters: weights of the backbone before BatchNorm is folded, heads left out.
        num_macs: multiply-accumulates of its convolutions and linear layers.
    """

    num_parameters: int
    num_macs: int


def backbone_cost(config: StudentConfig) -> Cost:
    """Build the backbone without memory for weights and let one picture through.

    A convolution does C_out * H_out * W_out * (C_in / groups) * k_h * k_w of them; products of
    attention, which are between activations, are not counted.

    Raises:
        ConfigError: the backbone cannot be built.
    """
    with torch.device("meta"):
        backbone = build_backbone(config).eval()
        picture = torch.zeros(1, 3, config.size_px, config.size_px)
    counted: list[int] = []

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        counted.append(output.numel() * weight[0].numel())

    layers = [m for m in backbone.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            backbone(picture)
    finally:
        for handle in handles:
            handle.remove()
    num = sum(parameter.numel() for parameter in backbone.parameters())
    return Cost(num_parameters=num, num_macs=sum(counted))
