"""The pretraining loop: from paired CFP and OCT to an encoder checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_runtime.errors import ConfigError
from train.arrays import normalize_cfp
from train.batch_norm import settle_batch_norm
from train.checkpoint import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
    settings_of,
    weights_sha256,
)
from train.dataset_arrays import SplitArrays
from train.device import CPU, device_of
from train.encoder import CfpEncoder, EncoderConfig
from train.oct_targets import OctTargetConfig, WhitenedComponents, make_oct_targets
from train.pretrain_model import PretrainModel
from train.routes import route_table
from train.schedule import Progress, StepGuard, batches, cosine_rate, seed_everything

__all__ = [
    "PretrainConfig",
    "Pretrained",
    "load_encoder",
    "pretrain",
    "pretrained_record",
    "random_encoder",
    "save_pretrained",
]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """All settings of one pretraining arm; saved whole beside its weights.

    Attributes:
        routes: name of a route table.
        num_steps: optimiser steps.
        batch_size: eyes a step.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's.
        shuffle_oct: pair every CFP with another eye's OCT (the control that must not help).
        bfloat16: run convolutions and matrices in bfloat16; losses stay float32.
        seed: draws weights, batches and masks.
        encoder: shape of the CFP encoder.
        oct_target: what the OCT routes predict.
    """

    routes: str = "oct_informed"
    num_steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.05
    shuffle_oct: bool = False
    bfloat16: bool = True
    seed: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    oct_target: OctTargetConfig = field(default_factory=OctTargetConfig)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        route_table(self.routes)
        if self.num_steps < 1 or self.batch_size < 2:
            raise ConfigError(
                f"num_steps {self.num_steps} must be >= 1 and batch_size {self.batch_size} >= 2"
            )
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate {self.learning_rate} must be in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A finished arm.

    Attributes:
        model: encoders and decoders, in evaluation mode.
        config: how it was trained.
        metrics: last 50 steps' mean loss of each route, and skipped steps.
        data_fingerprint: SHA-256 of the data set.
    """

    model: PretrainModel
    config: PretrainConfig
    metrics: dict[str, float]
    data_fingerprint: str


def oct_pairing(num_eyes: int, patient_ids: Any, *, shuffled: bool, seed: int) -> torch.Tensor:
    """Whose OCT goes with each CFP: the same eye's, or (control) another patient's.

    Raises:
        ConfigError: no pairing with another patient was found.
    """
    own = np.arange(num_eyes)
    if not shuffled:
        return torch.from_numpy(own)
    rng = np.random.default_rng(seed)
    other = rng.permutation(num_eyes)
    for _ in range(100):
        same = patient_ids[other] == patient_ids
        if not same.any():
            return torch.from_numpy(other)
        other[same] = rng.integers(0, num_eyes, int(same.sum()))
    raise ConfigError(
        f"{num_eyes} eyes of {len(np.unique(patient_ids))} patients cannot each be given the OCT "
        "of another patient; use more patients"
    )


def pretrain(
    data: SplitArrays,
    config: PretrainConfig,
    *,
    progress: Progress | None = None,
    oct_targets: torch.Tensor | None = None,
    device: torch.device | None = None,
) -> Pretrained:
    """Train one arm.

    Args:
        data: the training split, with its B-scans. Labels are not looked at.
        config: the arm.
        progress: called with (steps done, steps, text).
        oct_targets: (N, V, side, side) float32 made before by `make_oct_targets` with the
            same settings, to share them between arms.
        device: where the steps run; None = the CPU.

    Returns:
        The arm, its model on the CPU.

    Raises:
        ConfigError: B-scans are missing or training diverges.
    """
    if data.scans_nvzx is None:
        raise ConfigError("pretraining needs the B-scans; load the split with_oct=True")
    if oct_targets is None:
        oct_targets = torch.from_numpy(make_oct_targets(data.scans_nvzx, config.oct_target))
    generator = seed_everything(config.seed)
    whitened = _fit_components(oct_targets, config)
    model = PretrainModel(
        encoder=config.encoder,
        oct_target=config.oct_target,
        routes=route_table(config.routes),
        whitened=whitened,
    )
    model.to(device or CPU)  # after its weights were drawn, before an optimiser holds them
    metrics = _run(model, data, oct_targets, config, generator, progress)
    settle_batch_norm(model.cfp_encoder, data.images_tensor())
    model.to(CPU).eval()
    return Pretrained(
        model=model, config=config, metrics=metrics, data_fingerprint=data.fingerprint
    )


