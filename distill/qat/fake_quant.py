"""Round as INT8 does, and let the gradient pass as if nothing had been rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["FakeQuant", "fake_quantize", "round_up_to_half", "weight_scale"]

# As the INT8 files: int8 activations saturate at both ends of int8, weights are symmetric.
ACTIVATION_LIMITS = (-128.0, 127.0)
WEIGHT_LIMITS = (-127.0, 127.0)
# The smallest float16: a channel of zeros still needs a positive scale.
_SMALLEST_SCALE = 2.0**-24


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, scale: torch.Tensor, limits: tuple[float, float]
    ) -> torch.Tensor:
        steps = values / scale
        ctx.save_for_backward((steps >= limits[0]) & (steps <= limits[1]))
        return steps.round().clamp(*limits) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


def fake_quantize(
    values: torch.Tensor, scale: torch.Tensor, limits: tuple[float, float] = ACTIVATION_LIMITS
) -> torch.Tensor:
    """clamp(round(values / scale), limits) * scale, ties to even; float32.

    The gradient is 1 inside the limits and 0 outside (straight-through estimator, Bengio,
    Leonard, Courville 2013, arXiv 1308.3432; clipped as in arXiv 1712.05877). None reaches the
    scale.

    Args:
        values: any shape, float32.
        scale: positive, broadcastable: one number, or one a channel.
        limits: smallest and largest integer.

    Returns:
        The same shape, on the grid; at most scale / 2 from `values` inside the limits.
    """
    rounded: torch.Tensor = _StraightThrough.apply(  # type: ignore[no-untyped-call]
        values.float(), scale.detach(), limits
    )
    return rounded


def round_up_to_half(scale: torch.Tensor) -> torch.Tensor:
    """Smallest float16 numbers >= `scale` (> 0, below 65504), as float32: what the files hold."""
    half = scale.half()
    too_low = (half.float() < scale).to(torch.int16)
    # The bits of positive floats, read as an integer, count them upwards.
    return (half.view(torch.int16) + too_low).view(torch.float16).float()


def weight_scale(weight: torch.Tensor, *, divisor: float = 1.0) -> torch.Tensor:
    """(C_out, ...) weights -> scale of each output channel, shape (C_out, 1, ...).

    max |w| / 127, rounded up to float16 as in the INT8 files.

    Args:
        weight: as it is trained.
        divisor: what the file's weight is divided by: float16 is coarser for tiny numbers.
    """
    peak = weight.detach().abs().flatten(1).amax(1) / (WEIGHT_LIMITS[1] * divisor)
    scale = round_up_to_half(peak.clamp_min(_SMALLEST_SCALE)) * divisor
    return scale.reshape(-1, *(1,) * (weight.ndim - 1))


class FakeQuant(nn.Module):
    """One activation tensor, one symmetric scale; measured from outside, never while training.

    Attributes:
        amax: () float32, largest absolute value that INT8 holds; the scale is amax / 127.
        watch: None: round. Otherwise it is shown the values, which pass unchanged.
    """

    amax: torch.Tensor

    def __init__(self, amax: float) -> None:
        """Start with a range."""
        super().__init__()
        self.register_buffer("amax", torch.tensor(amax))
        self.watch: Callable[[torch.Tensor], None] | None = None

    @property
    def scale(self) -> torch.Tensor:
        """() float32, width of a step."""
        return self.amax / ACTIVATION_LIMITS[1]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Round, or show."""
        if self.watch is not None:
            self.watch(values)
            return values
        return fake_quantize(values, self.scale)
