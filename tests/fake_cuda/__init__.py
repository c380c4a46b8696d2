"""A pretended GPU and the two Python bindings that reach it, for tests without CUDA."""

from fake_cuda.device import FakeDevice, InjectedError
from fake_cuda.install import BINDINGS, install_fake_cuda

__all__ = ["BINDINGS", "FakeDevice", "InjectedError", "install_fake_cuda"]
