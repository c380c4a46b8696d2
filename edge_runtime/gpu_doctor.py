"""TensorRT, the Python bindings of CUDA and the GPU, as `edge-screen doctor` names them."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.engines import has_tensorrt
from edge_runtime.engines.cuda_memory import find_bindings
from edge_runtime.engines.trt_capabilities import import_tensorrt, tensorrt_version
from edge_runtime.engines.trt_device import read_device
from edge_runtime.engines.trt_table import window_for
from edge_runtime.errors import EngineError

__all__ = ["GpuReport", "diagnose_gpu"]


@dataclass(frozen=True, kw_only=True)
class GpuReport:
    """What a TensorRT engine would need here.

    Attributes:
        tensorrt: Version, or None where it is not installed or cannot be loaded.
        gpu: Name and compute capability, or None where the driver knows none.
        cuda_bindings: By name, why each cannot be used; an empty text says that it can.
        problems: What stands in the way of a TensorRT that is installed, each with its remedy.
            A machine without TensorRT has none: it screens on the CPU.
    """

    tensorrt: str | None
    gpu: str | None
    cuda_bindings: dict[str, str]
    problems: tuple[str, ...]

    @property
    def can_run(self) -> bool:
        """Whether an engine could be built and run here."""
        return self.tensorrt is not None and not self.problems


def diagnose_gpu() -> GpuReport:
    """Look; no context is made and nothing is allocated on the GPU."""
    problems: list[str] = []
    version, gpu = None, None
    is_installed, bindings = has_tensorrt(), find_bindings()
    try:
        if is_installed:
            version = tensorrt_version(import_tensorrt())
            window_for(version)
    except EngineError as error:
        problems.append(str(error))
    try:
        device = read_device()
        gpu = f"{device.name}, compute capability {device.compute_capability}"
    except EngineError as error:
        if is_installed:
            problems.append(str(error))
    if is_installed and all(bindings.values()):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in bindings.items())
        problems.append(
            f"no Python binding of CUDA can be used ({reasons}); install cuda-python with the "
            "major version of the device's CUDA, or pycuda"
        )
    return GpuReport(tensorrt=version, gpu=gpu, cuda_bindings=bindings, problems=tuple(problems))
