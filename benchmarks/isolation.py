"""What decoding in a capped child process costs: isolated against in-process, interleaved.

    python benchmarks/isolation.py PHOTOGRAPH --size-px 224

Both load the same picture in turn, in alternating order; every round gives a ratio and a
difference of CPU time (parent and child together) and of the clock; printed are first quartile,
median and third quartile over rounds, and of the start of a child, spawn to ready. The clock
serves on a quiet machine only. Figures of another machine say nothing about yours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import cv2
import numpy as np

from edge_runtime.eye_pipeline import StageClock
from edge_runtime.fundus.quality import QualityLimits
from edge_runtime.isolation import IsolatedLoader, IsolationLimits
from edge_runtime.loading import InProcessLoader, LoadSettings, PictureLoader
from edge_runtime.preprocess import PreprocessSpec

WARM_UP, STARTS = 3, 10


def main() -> None:
    """Parse, race, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--size-px", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    settings = LoadSettings(spec=PreprocessSpec(size_px=args.size_px), quality=QualityLimits())
    data = args.photograph.read_bytes()
    rows = {**race(settings, data, args.rounds), "start_ms": quartiles(starts_ms(settings))}
    if args.json:
        print(json.dumps({"num_bytes": len(data), "size_px": args.size_px, **rows}))
        return
    print(f"{len(data)} bytes, {args.size_px} px, {args.rounds} rounds: quartiles")
    for name, row in rows.items():
        print(f"  {name:24}", *(f"{value:9.3f}" for value in row))


def race(settings: LoadSettings, data: bytes, rounds: int) -> dict[str, list[float]]:
    """Load in turn; return quartiles of ratios and differences of a round."""
    here, isolated = InProcessLoader(settings), IsolatedLoader(settings, IsolationLimits())
    isolated.warm_up()
    child_pid = isolated.idle_pids[0]
    samples = []
    for number in range(-WARM_UP, rounds):
        order = (here, isolated) if number % 2 == 0 else (isolated, here)
        took = {loader: time_once(loader, data, child_pid) for loader in order}
        if number >= 0:
            samples.append((took[isolated], took[here]))
    isolated.close()
    away_ms, here_ms = np.array(samples).transpose(1, 0, 2)  # (rounds, cpu and clock)
    found = {}
    for column, name in enumerate(("cpu", "clock")):
        a, b = away_ms[:, column], here_ms[:, column]
        found |= {f"{name}_in_process_ms": quartiles(b), f"{name}_ratio": quartiles(a / b)}
        found[f"{name}_difference_ms"] = quartiles(a - b)
    return found


def time_once(loader: PictureLoader, data: bytes, child_pid: int) -> tuple[float, float]:
    """Return milliseconds of CPU time, the child's included, and by the clock."""
    sha256 = hashlib.sha256(data).hexdigest()
    cpu_s, clock_s = cpu_time_s(child_pid), time.perf_counter()
    loader.load(data, sha256, StageClock())
    clock_s = time.perf_counter() - clock_s
    return (cpu_time_s(child_pid) - cpu_s) * 1e3, clock_s * 1e3


def cpu_time_s(child_pid: int) -> float:
    """CPU seconds so far of this process and of the child, in nanosecond steps."""
    child = time.clock_gettime(~child_pid << 3 | 2)  # clock_getcpuclockid(3) of Linux
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID) + child


def starts_ms(settings: LoadSettings) -> list[float]:
    """Milliseconds from nothing to a child that is ready."""
    found = []
    for _ in range(STARTS):
        started = time.perf_counter()
        loader = IsolatedLoader(settings, IsolationLimits())
        loader.warm_up()
        found.append((time.perf_counter() - started) * 1e3)
        loader.close()
    return found


def quartiles(values: list[float] | np.ndarray) -> list[float]:
    """Return first quartile, median, third quartile."""
    return [round(float(value), 3) for value in np.percentile(values, [25, 50, 75])]


if __name__ == "__main__":
    main()
