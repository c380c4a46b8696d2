"""The hook through which the fake engine reaches device memory, and a small memory for tests.

A real engine is given plain integers and keeps no reference: what lies at an address when the
kernel runs is what it reads, and freed memory is a fault. The fake asks its `Memory` in the same
way. A fake CUDA implements these three methods and is injected: `FakeTensorRT(..., memory=it)` or
`fake.memory = it`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class MemoryFault(RuntimeError):
    """Memory that is not allocated (any longer), or too short, was touched by the device."""


class Memory(Protocol):
    """Device memory as the fake engine sees it."""

    def read(self, address: int, num_bytes: int) -> bytes:
        """Return bytes from `address`, which may lie inside an allocation, or raise MemoryFault."""

    def write(self, address: int, data: bytes) -> None:
        """Write bytes at `address`, or raise MemoryFault."""

    def launch(self, stream: int, work: Callable[[], None]) -> None:
        """Take the work of one enqueue: run it now, at the next synchronisation of the stream, or
        keep it for every replay while the stream is being captured into a graph."""


class PlainMemory:
    """Allocations by address; work runs at once. `live_bytes` is 0 when all was freed."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self._next = 0x7F00_0000_0000
        self.launches: list[int] = []

    def alloc(self, num_bytes: int) -> int:
        """Return the address of a new block; addresses are never used twice."""
        address = self._next
        self._blocks[address] = bytearray(num_bytes)
        self._next += (num_bytes + 511) // 256 * 256  # a gap, so that overruns are seen
        return address

    def free(self, address: int) -> None:
        """Free a block; freeing twice is a fault."""
        if self._blocks.pop(address, None) is None:
            raise MemoryFault(f"free of {address:#x}, which is not allocated")

    @property
    def live_bytes(self) -> int:
        """Bytes that are allocated."""
        return sum(map(len, self._blocks.values()))

    def read(self, address: int, num_bytes: int) -> bytes:
        block, offset = self._find(address, num_bytes)
        return bytes(block[offset : offset + num_bytes])

    def write(self, address: int, data: bytes) -> None:
        block, offset = self._find(address, len(data))
        block[offset : offset + len(data)] = data

    def launch(self, stream: int, work: Callable[[], None]) -> None:
        self.launches.append(stream)
        work()

    def _find(self, address: int, num_bytes: int) -> tuple[bytearray, int]:
        for start, block in self._blocks.items():
            if start <= address and address + num_bytes <= start + len(block):
                return block, address - start
        raise MemoryFault(f"{num_bytes} bytes at {address:#x} are not allocated")
