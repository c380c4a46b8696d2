"""Where the networks run: choosing, and that nothing a loop touches is left behind.

PyTorch's fake tensors stand in for CUDA's: they have a device and a shape but no values, and an
operation whose tensors are on two devices fails as it would on CUDA.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from training_factory import DISEASES, TINY_ENCODER, make_split, masks, tiny_config

from distill.student import StudentConfig
from distill.teaching import DistillConfig, distill
from edge_runtime.errors import ConfigError
from train import pretrain as pretrain_module
from train.batch_norm import settle_batch_norm
from train.device import CPU, device_of, pick_device
from train.encoder import CfpEncoder
from train.finetune import FinetuneConfig, finetune
from train.masking import hidden_patches
from train.pretrain import pretrain
from train.routes import route_table
from train.schedule import StepGuard
from train.teacher import Teacher

# A torch built without CUDA cannot even slice a fake CUDA tensor; any device but the CPU will do.
ELSEWHERE = torch.device("meta")
STUDENT = StudentConfig(size_px=32, channels=(8, 8, 8, 16), stem_width=8)


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_a_device_by_name(monkeypatch, name, present, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert pick_device(name) == torch.device(expected)


def test_what_was_asked_for_is_never_replaced(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        pick_device("cuda")
    with pytest.raises(ConfigError, match="device is 'gpu'"):
        pick_device("gpu")


def test_the_device_of_a_model_is_that_of_its_parameters():
    assert device_of(torch.nn.Linear(2, 2, device="meta")).type == "meta"
    assert device_of(torch.nn.ReLU()) == CPU


def move(module, device=None, *, memory_format=None):
    """`nn.Module.to`, whose way of swapping weights in place fake tensors do not support."""
    del memory_format
    for one in module.modules() if device is not None else ():
        for name, weight in one._parameters.items():
            if weight is not None:
                moved = weight.detach().to(device)
                one._parameters[name] = torch.nn.Parameter(moved, weight.requires_grad)
        for name, buffer in one._buffers.items():
            one._buffers[name] = None if buffer is None else buffer.to(device)
    return module


@pytest.fixture
def pretend(monkeypatch):
    """Inside it, loops run on fake tensors; yields the losses' devices as they come."""
    seen = []
    plain = StepGuard.step

    def step(self, loss, rate):
        seen.append(loss.device)
        plain(self, loss, rate)

    monkeypatch.setattr(StepGuard, "step", step)
    monkeypatch.setattr(torch.nn.Module, "to", move)
    # Fake tensors have no values; these are what the loops read of them.
    for name, value in (("__float__", 1.0), ("__int__", 2), ("__bool__", True)):
        monkeypatch.setattr(FakeTensor, name, lambda _, value=value: value, raising=False)
    # It would look for a CUDA device, which is not what is tested here.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield seen


@pytest.mark.parametrize("routes", ["oct_informed", "cfp_only"])
def test_pretraining_moves_everything_it_touches(pretend, routes):
    target = replace(tiny_config().oct_target, num_components=0)
    config = tiny_config(routes=route_table(routes), oct_target=target, num_steps=1)
    done = pretrain(make_split(8), config, device=ELSEWHERE)
    assert pretend == [ELSEWHERE]
    assert {tensor.device for tensor in done.model.state_dict().values()} == {CPU}


def test_finetuning_moves_everything_it_touches(pretend):
    config = FinetuneConfig(labels=DISEASES, head_steps=1, num_steps=1, batch_size=8)
    teacher = finetune(CfpEncoder(TINY_ENCODER), make_split(8), config, device=ELSEWHERE)
    assert pretend == [ELSEWHERE] * 2
    assert {tensor.device for tensor in teacher.state_dict().values()} == {CPU}


def test_distillation_moves_everything_it_touches(pretend):
    teacher = Teacher(CfpEncoder(TINY_ENCODER), DISEASES)
    config = DistillConfig(num_steps=1, batch_size=8, student=STUDENT)
    done = distill(teacher, make_split(8), config, device=ELSEWHERE)
    assert pretend == [ELSEWHERE]
    for model in (done.student, teacher):
        assert {tensor.device for tensor in model.state_dict().values()} == {CPU}


def test_a_batch_left_behind_would_be_noticed(pretend, monkeypatch):
    """The check above is not blind."""
    monkeypatch.setattr(pretrain_module, "device_of", lambda _: CPU)
    with pytest.raises(RuntimeError, match=r"two .*devices"):
        pretrain(make_split(8), tiny_config(routes=route_table("cfp_only")), device=ELSEWHERE)
    assert pretend == []


def test_settling_goes_where_the_encoder_is(pretend):
    encoder = CfpEncoder(TINY_ENCODER).to(ELSEWHERE)
    settle_batch_norm(encoder, make_split(4).images_tensor())
    assert {tensor.device for tensor in encoder.state_dict().values()} == {ELSEWHERE}
    assert pretend == []


def test_masks_are_drawn_on_the_cpu(pretend):
    hidden = hidden_patches(3, torch.ones(9, dtype=torch.bool, device=ELSEWHERE), 0.5, masks())
    assert hidden.device == ELSEWHERE
    assert pretend == []
