"""Backbones of students: any timm network that ends in a feature map, and where to tap it.

Weights are random unless the user names a file that they fetched themselves; nothing is
downloaded.

Legend: N images, S side in pixels, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edge_runtime.errors import CheckpointError, ConfigError
from train.timm_door import create_untrained

if TYPE_CHECKING:
    from distill.student import StudentConfig

__all__ = [
    "BASIC_BLOCK_RESNETS",
    "build_backbone",
    "load_backbone_weights",
    "middle_layer",
    "output_shape",
]

# Those whose stages may be given other widths (`StudentConfig.channels`).
BASIC_BLOCK_RESNETS = ("resnet10t", "resnet18", "resnet34")
_PROBE_PX = 64
# What timm's own files hold beyond a backbone: the classifier of their training.
_CLASSIFIER_PREFIXES = ("fc.", "classifier.", "head.fc.")


def build_backbone(config: StudentConfig) -> nn.Module:
    """A timm network with random weights from (N, 3, S, S) to its last feature map.

    A ResNet of BasicBlocks gets the widths of `config`, three 3x3 convolutions instead of one
    7x7, and no pooling: a pooled tensor would have to leave the integers.

    Raises:
        ConfigError: timm has no such network, or it does not end in a feature map.
    """
    options: dict[str, object] = {}
    if config.channels:
        options = {
            "channels": config.channels,
            "stem_type": "deep",
            "stem_width": config.stem_width,
            "replace_stem_pool": True,
            "avg_down": False,
        }
    try:
        return create_untrained(config.arch, num_classes=0, global_pool="", **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(
            f"timm cannot build '{config.arch}' without its pooling and classifier "
            f"({error}); choose a convolutional backbone, see `edge-screen quant-lint`"
        ) from error


def output_shape(backbone: nn.Module, arch: str) -> tuple[int, int]:
    """Channels and stride of the last feature map, seen on a black picture.

    Raises:
        ConfigError: the output is no feature map.
    """
    device = next(backbone.parameters()).device
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            out = backbone(torch.zeros(1, 3, _PROBE_PX, _PROBE_PX, device=device))
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"'{arch}' does not take pictures of another size ({error}); choose a convolutional "
            "backbone, see `edge-screen quant-lint`"
        ) from error
    finally:
        backbone.train(training)
    if out.ndim != 4 or out.shape[2] != out.shape[3] or _PROBE_PX % out.shape[2]:
        raise ConfigError(
            f"'{arch}' gives {tuple(out.shape)}, not a square map; a class-evidence map needs a "
            "convolutional backbone"
        )
    return out.shape[1], _PROBE_PX // out.shape[2]


def middle_layer(backbone: nn.Module) -> str:
    """Name of the layer whose output is the last one before the final stride.

    Raises:
        ConfigError: timm does not say where the strides of this network are.
    """
    layers = [(one["module"], one["reduction"]) for one in getattr(backbone, "feature_info", [])]
    found = [name for name, stride in layers if stride < layers[-1][1]]
    if not found:
        raise ConfigError(
            "the backbone has no layer of a smaller stride; leave the label-free stage out "
            "(--label-free-steps 0)"
        )
    return str(found[-1])


def load_backbone_weights(backbone: nn.Module, path: Path) -> None:
    """Load weights of the same timm network from a safetensors file on this disk.

    Raises:
        CheckpointError: the file cannot be read, or names or shapes differ in more than the
            classifier that a student does not have.
    """
    try:
        tensors = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"backbone weights {path} cannot be read: {error}; give a safetensors file"
        ) from error
    kept = {k: v for k, v in tensors.items() if not k.startswith(_CLASSIFIER_PREFIXES)}
    try:
        backbone.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds weights of another network: {error}; name the one that it is of"
        ) from error
