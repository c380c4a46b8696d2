"""Folding keeps the function: branches, BatchNorm with its activation, affines, the input scale."""

from __future__ import annotations

import copy

import pytest
import torch
from catalogue import make_student
from torch import nn

from edge_runtime.errors import ParityError
from export.fold import (
    ClampAt,
    fold_affines,
    fold_batch_norms,
    fold_input_scale,
    fuse_branches,
    simplify_backbone,
)
from train.timm_door import import_timm

SIZE_PX = 64


def smooth(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return nn.functional.interpolate(torch.randn(2, 3, 8, 8), size=SIZE_PX, mode="bilinear")


def affine_block(scale: float, shift: float) -> nn.Module:
    import_timm()
    from timm.models.hgnet import LearnableAffineBlock

    return LearnableAffineBlock(scale, shift)


def affine_model(scale: float, shift: float, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias),
        nn.ReLU(),
        affine_block(scale, shift),
        nn.Conv2d(8, 4, 3, padding=1),  # padded: folding the shift into it would be wrong
    ).eval()


@pytest.mark.parametrize("scale", [1.3, 0.2, -0.7, 0.0])
@pytest.mark.parametrize("shift", [0.4, -0.3, 0.0])
@pytest.mark.parametrize("bias", [True, False])
def test_an_affine_becomes_a_clamp_also_at_borders(scale, shift, bias) -> None:
    model, image = affine_model(scale, shift, bias), smooth()
    with torch.no_grad():
        before = model(image)
        assert fold_affines(model, image) == 1
        torch.testing.assert_close(model(image), before, atol=1e-5, rtol=1e-5)
    assert isinstance(model[1], ClampAt)
    assert isinstance(model[2], nn.Identity)


def test_an_affine_elsewhere_is_refused() -> None:
    stray = nn.Sequential(nn.Conv2d(3, 4, 1), affine_block(2.0, 1.0))
    with pytest.raises(ParityError, match="1 does not follow Conv and Relu"):
        fold_affines(stray, smooth())


def test_the_activation_inside_a_batch_norm_stays() -> None:
    import_timm()
    from timm.layers import BatchNormAct2d

    norm = BatchNormAct2d(4, act_layer=nn.ReLU)
    nn.init.normal_(norm.bias)
    model, image = nn.Sequential(nn.Conv2d(3, 4, 1), norm).eval(), smooth()
    with torch.no_grad():
        before = model(image)
        assert fold_batch_norms(model, image) == 1
        torch.testing.assert_close(model(image), before)
    assert before.min() == 0


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["repvgg_a0", "mobileone_s0", "hgnetv2_b0", "efficientnet_lite0"])
def test_backbones_keep_their_function_and_hold_no_norm(arch) -> None:
    backbone, image = make_student(arch, SIZE_PX).backbone, smooth()
    with torch.no_grad():
        before = backbone(image)
        folded = simplify_backbone(copy.deepcopy(backbone), image)
        torch.testing.assert_close(folded(image), before, atol=2e-4, rtol=1e-3)
    kinds = {type(module).__name__ for module in folded.modules()}
    assert not {k for k in kinds if "BatchNorm" in k or "Affine" in k}
    convs = [m for m in folded.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) <= sum(isinstance(m, nn.Conv2d) for m in backbone.modules())


def test_branches_that_cannot_be_fused_are_refused() -> None:
    class Branchy(nn.Module):
        reparam_conv = None

        def reparameterize(self) -> None:
            """Does nothing, like a block of an unknown library version."""

    with pytest.raises(ParityError, match="'0' still has its training branches"):
        fuse_branches(nn.Sequential(Branchy()))


def test_only_a_power_of_two_folds_into_the_input() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    weight = model[0].weight.detach().clone()
    fold_input_scale(model, 64.0)
    assert torch.equal(model[0].weight * 64, weight)
    with pytest.raises(ParityError, match=r"58\.4 cannot be folded"):
        fold_input_scale(model, 58.4)
    with pytest.raises(ParityError, match="cannot be folded"):
        fold_input_scale(nn.Sequential(nn.ReLU()), 64.0)
