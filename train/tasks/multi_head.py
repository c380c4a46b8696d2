"""Fine-tuning of all eight classification heads at once: the probe first, then everything.

Eight runs a label budget would not fit into a study of many encoders, and the heads share
what the encoder learns, so one run trains them together. Its heads start as linear probes
on the frozen features, which costs milliseconds and loses nothing; then encoder and heads
move for a few hundred steps, the encoder at a fraction of the heads' rate: short
fine-tuning at a full rate forgets what pretraining found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from edge_runtime.errors import ConfigError
from train.arrays import normalize_cfp
from train.device import device_of
from train.ema import EmaWeights
from train.encoder import CfpEncoder
from train.finetune import masked_bce
from train.schedule import Progress, StepGuard, batches, cosine_rate, seed_everything

__all__ = ["MultiHead", "MultiHeadConfig", "fit_multi_head", "multi_head_loss", "predict"]

FloatArray = npt.NDArray[np.float64]
_UNSEEN_GRADE_LOGIT = 3.0


@dataclass(frozen=True, kw_only=True)
class MultiHeadConfig:
    """Settings of one joint fine-tuning.

    Attributes:
        num_steps: steps with everything trained; 0 leaves the linear probes.
        batch_size: eyes a step.
        learning_rate: peak rate of the heads.
        encoder_rate_scale: the encoder's rate as a fraction of the heads'.
        weight_decay: AdamW's.
        probe_strength: inverse L2 penalty of the probes that the heads start from.
        ema_decay: predict with a running average of the weights (`train.ema`); 0 = off.
        bfloat16: run the encoder in bfloat16; losses and predictions stay float32.
    """

    num_steps: int = 300
    batch_size: int = 32
    learning_rate: float = 1e-3
    encoder_rate_scale: float = 0.3
    weight_decay: float = 0.05
    probe_strength: float = 0.03
    ema_decay: float = 0.0
    bfloat16: bool = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.num_steps < 0 or self.batch_size < 2:
            raise ConfigError(
                f"num_steps {self.num_steps} must be >= 0 and batch_size {self.batch_size} >= 2"
            )
        if not 0 < self.learning_rate < 1 or not 0 <= self.encoder_rate_scale <= 1:
            raise ConfigError(
                f"learning_rate {self.learning_rate} must be in (0, 1) and encoder_rate_scale "
                f"{self.encoder_rate_scale} in [0, 1]"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")
        if self.probe_strength <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"probe_strength {self.probe_strength} must be > 0 and weight_decay "
                f"{self.weight_decay} >= 0"
            )


class MultiHead(nn.Module):
    """Encoder, standardised mean of the tokens, one linear layer for all tasks.

    Attributes:
        sizes: outputs of each task: 1 for a binary label, 5 for a grade.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self, encoder: CfpEncoder, sizes: Sequence[int], mean: FloatArray, spread: FloatArray
    ) -> None:
        """Build with heads of zero; `mean` and `spread` (D,) bring features to one scale."""
        super().__init__()
        self.encoder, self.sizes = encoder, tuple(sizes)
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("spread", torch.from_numpy(spread).float())
        self.head = nn.Linear(encoder.config.width, sum(sizes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, cfp_nchw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, S, S) normalised float32 -> (N, 1) or (N, 5) logits a task."""
        pooled = self.encoder(cfp_nchw).float().mean(1)
        with torch.autocast(pooled.device.type, enabled=False):
            out: torch.Tensor = self.head((pooled - self.mean) / self.spread)
        return torch.split(out, list(self.sizes), 1)


def multi_head_loss(outputs: Sequence[torch.Tensor], truth_nt: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy and cross-entropy over known truth, each a mean over its eyes.

    Args:
        outputs: T tensors (N, 1) or (N, C).
        truth_nt: (N, T) 0/1 or grades; NaN = unknown, and its gradient is exactly 0.
    """
    losses = []
    binary = [k for k, one in enumerate(outputs) if one.shape[1] == 1]
    if binary:
        logits = torch.cat([outputs[k] for k in binary], 1)
        losses.append(len(binary) * masked_bce(logits, truth_nt[:, binary]))
    for k in range(len(outputs)):
        if k not in binary:
            losses.append(_masked_cross_entropy(outputs[k], truth_nt[:, k]))
    return torch.stack(losses).sum()


def _masked_cross_entropy(logits_nc: torch.Tensor, grades_n: torch.Tensor) -> torch.Tensor:
    known = torch.isfinite(grades_n)
    target = torch.where(known, grades_n, torch.full_like(grades_n, -1)).long()
    total = functional.cross_entropy(logits_nc.float(), target, ignore_index=-1, reduction="sum")
    return total / known.sum().clamp(min=1)


def fit_multi_head(
    model: MultiHead,
    images_nhwc: npt.NDArray[np.uint8],
    features: FloatArray,
    truth_nt: FloatArray,
    config: MultiHeadConfig,
    *,
    seed: int,
    progress: Progress | None = None,
) -> MultiHead:
    """Train the heads as probes, then everything.

    Args:
        model: its weights, the encoder's too, are changed.
        images_nhwc: (N, S, S, 3) uint8, the labelled eyes.
        features: (N, D) standardised features of the encoder as it came.
        truth_nt: (N, T) 0/1 or grades; NaN = unknown.
        config: the settings.
        seed: of the batches.
        progress: called with (steps done, steps, text).

    Returns:
        The same model in evaluation mode.

    Raises:
        ConfigError: training diverges.
    """
    seed_everything(seed)
    _start_as_probes(model, features, truth_nt, config.probe_strength)
    heads = list(model.head.parameters())
    groups = [
        {"params": heads, "scale": 1.0},
        {"params": list(model.encoder.parameters()), "scale": config.encoder_rate_scale},
    ]
    guard = StepGuard(
        torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    )
    # Evaluation mode: BatchNorm keeps the statistics of pretraining, batches here are few.
    model.eval()
    images, truth = torch.from_numpy(images_nhwc), torch.from_numpy(truth_nt).float()
    device = device_of(model)
    average = EmaWeights(model, config.ema_decay) if config.ema_decay > 0 else None
    drawn = batches(len(images), config.batch_size, config.num_steps, seed)
    for step, picked in enumerate(drawn):
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            outputs = model(normalize_cfp(images[picked].to(device)))
        loss = multi_head_loss(outputs, truth[picked].to(device))
        guard.step(loss, cosine_rate(step, config.num_steps, config.learning_rate))
        if average is not None:
            average.update(model)
        if progress is not None and (step + 1) % 20 == 0:
            progress(step + 1, config.num_steps, f"loss {float(loss.detach()):.3f}")
    if average is not None:
        average.copy_to(model)
    return model


def predict(
    model: MultiHead, images_nhwc: npt.NDArray[np.uint8], *, batch_size: int = 256
) -> tuple[FloatArray, ...]:
    """(N, S, S, 3) uint8 -> for each task (N,): a logit, or the expected grade."""
    parts, device = [], device_of(model)
    with torch.inference_mode():
        for start in range(0, len(images_nhwc), batch_size):
            batch = torch.from_numpy(images_nhwc[start : start + batch_size]).to(device)
            parts.append([_as_score(one) for one in model(normalize_cfp(batch))])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _as_score(logits: torch.Tensor) -> FloatArray:
    if logits.shape[1] == 1:
        binary: FloatArray = logits[:, 0].double().cpu().numpy()
        return binary
    grades = torch.arange(logits.shape[1], dtype=torch.float64)
    expected: FloatArray = (logits.double().softmax(1).cpu() @ grades).numpy()
    return expected


def _start_as_probes(
    model: MultiHead, features: FloatArray, truth_nt: FloatArray, strength: float
) -> None:
    """Fit each head on frozen features; a head whose truth has one value stays as it is."""
    start = 0
    for k, size in enumerate(model.sizes):
        known = np.isfinite(truth_nt[:, k])
        if len(np.unique(truth_nt[known, k])) > 1:
            probe = LogisticRegression(C=strength, max_iter=1000)
            probe.fit(features[known], truth_nt[known, k].astype(np.int64))
            _copy_probe(model.head, slice(start, start + size), probe)
        start += size


def _copy_probe(head: nn.Linear, rows: slice, probe: LogisticRegression) -> None:
    """Write a probe into its rows; grades it never saw get the bias of a rare class."""
    weight, bias = probe.coef_, probe.intercept_
    size = rows.stop - rows.start
    if size > 1:
        if len(weight) == 1:  # two grades only: scikit-learn gives one row
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        full_weight = np.zeros((size, weight.shape[1]))
        full_bias = np.full(size, bias.min() - _UNSEEN_GRADE_LOGIT)
        full_weight[probe.classes_], full_bias[probe.classes_] = weight, bias
        weight, bias = full_weight, full_bias
    with torch.no_grad():
        head.weight[rows] = torch.from_numpy(np.asarray(weight)).to(head.weight)
        head.bias[rows] = torch.from_numpy(np.asarray(bias)).to(head.bias)
