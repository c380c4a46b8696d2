"""Pretraining as a whole: from paired CFP and OCT to an encoder checkpoint."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge_runtime.errors import ConfigError
from train.attention import choose_attention
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
from train.oct_pairing import oct_pairing, scans_taking_part
from train.oct_targets import WhitenedComponents, make_oct_targets
from train.pretrain_config import PretrainConfig, config_from_record
from train.pretrain_model import CFP_PATCH_PX, VIEWS, PretrainModel
from train.schedule import Progress, seed_everything

__all__ = [
    "PretrainConfig",
    "Pretrained",
    "load_encoder",
    "load_pretrained",
    "memory_source",
    "pretrain",
    "pretrain_from",
    "pretrained_record",
    "random_encoder",
    "save_pretrained",
]


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
    return pretrain_from(
        memory_source(data, config, oct_targets=oct_targets),
        config,
        fingerprint=data.fingerprint,
        progress=progress,
        device=device,
        engine=engine,
    )


def memory_source(
    data: SplitArrays, config: PretrainConfig, *, oct_targets: torch.Tensor | None = None
) -> MemorySource:
    """A split in memory as an arm sees it: targets, pairing, presence, structural maps.

    Args:
        data: the split, with its B-scans.
        config: the arm.
        oct_targets: made before by `make_oct_targets` with the same settings.

    Raises:
        ConfigError: B-scans are missing, or fewer are paired than asked for.
    """
    if oct_targets is None:
        oct_targets = _targets(data, config)
    present = None if data.scans_present_nv is None else torch.from_numpy(data.scans_present_nv)
    present = scans_taking_part(
        present, len(data), len(VIEWS), num_paired=config.num_paired, seed=config.seed
    )
    if present is not None:
        oct_targets = oct_targets * present[..., None, None]
    return MemorySource(
        data.images_tensor(),
        oct_targets,
        oct_pairing(len(data), data.patient_ids, shuffled=config.shuffle_oct, seed=config.seed),
        present_nv=present,
        structure=_structure(data) if config.structure.needs_structures else None,
    )


def _targets(data: SplitArrays, config: PretrainConfig) -> torch.Tensor:
    """(N, V, side, side) float32; empty scans where no route looks at them."""
    if data.scans_nvzx is not None:
        return torch.from_numpy(make_oct_targets(data.scans_nvzx, config.oct_target))
    if config.uses_oct:
        raise ConfigError("these routes need the B-scans; load the split with_oct=True")
    return torch.zeros(len(data), len(VIEWS), 0, 0)


def _structure(data: SplitArrays) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps and quality of every CFP, found from the pictures alone."""
    from train.structure.tokens import structure_tokens

    tokens, quality = structure_tokens(data.images_nhwc, CFP_PATCH_PX)
    return torch.from_numpy(tokens), torch.from_numpy(quality)


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
    choose_attention(model, device or CPU)
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
        routes=config.all_routes,
        whitened=whitened,
        decoder_depth=config.decoder_depth,
        structure=config.structure,
    )


def _fit_components(source: BatchSource, config: PretrainConfig) -> WhitenedComponents | None:
    predicts_oct = any(route.target == "oct" for route in config.routes)
    if not predicts_oct or config.oct_target.num_components == 0:
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


def load_pretrained(folder: Path) -> Pretrained:
    """Everything an encoder checkpoint holds: encoders, decoders and settings.

    Raises:
        CheckpointError: the folder holds no encoder checkpoint, or its weights do not fit.
    """
    tensors, record = load_checkpoint(folder, kind="encoder")
    with settings_of(folder):
        config = config_from_record(record["pretrain"])
        whitened = None
        if "whitened.directions" in tensors:
            whitened = WhitenedComponents(
                torch.empty_like(tensors["whitened.directions"]),
                torch.empty_like(tensors["whitened.spreads"]),
            )
        model = _build(config, whitened)
        metrics, fingerprint = record["metrics"], record["data_fingerprint"]
    load_weights(model, tensors)
    return Pretrained(
        model=model.eval(), config=config, metrics=metrics, data_fingerprint=fingerprint
    )


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
