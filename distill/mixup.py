"""Blends of two pictures of a batch, seen alike by teacher and student.

The teacher answers for the blend itself, so no label has to be true of it; known labels and
laterality are blended in the same shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Blend", "draw_blend"]


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Partner and share of every picture of a batch.

    Attributes:
        partner_n: (N,) int64, a permutation.
        share_n: (N,) float32 in [0, 1), how much of the picture itself is in its blend.
    """

    partner_n: torch.Tensor
    share_n: torch.Tensor

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """(N, ...) -> share * own + (1 - share) * partner's; unknown (NaN) in one is unknown."""
        partner = values[self.partner_n.to(values.device)]
        share = self.share_n.to(values.device).reshape(-1, *(1,) * (values.ndim - 1))
        return share * values + (1.0 - share) * partner


def draw_blend(num: int, generator: torch.Generator) -> Blend:
    """Every picture blended, shares uniform (mixup with p = 1 and alpha = 1).

    Source: mixup (arXiv 1710.09412); for distillation on every step as in arXiv 2106.05237.
    """
    partner = torch.randperm(num, generator=generator)
    return Blend(partner_n=partner, share_n=torch.rand(num, generator=generator))
