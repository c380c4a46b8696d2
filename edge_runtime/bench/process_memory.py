"""Resident memory and open descriptors of this process, where Linux tells them."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["num_descriptors", "peak_resident_mib", "resident_mib"]

_SELF = Path("/proc/self")


def resident_mib(*, proc: Path = _SELF) -> float | None:
    """Return the memory that is resident now, in MiB; None where nobody says."""
    return _status_mib(proc, "VmRSS")


def peak_resident_mib(*, proc: Path = _SELF) -> float | None:
    """Return the most that was ever resident, in MiB; None where nobody says."""
    return _status_mib(proc, "VmHWM")


def num_descriptors(*, proc: Path = _SELF) -> int | None:
    """Return how many descriptors are open; None where nobody says."""
    try:
        return sum(1 for _ in (proc / "fd").iterdir())
    except OSError:
        return None


def _status_mib(proc: Path, name: str) -> float | None:
    try:
        text = (proc / "status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return None if found is None else round(int(found.group(1)) / 1024, 1)
