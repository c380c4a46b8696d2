"""Device memory by pycuda, whose objects belong to the thread that retained the context.

Never `pycuda.autoinit`: it makes a context of its own, which TensorRT then does not use, and
leaves it to the end of the process. Here the primary context is retained, pushed, popped and
released on one thread. The context must be popped before the thread ends: pycuda aborts the
process otherwise. Streams and events have no explicit release, they go with their last reference;
so no local variable and no message may keep one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from edge_runtime.engines.closing import Closers
from edge_runtime.engines.cuda_errors import cuda_error
from edge_runtime.engines.cuda_memory import DeviceFacts, SharedBlock, choose_kind
from edge_runtime.errors import CudaError, EngineError

__all__ = ["PycudaMemory"]

_DEVICE = 0


class PycudaMemory:
    """`DeviceMemory` on `pycuda.driver`. It has no CUDA graphs."""

    can_capture = False

    def __init__(self, driver: ModuleType, *, memory: str, wait: str) -> None:
        """Open the first GPU on this thread.

        Raises:
            CudaError: A CUDA call failed; what was acquired by then is released.
            EngineError: The kind of memory asked for is not possible.
        """
        self._driver: Any = driver
        self._closers = Closers()
        self._device_blocks: dict[int, Any] = {}
        self._stream: Any = None
        self._event: Any = None
        self.binding = f"pycuda {_package_version()}"
        try:
            self.facts = self._open_context()
            self.kind, self.kind_reason = choose_kind(memory, self.facts)
            self._make_stream(wait)
        except BaseException:
            self._closers.close()
            raise

    @property
    def stream_handle(self) -> int:
        """The stream, as TensorRT takes it."""
        return int(self._stream.handle)

    def allocate(self, num_bytes: int) -> SharedBlock:
        """Return a new block of zeros, which lives until `close`."""
        is_mapped = self.kind == "mapped"
        flags = self._driver.host_alloc_flags.DEVICEMAP if is_mapped else 0
        host = self._call(self._driver.pagelocked_empty, num_bytes, np.uint8, mem_flags=flags)
        block = SharedBlock(host=host, address=0)
        self._closers.push(partial(self._free_host, block))
        block.host.fill(0)
        if is_mapped:
            block.address = int(self._call(_allocation(block).get_device_pointer))
            return block
        device = self._call(self._driver.mem_alloc, num_bytes)
        block.address = int(device)
        self._device_blocks[block.address] = device
        self._closers.push(partial(self._free_device, block.address))
        self.upload(block)
        return block

    def upload(self, block: SharedBlock) -> None:
        """Enqueue the copy to the device; nothing where the block is mapped."""
        if self.kind == "copy":
            self._call(self._driver.memcpy_htod_async, block.address, block.host, self._stream)

    def download(self, block: SharedBlock) -> None:
        """Enqueue the copy from the device; nothing where the block is mapped."""
        if self.kind == "copy":
            self._call(self._driver.memcpy_dtoh_async, block.host, block.address, self._stream)

    def wait(self) -> None:
        """Wait until everything enqueued so far is done."""
        self._call(self._event.record, self._stream)
        self._call(self._event.synchronize)

    def begin_capture(self) -> None:
        """Refuse: see `can_capture`."""
        raise EngineError("pycuda has no CUDA graphs; use the binding 'cuda-python' for them")

    end_capture = launch_graph = abandon_capture = begin_capture

    def drop_graph(self) -> None:
        """Wait; there is no graph to release."""
        self._drain()

    def close(self) -> None:
        """Release everything; a second call does nothing.

        Raises:
            CudaError: A release failed; the others were done all the same.
        """
        failures = self._closers.close(first=self._drain)
        if failures:
            raise CudaError(failures)

    def _drain(self) -> None:
        self._call(self._stream.synchronize)

    def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call one function of the binding; its own exceptions become CudaError.

        Raised outside the `except` block: with a context, the new error would keep the frame of
        the old one, and so the arguments.
        """
        try:
            return function(*arguments, **named)
        except self._driver.Error as error:
            text = str(error)
        call, _, detail = text.partition(" failed: ")
        raise cuda_error(call, detail or text)

    def _open_context(self) -> DeviceFacts:
        driver = self._driver
        self._call(driver.init)
        if self._call(driver.Device.count) < 1:
            raise cuda_error("cuDeviceGetCount", "no CUDA-capable device is detected")
        device = self._call(driver.Device, _DEVICE)
        context = self._call(device.retain_primary_context)
        self._closers.push(partial(self._call, context.detach))
        self._call(context.push)
        self._closers.push(partial(self._call, driver.Context.pop))
        attributes = driver.device_attribute
        version = int(self._call(driver.get_driver_version))
        major, minor = self._call(device.compute_capability)
        can_map = self._call(device.get_attribute, attributes.CAN_MAP_HOST_MEMORY)
        return DeviceFacts(
            name=str(self._call(device.name)),
            compute_capability=(int(major), int(minor)),
            is_integrated=bool(self._call(device.get_attribute, attributes.INTEGRATED)),
            can_map_host_memory=bool(can_map),
            cuda_version=f"{version // 1000}.{version % 1000 // 10}",
        )

    def _make_stream(self, wait: str) -> None:
        kinds = self._driver.event_flags
        flags = int(kinds.DISABLE_TIMING)
        if wait == "blocking":
            flags |= int(kinds.BLOCKING_SYNC)
        self._closers.push(self._drop_stream)
        self._stream = self._call(self._driver.Stream)
        self._event = self._call(self._driver.Event, flags)

    def _drop_stream(self) -> None:
        self._event = None
        self._stream = None

    def _free_device(self, address: int) -> None:
        self._call(self._device_blocks.pop(address).free)

    def _free_host(self, block: SharedBlock) -> None:
        allocation = _allocation(block)
        block.host = np.empty(0, np.uint8)  # whoever still holds the block finds no dead memory
        self._call(allocation.free)


def _allocation(block: SharedBlock) -> Any:
    """The PagelockedHostAllocation that the array of `pagelocked_empty` rests on."""
    return block.host.base


def _package_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pycuda")
    except PackageNotFoundError:
        return "of unknown version"
