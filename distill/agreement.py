"""How close a student comes to its teacher on eyes that neither learnt from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from distill.views import resize_view
from edge_runtime.metrics import auroc
from train.arrays import PIXEL_CENTER, PIXEL_SCALE, normalize_cfp
from train.dataset_arrays import SplitArrays
from train.device import device_of
from train.evaluate import Logits
from train.labels import GRADABLE

__all__ = ["agreement", "laterality_accuracy", "pictures_at", "student_logits"]


def pictures_at(images_nhwc: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """(N, P, P, 3) uint8 -> (N, size_px, size_px, 3), antialiased; themselves where they fit."""
    if images_nhwc.shape[1] == size_px:
        return images_nhwc
    rows = []
    for start in range(0, len(images_nhwc), 256):
        batch = normalize_cfp(torch.from_numpy(images_nhwc[start : start + 256]))
        levels = resize_view(batch, size_px) * PIXEL_SCALE + PIXEL_CENTER
        rows.append(levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.ascontiguousarray(np.concatenate(rows))


def student_logits(
    student: nn.Module, images_nhwc: npt.NDArray[np.uint8], *, batch_size: int = 256
) -> Logits:
    """Outputs of a student, rounded or not, in evaluation mode, where it is.

    Args:
        student: gives a `StudentOutput`.
        images_nhwc: (N, S, S, 3) uint8.
        batch_size: pictures at once.
    """
    table = _scores(student, images_nhwc, batch_size)
    return Logits(diseases=table[:, :-2], gradability=table[:, -2])


def laterality_accuracy(
    student: nn.Module,
    images_nhwc: npt.NDArray[np.uint8],
    eyes: npt.NDArray[np.str_],
    *,
    batch_size: int = 256,
) -> float:
    """Share of eyes whose side, OD or OS, the student's laterality head gets right.

    Args:
        student: in evaluation mode.
        images_nhwc: (N, S, S, 3) uint8.
        eyes: (N,) OD, OS, or "" where nobody says; those are left out, and one at least is known.
        batch_size: pictures at a time.
    """
    right = _scores(student, images_nhwc, batch_size)[:, -1] > 0
    known = eyes != ""
    return float((right == (eyes == "OD"))[known].mean())


def _scores(
    student: nn.Module, images_nhwc: npt.NDArray[np.uint8], batch_size: int
) -> npt.NDArray[np.float64]:
    """(N, L + 2) logits: diseases, gradability, laterality."""
    rows, device = [], device_of(student)
    with torch.no_grad():
        for start in range(0, len(images_nhwc), batch_size):
            batch = torch.from_numpy(images_nhwc[start : start + batch_size]).to(device)
            out = student(normalize_cfp(batch))
            heads = [out.logits, out.gradability_logit, out.laterality_logit]
            rows.append(torch.cat(heads, 1).double().cpu().numpy())
    return np.concatenate(rows)


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
