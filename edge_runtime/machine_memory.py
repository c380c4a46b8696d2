"""How much memory the machine has free, and whether the kernel had to kill for want of it."""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime.errors import EngineError

__all__ = ["available_bytes", "num_oom_kills"]

_MEMINFO = Path("/proc/meminfo")
_VMSTAT = Path("/proc/vmstat")


def available_bytes(*, meminfo: Path = _MEMINFO) -> int:
    """Return the memory that can be had without swapping (`MemAvailable`), in bytes.

    On a Jetson, CPU and GPU share it.

    Raises:
        EngineError: The kernel does not say.
    """
    value = _number(meminfo, r"^MemAvailable:\s+(\d+) kB$")
    if value is None:
        raise EngineError(f"{meminfo} does not say how much memory is free; build on Linux")
    return value * 1024


def num_oom_kills(*, vmstat: Path = _VMSTAT) -> int | None:
    """Return how many processes were killed for want of memory since the start, None if unknown."""
    return _number(vmstat, r"^oom_kill (\d+)$")


def _number(path: Path, pattern: str) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(pattern, text, re.MULTILINE)
    return None if match is None else int(match.group(1))
