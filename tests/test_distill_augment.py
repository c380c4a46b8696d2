"""Changed views: what may change, and what may not."""

from __future__ import annotations

import math

import pytest
import torch

from distill.augment import AugmentConfig, augment_batch
from edge_runtime.errors import ConfigError

STILL = AugmentConfig(rotation_deg=0, shift_fraction=0, gain=0)
BLACK = -2.0


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def spot_batch(num: int, row: int, col: int) -> torch.Tensor:
    """Black pictures of 64 px with one bright 3 x 3 spot."""
    batch = torch.full((num, 3, 64, 64), BLACK)
    batch[:, :, row - 1 : row + 2, col - 1 : col + 2] = 1.0
    return batch


def centres(batch: torch.Tensor) -> torch.Tensor:
    """(N, 2) row, column of the light's centre of mass."""
    light = (batch - BLACK).mean(1)
    axis = torch.arange(64.0)
    total = light.sum((1, 2))
    return torch.stack(
        [(light.sum(2) * axis).sum(1) / total, (light.sum(1) * axis).sum(1) / total], 1
    )


def test_no_change_is_the_same_tensor(draw) -> None:
    batch = torch.randn(2, 3, 64, 64)
    assert augment_batch(batch, STILL, draw) is batch


def test_rotation_keeps_radius_laterality_and_its_limit(draw) -> None:
    config = AugmentConfig(rotation_deg=15, shift_fraction=0, gain=0)
    offset = centres(augment_batch(spot_batch(200, 31, 51), config, draw)) - 31.5
    radius = offset.norm(dim=1)
    torch.testing.assert_close(radius, torch.full((200,), math.hypot(0.5, 19.5)), atol=0.2, rtol=0)
    degrees = torch.rad2deg(torch.atan2(offset[:, 0], offset[:, 1]))
    assert 10 < float(degrees.max()) < 17
    assert -17 < float(degrees.min()) < -10
    assert bool((offset[:, 1] > 0).all())  # the right half stays right: no flips


def test_shift_keeps_its_limit_and_brings_in_black(draw) -> None:
    config = AugmentConfig(rotation_deg=0, shift_fraction=0.1, gain=0)
    offset = centres(augment_batch(spot_batch(200, 32, 32), config, draw)) - 32
    assert 5 < float(offset.abs().max()) <= 6.5
    white = augment_batch(torch.full((8, 3, 64, 64), 1.0), config, draw)
    assert float(white.min()) == pytest.approx(BLACK)


def test_gain_is_one_factor_a_picture_on_light_above_black(draw) -> None:
    config = AugmentConfig(rotation_deg=0, shift_fraction=0, gain=0.2)
    batch = torch.rand(50, 3, 64, 64) - 1.0
    factor = (augment_batch(batch, config, draw) - BLACK) / (batch - BLACK)
    spread = factor.amax((1, 2, 3)) - factor.amin((1, 2, 3))
    assert float(spread.max()) < 1e-4
    means = factor.mean((1, 2, 3))
    assert 0.8 <= float(means.min()) < 0.9
    assert 1.1 < float(means.max()) <= 1.2
    assert float(augment_batch(batch + 2.9, config, draw).max()) <= 127 / 64


def test_the_same_seed_gives_the_same_view() -> None:
    batch, config = torch.randn(4, 3, 64, 64), AugmentConfig()
    first, second = (
        augment_batch(batch, config, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, batch)


@pytest.mark.parametrize(
    "settings", [{"rotation_deg": 60}, {"shift_fraction": -0.1}, {"gain": 0.9}]
)
def test_ranges_are_checked(settings) -> None:
    with pytest.raises(ConfigError):
        AugmentConfig(**settings)
