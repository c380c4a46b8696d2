"""What the label-free stage goes down on: similarity, relations, features and answers.

The two depths are the teacher's tokens after three quarters of its blocks and after its last
norm; the student's maps before the final stride and at the end, resized to the teacher's grid,
answer them through linear maps that are thrown away.

Legend: N images, T places of the teacher's grid, D teacher's width, C student's channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from distill.backbone import middle_layer
from distill.loop import Objective
from distill.losses.features import FeatureScale, dense_feature_loss
from distill.losses.queue_similarity import EmbeddingQueue, queue_similarity_loss
from distill.losses.relations import relation_loss
from distill.losses.soft_labels import soft_label_loss
from distill.student import Student
from distill.teacher_view import TeacherEye, TeacherView
from distill.views import Pictures, View
from edge_runtime.errors import ConfigError
from train.arrays import circle_mask

if TYPE_CHECKING:
    from distill.label_free import LabelFreeConfig

__all__ = ["LabelFreeObjective"]

_NUM_SCALE_IMAGES = 256  # each gives as many rows as there are places
_DEPTHS = ("middle", "final")


class LabelFreeObjective(Objective):
    """The student, the linear maps that are thrown away, and the queue.

    Attributes:
        inside: (T,) bool, places of the teacher's grid whose centre is in the field of view.
    """

    inside: torch.Tensor

    def __init__(
        self, student: Student, eye: TeacherEye, pictures: Pictures, config: LabelFreeConfig
    ) -> None:
        """Measure the teacher's scales on some of the pictures.

        Raises:
            ConfigError: fewer than three places of the teacher's grid are inside the field, or
                the backbone has no layer of a smaller stride.
        """
        super().__init__()
        self.student, self.eye, self.config = student, eye, config
        self.weights = config.weights
        self.register_buffer("inside", circle_mask(eye.grid).flatten(), persistent=False)
        if int(self.inside.sum()) < 3:
            raise ConfigError(
                f"the teacher has {eye.grid} x {eye.grid} places, too few to compare; take a "
                "larger picture or --label-free-steps 0"
            )
        # In a tuple: the layer belongs to the student and is not to be registered twice.
        self._tapped = (student.backbone.get_submodule(middle_layer(student.backbone)),)
        picked = np.random.default_rng(config.seed).permutation(len(pictures))[:_NUM_SCALE_IMAGES]
        view = pictures.plain(torch.from_numpy(picked))
        looked = eye.look_inside(view.teacher_nchw)
        with torch.no_grad():
            middle, _ = self._see(view.student_nchw[:2])
        self.maps = nn.ModuleDict(
            {
                "middle": nn.Linear(middle.shape[1], eye.width),
                "final": nn.Linear(student.width, eye.width),
                "embedding": nn.Linear(student.width, eye.width),
            }
        )
        self.scales = nn.ModuleDict(
            {
                "middle": FeatureScale(looked.middle_ntd[:, self.inside].flatten(0, 1)),
                "final": FeatureScale(looked.final_ntd[:, self.inside].flatten(0, 1)),
                "embedding": FeatureScale(looked.output.embedding),
            }
        )
        self.queue = EmbeddingQueue(config.queue_size, eye.width).to(pictures.device)
        self.queue.push(self.scales["embedding"](looked.output.embedding))

    def losses(self, view: View) -> dict[str, torch.Tensor]:
        """Each of `weights`."""
        looked = self.eye.look_inside(view.teacher_nchw)
        kind = view.student_nchw.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.config.bfloat16):
            middle, final = self._see(
                view.student_nchw.contiguous(memory_format=torch.channels_last)
            )
            output = self.student.read(final)
        ours = {"middle": self._places(middle), "final": self._places(final)}
        theirs = self._standard(looked)
        embedding = self.scales["embedding"](looked.output.embedding)
        losses = {
            "similarity": queue_similarity_loss(
                self.maps["embedding"](output.embedding.float()),
                embedding,
                self.queue.filled(),
                temperature=self.config.similarity_temperature,
            ),
            "relation": self._relations(ours, theirs),
            "feature": self._features(ours, theirs),
            "soft": soft_label_loss(
                torch.cat([output.logits.float(), output.gradability_logit.float()], 1),
                torch.cat([looked.output.logits, looked.output.gradability_logit], 1),
            ),
        }
        self.queue.push(embedding)
        return losses

    def _see(self, student_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, C, h, w) maps of the student before and at its final stride."""
        seen: list[torch.Tensor] = []

        def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            seen.append(output)

        handle = self._tapped[0].register_forward_hook(keep)
        try:
            final = self.student.backbone(student_nchw)
        finally:
            handle.remove()
        return seen[0], final

    def _places(self, map_nchw: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) -> (N, T, C) float32 on the teacher's grid."""
        side = (self.eye.grid, self.eye.grid)
        resized = functional.interpolate(
            map_nchw.float(), size=side, mode="bilinear", align_corners=False
        )
        return resized.flatten(2).transpose(1, 2)

    def _standard(self, looked: TeacherView) -> dict[str, torch.Tensor]:
        tokens = {"middle": looked.middle_ntd, "final": looked.final_ntd}
        return {depth: self.scales[depth](tokens[depth]) for depth in _DEPTHS}

    def _relations(
        self, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        temperature = self.config.relation_temperature
        parts = [
            relation_loss(ours[depth], theirs[depth], self.inside, temperature=temperature)
            for depth in _DEPTHS
        ]
        return torch.stack(parts).mean()

    def _features(
        self, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        parts = [
            dense_feature_loss(self.maps[depth](ours[depth]), theirs[depth], self.inside)
            for depth in _DEPTHS
        ]
        return torch.stack(parts).mean()
