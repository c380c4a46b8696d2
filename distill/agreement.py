"""How close a student comes to its teacher on eyes that neither learnt from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from distill.student import Student
from edge_runtime.metrics import auroc
from train.arrays import normalize_cfp
from train.dataset_arrays import SplitArrays
from train.device import device_of
from train.evaluate import Logits
from train.labels import GRADABLE

__all__ = ["agreement", "student_logits"]


def student_logits(
    student: Student, images_nhwc: npt.NDArray[np.uint8], *, batch_size: int = 256
) -> Logits:
    """Outputs of a student in evaluation mode, where it is, over (N, S, S, 3) uint8."""
    rows, device = [], device_of(student)
    with torch.no_grad():
        for start in range(0, len(images_nhwc), batch_size):
            batch = torch.from_numpy(images_nhwc[start : start + batch_size]).to(device)
            out = student(normalize_cfp(batch))
            rows.append(torch.cat([out.logits, out.gradability_logit], 1).double().cpu().numpy())
    table = np.concatenate(rows)
    return Logits(diseases=table[:, :-1], gradability=table[:, -1])


def agreement(
    teacher: Logits, student: Logits, data: SplitArrays, label_names: tuple[str, ...]
) -> dict[str, float]:
    """Numbers on one split, diseases only, gradable eyes where that is known.

    Returns:
        probability_difference: mean |p student - p teacher|.
        decision_agreement: share of answers on the same side of 0.5.
        auroc_teacher, auroc_student, auroc_ratio: means over the diseases whose labels are
            known with both values, and student over teacher; left out if there are none.
        Nothing at all if no eye is gradable.
    """
    seen = _gradable(data)
    ours, theirs = student.diseases[seen], teacher.diseases[seen]
    if not ours.size:
        return {}
    numbers = {
        "probability_difference": float(np.abs(_sigmoid(ours) - _sigmoid(theirs)).mean()),
        "decision_agreement": float(((ours > 0) == (theirs > 0)).mean()),
    }
    pairs = []
    for column, name in enumerate(label_names):
        truth = data.label(name)[seen] if name in data.label_names else np.full(len(ours), np.nan)
        known = np.isfinite(truth)
        if len(np.unique(truth[known])) == 2:
            labels = truth[known]
            pairs.append((auroc(labels, theirs[known, column]), auroc(labels, ours[known, column])))
    if pairs:
        teacher_mean, student_mean = np.mean(pairs, 0)
        numbers["auroc_teacher"] = float(teacher_mean)
        numbers["auroc_student"] = float(student_mean)
        numbers["auroc_ratio"] = float(student_mean / teacher_mean)
    return numbers


def _gradable(data: SplitArrays) -> npt.NDArray[np.bool_]:
    """(N,) eyes that are not labelled ungradable."""
    if GRADABLE not in data.label_names:
        return np.ones(len(data), bool)
    seen: npt.NDArray[np.bool_] = data.label(GRADABLE) != 0
    return seen


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    half: npt.NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * logits))
    return half
