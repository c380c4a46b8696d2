"""The limits that a decoding child puts on itself before it sees a picture.

They hold what a decoder's bug can cost; they are no sandbox against code that runs in the child.
Memory is counted from what the started child has, because that depends on the libraries: the
address space (RLIMIT_AS) and not RLIMIT_DATA, which leaves shared mappings uncounted.
"""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

__all__ = ["allow_cpu_s", "confine"]

_STATM = Path("/proc/self/statm")
_MAX_FILES = 16  # standard streams, the answers' pipe, and modules that a decoder loads late
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


def confine(*, memory_mb: int) -> None:
    """Cap memory, files, file sizes, core dumps, processes and privileges, for good.

    Args:
        memory_mb: millions of bytes that may be allocated beyond what is now in use.

    Raises:
        OSError: the kernel refuses a limit, or does not say how much memory is in use.
    """
    num_pages = int(_STATM.read_bytes().split()[0])
    _cap(resource.RLIMIT_AS, num_pages * resource.getpagesize() + memory_mb * 1_000_000)
    _cap(resource.RLIMIT_NOFILE, _MAX_FILES)
    _cap(resource.RLIMIT_FSIZE, 0)
    _cap(resource.RLIMIT_CORE, 0)
    _cap(resource.RLIMIT_NPROC, 0)  # not enforced by the kernel for root
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS was refused")


def allow_cpu_s(seconds: int) -> None:
    """Let this process use so many more seconds of CPU time; SIGXCPU ends it beyond them."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = used + seconds + 1
    resource.setrlimit(
        resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
    )


def _cap(which: int, value: int) -> None:
    """Set soft and hard limit, never above a hard limit that is there already."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
