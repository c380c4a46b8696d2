"""The losses of segmentation against loops, and what must not cost anything."""

from __future__ import annotations

import math

import pytest
import torch

from train.segmentation_losses import dice_loss, pixel_bce


def batch(seed: int = 0, num: int = 3, targets: int = 2, side: int = 5):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, targets, side, side, generator=generator)
    masks = torch.rand(num, targets, side, side, generator=generator) < 0.3
    known = torch.tensor([[True, True], [True, False], [False, True]])
    return logits, masks, known


def slow_bce(logits, masks, known):
    per_mask = []
    for n, c in known.nonzero().tolist():
        terms = []
        for logit, inside in zip(logits[n, c].flatten(), masks[n, c].flatten(), strict=True):
            p = 1 / (1 + math.exp(-float(logit)))
            terms.append(-math.log(p) if inside else -math.log(1 - p))
        per_mask.append(sum(terms) / len(terms))
    return sum(per_mask) / len(per_mask)


def slow_dice(logits, masks, known):
    losses = []
    for c in range(logits.shape[1]):
        both = total = 0.0
        for n in range(len(logits)):
            if known[n, c]:
                p = torch.sigmoid(logits[n, c].double())
                both += float((p * masks[n, c]).sum())
                total += float(p.sum() + masks[n, c].sum())
        losses.append(1 - (2 * both + 1) / (total + 1))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("fast", "slow"), [(pixel_bce, slow_bce), (dice_loss, slow_dice)])
def test_fast_and_slow_agree(fast, slow):
    for seed in range(4):
        assert float(fast(*batch(seed))) == pytest.approx(slow(*batch(seed)), abs=1e-5)


@pytest.mark.parametrize("loss", [pixel_bce, dice_loss])
def test_a_mask_that_nobody_drew_costs_nothing(loss):
    logits, masks, known = batch()
    logits.requires_grad_(True)
    loss(logits, masks, known).backward()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).any()
    other = masks.clone()
    other[~known] = ~other[~known]
    assert torch.equal(loss(logits, masks, known), loss(logits, other, known))
    nothing = loss(logits, masks, torch.zeros_like(known))
    assert float(nothing.detach()) == 0
    assert nothing.requires_grad


@pytest.mark.parametrize("loss", [pixel_bce, dice_loss])
def test_right_and_sure_is_best(loss):
    _, masks, known = batch()
    sure = torch.where(masks, 12.0, -12.0)
    assert float(loss(sure, masks, known)) < 0.02
    assert float(loss(-sure, masks, known)) > 0.9
    assert loss(sure.bfloat16(), masks, known).dtype == torch.float32


def test_an_empty_mask_still_teaches_dice():
    logits, masks, known = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), torch.ones(2, 1) > 0
    masks[0, 0, 1, 1] = 1
    logits.requires_grad_(True)
    dice_loss(logits, masks, known).backward()
    assert (logits.grad[1] > 0).all()  # less probability where there is nothing
    assert logits.grad[0, 0, 1, 1] < 0