def _fit_components(targets: torch.Tensor, config: PretrainConfig) -> WhitenedComponents | None:
    uses_oct = any(route.target == "oct" for route in route_table(config.routes))
    if not uses_oct or config.oct_target.num_components == 0:
        return None
    return WhitenedComponents.fit(targets.numpy(), config.oct_target.num_components)


def _run(
    model: PretrainModel,
    data: SplitArrays,
    oct_targets: torch.Tensor,
    config: PretrainConfig,
    generator: torch.Generator,
    progress: Progress | None,
) -> dict[str, float]:
    """The steps themselves; returns the mean loss of each route over the last 50."""
    images, device = data.images_tensor(), device_of(model)
    pairing = oct_pairing(
        len(data), data.patient_ids, shuffled=config.shuffle_oct, seed=config.seed
    )
    guard = StepGuard(
        torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
        )
    )
    model.train()
    recent: dict[str, list[float]] = {route.name: [] for route in model.routes}
    drawn = batches(len(data), config.batch_size, config.num_steps, config.seed)
    for step, picked in enumerate(drawn):
        scans = oct_targets[pairing[picked]].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            outputs = model(normalize_cfp(images[picked].to(device)), scans, scans, generator)
        guard.step(
            model.total_loss(outputs), cosine_rate(step, config.num_steps, config.learning_rate)
        )
        for name, output in outputs.items():
            loss = float(output.loss.detach())
            recent[name].append(loss if np.isfinite(loss) else np.nan)
        if progress is not None and ((step + 1) % 20 == 0 or step + 1 == config.num_steps):
            text = " ".join(
                f"{name} {np.nanmean(losses[-20:]):.3f}" for name, losses in recent.items()
            )
            progress(step + 1, config.num_steps, text)
    if guard.num_skipped == config.num_steps:
        raise ConfigError(f"all {config.num_steps} steps were skipped; lower the learning rate")
    # A skipped step's loss is no number; it is counted in skipped_steps instead.
    means = {f"loss {name}": float(np.nanmean(losses[-50:])) for name, losses in recent.items()}
    return {**means, "skipped_steps": float(guard.num_skipped)}


def save_pretrained(folder: Path, pretrained: Pretrained) -> None:
    """Write encoders and decoders with every setting as an 'encoder' checkpoint."""
    save_checkpoint(
        folder,
        pretrained.model.state_dict(),
        {
            "kind": "encoder",
            "pretrain": asdict(pretrained.config),
            "metrics": pretrained.metrics,
            "data_fingerprint": pretrained.data_fingerprint,
        },
    )


def random_encoder(config: EncoderConfig, data: SplitArrays, *, seed: int) -> CfpEncoder:
    """An untrained encoder, its BatchNorm settled like the others': no pretraining."""
    torch.manual_seed(seed)
    encoder = CfpEncoder(config)
    settle_batch_norm(encoder, data.images_tensor())
    return encoder.eval()


def load_encoder(folder: Path) -> tuple[CfpEncoder, dict[str, Any]]:
    """The CFP encoder of a checkpoint and the checkpoint's config.

    Raises:
        CheckpointError: the folder holds no encoder checkpoint, or its weights do not fit.
    """
    tensors, config = load_checkpoint(folder, kind="encoder")
    with settings_of(folder):
        encoder = CfpEncoder(EncoderConfig(**config["pretrain"]["encoder"]))
    prefix = "cfp_encoder."
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    load_weights(encoder, own)
    return encoder.eval(), config


def pretrained_record(folder: Path) -> dict[str, Any]:
    """Which encoder checkpoint it is, for the record of a stage that starts from it.

    Returns:
        'sha256' of the weights file, 'pretrain' settings, 'data_fingerprint'.

    Raises:
        CheckpointError: the folder holds no encoder checkpoint.
    """
    _, config = load_checkpoint(folder, kind="encoder")
    with settings_of(folder):
        kept = {name: config[name] for name in ("pretrain", "data_fingerprint")}
    return {"sha256": weights_sha256(folder), **kept}
