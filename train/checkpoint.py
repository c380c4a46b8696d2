"""Checkpoints: a folder with `model.safetensors` and `config.json`, never pickle.

config.json says everything needed to build the model again and to know where it came
from. It is written last and by renaming, so a folder that has one is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edge_runtime import __version__
from edge_runtime.errors import CheckpointError, ConfigError

__all__ = ["load_checkpoint", "load_weights", "save_checkpoint", "settings_of", "weights_sha256"]

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def _replace(path: Path, write: Any) -> None:
    """Write under a temporary name, then rename: a reader never sees half a file."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    temporary.replace(path)


def save_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> None:
    """Write one checkpoint.

    Args:
        folder: created if missing; an earlier checkpoint in it is replaced.
        tensors: name -> weight.
        config: JSON-able; must have 'kind'. 'code_version' is added.
    """
    if "kind" not in config:
        raise ValueError("config needs a 'kind', so that a loader can refuse the wrong one")
    text = json.dumps({"code_version": __version__, **config}, indent=2, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    # Never new weights beside old settings, also if this stops halfway.
    (folder / _CONFIG).unlink(missing_ok=True)
    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    _replace(folder / _WEIGHTS, lambda path: save_file(contiguous, str(path)))
    _replace(folder / _CONFIG, lambda path: path.write_text(text + "\n", encoding="utf-8"))


def load_checkpoint(folder: Path, *, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read one checkpoint.

    Raises:
        CheckpointError: a file is missing or damaged, or the checkpoint is of another kind.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}; give the folder that a stage wrote")
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / _WEIGHTS))
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}; write it again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"checkpoint {folder} is damaged: {_CONFIG} holds no object")
    if config.get("kind") != kind:
        raise CheckpointError(
            f"checkpoint {folder} is a {config.get('kind')!r}, but a {kind!r} is needed here"
        )
    return tensors, config


def weights_sha256(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights file, in hex.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        return hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"weights of {folder} cannot be read: {error}") from error


@contextmanager
def settings_of(folder: Path) -> Iterator[None]:
    """Build a model from a checkpoint's config inside this.

    Raises:
        CheckpointError: a setting is missing, unknown or out of range.
    """
    try:
        yield
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"checkpoint {folder} has settings that do not fit this version: {error!r}; "
            "write it again"
        ) from error


def load_weights(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load with every name required on both sides.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        model.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the model: {error}") from error
