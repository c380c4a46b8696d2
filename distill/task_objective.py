"""What the task stage goes down on; QAT goes down on the same with INT8 rounding in between."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from distill.loop import Objective
from distill.losses.features import FeatureScale, feature_loss
from distill.losses.soft_labels import soft_label_loss
from distill.student import StudentOutput
from distill.teacher_view import TeacherEye
from distill.views import Pictures, View
from train.finetune import masked_bce
from train.teacher import TeacherOutput

__all__ = ["TaskObjective", "task_objective"]

_NUM_SCALE_IMAGES = 1024  # enough for a mean and a deviation a channel


class TaskObjective(Objective):
    """Losses to the teacher's answers and embedding, to known labels and to laterality.

    Attributes:
        network: what gives a `StudentOutput`: the student, or the same with INT8 rounding.
    """

    def __init__(
        self,
        network: nn.Module,
        eye: TeacherEye,
        *,
        embedding_width: int,
        scale: FeatureScale,
        weights: Mapping[str, float],
        bfloat16: bool,
    ) -> None:
        """Add the throw-away map from the student's embedding to the teacher's."""
        super().__init__()
        self.network, self.eye, self.weights, self.use_bfloat16 = network, eye, weights, bfloat16
        self.feature_map = nn.Linear(embedding_width, eye.width)
        self.scale = scale

    def losses(self, view: View) -> dict[str, torch.Tensor]:
        """Each of `weights`."""
        target = self.eye.look(view.teacher_nchw)
        kind = view.student_nchw.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.use_bfloat16):
            output = self.network(view.student_nchw.contiguous(memory_format=torch.channels_last))
        logits = _all_logits(output)
        mapped = self.feature_map(output.embedding.float())
        return {
            "soft": soft_label_loss(logits, _all_logits(target)),
            "true": masked_bce(logits, view.labels_nl),
            "feature": feature_loss(mapped, self.scale(target.embedding)),
            "laterality": masked_bce(output.laterality_logit, view.right_n1),
        }


def task_objective(
    network: nn.Module,
    embedding_width: int,
    eye: TeacherEye,
    pictures: Pictures,
    *,
    weights: Mapping[str, float],
    bfloat16: bool,
    seed: int,
) -> TaskObjective:
    """The losses, with the teacher's scale measured on some of the pictures."""
    picked = np.random.default_rng(seed).permutation(len(pictures))[:_NUM_SCALE_IMAGES]
    looked = eye.look(pictures.plain(torch.from_numpy(picked)).teacher_nchw)
    return TaskObjective(
        network,
        eye,
        embedding_width=embedding_width,
        scale=FeatureScale(looked.embedding),
        weights=weights,
        bfloat16=bfloat16,
    ).to(pictures.device)


def _all_logits(output: StudentOutput | TeacherOutput) -> torch.Tensor:
    return torch.cat([output.logits.float(), output.gradability_logit.float()], 1)
