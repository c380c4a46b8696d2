"""A convolution with its BatchNorm folded in and its weights on the INT8 grid."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from distill.qat.fake_quant import WEIGHT_LIMITS, FakeQuant, fake_quantize, weight_scale
from edge_runtime.errors import ConfigError
from train.arrays import PIXEL_SCALE

__all__ = ["RoundedConv", "worth_int8"]

_NO_LIMITS = (-math.inf, math.inf)


def worth_int8(conv: nn.Conv2d, *, is_first: bool) -> bool:
    """Whether INT8 kernels take this convolution, and so the INT8 file quantises it.

    The rule of INT8 calibration, which a network of the catalogue meets everywhere: grouped ones
    with outputs in multiples of 8 and kernels from 3 on; else 16 channels on both sides, or on
    one if the other comes in multiples of 8 or it is the first.
    """
    inputs, outputs = conv.in_channels, conv.out_channels
    if conv.groups > 1:
        return outputs % 8 == 0 and min(conv.kernel_size) >= 3
    if min(inputs, outputs) >= 16:
        return True
    in_eights = inputs % 8 == 0 or outputs % 8 == 0
    is_square = conv.kernel_size[0] == conv.kernel_size[1]
    return in_eights and is_square and (is_first or max(inputs, outputs) >= 16)


class RoundedConv(nn.Module):
    """The same weights as the student's own layers, seen as the INT8 file will see them.

    BatchNorm is frozen: its running statistics are constants, its scale and shift still learn.
    W' = W gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta; then one
    symmetric scale for each output channel of W', and b' a whole number of steps of the sums,
    s_x s_w, as an int32 accumulator holds it. Source: arXiv 1806.08342, section 3.2.2.

    Attributes:
        reads: the rounding of its input, once the network is put together.
        paused: compute in float for now, as FP32 does.
    """

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, *, is_first: bool = False
    ) -> None:
        """Share the layers' parameters; `is_first`: it reads the picture.

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
        self.conv, self.norm = conv, norm
        self.rounded = worth_int8(conv, is_first=is_first)
        self.reads: FakeQuant | None = None
        self.paused = False
        # Export moves the division of the picture by 64 into the first weights.
        self._divisor = PIXEL_SCALE if is_first else 1.0

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
        if self.rounded and not self.paused:
            scale = weight_scale(weight, divisor=self._divisor)
            weight = fake_quantize(weight, scale, WEIGHT_LIMITS)
            if bias is not None and self.reads is not None:
                bias = fake_quantize(bias, scale.flatten() * self.reads.scale, _NO_LIMITS)
        conv = self.conv
        return functional.conv2d(
            x_nchw, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
