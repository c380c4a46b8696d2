"""Which GPU this is, asked of the CUDA driver without making a context or loading anything else.

Plans bind to the compute capability and the model of the device, so both are part of the cache's
key. The driver library is there wherever a GPU can be used, on a Jetson as `libcuda.so.1`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import EngineError
from edge_runtime.value_rules import require, require_text

__all__ = ["DeviceIdentity", "read_device"]

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute, from the driver API's documentation.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_INTEGRATED = 18


@dataclass(frozen=True, kw_only=True)
class DeviceIdentity:
    """The first CUDA device.

    Attributes:
        name: As the driver says it, e.g. "Orin".
        compute_capability: "major.minor", e.g. "8.7".
        integrated: Whether CPU and GPU share one memory, as on every Jetson.
    """

    name: str
    compute_capability: str
    integrated: bool

    def __post_init__(self) -> None:
        """Refuse an empty name and a capability that is no pair of numbers."""
        require_text("name", self.name)
        major, _, minor = self.compute_capability.partition(".")
        is_pair = major.isdecimal() and minor.isdecimal()
        require(is_pair, "compute_capability", self.compute_capability, "of the form 8.7")


def read_device(*, load: Callable[[str], Any] = ctypes.CDLL) -> DeviceIdentity:
    """Ask the driver for the first device.

    Args:
        load: Opens a library by name; for tests.

    Raises:
        EngineError: There is no driver or no device, or the driver refuses.
    """
    try:
        driver = load(_LIBRARY)
    except OSError as error:
        raise EngineError(
            f"there is no CUDA driver here ({error}); TensorRT needs an NVIDIA GPU: build on the "
            "device, or use engine 'onnxruntime'"
        ) from error
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(driver, "cuInit", driver.cuInit(0))
    _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
    _check(driver, "cuDeviceGetName", driver.cuDeviceGetName(name, _NAME_BYTES, device))
    major = _attribute(driver, _COMPUTE_CAPABILITY_MAJOR, device)
    minor = _attribute(driver, _COMPUTE_CAPABILITY_MINOR, device)
    return DeviceIdentity(
        name=name.value.decode("ascii", "replace"),
        compute_capability=f"{major}.{minor}",
        integrated=_attribute(driver, _INTEGRATED, device) == 1,
    )


def _attribute(driver: Any, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    code = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    _check(driver, "cuDeviceGetAttribute", code)
    return value.value


def _check(driver: Any, function: str, code: int) -> None:
    if code == 0:
        return
    text = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(text))
    reason = (text.value or b"no description").decode("ascii", "replace")
    raise EngineError(
        f"the CUDA driver refuses: {function} returned {code} ({reason}); check the driver and the "
        "permissions of /dev/nvidia* and /dev/nvmap (group 'video' on a Jetson)"
    )
