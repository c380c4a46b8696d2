"""What teacher and student look at in one step: the same pictures, each at its own size.

Legend: N images, P, S and s side of stored, teacher's and student's pictures, L diseases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from distill.augment import AugmentConfig, augment_batch
from distill.mixup import draw_blend
from edge_runtime.errors import ConfigError
from train.arrays import normalize_cfp
from train.dataset_arrays import SplitArrays
from train.labels import GRADABLE

__all__ = ["Pictures", "View", "resize_view", "true_labels"]


@dataclass(frozen=True, kw_only=True)
class View:
    """One batch.

    Attributes:
        teacher_nchw: (N, 3, S, S) normalised float32.
        student_nchw: (N, 3, s, s), the same pictures.
        labels_nl: (N, L + 1) diseases, then gradability; NaN = unknown.
        right_n1: (N, 1) share of right eye (OD) in each picture; 0 or 1 without blends, NaN
            where the data set does not say which eye it is.
    """

    teacher_nchw: torch.Tensor
    student_nchw: torch.Tensor
    labels_nl: torch.Tensor
    right_n1: torch.Tensor


def resize_view(batch_nchw: torch.Tensor, size_px: int) -> torch.Tensor:
    """(N, 3, P, P) -> (N, 3, size_px, size_px), antialiased; the batch itself where P fits."""
    if batch_nchw.shape[-1] == size_px:
        return batch_nchw
    return functional.interpolate(
        batch_nchw, size=(size_px, size_px), mode="bilinear", antialias=True
    )


def true_labels(data: SplitArrays, label_names: tuple[str, ...]) -> torch.Tensor:
    """(N, L + 1) float32 of diseases and gradability; NaN = unknown.

    A column that the data set does not have is unknown throughout: distillation needs no
    labels. Diseases of an ungradable eye are unknown too: what cannot be seen must not be
    learnt as absent.
    """
    unknown = np.full(len(data), np.nan, np.float32)
    names = (*label_names, GRADABLE)
    columns = [data.label(n) if n in data.label_names else unknown for n in names]
    table = torch.from_numpy(np.stack(columns, 1))
    table[table[:, -1] == 0, :-1] = torch.nan
    return table


class Pictures:
    """The training photographs and what is known of them."""

    def __init__(
        self,
        data: SplitArrays,
        label_names: tuple[str, ...],
        *,
        teacher_px: int,
        student_px: int,
        device: torch.device,
    ) -> None:
        """Hold them; batches are made on `device`.

        Raises:
            ConfigError: the pictures are smaller or larger than the larger of the two networks
                takes.
        """
        stored_px = data.images_nhwc.shape[1]
        if stored_px != max(teacher_px, student_px):
            raise ConfigError(
                f"the teacher takes {teacher_px} px, the student {student_px} px and the "
                f"pictures have {stored_px} px; load them at the larger of the two"
            )
        self.teacher_px, self.student_px, self.device = teacher_px, student_px, device
        self.images = data.images_tensor()
        self.labels = true_labels(data, label_names)
        right = np.where(data.eyes == "", np.nan, data.eyes == "OD").astype(np.float32)
        self.right = torch.from_numpy(right)[:, None]

    def __len__(self) -> int:
        """How many."""
        return len(self.images)

    def plain(self, picked: torch.Tensor) -> View:
        """The photographs as they are."""
        return self._at_sizes(self._normalized(picked), picked)

    def changed(
        self,
        picked: torch.Tensor,
        augment: AugmentConfig,
        generator: torch.Generator,
        *,
        mixup: bool,
    ) -> View:
        """Moved, turned and brightened; with `mixup` blended in pairs as well."""
        batch = augment_batch(self._normalized(picked), augment, generator)
        if not mixup:
            return self._at_sizes(batch, picked)
        blend = draw_blend(len(picked), generator)
        plain = self._at_sizes(blend.apply(batch), picked)
        return View(
            teacher_nchw=plain.teacher_nchw,
            student_nchw=plain.student_nchw,
            labels_nl=blend.apply(plain.labels_nl),
            right_n1=blend.apply(plain.right_n1),
        )

    def _normalized(self, picked: torch.Tensor) -> torch.Tensor:
        """(N, 3, P, P), moved after they were picked."""
        return normalize_cfp(self.images[picked].to(self.device))

    def _at_sizes(self, batch_nchw: torch.Tensor, picked: torch.Tensor) -> View:
        return View(
            teacher_nchw=resize_view(batch_nchw, self.teacher_px),
            student_nchw=resize_view(batch_nchw, self.student_px),
            labels_nl=self.labels[picked].to(self.device),
            right_n1=self.right[picked].to(self.device),
        )
