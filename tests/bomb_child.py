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
from collections.abc import Callable
from pathlib import Path

from bombs import BOMBS, HEAVY
from fundus_factory import centred_fundus, png_bytes

from edge_runtime.errors import ImageError
from edge_runtime.image import decode_image

_ADDRESS_SPACE = 4 << 30  # what goes further ends with MemoryError instead of ending the machine
_CPU_S = 30


def _in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; return its wait status."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _say(name: str, outcome: str, seconds: float, peak_mib: float, num_bytes: int) -> None:
    facts = {"seconds": seconds, "peak_mib": peak_mib, "num_bytes": num_bytes}
    print(json.dumps({"name": name, "outcome": outcome, **facts}), flush=True)


def _decode(name: str, path: Path) -> None:
    """Decode one file; print outcome, processor time and peak memory of this process."""
    data = path.read_bytes()
    started = time.process_time()
    try:
        decoded = decode_image(data, target_px=224)
        outcome = f"decoded to {decoded.image_hwc.shape}"
    except ImageError as error:
        outcome = f"refused: {error}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _say(name, outcome, seconds, peak_mib, len(data))


def main(names: list[str]) -> None:
    """Try the files of the given names, or every bomb."""
    builders = {**BOMBS, **HEAVY, "a picture": lambda: png_bytes(centred_fundus(64))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb"
        for name in names or list(BOMBS):
            build = builders[name]
            if _in_child(lambda build=build: path.write_bytes(build())):
                raise SystemExit(f"{name!r} could not be built")
            started = time.perf_counter()
            status = _in_child(lambda name=name: _decode(name, path))
            if status:
                seconds = time.perf_counter() - started
                _say(name, f"ended by signal or status {status}", seconds, 0.0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
