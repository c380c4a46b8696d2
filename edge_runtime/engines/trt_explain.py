"""What went wrong in a build, in words with a remedy: from the builder's log, or from a death.

TensorRT's builder answers None and leaves the reason in its log; on a board with 4 to 8 GB the
kernel may kill it without a word. Both are turned into one sentence for the person in front of it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Death", "explain_death", "explain_log"]

_MORE_MEMORY = (
    "close other programs, stop the desktop (`sudo systemctl isolate multi-user.target`) or add "
    "swap, then build again"
)
_MAX_QUOTED = 3
# (what the log says, what it means and what to do), first match wins.
_RULES = (
    (
        r"out of memory|outofmemory|memoryallocation|bad_alloc|requested amount of gpu memory",
        f"memory ran out: {_MORE_MEMORY}",
    ),
    (
        r"could not find any implementation|insufficient workspace",
        f"no kernel fits into the workspace, which is taken from the free memory: {_MORE_MEMORY}",
    ),
    (
        r"no importer|opset|unsupported|not supported|only supports|failed to parse",
        "this TensorRT cannot read the graph: use a version of the guide's table, or export the "
        "bundle again",
    ),
    (
        r"library version|compute capability|incompatible device|magic tag|checksum",
        "the plan does not belong to this TensorRT or this GPU: build it again here",
    ),
    (r"cancelled", "the build was cancelled: start it again"),
)
_UNKNOWN = "see the log, and compare with trtexec (`edge-screen engine build --dry-run` prints it)"


@dataclass(frozen=True, kw_only=True)
class Death:
    """What is known about a builder process that ended without an answer.

    Attributes:
        return_code: Of the process; below zero it is minus the number of a signal.
        oom_kills: How far the kernel's counter of out-of-memory kills rose meanwhile, None where
            the kernel does not say.
        available_mib: Free memory when the build began.
        peak_mib: Largest resident memory of the process.
        last_words: The end of its stderr.
    """

    return_code: int
    oom_kills: int | None
    available_mib: int
    peak_mib: int
    last_words: str


def explain_log(log: Sequence[str]) -> str:
    """Return what a builder's log means and the lines that say it, for the end of a message."""
    complaints = [line for line in log if re.match(r"(INTERNAL_)?ERROR", line)] or list(log)
    text = "\n".join(complaints)
    meanings = (meaning for pattern, meaning in _RULES if re.search(pattern, text, re.IGNORECASE))
    meaning = next(meanings, _UNKNOWN)
    quoted = " | ".join(complaints[-_MAX_QUOTED:]) or "the log is empty"
    return f"{meaning} (TensorRT: {quoted})"


def explain_death(death: Death) -> str:
    """Return why a builder process ended without an answer, and what to do."""
    memory = f"{death.available_mib} MiB were free at the start, it had used {death.peak_mib} MiB"
    if death.oom_kills:
        return f"the builder was killed because memory ran out ({memory}): {_MORE_MEMORY}"
    if death.return_code == -signal.SIGKILL:
        return (
            f"the builder was killed by SIGKILL, most likely by the kernel for want of memory "
            f"({memory}; `dmesg` says whether): {_MORE_MEMORY}"
        )
    last = death.last_words or "nothing on stderr"
    if death.return_code < 0:
        return (
            f"the builder died of {_signal_name(-death.return_code)} ({memory}; {last}): build "
            "again; if it repeats, the driver and TensorRT may not fit each other"
        )
    return f"the builder ended with code {death.return_code} and no answer ({last}): build again"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
