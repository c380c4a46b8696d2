"""The names of `pycuda.driver` that we use, on a `FakeDevice`.

Names, argument orders and the rules of threads and contexts follow the sources of pycuda 2026.1
(`src/cpp/cuda.hpp`, `src/wrapper/wrap_cudadrv.cpp`): a context is current on the thread that
pushed it; a stream or event is destroyed with its last reference, and only on that thread; a
thread that ends with a context on its stack aborts the process (here: a violation).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda.device import Block, FakeDevice, InjectedError
from fake_cuda.runtime_binding import copy_work


def make_driver(device: FakeDevice) -> ModuleType:
    """The module `pycuda.driver`."""
    return _Driver(device).module


class _Driver:
    """Builds the classes of one module around one device."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.stacks: dict[int, list[Any]] = {}
        self.module = ModuleType("pycuda.driver")
        error = type("Error", (Exception,), {})
        self.errors = {
            "Error": error,
            "MemoryError": type("MemoryError", (error,), {}),
            "LogicError": type("LogicError", (error,), {}),
            "LaunchError": type("LaunchError", (error,), {}),
            "RuntimeError": type("RuntimeError", (error,), {}),
        }
        for name, kind in {**self.errors, **self._classes(), **self._functions()}.items():
            setattr(self.module, name, kind)

    # -- rules

    def guard(self, name: str, work: Callable[[], Any], *, needs_context: bool = True) -> Any:
        """Call `name`: note it, demand a current context, turn failures into pycuda's errors."""
        try:
            self.device.called(name)
            if needs_context and self.current() is None:
                self.device.violations.append(f"{name} outside the context's thread")
                raise InjectedError("cudaErrorDeviceUninitialized", "invalid device context")
            return work()
        except InjectedError as error:
            code, text = error.code, error.text
        raise self._translated(name, code, text)  # nothing but text: a frame would keep a stream

    def _translated(self, name: str, code: str, text: str) -> Exception:
        kinds = {
            "cudaErrorMemoryAllocation": "MemoryError",
            "cudaErrorLaunchFailure": "LaunchError",
            "cudaErrorNoDevice": "RuntimeError",
            "cudaErrorUnknown": "Error",
        }
        return self.errors[kinds.get(code, "LogicError")](f"{name} failed: {text}")

    def clean_up(self, name: str, context: Any, release: Callable[[], None]) -> None:
        """A release that pycuda does itself: its failures are printed, never raised."""
        if threading.get_ident() != context.thread:
            self.device.violations.append(f"{name} on another thread: leaked")
            return
        if not context.is_valid:
            self.device.violations.append(f"{name} after the context was released")
        with contextlib.suppress(InjectedError):  # PyCUDA WARNING: a clean-up operation failed
            self.device.called(name)
        release()

    def current(self) -> Any:
        stack = self.stacks.get(threading.get_ident(), [])
        return stack[-1] if stack else None

    # -- classes

    def _classes(self) -> dict[str, Any]:
        driver = self

        class Context:
            def __init__(self) -> None:
                self.thread, self.is_valid = threading.get_ident(), True
                driver.device.open_contexts += 1

            def push(self) -> None:
                stack = driver.stacks.setdefault(threading.get_ident(), [])
                driver.guard("cuCtxPushCurrent", lambda: stack.append(self), needs_context=False)

            @staticmethod
            def pop() -> None:
                stack = driver.stacks.get(threading.get_ident(), [])
                driver.guard("cuCtxPopCurrent", stack.pop)

            def detach(self) -> None:
                if not self.is_valid:
                    raise driver.errors["LogicError"]("context::detach failed: invalid context")
                driver.clean_up("cuDevicePrimaryCtxRelease", self, lambda: None)
                self.is_valid = False
                driver.device.open_contexts -= 1
                stack = driver.stacks.get(threading.get_ident(), [])
                while stack and not stack[-1].is_valid:
                    stack.pop()

        class Device:
            def __init__(self, number: int) -> None:
                driver.guard("cuDeviceGet", lambda: number, needs_context=False)

            @staticmethod
            def count() -> int:
                fake = driver.device
                return int(
                    driver.guard("cuDeviceGetCount", lambda: fake.num_devices, needs_context=False)
                )

            def name(self) -> str:
                return str(
                    driver.guard("cuDeviceGetName", lambda: driver.device.name, needs_context=False)
                )

            def compute_capability(self) -> tuple[int, int]:
                fake = driver.device
                found: tuple[int, int] = driver.guard(
                    "cuDeviceComputeCapability",
                    lambda: fake.compute_capability,
                    needs_context=False,
                )
                return found

            def get_attribute(self, attribute: str) -> int:
                value = getattr(driver.device, attribute)
                return int(
                    driver.guard("cuDeviceGetAttribute", lambda: int(value), needs_context=False)
                )

            def retain_primary_context(self) -> Any:
                return driver.guard("cuDevicePrimaryCtxRetain", Context, needs_context=False)

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                assert flags == 0
                self._stream: Any = None
                self._stream = driver.guard("cuStreamCreate", driver.device.make_stream)
                self._context = driver.current()
                self.handle = self._stream.handle

            def synchronize(self) -> None:
                driver.guard("cuStreamSynchronize", lambda: driver.device.run_pending(self._stream))

            def __del__(self) -> None:
                if self._stream is not None:
                    fake, handle = driver.device, self._stream.handle
                    driver.clean_up(
                        "cuStreamDestroy", self._context, lambda: fake.destroy_stream(handle)
                    )

        class Event:
            def __init__(self, flags: int = 0) -> None:
                assert flags in (2, 3)
                self._event: Any = None
                self._event = driver.guard("cuEventCreate", driver.device.make_event)
                self._context = driver.current()

            def record(self, stream: Any = None) -> Any:
                driver.guard(
                    "cuEventRecord",
                    lambda: driver.device.record_event(self._event, stream.handle),
                )
                return self

            def synchronize(self) -> Any:
                driver.guard("cuEventSynchronize", lambda: driver.device.wait_event(self._event))
                return self

            def __del__(self) -> None:
                if self._event is not None:
                    fake, event = driver.device, self._event
                    driver.clean_up("cuEventDestroy", self._context, lambda: fake.events.pop(event))

        return {"Context": Context, "Device": Device, "Stream": Stream, "Event": Event}

    # -- functions

    def _functions(self) -> dict[str, Any]:
        device = self.device
        return {
            "init": lambda flags=0: self.guard("cuInit", lambda: flags, needs_context=False),
            "get_driver_version": lambda: self.guard(
                "cuDriverGetVersion", lambda: device.driver_version, needs_context=False
            ),
            "pagelocked_empty": self._pagelocked_empty,
            "mem_alloc": self._mem_alloc,
            "memcpy_htod_async": self._htod,
            "memcpy_dtoh_async": self._dtoh,
            "host_alloc_flags": SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4),
            "event_flags": SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1, DISABLE_TIMING=2),
            "device_attribute": SimpleNamespace(
                INTEGRATED="is_integrated", CAN_MAP_HOST_MEMORY="can_map_host_memory"
            ),
        }

    def _pagelocked_empty(
        self, shape: int, dtype: Any, order: str = "C", mem_flags: int = 0
    ) -> np.ndarray:
        assert order == "C"
        num_bytes = shape * np.dtype(dtype).itemsize
        block = self.guard(
            "cuMemHostAlloc",
            lambda: self.device.allocate("host", num_bytes, mapped=mem_flags == 2),
        )
        allocation = _Allocation(self, block, "cuMemFreeHost")
        return np.asarray(allocation)

    def _mem_alloc(self, num_bytes: int) -> Any:
        block = self.guard("cuMemAlloc", lambda: self.device.allocate("device", num_bytes))
        return _Allocation(self, block, "cuMemFree")

    def _htod(self, dest: int, src: np.ndarray, stream: Any = None) -> None:
        assert src.flags.c_contiguous
        self.guard("cuMemcpyHtoDAsync", lambda: self._copy(src, dest, stream, upwards=True))

    def _dtoh(self, dest: np.ndarray, src: int, stream: Any = None) -> None:
        assert dest.flags.c_contiguous
        assert dest.flags.writeable
        self.guard("cuMemcpyDtoHAsync", lambda: self._copy(dest, src, stream, upwards=False))

    def _copy(self, host: np.ndarray, address: int, stream: Any, *, upwards: bool) -> None:
        block = self.device.find_host(host.ctypes.data)  # anything else would not be page-locked
        work = copy_work(self.device, block.array, address, host.nbytes, upwards=upwards)
        self.device.enqueue(stream.handle, work)


class _Allocation:
    """DeviceAllocation and PagelockedHostAllocation."""

    def __init__(self, driver: _Driver, block: Block, release: str) -> None:
        self._driver, self._block, self._release = driver, block, release
        self._context = driver.current()
        if block.where == "host":
            self.__array_interface__ = block.array.__array_interface__

    def __int__(self) -> int:
        return self._block.address

    def get_device_pointer(self) -> int:
        def find() -> int:
            if self._block.mapped_address is None:
                raise InjectedError("cudaErrorInvalidValue", "invalid argument")
            return self._block.mapped_address

        return int(self._driver.guard("cuMemHostGetDevicePointer", find))

    def free(self) -> None:
        if self._block.is_freed:
            raise self._driver.errors["LogicError"]("free failed: invalid resource handle")
        self._driver.clean_up(
            self._release, self._context, lambda: self._driver.device.free(self._block)
        )

    def __del__(self) -> None:
        if not self._block.is_freed:
            self._driver.device.violations.append(f"{self._release} left to the destructor")
            self.free()
