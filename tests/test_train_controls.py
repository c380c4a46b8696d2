"""The controls themselves: they pass on a sound model and fail on a broken one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from training_factory import make_model

from train.controls import gradient_leak, shuffled_oct_loss_ratio
from train.routes import route_table


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randn(4, 2, 16, 16, generator=generator)


def test_no_leak_is_exactly_zero_beside_a_control_that_is_not(batch):
    report = gradient_leak(make_model(), *batch)
    assert report.constrained == 0
    assert report.control > 0


def test_a_leaking_model_is_caught(batch):
    """The faintest path from OCT input to the constrained decoder must show."""
    model = make_model()
    seen = {}
    model.register_forward_pre_hook(lambda _, args: seen.update(scans=args[1]))
    model.decoders["oct<-cfp"].register_forward_pre_hook(
        lambda _, args: (args[0] + 1e-3 * seen["scans"].mean(),)
    )
    model.decoders["oct<-cfp"].query.data.normal_()
    # A constant on all features is removed by nothing before the keys, so it reaches the loss.
    assert gradient_leak(model, *batch).constrained > 0


def test_the_leak_test_needs_both_oct_routes(batch):
    with pytest.raises(ValueError, match=r"needs oct<-cfp and oct<-oct.*\['cfp<-cfp'\]"):
        gradient_leak(make_model(route_table("cfp_only")), *batch)


class _Oracle(torch.nn.Module):
    """Knows the scans of the photographs it is given, up to `error`; or only their mean."""

    def __init__(self, scans, *, knows_eyes):
        super().__init__()
        self.guess = scans + 0.1 if knows_eyes else scans.mean(0, keepdim=True)

    def forward(self, cfp_nchw, oct_input_nvzx, oct_target_nvzx, generator):
        del cfp_nchw, oct_input_nvzx, generator
        loss = (self.guess - oct_target_nvzx).square().mean()
        return {"oct<-cfp": SimpleNamespace(loss=loss)}


def test_shuffled_oct_raises_the_loss_of_a_model_that_knows_the_eyes(batch):
    images, scans = batch
    knows = shuffled_oct_loss_ratio(_Oracle(scans, knows_eyes=True), images, scans)
    mean_only = shuffled_oct_loss_ratio(_Oracle(scans, knows_eyes=False), images, scans)
    assert knows > 50
    assert mean_only == pytest.approx(1.0)


def test_shuffled_ratio_runs_on_the_model_and_is_reproducible(batch):
    model = make_model()
    first, again = (shuffled_oct_loss_ratio(model, *batch) for _ in range(2))
    assert first == again
    assert first == pytest.approx(1.0, abs=0.2)  # untrained: it knows no eye
