"""Settling BatchNorm: plain averages over whole photographs, nothing else touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training_factory import TINY_ENCODER, make_split

from train.arrays import normalize_cfp
from train.batch_norm import settle_batch_norm
from train.encoder import CfpEncoder


@pytest.mark.parametrize("num_images", [16, 11, 4096])
def test_statistics_equal_those_computed_by_hand(num_images):
    torch.manual_seed(0)
    images = make_split(8).images_tensor()
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
    norm = encoder[1]
    norm.running_mean.fill_(77.0)
    norm.running_var.fill_(77.0)
    settle_batch_norm(encoder, images, num_images=num_images, batch_size=4)

    means, variances = [], []
    with torch.no_grad():
        for start in range(0, min(num_images, 16), 4):
            maps = encoder[0](normalize_cfp(images[start : start + 4])).double()
            means.append(maps.mean((0, 2, 3)))
            variances.append(maps.var((0, 2, 3), unbiased=True))
    torch.testing.assert_close(norm.running_mean.double(), torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var.double(), torch.stack(variances).mean(0))


def test_in_one_batch_evaluation_mode_equals_training_mode_at_every_depth():
    """Up to Bessel's correction, which running variances carry and batch variances do not."""
    torch.manual_seed(0)
    images = make_split(32, size_px=32).images_tensor()
    encoder = CfpEncoder(TINY_ENCODER)
    settle_batch_norm(encoder, images)
    with torch.no_grad():
        settled = encoder(normalize_cfp(images))
        encoder.train()
        own_batch = encoder(normalize_cfp(images))
    torch.testing.assert_close(settled, own_batch, atol=0.05, rtol=0)


def test_weights_and_momentum_stay_and_the_mode_is_evaluation():
    torch.manual_seed(0)
    encoder = CfpEncoder(TINY_ENCODER).train()
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    settle_batch_norm(encoder, make_split(4).images_tensor())
    assert all(torch.equal(p, before[name]) for name, p in encoder.named_parameters())
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 6
    assert {m.momentum for m in norms} == {0.1}
    assert not any(m.training for m in encoder.modules())
