"""The average of weights: against its definition, at its limits, and in fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from training_factory import DISEASES, TINY_ENCODER, make_split

from edge_runtime.errors import ConfigError
from train.ema import EmaWeights
from train.encoder import CfpEncoder
from train.finetune import FinetuneConfig, finetune

FINETUNE = FinetuneConfig(labels=DISEASES, head_steps=1, num_steps=3, batch_size=8)


def walk(decay, num_updates):
    """Random weights, averaged by the class and by the formula in float64."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = EmaWeights(module, decay)
    expected = {k: v.detach().double() for k, v in module.named_parameters()}
    for t in range(1, num_updates + 1):
        with torch.no_grad():
            for weight in module.parameters():
                weight.normal_()
        module(torch.randn(4, 3))  # moves the statistics
        ema.update(module)
        kept = min(decay, t / (t + 9))
        for name, weight in module.named_parameters():
            expected[name] = kept * expected[name] + (1 - kept) * weight.detach().double()
    return module, ema, expected


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("num_updates", [1, 5, 200])
def test_the_average_is_the_formula(decay, num_updates):
    module, ema, expected = walk(decay, num_updates)
    ema.copy_to(module)
    for name, weight in module.named_parameters():
        # float32 rounding of a contraction: errors do not grow with the steps
        torch.testing.assert_close(weight.detach().double(), expected[name], atol=1e-5, rtol=1e-5)


def test_a_decay_of_zero_keeps_the_last_weights():
    module, ema, _ = walk(0.0, 4)
    last = {k: v.detach().clone() for k, v in module.named_parameters()}
    ema.copy_to(module)
    assert all(torch.equal(v, last[k]) for k, v in module.named_parameters())


def test_weights_that_stand_still_are_their_own_average():
    module = nn.Linear(3, 3)
    start = module.weight.detach().clone()
    ema = EmaWeights(module, 0.99)
    for _ in range(50):
        ema.update(module)
    assert torch.equal(ema.copy_to(module).weight, start)


def test_statistics_are_those_of_the_network_itself():
    module, ema, _ = walk(0.9, 6)
    before = {k: v.clone() for k, v in module.named_buffers()}
    ema.copy_to(module)
    assert all(torch.equal(v, before[k]) for k, v in module.named_buffers())


def test_the_average_does_not_follow_later_changes():
    module = nn.Linear(2, 2)
    start = module.weight.detach().clone()
    ema = EmaWeights(module, 0.5)
    nn.init.zeros_(module.weight)
    assert torch.equal(ema.copy_to(module).weight, start)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ConfigError, match="ema_decay"):
        EmaWeights(nn.Linear(1, 1), decay)
    with pytest.raises(ConfigError, match="ema_decay"):
        FinetuneConfig(ema_decay=decay)


def test_finetuning_hands_out_the_average():
    data = make_split(8)

    def weights(**changes):
        torch.manual_seed(0)
        teacher = finetune(CfpEncoder(TINY_ENCODER), data, replace(FINETUNE, **changes))
        return teacher.state_dict(), teacher.metrics

    (plain, losses), (averaged, same_losses) = weights(), weights(ema_decay=0.5)
    assert losses == same_losses  # it watches the steps and does not change them
    assert not torch.equal(plain["head.weight"], averaged["head.weight"])
    buffers = [name for name in plain if "running" in name]
    assert buffers
    assert all(torch.equal(plain[name], averaged[name]) for name in buffers)
