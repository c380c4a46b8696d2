"""The names of `cuda.bindings.runtime` that we use, on a `FakeDevice`.

Names, signatures and the tuples that come back follow the published wheels 12.6.2, 12.9.10 and
13.5.0, whose modules were imported and called without a GPU.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from fake_cuda.device import WORDS, FakeDevice, InjectedError


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorDeviceUninitialized = 201
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorUnknown = 999


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaDeviceAttr(enum.IntEnum):
    cudaDevAttrIntegrated = 18
    cudaDevAttrCanMapHostMemory = 19
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class Handle:
    """A cudaStream_t, cudaEvent_t or graph handle: an int in a coat."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


def make_runtime(device: FakeDevice, name: str) -> ModuleType:
    """The module, under the name of the new or of the old place."""
    module = ModuleType(name)
    functions = _Functions(device)
    for method in dir(functions):
        if method.startswith("cuda"):
            setattr(module, method, _guarded(device, method, getattr(functions, method)))
    constants = {
        "cudaHostAllocDefault": 0, "cudaHostAllocMapped": 2, "cudaStreamNonBlocking": 1,
        "cudaEventBlockingSync": 1, "cudaEventDisableTiming": 2,
    }  # fmt: skip
    for constant, value in constants.items():
        setattr(module, constant, value)
    for kind in (cudaError_t, cudaMemcpyKind, cudaDeviceAttr, cudaStreamCaptureMode):
        setattr(module, kind.__name__, kind)
    module.cudaGetErrorString = lambda code: (  # type: ignore[attr-defined]
        cudaError_t.cudaSuccess,
        WORDS.get(code.name, "?").encode(),
    )
    return module


def _guarded(device: FakeDevice, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    num_values = function.num_values if hasattr(function, "num_values") else 0

    def call(*arguments: Any) -> tuple[Any, ...]:
        value = None
        try:
            device.called(name)
            value = function(*arguments)
            code = cudaError_t.cudaSuccess
        except InjectedError as error:
            code = cudaError_t[error.code]
            _release_all_the_same(name, function, arguments)
        return (code, value) if num_values else (code,)

    return call


def _release_all_the_same(name: str, function: Callable[..., Any], arguments: Any) -> None:
    """A release may answer with the error of earlier work; the thing is released by then."""
    if name in _RELEASES:
        try:
            function(*arguments)
        except InjectedError:
            return


_RELEASES = frozenset(
    {
        "cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaEventDestroy", "cudaGraphDestroy",
        "cudaGraphExecDestroy",
    }
)  # fmt: skip


def returns_value(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function whose tuple has a value after the code."""
    method.num_values = 1  # type: ignore[attr-defined]
    return method


class _Functions:
    """Each takes what the real function takes and returns the value alone, or raises."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def cudaSetDevice(self, number: int) -> None:
        if number >= self.device.num_devices:
            raise InjectedError("cudaErrorNoDevice", WORDS["cudaErrorNoDevice"])

    @returns_value
    def cudaDeviceGetAttribute(self, attribute: cudaDeviceAttr, _number: int) -> int:
        device = self.device
        values = {
            cudaDeviceAttr.cudaDevAttrIntegrated: device.is_integrated,
            cudaDeviceAttr.cudaDevAttrCanMapHostMemory: device.can_map_host_memory,
            cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor: device.compute_capability[0],
            cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor: device.compute_capability[1],
        }
        return int(values[attribute])

    @returns_value
    def cudaDriverGetVersion(self) -> int:
        return self.device.driver_version

    @returns_value
    def cudaGetDeviceProperties(self, _number: int) -> SimpleNamespace:
        return SimpleNamespace(name=self.device.name.encode())

    @returns_value
    def cudaHostAlloc(self, size: int, flags: int) -> int:
        return self.device.allocate("host", size, mapped=flags == 2).address

    @returns_value
    def cudaHostGetDevicePointer(self, pointer: int, flags: int) -> int:
        address = self.device.find_host(pointer).mapped_address
        if address is None or flags != 0:
            raise InjectedError("cudaErrorInvalidValue", WORDS["cudaErrorInvalidValue"])
        return address

    def cudaFreeHost(self, pointer: int) -> None:
        self.device.free(self.device.find_host(pointer))

    @returns_value
    def cudaMalloc(self, size: int) -> int:
        return self.device.allocate("device", size).address

    def cudaFree(self, pointer: int) -> None:
        self.device.free(self.device.find_device(pointer))

    def cudaMemcpyAsync(
        self, target: int, source: int, count: int, kind: cudaMemcpyKind, stream: Handle
    ) -> None:
        device = self.device
        if kind is cudaMemcpyKind.cudaMemcpyHostToDevice:
            host, address = device.find_host(source), target
        else:
            host, address = device.find_host(target), source
        upwards = kind is cudaMemcpyKind.cudaMemcpyHostToDevice
        device.enqueue(int(stream), copy_work(device, host.array, address, count, upwards=upwards))

    @returns_value
    def cudaStreamCreateWithFlags(self, flags: int) -> Handle:
        assert flags == 1, "non-blocking towards the default stream"
        return Handle(self.device.make_stream().handle)

    def cudaStreamDestroy(self, stream: Handle) -> None:
        self.device.destroy_stream(int(stream))

    def cudaStreamSynchronize(self, stream: Handle) -> None:
        self.device.run_pending(self.device.stream(int(stream)))

    @returns_value
    def cudaEventCreateWithFlags(self, flags: int) -> Handle:
        assert flags in (2, 3)
        return Handle(self.device.make_event())

    def cudaEventRecord(self, event: Handle, stream: Handle) -> None:
        self.device.record_event(int(event), int(stream))

    def cudaEventSynchronize(self, event: Handle) -> None:
        self.device.wait_event(int(event))

    def cudaEventDestroy(self, event: Handle) -> None:
        if int(event) not in self.device.events:
            raise InjectedError(
                "cudaErrorInvalidResourceHandle", WORDS["cudaErrorInvalidResourceHandle"]
            )
        del self.device.events[int(event)]

    def cudaStreamBeginCapture(self, stream: Handle, mode: cudaStreamCaptureMode) -> None:
        assert mode is cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.device.begin_capture(int(stream))

    @returns_value
    def cudaStreamEndCapture(self, stream: Handle) -> Handle:
        return Handle(self.device.end_capture(int(stream)))

    @returns_value
    def cudaGraphInstantiateWithFlags(self, graph: Handle, flags: int) -> Handle:
        assert flags == 0
        return Handle(self.device.keep_graph(list(self.device.graphs[int(graph)])))

    def cudaGraphLaunch(self, graph: Handle, stream: Handle) -> None:
        self.device.launch_graph(int(graph), int(stream))

    def cudaGraphDestroy(self, graph: Handle) -> None:
        self.device.drop_graph(int(graph))

    def cudaGraphExecDestroy(self, graph: Handle) -> None:
        self.device.drop_graph(int(graph))


def copy_work(
    device: FakeDevice, host: Any, address: int, count: int, *, upwards: bool
) -> Callable[[], None]:
    """The work of one asynchronous copy."""

    def work() -> None:
        there = device.device_bytes(address, count)
        if upwards:
            there[:] = host[:count]
        else:
            host[:count] = there

    return work
