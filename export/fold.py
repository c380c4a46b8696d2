"""Bring a trained backbone to the plain convolutions that its ONNX file holds.

    parallel branches       one convolution          timm's own reparameterisation
    Conv -> BatchNorm       Conv                     w' = w g / sqrt(v + e), b' = b - m g / ...
    Conv -> Relu -> s, t    Conv -> clamp at t       s relu(z) + t = max(s z + t, t) for s >= 0
    Conv / 64 at the input  Conv                     a power of two: no weight is rounded

The third is HGNetV2's learnable affine. Left as Mul and Add it would stand between a
convolution and its quantiser, and folded into the next convolution it would be wrong at
padded borders; as a clamp it is exact everywhere and a quantiser can follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edge_runtime.errors import ParityError
from train.timm_door import import_timm

__all__ = [
    "ClampAt",
    "fold_affines",
    "fold_batch_norms",
    "fold_input_scale",
    "fuse_branches",
    "simplify_backbone",
]


class ClampAt(nn.Module):
    """Activation max(x, limit), or min(x, limit) where the folded scale was negative."""

    def __init__(self, limit: float, *, is_floor: bool) -> None:
        """Keep the limit as a number, so that it becomes a constant of the graph."""
        super().__init__()
        self.limit, self.is_floor = limit, is_floor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape -> the same shape."""
        return x.clamp(min=self.limit) if self.is_floor else x.clamp(max=self.limit)


def simplify_backbone(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fuse branches, fold BatchNorm and affines; returns the model, which may be another object.

    Args:
        model: in evaluation mode; changed.
        example: (1, 3, S, S) of a size that the model takes; its values do not matter.

    Raises:
        ParityError: something could not be folded.
    """
    model = fuse_branches(model)
    fold_batch_norms(model, example)
    fold_affines(model, example)
    return model


def fuse_branches(model: nn.Module) -> nn.Module:
    """Replace the training-time branches of RepVGG, MobileOne and their kin by one convolution.

    Raises:
        ParityError: branches are left, for example a block of a new timm without `fuse`.
    """
    fused: nn.Module = import_timm().utils.model.reparameterize_model(model, inplace=True)
    left = [name for name, m in fused.named_modules() if _has_branches(m)]
    if left:
        raise ParityError(
            f"'{left[0]}' still has its training branches; use a timm whose reparameterize_model "
            "knows this block"
        )
    return fused


def _has_branches(module: nn.Module) -> bool:
    """A RepVGG-like block that was not fused: it can be, and has no fused convolution."""
    can_fuse = callable(getattr(module, "reparameterize", None))
    return can_fuse and getattr(module, "reparam_conv", None) is None


def fold_batch_norms(model: nn.Module, example: torch.Tensor) -> int:
    """Fold every BatchNorm into the convolution that feeds it, in place.

    Which one that is, is seen by running `example` through the model: no list of a
    library's block types to keep up to date. An activation inside the norm (timm's
    BatchNormAct2d) stays.

    Returns:
        How many were folded.

    Raises:
        ParityError: a BatchNorm is not fed by a convolution.
    """
    pairs = _fed_by(model.eval(), example, nn.Conv2d, lambda m: isinstance(m, nn.BatchNorm2d))
    for norm_name, conv_name in pairs.items():
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _replace(model, conv_name, fuse_conv_bn_eval(conv, norm))
        _replace(model, norm_name, _activation_of(norm))
    left = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    if left:
        raise ParityError(f"{left[0]} is not fed by a convolution alone; it cannot be folded")
    return len(pairs)


def _activation_of(norm: nn.BatchNorm2d) -> nn.Module:
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()


def fold_affines(model: nn.Module, example: torch.Tensor) -> int:
    """Fold every Conv -> Relu -> learnable scale and shift into Conv -> clamp, in place.

    To be called after `fold_batch_norms`.

    Returns:
        How many were folded.

    Raises:
        ParityError: an affine does not follow a Relu that a convolution feeds.
    """
    affines = import_timm().models.hgnet.LearnableAffineBlock
    model.eval()
    relu_of = _fed_by(model, example, nn.ReLU, lambda m: isinstance(m, affines))
    conv_of = _fed_by(model, example, nn.Conv2d, lambda m: isinstance(m, nn.ReLU))
    for affine_name, relu_name in relu_of.items():
        if relu_name in conv_of:
            conv = model.get_submodule(conv_of[relu_name])
            affine = model.get_submodule(affine_name)
            assert isinstance(conv, nn.Conv2d)
            _replace(model, relu_name, _absorb(conv, affine))
            _replace(model, affine_name, nn.Identity())
    left = [name for name, m in model.named_modules() if isinstance(m, affines)]
    if left:
        raise ParityError(f"{left[0]} does not follow Conv and Relu; it cannot be folded")
    return len(relu_of)


def _absorb(conv: nn.Conv2d, affine: nn.Module) -> ClampAt:
    """Scale and shift a convolution; return the clamp that takes the place of its Relu."""
    scale, shift = float(affine.scale), float(affine.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        conv.weight *= scale
        conv.bias = nn.Parameter(bias * scale + shift)
    return ClampAt(shift, is_floor=scale >= 0)


def fold_input_scale(model: nn.Module, scale: float) -> None:
    """Divide the first convolution by `scale`, so that it takes the unscaled picture.

    Raises:
        ParityError: the scale is no power of two, or there is no convolution.
    """
    mantissa = torch.frexp(torch.tensor(scale)).mantissa
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if float(mantissa) != 0.5 or first is None:
        raise ParityError(f"the input scale {scale:g} cannot be folded without rounding")
    with torch.no_grad():
        first.weight /= scale


def _fed_by(
    model: nn.Module,
    example: torch.Tensor,
    maker: type[nn.Module],
    is_reader: Callable[[nn.Module], bool],
) -> dict[str, str]:
    """Name of each reader -> name of the `maker` module whose output it read, seen by running."""
    made: dict[int, tuple[str, torch.Tensor]] = {}
    pairs: dict[str, str] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if is_reader(module) and id(inputs[0]) in made:
                pairs[name] = made[id(inputs[0])][0]
            if isinstance(module, maker):
                made[id(output)] = (name, output)  # held, so that no other tensor gets its id
            elif not isinstance(module, nn.Identity) and isinstance(output, torch.Tensor):
                made.pop(id(output), None)  # changed in place by another module

        return hook

    handles = [
        m.register_forward_hook(watch(name))
        for name, m in model.named_modules()
        if not any(True for _ in m.children()) or is_reader(m)
    ]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
