"""What `edge-screen pretrain` does, apart from its options: sources, states, the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edge_runtime.errors import ConfigError, DataError
from train.console import show_progress
from train.data.origin import DataOrigin, read_origin
from train.data.shard_reader import ShardReader
from train.dataset_arrays import load_split
from train.encoder import EncoderConfig
from train.engine.distributed import barrier, current_ranks
from train.engine.settings import EngineConfig
from train.engine.shard_source import ShardSource
from train.oct_pairing import oct_pairing
from train.oct_targets import OctTargetConfig
from train.pretrain import Pretrained, pretrain, pretrain_from, save_pretrained
from train.pretrain_config import PretrainConfig
from train.routes import route_table
from train.structure.config import StructureConfig

__all__ = ["run_pretrain"]

_SWITCHES = ("hide_weight", "attention", "loss_alpha", "target_weight")


def run_pretrain(
    out: Path, device: torch.device, options: Mapping[str, Any]
) -> tuple[dict[str, Any], DataOrigin]:
    """Pretrain as the command line says; rank 0 writes the checkpoint.

    Args:
        out: checkpoint folder; training states go below it.
        device: of this rank.
        options: of the command, by name.

    Returns:
        The record to report, and where the data come from.

    Raises:
        ConfigError: data come from nowhere or from two places, or a setting is out of range.
        DataError: the shards hold another split than 'train'.
    """
    if (options["data"] is None) == (options["shards"] is None):
        raise ConfigError("give either --data DIR or --shards DIR")
    config = _config(options)
    engine = _engine(out / "states", options)
    done, origin = (
        _from_memory(options["data"], config, engine, device)
        if options["shards"] is None
        else _from_shards(options["shards"], config, engine, device, options["workers"])
    )
    if current_ranks().is_main:
        save_pretrained(out, done)
    barrier()
    return {"out": str(out), "metrics": done.metrics, "seconds": done.seconds}, origin


def _config(options: Mapping[str, Any]) -> PretrainConfig:
    shape = {name: options[name] for name in ("size_px", "width", "depth", "num_heads")}
    return PretrainConfig(
        routes=route_table(options["routes"]),
        num_steps=options["num_steps"],
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
        seed=options["seed"],
        encoder=EncoderConfig(**shape),
        oct_target=OctTargetConfig(
            kind=options["oct_target"], num_components=options["num_components"]
        ),
        structure=StructureConfig(**{name: options[name] for name in _SWITCHES}),
        **{name: options[name] for name in ("decoder_depth", "num_paired", "shuffle_oct")},
    )


def _engine(states: Path, options: Mapping[str, Any]) -> EngineConfig:
    same = ("num_slices", "parallel", "compile_blocks", "save_every", "keep_states")
    resumes = options["resume"] or options["resume_step"] is not None
    return EngineConfig(
        **{name: options[name] for name in same},
        states=states if options["save_every"] or resumes else None,
        resume=options["resume"],
        resume_step=options["resume_step"],
    )


def _from_memory(
    folder: Path, config: PretrainConfig, engine: EngineConfig, device: torch.device
) -> tuple[Pretrained, DataOrigin]:
    data = load_split(folder, "train", size_px=config.encoder.size_px, with_oct=config.uses_oct)
    origin = read_origin(folder, fingerprint=data.fingerprint)
    done = pretrain(data, config, progress=show_progress(), device=device, engine=engine)
    return done, origin


def _from_shards(
    folder: Path,
    config: PretrainConfig,
    engine: EngineConfig,
    device: torch.device,
    num_workers: int,
) -> tuple[Pretrained, DataOrigin]:
    if config.structure.needs_structures or config.num_paired:
        raise ConfigError(
            "structural switches and --num-paired need the pictures in memory; give --data DIR "
            "instead of --shards"
        )
    reader = ShardReader(folder)
    if reader.split != "train":
        raise DataError(
            f"{folder} holds split '{reader.split}'; pretraining takes the training split alone: "
            "shard that"
        )
    pairing = oct_pairing(
        len(reader), reader.patient_ids, shuffled=config.shuffle_oct, seed=config.seed
    )
    source = ShardSource(
        reader,
        pairing,
        size_px=config.encoder.size_px,
        oct_target=config.oct_target,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    done = pretrain_from(
        source,
        config,
        fingerprint=reader.fingerprint,
        progress=show_progress(),
        device=device,
        engine=engine,
    )
    return done, DataOrigin(synthetic=reader.synthetic, fingerprint=reader.fingerprint)
