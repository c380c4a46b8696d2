"""Fine-tuning: heads first on the frozen encoder, then everything at a low rate.

Short fine-tuning at a full rate forgets what pretraining found (the probe alone was
better on edema), so the encoder's learning rate is a fraction of the heads'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edge_runtime.errors import ConfigError, DataError
from train.arrays import normalize_cfp
from train.dataset_arrays import SplitArrays
from train.device import CPU, device_of
from train.ema import EmaWeights
from train.encoder import CfpEncoder
from train.labels import DISEASES, GRADABLE
from train.schedule import Progress, StepGuard, batches, cosine_rate, seed_everything
from train.teacher import Teacher, TeacherOutput, save_teacher

__all__ = ["FinetuneConfig", "finetune", "masked_bce", "save_finetuned", "task_loss"]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """All settings of fine-tuning; saved whole.

    Attributes:
        labels: binary diseases the heads learn; gradability is always learnt beside them.
        num_labeled: labelled training eyes used, drawn by `seed`; 0 = all.
        head_steps: steps with the encoder frozen.
        num_steps: steps with everything trained.
        batch_size: eyes a step.
        learning_rate: peak rate of the heads.
        encoder_rate_scale: the encoder's rate as a fraction of the heads'.
        weight_decay: AdamW's.
        bfloat16: run the encoder in bfloat16; the loss stays float32.
        ema_decay: keep a running average of the weights of the second phase instead of the
            last ones (see `train.ema`); 0 = off.
        seed: draws eyes and batches.
    """

    labels: tuple[str, ...] = DISEASES
    num_labeled: int = 0
    head_steps: int = 200
    num_steps: int = 600
    batch_size: int = 64
    learning_rate: float = 3e-3
    encoder_rate_scale: float = 0.5
    weight_decay: float = 0.02
    bfloat16: bool = True
    ema_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if not self.labels or len(set(self.labels)) != len(self.labels) or GRADABLE in self.labels:
            raise ConfigError(f"labels {self.labels} must be distinct diseases, without {GRADABLE}")
        if min(self.head_steps, self.num_steps, self.num_labeled) < 0:
            raise ConfigError("head_steps, num_steps and num_labeled cannot be negative")
        if self.batch_size < 2 or not 0 < self.learning_rate < 1:
            raise ConfigError(
                f"batch_size {self.batch_size} must be >= 2 and learning_rate "
                f"{self.learning_rate} in (0, 1)"
            )
        if not 0 <= self.encoder_rate_scale <= 1:
            raise ConfigError(f"encoder_rate_scale {self.encoder_rate_scale} must be in [0, 1]")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay {self.ema_decay} must be in [0, 1)")


def masked_bce(logits_nl: torch.Tensor, labels_nl: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy over known labels (NaN = unknown), mean over them; float32.

    A batch without any known label gives 0, with a gradient of 0.
    """
    known = torch.isfinite(labels_nl)
    target = torch.where(known, labels_nl, torch.zeros_like(labels_nl))
    loss = functional.binary_cross_entropy_with_logits(logits_nl.float(), target, reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def task_loss(
    output: TeacherOutput, labels_nl: torch.Tensor, gradable_n: torch.Tensor
) -> torch.Tensor:
    """Disease loss on gradable eyes only, plus gradability on all eyes.

    What cannot be seen must not be learnt as absent: diseases of an ungradable eye are
    masked out.
    """
    seen = torch.where(gradable_n[:, None] == 0, torch.full_like(labels_nl, torch.nan), labels_nl)
    return masked_bce(output.logits, seen) + masked_bce(
        output.gradability_logit, gradable_n[:, None]
    )


def finetune(
    encoder: CfpEncoder,
    data: SplitArrays,
    config: FinetuneConfig,
    *,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> Teacher:
    """Train heads, then everything.

    Args:
        encoder: its weights are changed.
        data: the training split.
        config: the settings.
        progress: called with (steps done, steps, text).
        device: where the steps run; None = the CPU.

    Returns:
        The teacher in evaluation mode, on the CPU, with its `metrics`.

    Raises:
        DataError: a label is missing, or has one value only among the eyes drawn.
    """
    seed_everything(config.seed)
    chosen = _draw_labeled(data, config)
    labels = torch.from_numpy(np.stack([chosen.label(name) for name in config.labels], 1))
    gradable = torch.from_numpy(chosen.label(GRADABLE).copy())
    teacher = Teacher(encoder, config.labels).to(device or CPU)
    total = config.head_steps + config.num_steps
    steps = _Steps(teacher, chosen.images_tensor(), labels, gradable, config, progress, total)
    steps.run(config.head_steps, encoder_scale=0.0, offset=0)
    steps.ema = EmaWeights(teacher, config.ema_decay) if config.ema_decay > 0 else None
    steps.run(config.num_steps, encoder_scale=config.encoder_rate_scale, offset=config.head_steps)
    if steps.ema is not None:
        steps.ema.copy_to(teacher)
    encoder.requires_grad_(True)
    teacher.metrics = steps.metrics()
    return teacher.to(CPU).eval()


def _draw_labeled(data: SplitArrays, config: FinetuneConfig) -> SplitArrays:
    for name in (*config.labels, GRADABLE):
        if name not in data.label_names:
            raise DataError(
                f"the data set has no label '{name}'; it has {', '.join(data.label_names)}"
            )
    if config.num_labeled > len(data):
        raise DataError(
            f"{config.num_labeled} labelled eyes were asked for, the training split has "
            f"{len(data)}; ask for fewer, or 0 for all"
        )
    mask = np.ones(len(data), bool)
    if 0 < config.num_labeled < len(data):
        mask[:] = False
        mask[np.random.default_rng(config.seed).permutation(len(data))[: config.num_labeled]] = True
    chosen = data.keep(mask)
    for name in (*config.labels, GRADABLE):
        values = chosen.label(name)
        if len(np.unique(values[np.isfinite(values)])) < 2:
            raise DataError(
                f"label '{name}' has fewer than two values among {len(chosen)} training eyes; "
                "give more labelled eyes"
            )
    return chosen


class _Steps:
    """The gradient steps of both phases over arrays held in memory."""

    def __init__(
        self,
        teacher: Teacher,
        images: torch.Tensor,
        labels: torch.Tensor,
        gradable: torch.Tensor,
        config: FinetuneConfig,
        progress: Progress | None,
        total: int,
    ) -> None:
        self.teacher, self.images, self.labels, self.gradable = teacher, images, labels, gradable
        self.config, self.progress, self.total = config, progress, total
        self.losses: list[float] = []
        self.num_skipped = 0
        self.ema: EmaWeights | None = None

    def run(self, num_steps: int, *, encoder_scale: float, offset: int) -> None:
        config, teacher, device = self.config, self.teacher, device_of(self.teacher)
        heads = [p for name, p in teacher.named_parameters() if not name.startswith("encoder.")]
        groups = [{"params": heads, "scale": 1.0}]
        if encoder_scale > 0:
            groups.append({"params": list(teacher.encoder.parameters()), "scale": encoder_scale})
        guard = StepGuard(
            torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        )
        teacher.encoder.requires_grad_(encoder_scale > 0)
        teacher.train()
        # The encoder's BatchNorm keeps the statistics of pretraining: batches here are few.
        teacher.encoder.eval()
        drawn = batches(len(self.images), config.batch_size, num_steps, config.seed + offset)
        for step, picked in enumerate(drawn):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                output = teacher(normalize_cfp(self.images[picked].to(device)))
            labels, gradable = self.labels[picked].to(device), self.gradable[picked].to(device)
            loss = task_loss(output, labels, gradable)
            guard.step(loss, cosine_rate(step, num_steps, config.learning_rate))
            if self.ema is not None:
                self.ema.update(teacher)
            self.losses.append(float(loss.detach()))
            done = offset + step + 1
            if self.progress is not None and ((step + 1) % 20 == 0 or done == self.total):
                self.progress(done, self.total, f"loss {self.losses[-1]:.3f}")
        self.num_skipped += guard.num_skipped

    def metrics(self) -> dict[str, float]:
        """Mean loss of the last 50 steps that were not skipped, and how many were."""
        recent = [loss for loss in self.losses[-50:] if np.isfinite(loss)]
        mean = {"loss": float(np.mean(recent))} if recent else {}
        return {**mean, "skipped_steps": float(self.num_skipped)}


def save_finetuned(
    folder: Path,
    teacher: Teacher,
    config: FinetuneConfig,
    *,
    data_fingerprint: str,
    pretrained: Mapping[str, Any] | None = None,
) -> None:
    """Write the teacher with its fine-tuning settings and metrics.

    Args:
        folder: checkpoint folder.
        teacher: as `finetune` returned it.
        config: its settings.
        data_fingerprint: SHA-256 of the data set.
        pretrained: `train.pretrain.pretrained_record` of the encoder's checkpoint; None where
            the encoder came from none.
    """
    record = {
        "finetune": asdict(config),
        "metrics": teacher.metrics,
        "pretrained": None if pretrained is None else dict(pretrained),
        "data_fingerprint": data_fingerprint,
    }
    save_teacher(folder, teacher, record)
