"""The teacher: a pretrained CFP encoder with linear heads for diseases and gradability."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train.checkpoint import load_checkpoint, load_weights, save_checkpoint, settings_of
from train.encoder import CfpEncoder, EncoderConfig
from train.labels import GRADABLE

__all__ = ["GRADABLE", "Teacher", "TeacherOutput", "load_teacher", "save_teacher"]


@dataclass(frozen=True, kw_only=True)
class TeacherOutput:
    """What the teacher says of a batch.

    Attributes:
        logits: (N, L) one per disease, in the order of `Teacher.label_names`.
        gradability_logit: (N, 1), high = gradable.
        embedding: (N, D) mean of the tokens.
        tokens: (N, T, D), row-major over a square grid.
    """

    logits: torch.Tensor
    gradability_logit: torch.Tensor
    embedding: torch.Tensor
    tokens: torch.Tensor


class Teacher(nn.Module):
    """Encoder, standardised mean pooling, one linear layer.

    Attributes:
        metrics: of fine-tuning: mean loss of its last 50 steps, and skipped steps. Empty
            before it; a checkpoint keeps them in its config.
    """

    def __init__(self, encoder: CfpEncoder, label_names: tuple[str, ...]) -> None:
        """Add heads with small random weights to an encoder."""
        super().__init__()
        self.encoder, self.label_names = encoder, label_names
        self.metrics: dict[str, float] = {}
        # No affine: it only brings the features to one scale, as in a linear probe.
        self.standardize = nn.BatchNorm1d(encoder.config.width, affine=False)
        self.head = nn.Linear(encoder.config.width, len(label_names) + 1)

    def forward(self, cfp_nchw: torch.Tensor) -> TeacherOutput:
        """(N, 3, S, S) normalised float32 -> TeacherOutput."""
        tokens = self.encoder(cfp_nchw)
        embedding = tokens.float().mean(1)
        out = self.head(self.standardize(embedding))
        return TeacherOutput(
            logits=out[:, :-1], gradability_logit=out[:, -1:], embedding=embedding, tokens=tokens
        )


def save_teacher(folder: Path, teacher: Teacher, config: dict[str, Any]) -> None:
    """Write a 'teacher' checkpoint; `config` adds settings, metrics and fingerprints."""
    own = {
        "kind": "teacher",
        "encoder": asdict(teacher.encoder.config),
        "labels": list(teacher.label_names),
    }
    save_checkpoint(folder, teacher.state_dict(), {**own, **config})


def load_teacher(folder: Path) -> tuple[Teacher, dict[str, Any]]:
    """Read a 'teacher' checkpoint, in evaluation mode.

    Raises:
        CheckpointError: the folder holds something else, or weights that do not fit.
    """
    tensors, config = load_checkpoint(folder, kind="teacher")
    with settings_of(folder):
        teacher = Teacher(CfpEncoder(EncoderConfig(**config["encoder"])), tuple(config["labels"]))
    load_weights(teacher, tensors)
    return teacher.eval(), config
