"""One pretended GPU: memory with lifetimes, lazy streams, graphs, a log, failures on order.

What is enqueued runs only when somebody waits for it, so that code which forgets to wait reads
stale bytes. Freed memory is overwritten and kept, so that its use is found instead of crashing.
Everything that real CUDA would let pass and a camera would regret later is a `violation`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from fake_tensorrt.memory import MemoryFault

GUARD_BYTES = 64
FREED_BYTE, NEW_BYTE, GUARD_BYTE = 0xDD, 0xA5, 0x5C
_FIRST_DEVICE_ADDRESS = 0x7_0000_0000
_ALIGNMENT = 512


class InjectedError(Exception):
    """A CUDA function fails: its code by the runtime's name, and the driver's words."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


WORDS = {
    "cudaErrorInvalidValue": "invalid argument",
    "cudaErrorMemoryAllocation": "out of memory",
    "cudaErrorInsufficientDriver": "CUDA driver version is insufficient for CUDA runtime version",
    "cudaErrorNoDevice": "no CUDA-capable device is detected",
    "cudaErrorDeviceUninitialized": "invalid device context",
    "cudaErrorInvalidResourceHandle": "invalid resource handle",
    "cudaErrorIllegalAddress": "an illegal memory access was encountered",
    "cudaErrorLaunchFailure": "unspecified launch failure",
    "cudaErrorStreamCaptureUnsupported": "operation not permitted when stream is capturing",
    "cudaErrorStreamCaptureInvalidated": "operation failed due to a previous error during capture",
    "cudaErrorUnknown": "unknown error",
}


def failure(code: str) -> InjectedError:
    """The error of a code."""
    return InjectedError(code, WORDS[code])


@dataclass(eq=False)
class Block:
    """Bytes of the host or of the device. `array` lies between two guards."""

    whole: np.ndarray
    where: str  # "host", "device"
    address: int
    mapped_address: int | None = None
    is_freed: bool = False

    @property
    def array(self) -> np.ndarray:
        return self.whole[GUARD_BYTES:-GUARD_BYTES]

    def guards_intact(self) -> bool:
        ends = self.whole[:GUARD_BYTES], self.whole[-GUARD_BYTES:]
        return all(bool((end == GUARD_BYTE).all()) for end in ends)


@dataclass(eq=False)
class Stream:
    """Work in order; `capturing` is the list that records while a graph is made."""

    handle: int
    pending: list[Callable[[], None]] = field(default_factory=list)
    capturing: list[Callable[[], None]] | None = None
    capture_failed: bool = False
    is_destroyed: bool = False


