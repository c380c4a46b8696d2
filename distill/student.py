"""The student: a backbone whose class evidence is a map, so that a decision can be shown.

The default is built for INT8 on a camera: dense 3x3 convolutions, ReLU, BatchNorm that folds
away, no pooling between them (a pooled tensor would have to leave the integers), channel
counts in multiples of 8. `distill.catalogue` has the others.

The laterality head stays in the checkpoint: the exported graph has four outputs, and a camera
knows the eye from its file or its operator.

Legend: N images, S side in pixels, D channels of the last map, L diseases, h = S / stride.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.backbone import BASIC_BLOCK_RESNETS, build_backbone, output_shape
from edge_runtime.errors import CheckpointError, ConfigError
from train.checkpoint import load_checkpoint, load_weights, save_checkpoint

__all__ = ["Student", "StudentConfig", "StudentOutput", "load_student", "save_student"]

_STRIDE = 32


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Shape of the student.

    Attributes:
        size_px: side S of the square CFP, a multiple of 32.
        arch: timm architecture; with `channels`, its blocks and not its widths.
        channels: width of each of the four stages of a BasicBlock ResNet, multiples of 8; the
            last is D. Empty: the architecture as timm has it.
        stem_width: width of the first two of three stem convolutions; 0 if `channels` is empty.
    """

    size_px: int = 96
    arch: str = "resnet10t"
    channels: tuple[int, ...] = (32, 64, 128, 192)
    stem_width: int = 16

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built or that INT8 kernels do not take."""
        if self.size_px % _STRIDE or self.size_px < _STRIDE:
            raise ConfigError(f"size_px is {self.size_px}; it must be a multiple of {_STRIDE}")
        if not self.channels:
            if self.stem_width:
                raise ConfigError(f"stem_width is {self.stem_width} without channels; it must be 0")
            return
        if self.arch not in BASIC_BLOCK_RESNETS:
            choices = ", ".join(BASIC_BLOCK_RESNETS)
            raise ConfigError(
                f"arch is '{self.arch}', which takes no channels; leave them empty, or use one of "
                f"{choices}"
            )
        if len(self.channels) != 4:
            raise ConfigError(f"channels is {self.channels}; give the widths of four stages")
        for width in (self.stem_width, *self.channels):
            if width < 8 or width % 8:
                raise ConfigError(f"a width of {width} channels is not a multiple of 8")


@dataclass(frozen=True, kw_only=True)
class StudentOutput:
    """What the student says of a batch.

    Attributes:
        logits: (N, L) spatial mean of `evidence`.
        gradability_logit: (N, 1), high = gradable.
        laterality_logit: (N, 1), high = OD, the right eye.
        embedding: (N, D) spatial mean of the last feature map.
        evidence: (N, L, h, w) logit that each place votes for.
    """

    logits: torch.Tensor
    gradability_logit: torch.Tensor
    laterality_logit: torch.Tensor
    embedding: torch.Tensor
    evidence: torch.Tensor


class Student(nn.Module):
    """Backbone, then one 1x1 convolution to class evidence before the mean.

    Attributes:
        width: D.
    """

    def __init__(self, config: StudentConfig, label_names: tuple[str, ...]) -> None:
        """Build with random weights.

        Raises:
            ConfigError: no label, a label twice, or a backbone without a last feature map.
        """
        super().__init__()
        if not label_names or len(set(label_names)) != len(label_names):
            raise ConfigError(f"labels {label_names} must be at least one, each once")
        self.config, self.label_names = config, label_names
        self.backbone = build_backbone(config)
        self.width, _ = output_shape(self.backbone, config.arch)
        self.evidence = nn.Conv2d(self.width, len(label_names), 1)
        self.gradability = nn.Conv2d(self.width, 1, 1)
        self.laterality = nn.Conv2d(self.width, 1, 1)
        for head in (self.evidence, self.gradability, self.laterality):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, cfp_nchw: torch.Tensor) -> StudentOutput:
        """(N, 3, S, S) normalised float32 -> StudentOutput."""
        return self.read(self.backbone(cfp_nchw))

    def read(self, features_nchw: torch.Tensor) -> StudentOutput:
        """(N, D, h, h) last feature map -> StudentOutput: every head is linear before its mean."""
        evidence = self.evidence(features_nchw)
        return StudentOutput(
            logits=evidence.mean((2, 3)),
            gradability_logit=self.gradability(features_nchw).mean((2, 3)),
            laterality_logit=self.laterality(features_nchw).mean((2, 3)),
            embedding=features_nchw.mean((2, 3)),
            evidence=evidence,
        )

    @property
    def num_parameters(self) -> int:
        """Number of weights before BatchNorm is folded."""
        return sum(parameter.numel() for parameter in self.parameters())


def save_student(folder: Path, student: Student, config: dict[str, Any]) -> None:
    """Write a 'student' checkpoint; `config` adds settings, metrics and fingerprints."""
    own = {
        "kind": "student",
        "student": asdict(student.config),
        "labels": list(student.label_names),
        "num_parameters": student.num_parameters,
    }
    save_checkpoint(folder, student.state_dict(), {**own, **config})


def load_student(folder: Path) -> tuple[Student, dict[str, Any]]:
    """Read a 'student' checkpoint, in evaluation mode.

    Raises:
        CheckpointError: the folder holds something else, or weights that do not fit.
    """
    tensors, config = load_checkpoint(folder, kind="student")
    try:
        shape = {**config["student"], "channels": tuple(config["student"]["channels"])}
        student = Student(StudentConfig(**shape), tuple(config["labels"]))
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}/config.json does not describe a student: {error}; distil it again"
        ) from error
    load_weights(student, tensors)
    return student.eval(), config
