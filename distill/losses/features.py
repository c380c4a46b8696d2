"""Imitate the teacher's features, of a whole picture or place by place.

Legend: N images, T places (tokens), D channels of the teacher.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["FeatureScale", "dense_feature_loss", "feature_loss"]

_COSINE, _SMOOTH_L1 = 0.9, 0.1


class FeatureScale(torch.nn.Module):
    """Mean and standard deviation of the teacher's features over training pictures.

    Without it a few channels of large variance are the whole target. Source: AM-RADIO
    (arXiv 2312.06709) and PHI-S (arXiv 2410.01680) standardise teacher features likewise.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, features_nd: torch.Tensor) -> None:
        """Measure on (N, D) features, N >= 2."""
        super().__init__()
        self.register_buffer("mean", features_nd.float().mean(0))
        self.register_buffer("std", features_nd.float().std(0).clamp_min(1e-6))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D) float32 with mean 0 and standard deviation 1 a channel."""
        return (features.float() - self.mean) / self.std


def feature_loss(mapped_nd: torch.Tensor, teacher_nd: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos(angle) between the mapped student and the standardised teacher.

    1 - <a, b> / (|a| |b|), in 0..2; the length of either vector does not matter.

    Args:
        mapped_nd: (N, D) student embedding behind its throw-away linear map.
        teacher_nd: (N, D) standardised; no gradient flows into it.

    Returns:
        Scalar float32.
    """
    cosine = functional.cosine_similarity(mapped_nd.float(), teacher_nd.detach().float(), dim=1)
    return (1.0 - cosine).mean()


def dense_feature_loss(
    mapped_ntd: torch.Tensor, teacher_ntd: torch.Tensor, inside_t: torch.Tensor
) -> torch.Tensor:
    """0.9 (1 - cosine) + 0.1 smooth L1, mean over the places inside the field of view.

    The cosine says which way, the smooth L1 (|d| - 0.5 from |d| = 1 on, d^2 / 2 below; mean over
    channels) how far. Zero only at equality. Source: AM-RADIO (arXiv 2312.06709), spatial loss.

    Args:
        mapped_ntd: (N, T, D) student places behind their throw-away linear map.
        teacher_ntd: (N, T, D) standardised; no gradient flows into it.
        inside_t: (T,) bool, at least one True.

    Returns:
        Scalar float32.
    """
    ours, theirs = mapped_ntd[:, inside_t].float(), teacher_ntd[:, inside_t].detach().float()
    cosine = functional.cosine_similarity(ours, theirs, dim=2)
    distance = functional.smooth_l1_loss(ours, theirs)
    return _COSINE * (1.0 - cosine).mean() + _SMOOTH_L1 * distance
