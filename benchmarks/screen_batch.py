"""Time `Screener.screen_batch` with one thread and more, with and without OpenCV's threads.

    python benchmarks/screen_batch.py BUNDLE PICTURE... --threads 1,2,4 --rounds 5

Prints, for every setting, wall and CPU time a picture as ratios to one thread with OpenCV's
threads off; medians over rounds in which the settings take turns, with the range. Timed: from the
bytes of the files in memory to the results. An INT8 model is taken whatever its gate says.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

from edge_runtime import Screener
from edge_runtime.batch import available_cpus, one_opencv_thread

_BASE = (1, "off")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--threads", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1, help="of every picture, a round")
    asked = parser.parse_args()
    pictures = [path.read_bytes() for path in asked.pictures] * asked.copies
    settings = [(int(n), pool) for n in asked.threads.split(",") for pool in ("off", "on")]
    with Screener.open(asked.bundle, allow_unproven_int8=True) as screener:
        screener.warmup()
        rounds = [
            {setting: _one_round(screener, pictures, *setting) for setting in settings}
            for _ in range(asked.rounds)
        ]
    print(f"{len(pictures)} pictures, {asked.rounds} rounds, {available_cpus()} CPUs, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}; ratios to 1 thread with OpenCV's threads off")
    print(f"{'threads':>7} {'OpenCV':>7} {'speed':>22} {'CPU time':>22}")
    for setting in settings:
        walls = [one[_BASE][0] / one[setting][0] for one in rounds]
        cpus = [one[setting][1] / one[_BASE][1] for one in rounds]
        print(f"{setting[0]:>7} {setting[1]:>7} {_spread(walls):>22} {_spread(cpus):>22}")


def _one_round(
    screener: Screener, pictures: list[bytes], num_threads: int, pool: str
) -> tuple[float, float]:
    """Return wall and CPU seconds of all pictures."""
    with one_opencv_thread() if pool == "off" else nullcontext():
        wall, cpu = time.perf_counter(), time.process_time()
        num = sum(1 for _ in screener.screen_batch(pictures, num_threads=num_threads))
        assert num == len(pictures)
        return time.perf_counter() - wall, time.process_time() - cpu


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
