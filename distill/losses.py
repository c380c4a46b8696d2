"""What the student is pulled towards: the teacher's probabilities and its features.

True labels come in through `train.finetune.masked_bce`, the loss that the teacher had.

Legend: N images, L outputs (diseases, then gradability), D channels.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["FeatureScale", "feature_loss", "soft_label_loss"]


def soft_label_loss(logits_nl: torch.Tensor, teacher_logits_nl: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy to the teacher's probabilities at temperature 1.

    mean over n, l of -[p log s + (1 - p) log(1 - s)], p = sigmoid(teacher), s = sigmoid(student).
    Least where s = p. Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), with one binary
    distribution a label because diseases do not exclude each other.

    Args:
        logits_nl: (N, L) of the student, any finite value.
        teacher_logits_nl: (N, L); no gradient flows into it.

    Returns:
        Scalar float32.
    """
    target = teacher_logits_nl.detach().float().sigmoid()
    return functional.binary_cross_entropy_with_logits(logits_nl.float(), target)


class FeatureScale(torch.nn.Module):
    """Mean and standard deviation of the teacher's embedding over the training pictures.

    Without it a few channels of large variance are the whole target. Source: AM-RADIO
    (arXiv 2312.06709) and PHI-S (arXiv 2410.01680) standardise teacher features likewise.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, embeddings_nd: torch.Tensor) -> None:
        """Measure on (N, D) embeddings, N >= 2."""
        super().__init__()
        self.register_buffer("mean", embeddings_nd.mean(0))
        self.register_buffer("std", embeddings_nd.std(0).clamp_min(1e-6))

    def forward(self, embedding_nd: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (N, D) with mean 0 and standard deviation 1 a channel."""
        return (embedding_nd.float() - self.mean) / self.std


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