@dataclass(eq=False)
class FakeDevice:
    """The GPU. `fail_at` maps the number of a call (from 0) to the code it answers."""

    name: str = "Orin"
    compute_capability: tuple[int, int] = (8, 7)
    is_integrated: bool = True
    can_map_host_memory: bool = True
    driver_version: int = 12060
    num_devices: int = 1
    graphs_fail: bool = False
    fail_at: dict[int, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    streams: dict[int, Stream] = field(default_factory=dict)
    events: dict[int, Stream | None] = field(default_factory=dict)
    graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    open_contexts: int = 0
    sticky: InjectedError | None = None

    def __post_init__(self) -> None:
        self._handles = itertools.count(0x5000, 16)
        self._next_address = _FIRST_DEVICE_ADDRESS

    # -- calls

    def called(self, name: str) -> None:
        """Note a call; fail where it was ordered to, or where an earlier fault is not over."""
        number = len(self.calls)
        self.calls.append(name)
        self.threads.add(threading.get_ident())
        if number in self.fail_at:
            raise failure(self.fail_at[number])
        if self.sticky is not None:
            raise self.sticky

    # -- memory

    def allocate(self, where: str, num_bytes: int, *, mapped: bool = False) -> Block:
        """A new block of rubbish between guards."""
        whole = np.full(num_bytes + 2 * GUARD_BYTES, GUARD_BYTE, np.uint8)
        block = Block(whole=whole, where=where, address=0)
        block.array[:] = NEW_BYTE
        new = self._next_address
        self._next_address += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT
        block.address = block.array.ctypes.data if where == "host" else new
        if mapped and self.can_map_host_memory:
            block.mapped_address = new
        self.blocks.append(block)
        return block

    def free(self, block: Block) -> None:
        """Give a block back; twice is a violation."""
        if block.is_freed:
            self.violations.append("freed twice")
            raise failure("cudaErrorInvalidValue")
        if any(stream.pending for stream in self.streams.values()):
            self.violations.append("freed while work is pending")
        if not block.guards_intact():
            self.violations.append("written beyond the end of a block")
        block.is_freed = True
        block.whole[:] = FREED_BYTE

    def find_host(self, address: int) -> Block:
        """The block that begins at a host address."""
        for block in self.blocks:
            if block.where == "host" and block.address == address and not block.is_freed:
                return block
        raise failure("cudaErrorInvalidValue")

    def find_device(self, address: int) -> Block:
        """The block that begins at a device address."""
        for block in self.blocks:
            if block.where == "device" and block.address == address and not block.is_freed:
                return block
        raise failure("cudaErrorInvalidValue")

    def device_bytes(self, address: int, num_bytes: int) -> np.ndarray:
        """What a kernel sees at an address: device memory, or host memory that is mapped."""
        for block in self.blocks:
            start = block.address if block.where == "device" else block.mapped_address
            if start is None or not start <= address < start + len(block.array):
                continue
            if block.is_freed:
                self.violations.append("a kernel touched freed memory")
                raise failure("cudaErrorIllegalAddress")
            offset = address - start
            if offset + num_bytes > len(block.array):
                self.violations.append("a kernel reached beyond a block")
                raise failure("cudaErrorIllegalAddress")
            return block.array[offset : offset + num_bytes]
        self.violations.append(f"a kernel touched {address:#x}, which is no device memory")
        raise failure("cudaErrorIllegalAddress")

    def read(self, address: int, num_bytes: int) -> bytes:
        """Hook of the fake TensorRT: the bytes that a kernel reads."""
        return self.device_bytes(address, num_bytes).tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Hook of the fake TensorRT: the bytes that a kernel writes."""
        self.device_bytes(address, len(data))[:] = np.frombuffer(data, np.uint8)

    # -- streams, events, graphs

    def make_stream(self) -> Stream:
        stream = Stream(handle=next(self._handles))
        self.streams[stream.handle] = stream
        return stream

    def stream(self, handle: int) -> Stream:
        found = self.streams.get(handle)
        if found is None:
            raise failure("cudaErrorInvalidResourceHandle")
        return found

    def destroy_stream(self, handle: int) -> None:
        stream = self.stream(handle)
        if stream.pending:
            self.violations.append("a stream was destroyed with work on it")
        del self.streams[handle]

    def enqueue(self, handle: int, work: Callable[[], None]) -> None:
        """Add work that runs in the stream's order, later; while capturing, record it."""
        stream = self.stream(handle)
        target = stream.pending if stream.capturing is None else stream.capturing
        target.append(work)

    def launch(self, stream: int, work: Callable[[], None]) -> None:
        """Hook of the fake TensorRT: the work of one enqueue."""
        try:
            self.enqueue(stream, work)
        except InjectedError as error:
            raise MemoryFault(str(error)) from None

    def run_pending(self, stream: Stream) -> None:
        """Run what is enqueued; a fault stays for every later call."""
        if stream.capturing is not None:
            stream.capture_failed = True
            raise failure("cudaErrorStreamCaptureUnsupported")
        try:
            while stream.pending:
                stream.pending.pop(0)()
        except InjectedError as error:
            stream.pending.clear()
            self.sticky = error
            raise

    def make_event(self) -> int:
        handle = next(self._handles)
        self.events[handle] = None
        return handle

    def record_event(self, event: int, stream_handle: int) -> None:
        if event not in self.events:
            raise failure("cudaErrorInvalidResourceHandle")
        self.events[event] = self.stream(stream_handle)

    def wait_event(self, event: int) -> None:
        if event not in self.events:
            raise failure("cudaErrorInvalidResourceHandle")
        stream = self.events[event]
        if stream is not None:
            self.run_pending(stream)

    def begin_capture(self, handle: int) -> None:
        stream = self.stream(handle)
        if stream.pending:
            self.violations.append("capture begun before earlier work was waited for")
        if self.graphs_fail or stream.capturing is not None:
            raise failure("cudaErrorStreamCaptureUnsupported")
        stream.capturing, stream.capture_failed = [], False

    def end_capture(self, handle: int) -> int:
        stream = self.stream(handle)
        if stream.capturing is None:
            raise failure("cudaErrorInvalidValue")
        recorded, stream.capturing = stream.capturing, None
        if stream.capture_failed:
            raise failure("cudaErrorStreamCaptureInvalidated")
        return self.keep_graph(recorded)

    def keep_graph(self, work: list[Callable[[], None]]) -> int:
        handle = next(self._handles)
        self.graphs[handle] = work
        return handle

    def drop_graph(self, handle: int) -> None:
        if self.graphs.pop(handle, None) is None:
            raise failure("cudaErrorInvalidResourceHandle")

    def launch_graph(self, handle: int, stream_handle: int) -> None:
        if handle not in self.graphs:
            raise failure("cudaErrorInvalidResourceHandle")
        for work in self.graphs[handle]:
            self.enqueue(stream_handle, work)

    # -- what a test asserts

    def left_over(self) -> list[str]:
        """What was acquired and never released; empty when everything is balanced."""
        found = [f"{b.where} block of {len(b.array)}" for b in self.blocks if not b.is_freed]
        found += ["stream"] * len(self.streams) + ["event"] * len(self.events)
        found += ["graph"] * len(self.graphs) + ["context"] * self.open_contexts
        return found

    def num_allocations(self) -> int:
        return len(self.blocks)
