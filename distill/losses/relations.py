"""Imitate which places of a picture the teacher finds alike, whatever its channels mean.

Legend: N images, T places, D and E channels of student and teacher.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["relation_loss"]


def relation_loss(
    student_ntd: torch.Tensor,
    teacher_nte: torch.Tensor,
    inside_t: torch.Tensor,
    *,
    temperature: float = 0.1,
) -> torch.Tensor:
    """KL divergence between the two networks' self-similarities of places.

    For place i, p_i = softmax over j != i of cos(t_i, t_j) / temperature, and s_i likewise of the
    student; the loss is the mean of sum_j p_ij log(p_ij / s_ij) over images and places. Zero
    where the similarities agree; rotating or scaling either network's channels changes nothing,
    so no map between the two widths is needed. Source: relations beat features for small
    students in TinyMIM (arXiv 2301.01296); patch self-similarity as in lightly-train v3.

    Args:
        student_ntd: (N, T, D).
        teacher_nte: (N, T, E), standardised; no gradient flows into it.
        inside_t: (T,) bool, at least three True: with two there is nothing to compare.
        temperature: of both softmaxes, above 0.

    Returns:
        Scalar float32, >= 0.
    """
    if int(inside_t.sum()) < 3:
        raise ValueError(f"{int(inside_t.sum())} places are inside the field; relations need 3")
    with torch.no_grad():
        target = _log_relations(teacher_nte[:, inside_t], temperature)
    ours = _log_relations(student_ntd[:, inside_t], temperature)
    num_rows = ours.shape[0] * ours.shape[1]
    return functional.kl_div(ours, target, reduction="sum", log_target=True) / num_rows


def _log_relations(features_ntd: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N, T, D) -> (N, T, T - 1) log probabilities over the other places."""
    unit = functional.normalize(features_ntd.float(), dim=2)
    similarity = unit @ unit.transpose(1, 2) / temperature
    num = similarity.shape[1]
    other = ~torch.eye(num, dtype=torch.bool, device=similarity.device)
    return similarity[:, other].reshape(-1, num, num - 1).log_softmax(2)
