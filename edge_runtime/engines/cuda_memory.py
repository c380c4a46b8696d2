"""Memory that a GPU and NumPy share: the protocol, the choice of its kind and of its binding.

Two kinds. `mapped`: one page-locked block that the GPU reads in place; free on a board whose GPU
shares the DRAM with the CPU (every Jetson). `copy`: a page-locked block and one on the device,
with asynchronous copies between them; for a GPU with memory of its own. Managed memory is never
used: a Jetson has no concurrent access to it (`concurrentManagedAccess` is 0).

Everything here belongs to one thread, which opens it, uses it and closes it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from edge_runtime.errors import ConfigError, EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BINDINGS",
    "MEMORY_KINDS",
    "WAITS",
    "DeviceFacts",
    "DeviceMemory",
    "SharedBlock",
    "choose_kind",
    "find_bindings",
    "open_device_memory",
]

BINDINGS = ("auto", "cuda-python", "pycuda")
MEMORY_KINDS = ("auto", "mapped", "copy")
WAITS = ("blocking", "spin")

# Where each binding has lived: cuda-python moved its runtime module in 12.6.
_MODULES = {
    "cuda-python": ("cuda.bindings.runtime", "cuda.cudart"),
    "pycuda": ("pycuda.driver",),
}


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What was probed on the GPU that is used.

    Attributes:
        name: As the driver calls it, e.g. "Orin".
        compute_capability: (major, minor), e.g. (8, 7).
        is_integrated: Whether the GPU shares the CPU's memory.
        can_map_host_memory: Whether it can read page-locked memory in place.
        cuda_version: Newest CUDA that the driver supports, e.g. "12.6".
    """

    name: str
    compute_capability: tuple[int, int]
    is_integrated: bool
    can_map_host_memory: bool
    cuda_version: str


@dataclass(kw_only=True, eq=False)
class SharedBlock:
    """Bytes that both sides reach.

    Attributes:
        host: (n,) uint8, page-locked. Empty once the memory is closed.
        address: Where the GPU finds them.
    """

    host: NDArray[np.uint8]
    address: int


class DeviceMemory(Protocol):
    """A stream and the blocks on it; for one thread. Every call raises CudaError when it fails."""

    @property
    def binding(self) -> str:
        """Name and version of the Python package, e.g. "pycuda 2026.1"."""

    @property
    def facts(self) -> DeviceFacts:
        """The GPU."""

    @property
    def kind(self) -> str:
        """Either "mapped" or "copy"."""

    @property
    def kind_reason(self) -> str:
        """Why that kind."""

    @property
    def can_capture(self) -> bool:
        """Whether the binding has CUDA graphs."""

    @property
    def stream_handle(self) -> int:
        """The stream, as TensorRT takes it."""

    def allocate(self, num_bytes: int) -> SharedBlock:
        """Return a new block of zeros, which lives until `close`."""

    def upload(self, block: SharedBlock) -> None:
        """Enqueue the copy to the device; nothing where the block is mapped."""

    def download(self, block: SharedBlock) -> None:
        """Enqueue the copy from the device; nothing where the block is mapped."""

    def wait(self) -> None:
        """Wait until everything enqueued so far is done."""

    def begin_capture(self) -> None:
        """Record what is enqueued from now on instead of running it."""

    def end_capture(self) -> None:
        """Make the recorded work a graph that `launch_graph` runs."""

    def abandon_capture(self) -> None:
        """Leave the recording mode after a failure in it; never raises."""

    def launch_graph(self) -> None:
        """Enqueue the graph."""

    def drop_graph(self) -> None:
        """Wait, and release the graph if there is one; before TensorRT's objects are released."""

    def close(self) -> None:
        """Release everything; a second call does nothing."""


def choose_kind(wanted: str, facts: DeviceFacts) -> tuple[str, str]:
    """Return the kind of memory and why.

    Raises:
        EngineError: Mapped memory was asked for and the GPU cannot have it.
    """
    if wanted == "copy":
        return "copy", "asked for"
    if wanted == "mapped":
        if not facts.can_map_host_memory:
            raise EngineError(
                f"memory is 'mapped' and the GPU {facts.name} cannot map host memory; "
                "use 'copy' or 'auto'"
            )
        return "mapped", "asked for"
    if facts.is_integrated and facts.can_map_host_memory:
        return "mapped", "the GPU is integrated and can map host memory"
    if facts.is_integrated:
        return "copy", "the GPU is integrated but cannot map host memory"
    return "copy", "the GPU has its own memory"


def find_bindings() -> dict[str, str]:
    """Return why each binding cannot be used, by name; an empty text says that it can."""
    return {name: _try_import(name)[1] for name in _MODULES}


def open_device_memory(
    *, binding: str = "auto", memory: str = "auto", wait: str = "blocking"
) -> DeviceMemory:
    """Open the first GPU on the thread that calls.

    Args:
        binding: "pycuda", "cuda-python", or "auto": cuda-python where it can be imported, because
            it has CUDA graphs, else pycuda.
        memory: "mapped", "copy", or "auto": by what the GPU says of itself.
        wait: "blocking" lets the CPU sleep while it waits, "spin" answers with less jitter and
            keeps one CPU core busy.

    Raises:
        ConfigError: An argument is unknown.
        EngineError: No binding can be imported.
        CudaError: The GPU cannot be opened.
    """
    for name, value, known in (
        ("binding", binding, BINDINGS),
        ("memory", memory, MEMORY_KINDS),
        ("wait", wait, WAITS),
    ):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; use one of {', '.join(known)}")
    name, module = _find_module(binding)
    if name == "pycuda":
        from edge_runtime.engines.cuda_pycuda import PycudaMemory

        return PycudaMemory(module, memory=memory, wait=wait)
    from edge_runtime.engines.cuda_runtime import CudaPythonMemory

    return CudaPythonMemory(module, memory=memory, wait=wait)


def _find_module(binding: str) -> tuple[str, ModuleType]:
    names = tuple(_MODULES) if binding == "auto" else (binding,)
    reasons = []
    for name in names:
        module, reason = _try_import(name)
        if module is not None:
            return name, module
        reasons.append(f"{name}: {reason}")
    raise EngineError(
        f"no Python binding of CUDA can be used ({'; '.join(reasons)}); install cuda-python with "
        "the major version of the device's CUDA, or pycuda (docs/jetson.md)"
    )


def _try_import(name: str) -> tuple[ModuleType | None, str]:
    """Return the module, or None and why there is none."""
    reason = ""
    for path in _MODULES[name]:
        try:
            return importlib.import_module(path), ""
        except ModuleNotFoundError as error:
            reason = reason or f"not installed ({error})"
        except (ImportError, OSError, RuntimeError) as error:
            return None, f"cannot be imported ({error})"
    return None, reason
