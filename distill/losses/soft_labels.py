"""Imitate the teacher's probabilities, one binary distribution a label."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["soft_label_loss"]


def soft_label_loss(logits_nl: torch.Tensor, teacher_logits_nl: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy to the teacher's probabilities at temperature 1.

    mean over n, l of -[p log s + (1 - p) log(1 - s)], p = sigmoid(teacher), s = sigmoid(student).
    Least where s = p, where its gradient is zero and its value the teacher's own entropy.
    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), with one binary distribution a label
    because diseases do not exclude each other.

    Args:
        logits_nl: (N, L) of the student, any finite value.
        teacher_logits_nl: (N, L); no gradient flows into it.

    Returns:
        Scalar float32.
    """
    target = teacher_logits_nl.detach().float().sigmoid()
    return functional.binary_cross_entropy_with_logits(logits_nl.float(), target)
