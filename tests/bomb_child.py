"""Decode every bomb in a process of its own and print what it cost, one JSON line a bomb.

The bombs are built in processes of their own, too: their memory is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from bombs import BOMBS

from edge_runtime.errors import ImageError
from edge_runtime.image import decode_image

_ADDRESS_SPACE = 4 << 30  # what goes further ends with MemoryError instead of ending the machine
_CPU_S = 30


def _in_child(work) -> None:
    """Run `work` in a forked process; its exit is ours to report."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
        work()
        sys.stdout.flush()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        print(json.dumps({"outcome": f"process ended with status {status}"}), flush=True)


def _decode(name: str, path: Path) -> None:
    """Decode one file; print outcome, seconds and peak memory of this process."""
    data = path.read_bytes()
    started = time.perf_counter()
    try:
        decoded = decode_image(data, target_px=224)
        outcome = f"decoded to {decoded.image_hwc.shape}"
    except ImageError as error:
        outcome = f"refused: {error}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {"outcome": outcome, "seconds": seconds, "peak_mib": peak_mib, "num_bytes": len(data)}
    print(json.dumps({"name": name, **facts}), flush=True)


def main(names: list[str]) -> None:
    """Try the bombs of the given names, or all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb"
        for name in names or list(BOMBS):
            _in_child(lambda: path.write_bytes(BOMBS[name]()))  # noqa: B023
            _in_child(lambda: _decode(name, path))  # noqa: B023
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
