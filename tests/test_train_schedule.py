"""Learning rate, batches, seeds, and the guard against steps that would destroy the weights."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from edge_runtime.errors import ConfigError
from train.schedule import StepGuard, batches, cosine_rate, seed_everything


def test_cosine_endpoints():
    assert cosine_rate(0, 1000, 0.1) == pytest.approx(0.1 / 40)
    assert cosine_rate(1000, 1000, 0.1) == pytest.approx(0.005)
    assert cosine_rate(500, 1000, 0.1) == pytest.approx(0.1 * 0.525)
    assert cosine_rate(39, 100_000, 0.1) == pytest.approx(0.1, rel=1e-5)


def test_the_rate_rises_through_the_warm_up_and_falls_afterwards():
    rates = [cosine_rate(step, 1000, 1.0) for step in range(1000)]
    assert (np.diff(rates[:40]) > 0).all()
    assert (np.diff(rates[40:]) < 0).all()
    assert max(rates) <= 1
    assert min(rates) > 0


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_few_steps_still_have_a_rate(num_steps):
    rates = [cosine_rate(step, num_steps, 1.0) for step in range(num_steps)]
    assert all(0.05 <= rate <= 1 for rate in rates)


def test_batches_walk_through_epochs():
    drawn = torch.cat(list(batches(12, 4, 9, seed=3))).reshape(3, 12)
    for epoch in drawn:
        assert sorted(epoch.tolist()) == list(range(12))
    assert not torch.equal(drawn[0], drawn[1])


def test_batches_over_a_seam_keep_their_size():
    drawn = list(batches(10, 4, 25, seed=0))
    assert [len(picked) for picked in drawn] == [4] * 25
    assert np.bincount(torch.cat(drawn)).tolist() == [10] * 10


def test_batches_are_no_larger_than_the_data_and_follow_the_seed():
    first, again, other = (list(batches(5, 64, 3, seed)) for seed in (1, 1, 2))
    assert all(sorted(picked.tolist()) == [0, 1, 2, 3, 4] for picked in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_seeding_covers_weights_and_masks():
    draws = [(torch.rand(3, generator=seed_everything(7)), torch.rand(3)) for _ in range(2)]
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])


@pytest.fixture
def weight():
    return torch.nn.Parameter(torch.ones(3))


def test_a_step_uses_the_rate_and_the_scale_of_each_group(weight):
    slow = torch.nn.Parameter(torch.ones(3))
    frozen = torch.nn.Parameter(torch.ones(3))
    groups = [{"params": [weight]}, {"params": [slow], "scale": 0.1}]
    guard = StepGuard(torch.optim.SGD(groups, lr=99.0), clip=100.0)
    guard.step((weight + slow + frozen).sum(), 0.5)
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.5))
    torch.testing.assert_close(slow.detach(), torch.full((3,), 0.95))
    assert torch.equal(frozen.detach(), torch.ones(3))


def test_gradients_are_clipped_and_not_summed_over_steps(weight):
    guard = StepGuard(torch.optim.SGD([weight], lr=1.0), clip=1.0)
    for step in range(1, 4):
        before = weight.detach().clone()
        guard.step((1000 * weight).sum(), 0.1)
        change = torch.linalg.vector_norm(weight.detach() - before)
        assert float(change) == pytest.approx(0.1, rel=1e-4), step


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_gradient_skips_the_step_loudly(weight, bad, caplog):
    guard = StepGuard(torch.optim.AdamW([weight], lr=0.1))
    with caplog.at_level(logging.WARNING):
        guard.step((weight * bad).sum(), 0.1)
    assert "step skipped (1 so far)" in caplog.text
    assert torch.equal(weight.detach(), torch.ones(3))
    assert guard.num_skipped == 1
    guard.step(weight.sum(), 0.1)
    assert torch.isfinite(weight).all()
    assert not torch.equal(weight.detach(), torch.ones(3))


def test_ten_skipped_steps_stop_the_training(weight):
    guard = StepGuard(torch.optim.AdamW([weight], lr=0.1))
    for _ in range(9):
        guard.step((weight * float("nan")).sum(), 0.1)
    with pytest.raises(ConfigError, match="10 steps had non-finite gradients; lower the learning"):
        guard.step((weight * float("nan")).sum(), 0.1)
    assert torch.equal(weight.detach(), torch.ones(3))
