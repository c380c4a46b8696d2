"""The student: a compact ResNet whose class evidence is a map, so that a decision can be shown.

It is built for INT8 on a camera: dense 3x3 convolutions, ReLU, BatchNorm that folds away,
no pooling between them (a pooled tensor would have to leave the integers), channel counts
in multiples of 8.

Legend: N images, S side in pixels, D channels of the last stage, L diseases, h = S / 32.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edge_runtime.errors import CheckpointError, ConfigError
from train.checkpoint import load_checkpoint, load_weights, save_checkpoint
from train.timm_door import create_untrained

__all__ = ["Student", "StudentConfig", "StudentOutput", "load_student", "save_student"]

_BASIC_BLOCK_RESNETS = ("resnet10t", "resnet18", "resnet34")
_STRIDE = 32


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Shape of the student.

    Attributes:
        size_px: side S of the square CFP, a multiple of 32.
        arch: timm architecture; its blocks, not its widths.
        channels: width of each of the four stages, multiples of 8; the last is D.
        stem_width: width of the first two of three stem convolutions.
    """

    size_px: int = 96
    arch: str = "resnet10t"
    channels: tuple[int, int, int, int] = (32, 64, 128, 192)
    stem_width: int = 16

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built or that INT8 kernels do not take."""
        if self.size_px % _STRIDE or self.size_px < _STRIDE:
            raise ConfigError(f"size_px is {self.size_px}; it must be a multiple of {_STRIDE}")
        if self.arch not in _BASIC_BLOCK_RESNETS:
            choices = ", ".join(_BASIC_BLOCK_RESNETS)
            raise ConfigError(f"arch is '{self.arch}'; the student is one of {choices}")
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
        embedding: (N, D) spatial mean of the last feature map.
        evidence: (N, L, h, w) logit that each place votes for.
    """

    logits: torch.Tensor
    gradability_logit: torch.Tensor
    embedding: torch.Tensor
    evidence: torch.Tensor


class Student(nn.Module):
    """Backbone, then one 1x1 convolution to class evidence before the mean."""

    def __init__(self, config: StudentConfig, label_names: tuple[str, ...]) -> None:
        """Build with random weights.

        Raises:
            ConfigError: no label, or a label twice.
        """
        super().__init__()
        if not label_names or len(set(label_names)) != len(label_names):
            raise ConfigError(f"labels {label_names} must be at least one, each once")
        self.config, self.label_names = config, label_names
        self.backbone = create_untrained(
            config.arch,
            num_classes=0,
            global_pool="",
            channels=config.channels,
            stem_type="deep",
            stem_width=config.stem_width,
            replace_stem_pool=True,
            avg_down=False,
        )
        width = config.channels[-1]
        self.evidence = nn.Conv2d(width, len(label_names), 1)
        self.gradability = nn.Conv2d(width, 1, 1)
        for head in (self.evidence, self.gradability):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, cfp_nchw: torch.Tensor) -> StudentOutput:
        """(N, 3, S, S) normalised float32 -> StudentOutput."""
        features = self.backbone(cfp_nchw)
        evidence = self.evidence(features)
        return StudentOutput(
            logits=evidence.mean((2, 3)),
            gradability_logit=self.gradability(features).mean((2, 3)),
            embedding=features.mean((2, 3)),
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
