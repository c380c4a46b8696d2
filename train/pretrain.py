"""Pretraining as a whole: from paired CFP and OCT to an encoder checkpoint."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_runtime.errors import ConfigError
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
from train.engine.loop import LoopConfig, PretrainLoop
from train.engine.settings import EngineConfig
from train.engine.source import BatchSource, MemorySource
from train.oct_targets import OctTargetConfig, WhitenedComponents, make_oct_targets
from train.pretrain_model import PretrainModel
from train.routes import route_table
from train.schedule import Progress, seed_everything

__all__ = [
    "PretrainConfig",
    "Pretrained",
    "load_encoder",
    "pretrain",
    "pretrain_from",
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
        seconds: of this process's steps: 'starting' the first, 'total' the others, 'waiting'
            for data in those.
    """

    model: PretrainModel
    config: PretrainConfig
    metrics: dict[str, float]
    data_fingerprint: str
    seconds: dict[str, float] = field(default_factory=dict)


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
    engine: EngineConfig | None = None,
) -> Pretrained:
    """Train one arm on a split in memory.

    Args:
        data: the training split, with its B-scans. Labels are not looked at.
        config: the arm.
        progress: called with (steps done, steps, text).
        oct_targets: (N, V, side, side) float32 made before by `make_oct_targets` with the
            same settings, to share them between arms.
        device: where the steps run; None = the CPU.
        engine: how they are executed, saved and resumed; None = plainly.

    Returns:
        The arm, its model on the CPU.

    Raises:
        ConfigError: B-scans are missing or training diverges.
        CheckpointError: a state to resume from is damaged or of another run.
    """
    if data.scans_nvzx is None:
        raise ConfigError("pretraining needs the B-scans; load the split with_oct=True")
    if oct_targets is None:
        oct_targets = torch.from_numpy(make_oct_targets(data.scans_nvzx, config.oct_target))
    pairing = oct_pairing(
        len(data), data.patient_ids, shuffled=config.shuffle_oct, seed=config.seed
    )
    source = MemorySource(data.images_tensor(), oct_targets, pairing)
    return pretrain_from(
        source,
        config,
        fingerprint=data.fingerprint,
        progress=progress,
        device=device,
        engine=engine,
    )


def pretrain_from(
    source: BatchSource,
    config: PretrainConfig,
    *,
    fingerprint: str,
    progress: Progress | None = None,
    device: torch.device | None = None,
    engine: EngineConfig | None = None,
) -> Pretrained:
    """Train one arm on any source of eyes.

    Args:
        source: eyes in memory or in shards, preprocessed for `config`.
        config: the arm.
        fingerprint: SHA-256 of the data set.
        progress: called with (steps done, steps, text), on rank 0.
        device: where the steps run; None = the CPU.
        engine: how they are executed, saved and resumed; None = plainly.

    Returns:
        The arm, its model on the CPU, on every rank.

    Raises:
        ConfigError: training diverges, or ranks and slices do not divide the batch.
        CheckpointError: a state to resume from is damaged or of another run.
        DataError: an eye cannot be read.
    """
    generator = seed_everything(config.seed)
    model = _build(config, _fit_components(source, config))
    model.to(device or CPU)  # after its weights were drawn, before an optimiser holds them
    settings = _loop_config(config, fingerprint, engine or EngineConfig())
    loop = PretrainLoop(model, source, settings, generator, device=device_of(model))
    loop.run(progress)
    model = _unsharded(model, loop, config)
    settle_batch_norm(model.cfp_encoder, source.settling_images())
    model.to(CPU).eval()
    return Pretrained(
        model=model,
        config=config,
        metrics=loop.metrics(),
        data_fingerprint=fingerprint,
        seconds=loop.seconds,
    )


def _build(config: PretrainConfig, whitened: WhitenedComponents | None) -> PretrainModel:
    return PretrainModel(
        encoder=config.encoder,
        oct_target=config.oct_target,
        routes=route_table(config.routes),
        whitened=whitened,
    )


def _fit_components(source: BatchSource, config: PretrainConfig) -> WhitenedComponents | None:
    uses_oct = any(route.target == "oct" for route in route_table(config.routes))
    if not uses_oct or config.oct_target.num_components == 0:
        return None
    targets = source.fitting_targets().numpy()
    return WhitenedComponents.fit(targets, config.oct_target.num_components)


def _loop_config(config: PretrainConfig, fingerprint: str, engine: EngineConfig) -> LoopConfig:
    return LoopConfig(
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        bfloat16=config.bfloat16,
        seed=config.seed,
        identity={**asdict(config), "data_fingerprint": fingerprint},
        engine=engine,
    )


def _unsharded(model: PretrainModel, loop: PretrainLoop, config: PretrainConfig) -> PretrainModel:
    """The trained model with whole weights; a new one where FSDP has cut them up."""
    if not loop.is_sharded:
        return model
    whole = _build(config, copy.deepcopy(model.whitened))
    whole.load_state_dict(loop.weights())
    return whole.to(device_of(model))


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
