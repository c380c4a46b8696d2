"""Puts one of the fake bindings in the place of the real ones for the length of a test."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from fake_cuda.device import FakeDevice
from fake_cuda.pycuda_binding import make_driver
from fake_cuda.runtime_binding import make_runtime

BINDINGS = ("pycuda", "cuda-python", "cuda-python-old")
_ALL = ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart")


def install_fake_cuda(
    monkeypatch: pytest.MonkeyPatch, binding: str, device: FakeDevice | None = None
) -> FakeDevice:
    """Make `binding` the only one that can be imported; return its device."""
    device = device or FakeDevice()
    present: dict[str, ModuleType] = {}
    if binding == "pycuda":
        present = {"pycuda": ModuleType("pycuda"), "pycuda.driver": make_driver(device)}
    elif binding == "cuda-python":
        path = "cuda.bindings.runtime"
        present = {"cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings")}
        present[path] = make_runtime(device, path)
    elif binding == "cuda-python-old":
        present = {"cuda": ModuleType("cuda"), "cuda.cudart": make_runtime(device, "cuda.cudart")}
    else:
        assert binding == "none"
    for name in _ALL:
        # None in sys.modules makes an import of the name a ModuleNotFoundError.
        monkeypatch.setitem(sys.modules, name, present.get(name))
    return device
