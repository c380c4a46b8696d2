"""Checks that pretraining learnt from the right source: gradient leak and shuffled OCT.

Both are measured on a trained model and reported with it, next to a control value that
shows the check can fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from train.arrays import normalize_cfp
from train.device import device_of
from train.pretrain_model import PretrainModel

__all__ = ["LeakReport", "gradient_leak", "shuffled_oct_loss_ratio"]


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """Largest absolute gradient of a route's loss with respect to OCT pixels fed as input.

    Attributes:
        constrained: of oct<-cfp; must be exactly 0.
        control: of oct<-oct, which reads the OCT by design; must be above 0.
    """

    constrained: float
    control: float


def gradient_leak(
    model: PretrainModel, images_nhwc: torch.Tensor, scans_nvzx: torch.Tensor, *, seed: int = 0
) -> LeakReport:
    """Differentiate both OCT routes by the OCT input, the target being a separate tensor.

    Raises:
        ValueError: the model has not both OCT routes.
    """
    names = [route.name for route in model.routes]
    if "oct<-cfp" not in names or "oct<-oct" not in names:
        raise ValueError(f"the leak test needs oct<-cfp and oct<-oct; the model has {names}")
    model.eval()
    images_nhwc, scans_nvzx = _moved(model, images_nhwc, scans_nvzx)
    gradients = {}
    for name in ("oct<-cfp", "oct<-oct"):
        oct_input = scans_nvzx.clone().requires_grad_(True)
        generator = torch.Generator().manual_seed(seed)
        outputs = model(normalize_cfp(images_nhwc), oct_input, scans_nvzx, generator)
        # The stubs forget that an input which the loss never saw has no gradient at all.
        found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
            outputs[name].loss, oct_input, allow_unused=True
        )
        gradient = found[0]
        gradients[name] = 0.0 if gradient is None else float(gradient.abs().max())
    return LeakReport(constrained=gradients["oct<-cfp"], control=gradients["oct<-oct"])


def shuffled_oct_loss_ratio(
    model: PretrainModel, images_nhwc: torch.Tensor, scans_nvzx: torch.Tensor, *, seed: int = 0
) -> float:
    """Loss of oct<-cfp against another eye's OCT, over its loss against the own OCT.

    About 1 means that the network predicts the mean scan whatever it is shown.
    """
    model.eval()
    images_nhwc, scans_nvzx = _moved(model, images_nhwc, scans_nvzx)
    own = _route_loss(model, images_nhwc, scans_nvzx, seed)
    other = _route_loss(model, images_nhwc, scans_nvzx.roll(len(scans_nvzx) // 2, 0), seed)
    return other / own


def _moved(model: nn.Module, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.to(device_of(model)) for tensor in tensors)


def _route_loss(
    model: PretrainModel, images_nhwc: torch.Tensor, scans_nvzx: torch.Tensor, seed: int
) -> float:
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        outputs = model(normalize_cfp(images_nhwc), scans_nvzx, scans_nvzx, generator)
    return float(outputs["oct<-cfp"].loss)
