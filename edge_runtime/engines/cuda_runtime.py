"""Device memory by cuda-python, whose functions return (code, value...) and never raise.

The runtime API works on the primary context, the one that TensorRT uses. Its wheels need no
compiler; their major version must be that of the device's CUDA.
"""

from __future__ import annotations

import ctypes
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.engines.closing import Closers
from edge_runtime.engines.cuda_errors import cuda_error
from edge_runtime.engines.cuda_memory import DeviceFacts, SharedBlock, choose_kind
from edge_runtime.errors import CudaError

__all__ = ["CudaPythonMemory"]

_DEVICE = 0
_GRAPH_CALLS = ("cudaStreamBeginCapture", "cudaGraphInstantiateWithFlags", "cudaGraphLaunch")


class CudaPythonMemory:
    """`DeviceMemory` on `cuda.bindings.runtime`, or `cuda.cudart` of older releases."""

    def __init__(self, runtime: ModuleType, *, memory: str, wait: str) -> None:
        """Open the first GPU on this thread.

        Raises:
            CudaError: A CUDA call failed; what was acquired by then is released.
            EngineError: The kind of memory asked for is not possible.
        """
        self._runtime: Any = runtime
        self._closers = Closers()
        self._graph_closers = Closers()
        self._device_addresses: dict[int, int] = {}
        self._graph: Any = None
        self.binding = f"cuda-python {_package_version()}"
        self.can_capture = all(hasattr(runtime, name) for name in _GRAPH_CALLS)
        try:
            self._call("cudaSetDevice", _DEVICE)
            self.facts = self._probe()
            self.kind, self.kind_reason = choose_kind(memory, self.facts)
            self._make_stream(wait)
        except BaseException:
            self._closers.close()
            raise

    @property
    def stream_handle(self) -> int:
        """The stream, as TensorRT takes it."""
        return int(self._stream)

    def allocate(self, num_bytes: int) -> SharedBlock:
        """Return a new block of zeros, which lives until `close`."""
        is_mapped = self.kind == "mapped"
        flags = (
            self._runtime.cudaHostAllocMapped if is_mapped else self._runtime.cudaHostAllocDefault
        )
        pointer = int(self._call("cudaHostAlloc", num_bytes, flags))
        block = SharedBlock(host=_view(pointer, num_bytes), address=0)
        self._closers.push(partial(self._free_host, block, pointer))
        block.host.fill(0)
        if is_mapped:
            block.address = int(self._call("cudaHostGetDevicePointer", pointer, 0))
            return block
        block.address = int(self._call("cudaMalloc", num_bytes))
        self._closers.push(partial(self._call, "cudaFree", block.address))
        self._device_addresses[block.address] = pointer
        self.upload(block)
        return block

    def upload(self, block: SharedBlock) -> None:
        """Enqueue the copy to the device; nothing where the block is mapped."""
        if self.kind == "copy":
            pointer, kind = self._device_addresses[block.address], self._runtime.cudaMemcpyKind
            to_device = kind.cudaMemcpyHostToDevice
            self._copy(block.address, pointer, block.host.nbytes, to_device)

    def download(self, block: SharedBlock) -> None:
        """Enqueue the copy from the device; nothing where the block is mapped."""
        if self.kind == "copy":
            pointer, kind = self._device_addresses[block.address], self._runtime.cudaMemcpyKind
            to_host = kind.cudaMemcpyDeviceToHost
            self._copy(pointer, block.address, block.host.nbytes, to_host)

    def wait(self) -> None:
        """Wait until everything enqueued so far is done."""
        self._call("cudaEventRecord", self._event, self._stream)
        self._call("cudaEventSynchronize", self._event)

    def begin_capture(self) -> None:
        """Record what is enqueued from now on instead of running it."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)

    def end_capture(self) -> None:
        """Make the recorded work a graph that `launch_graph` runs."""
        recorded = self._call("cudaStreamEndCapture", self._stream)
        self._graph_closers.push(partial(self._call, "cudaGraphDestroy", recorded))
        self._graph = self._call("cudaGraphInstantiateWithFlags", recorded, 0)
        self._graph_closers.push(partial(self._call, "cudaGraphExecDestroy", self._graph))

    def abandon_capture(self) -> None:
        """Leave the recording mode after a failure in it; never raises."""
        code, *recorded = self._runtime.cudaStreamEndCapture(self._stream)
        if code == self._runtime.cudaError_t.cudaSuccess:
            self._runtime.cudaGraphDestroy(recorded[0])

    def launch_graph(self) -> None:
        """Enqueue the graph."""
        self._call("cudaGraphLaunch", self._graph, self._stream)

    def drop_graph(self) -> None:
        """Wait, and release the graph if there is one."""
        failures = self._graph_closers.close(first=self._drain)
        if failures:
            raise CudaError(failures)

    def close(self) -> None:
        """Release everything; a second call does nothing.

        Raises:
            CudaError: A release failed; the others were done all the same.
        """
        failures = [
            text
            for text in (
                self._graph_closers.close(first=self._drain),
                self._closers.close(first=self._drain),
            )
            if text
        ]
        if failures:
            raise CudaError("; ".join(failures))

    def _drain(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call one function of the binding; return its value, or None where it has none."""
        try:
            code, *values = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:  # releases before 12.9: the driver's library cannot be loaded
            raise cuda_error(name, str(error)) from None
        if code != self._runtime.cudaError_t.cudaSuccess:
            raise cuda_error(name, self._words(code))
        return values[0] if values else None

    def _words(self, code: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(code)
        return f"{code.name}: {bytes(text).decode(errors='replace')}"

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, self._stream)

    def _make_stream(self, wait: str) -> None:
        runtime = self._runtime
        self._stream = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self._closers.push(partial(self._call, "cudaStreamDestroy", self._stream))
        flags = runtime.cudaEventDisableTiming
        if wait == "blocking":
            flags |= runtime.cudaEventBlockingSync
        self._event = self._call("cudaEventCreateWithFlags", flags)
        self._closers.push(partial(self._call, "cudaEventDestroy", self._event))

    def _probe(self) -> DeviceFacts:
        attributes = self._runtime.cudaDeviceAttr
        major = self._attribute(attributes.cudaDevAttrComputeCapabilityMajor)
        minor = self._attribute(attributes.cudaDevAttrComputeCapabilityMinor)
        driver = int(self._call("cudaDriverGetVersion"))
        properties = self._call("cudaGetDeviceProperties", _DEVICE)
        return DeviceFacts(
            name=bytes(properties.name).rstrip(b"\0").decode(errors="replace"),
            compute_capability=(major, minor),
            is_integrated=bool(self._attribute(attributes.cudaDevAttrIntegrated)),
            can_map_host_memory=bool(self._attribute(attributes.cudaDevAttrCanMapHostMemory)),
            cuda_version=f"{driver // 1000}.{driver % 1000 // 10}",
        )

    def _attribute(self, attribute: Any) -> int:
        return int(self._call("cudaDeviceGetAttribute", attribute, _DEVICE))

    def _free_host(self, block: SharedBlock, pointer: int) -> None:
        block.host = np.empty(0, np.uint8)  # whoever still holds the block finds no dead memory
        self._call("cudaFreeHost", pointer)


def _view(pointer: int, num_bytes: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(pointer))


def _package_version() -> str:
    for name in ("cuda-python", "cuda-bindings"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"
