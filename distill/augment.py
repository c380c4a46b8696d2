"""Changed views of a photograph that teacher and student both see.

No flips: a mirrored right eye is a left eye, and laterality must stay what it is.

Legend: N images, S side in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from edge_runtime.errors import ConfigError
from train.arrays import PIXEL_CENTER, PIXEL_SCALE

__all__ = ["AugmentConfig", "augment_batch"]

# What preprocessing leaves outside the field, in normalised units.
_BLACK = -PIXEL_CENTER / PIXEL_SCALE


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How far a view may differ from its photograph; all zero = never.

    Attributes:
        rotation_deg: largest rotation about the centre, either way.
        shift_fraction: largest shift as a share of S: what a circle fit may be off.
        gain: largest relative change of brightness, the same for R, G and B.
    """

    rotation_deg: float = 10.0
    shift_fraction: float = 0.02
    gain: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what would leave no eye in the picture."""
        if not 0 <= self.rotation_deg <= 45:
            raise ConfigError(f"rotation_deg {self.rotation_deg} must be in 0..45")
        if not 0 <= self.shift_fraction <= 0.2 or not 0 <= self.gain <= 0.5:
            raise ConfigError(
                f"shift_fraction {self.shift_fraction} must be in 0..0.2 and gain {self.gain} in "
                "0..0.5"
            )


def augment_batch(
    batch_nchw: torch.Tensor, config: AugmentConfig, generator: torch.Generator
) -> torch.Tensor:
    """Rotate, shift and brighten every picture by its own draw.

    Args:
        batch_nchw: (N, 3, S, S) normalised float32.
        config: the ranges.
        generator: of the draws, on the CPU wherever the batch is.

    Returns:
        The same shape; what comes from beyond the square is black. With every range 0 the
        input itself.
    """
    if config.rotation_deg == config.shift_fraction == config.gain == 0:
        return batch_nchw
    num = len(batch_nchw)
    draw = (torch.rand((num, 4), generator=generator) * 2 - 1).to(batch_nchw.device)
    angle = draw[:, 0] * math.radians(config.rotation_deg)
    # An affine grid spans -1..1, so a share of S is twice as much there.
    shift = draw[:, 1:3] * 2 * config.shift_fraction
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(batch_nchw.shape), align_corners=False)
    light = (batch_nchw - _BLACK) * (1 + config.gain * draw[:, 3, None, None, None])
    moved = functional.grid_sample(light, grid, mode="bilinear", align_corners=False)
    top = (255.0 - PIXEL_CENTER) / PIXEL_SCALE
    return (moved + _BLACK).clamp_max(top)
