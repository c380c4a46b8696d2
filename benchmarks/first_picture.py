"""How long the first picture of a fresh process takes, by what was warmed up before it.

    python benchmarks/first_picture.py BUNDLE PICTURE --processes 10

Three ways take turns, each in a process of its own: nothing, the engine alone (three runs on a
grey picture), `Screener.warmup`. Printed are milliseconds of CPU time, which other work on the
machine moves less than wall time, of the warm-up, the first picture and the fifth: medians, with
the range. Timed: from the bytes of the file to the result, without opening the bundle.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from edge_runtime import Screener

_WAYS = ("nothing", "engine", "warmup")


def main() -> None:
    """Start the processes and print the table, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--way", choices=_WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way is not None:
        print(json.dumps(_times_ms(asked.bundle, asked.picture.read_bytes(), asked.way)))
        return
    command = [sys.executable, __file__, str(asked.bundle), str(asked.picture), "--way"]
    found: dict[str, list[list[float]]] = {way: [] for way in _WAYS}
    for _ in range(asked.processes):
        for way in _WAYS:
            done = subprocess.run([*command, way], capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout))
    print(f"{'CPU ms':<10}{'warm-up':>22}{'first picture':>22}{'fifth picture':>22}")
    for way, rows in found.items():
        columns = zip(*rows, strict=True)
        print(f"{way:<10}" + "".join(f"{_spread(values):>22}" for values in columns))


def _times_ms(bundle: Path, data: bytes, way: str) -> list[float]:
    """Return CPU milliseconds of the warm-up, the first and the fifth picture."""
    with Screener.open(bundle, allow_unproven_int8=True) as screener:
        size_px = screener.bundle.manifest.preprocess_spec().size_px
        times = [time.process_time()]
        if way == "warmup":
            screener.warmup()
        for _ in range(3 if way == "engine" else 0):
            screener.engine.run(np.full((1, size_px, size_px, 3), 128, np.uint8))
        times.append(time.process_time())
        for _ in range(5):
            screener.screen(data)
            times.append(time.process_time())
    steps = [1e3 * (b - a) for a, b in itertools.pairwise(times)]
    return [steps[0], steps[1], steps[5]]


def _spread(values: tuple[float, ...]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
