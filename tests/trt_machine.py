"""A pretended Jetson: a fake TensorRT of one version on a fake GPU under one CUDA binding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from bundle_factory import LABELS, SIZE_PX, tiny_onnx
from fake_cuda.device import FakeDevice
from fake_cuda.install import install_fake_cuda
from fake_tensorrt.fake import FakeTensorRT
from fake_tensorrt.plan import FakePlan

from edge_runtime.engines.trt import TrtEngine
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.engines.trt_session import TrtSession

VERSIONS = ("8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106")


@dataclass(kw_only=True)
class Machine:
    """What was installed; `assert_clean` is what every test ends with."""

    tensorrt: FakeTensorRT
    gpu: FakeDevice
    binding: str

    def plan(self, onnx: bytes | None = None) -> bytes:
        """The engine of a graph, as this machine's builder would write it."""
        return FakePlan(
            version=self.tensorrt.version,
            device=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            strongly_typed=False,
            flags=(),
            verbosity="LAYER_NAMES_ONLY",
            profiles=(),
            onnx=onnx or tiny_onnx(),
        ).to_bytes()

    def session(self, *, plan: bytes | None = None, **options: Any) -> TrtSession:
        """A session that is not open."""
        return TrtSession(
            plan or self.plan(),
            size_px=SIZE_PX,
            num_labels=len(LABELS),
            options=TrtOptions(**options),
        )

    def engine(self, *, plan: bytes | None = None, **options: Any) -> TrtEngine:
        """An open engine."""
        return TrtEngine(
            self.session(plan=plan, **options),
            precision="int8",
            size_px=SIZE_PX,
            options=TrtOptions(**options),
        )

    def assert_clean(self) -> None:
        """Nothing is left over, and nothing was done that CUDA or pycuda forbid."""
        assert self.tensorrt.live() == 0
        assert self.gpu.left_over() == []
        assert self.gpu.violations == []


def until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    """Wait for what another thread brings about; a busy machine may take its time."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


def make_machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = "10.3.0",
    binding: str = "cuda-python",
    **gpu: Any,
) -> Machine:
    """Install both fakes for the length of a test."""
    device = install_fake_cuda(monkeypatch, binding, FakeDevice(**gpu))
    fake = FakeTensorRT(
        version,
        memory=device,
        device_name=device.name,
        compute_capability=device.compute_capability,
    )
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake.module)
    return Machine(tensorrt=fake, gpu=device, binding=binding)
