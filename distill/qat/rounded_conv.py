"""A convolution with its BatchNorm folded in and its weights on the INT8 grid."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from distill.qat.fake_quant import WEIGHT_LIMITS, fake_quantize, weight_scale
from edge_runtime.errors import ConfigError

__all__ = ["RoundedConv", "worth_int8"]


def worth_int8(conv: nn.Conv2d) -> bool:
    """Whether the INT8 file quantises this convolution; the rule of `calibration.quantize`."""
    if conv.out_channels % 8:
        return False
    return conv.groups == 1 or min(conv.kernel_size) >= 3


class RoundedConv(nn.Module):
    """The same weights as the student's own layers, seen as the INT8 file will see them.

    BatchNorm is frozen: its running statistics are constants, its scale and shift still learn.
    W' = W gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta; then one
    symmetric scale for each output channel of W'. Source: arXiv 1806.08342, section 3.2.2.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
        """Share the layers' parameters.

        Raises:
            ConfigError: the convolution pads in a way of its own, or the norm has no scale or no
                statistics.
        """
        super().__init__()
        if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros":
            raise ConfigError(
                f"{type(conv).__name__} is no plain convolution; QAT cannot imitate its INT8 form"
            )
        if norm is not None and (norm.running_mean is None or not norm.affine):
            raise ConfigError("a BatchNorm without statistics or scale cannot be folded for QAT")
        self.conv, self.norm, self.rounded = conv, norm, worth_int8(conv)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(C_out, C_in, k, k) weight and (C_out,) bias with BatchNorm in them."""
        weight, bias, norm = self.conv.weight, self.conv.bias, self.norm
        if norm is None:
            return weight, bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shifted = -norm.running_mean if bias is None else bias - norm.running_mean
        return weight * factor.reshape(-1, 1, 1, 1), norm.bias + shifted * factor

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        weight, bias = self.folded()
        if self.rounded:
            weight = fake_quantize(weight, weight_scale(weight), WEIGHT_LIMITS)
        conv = self.conv
        return functional.conv2d(
            x_nchw, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
