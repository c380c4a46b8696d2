"""timm imports beside this torch, makes untrained models, and never touches the network."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from edge_runtime.errors import ConfigError
from train import timm_door
from train.timm_door import create_untrained, import_timm


def _run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_student_can_be_created_and_run():
    model = create_untrained("resnet10t", num_classes=3).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, 3)


def test_repeated_imports_give_the_same_module():
    assert import_timm() is import_timm() is sys.modules["timm"]


def test_torchvision_works_as_far_as_promised():
    import_timm()
    from torchvision.transforms import v2

    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4)
    assert torch.equal(v2.functional.horizontal_flip(image), image.flip(-1))


def test_pretrained_weights_are_refused():
    with pytest.raises(ConfigError, match="pretrained weights for 'resnet10t'"):
        create_untrained("resnet10t", pretrained=True)


@pytest.mark.parametrize("name", ["resnet10z", "hf-hub:timm/resnet10t.c3_in1k", ""])
def test_an_unknown_architecture_is_refused(name):
    with pytest.raises(ConfigError, match=f"has no model '{name}'"):
        create_untrained(name)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(timm_door.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-screen\[train\]'"):
        import_timm()


@pytest.mark.slow
def test_import_and_creation_open_no_connection():
    done = _run(
        """
        import socket

        def refuse(*args, **kwargs):
            raise AssertionError("network")

        socket.socket.connect = refuse
        socket.getaddrinfo = refuse
        from train.timm_door import create_untrained
        create_untrained("resnet10t", num_classes=0)
        import huggingface_hub.constants as constants
        assert constants.HF_HUB_OFFLINE
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_door_is_harmless_when_torchvision_came_first():
    done = _run(
        """
        from train import timm_door
        timm_door._declare_missing_operators()
        import torchvision
        from train.timm_door import create_untrained
        create_untrained("resnet10t")
        """
    )
    assert done.returncode == 0, done.stderr
