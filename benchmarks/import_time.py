"""How long `import edge_runtime` and `edge-screen --help` take, beside a Python that does nothing.

    make wheel
    python3.11 -m venv build/camera
    build/camera/bin/pip install -c constraints.txt dist/edge_screen_runtime-*.whl
    python benchmarks/import_time.py --python build/camera/bin/python

Every round starts one fresh process a case, in turn, so that a busy machine is busy for all. Wall
time holds what other processes took; CPU time does not, but counts every thread. The files are in
the page cache after the first round, which is not counted. `python -X importtime` says where it
goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

CASES = {
    "empty": ("-c", "pass"),
    "import edge_runtime": ("-c", "import edge_runtime"),
    "import Screener": ("-c", "from edge_runtime import Screener"),
    "edge-screen --help": ("-m", "edge_runtime", "--help"),
    "edge-screen screen --help": ("-m", "edge_runtime", "screen", "--help"),
}


def main() -> int:
    """Parse, measure, print; 1 when a limit is given and a median CPU time is above it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=Path, required=True, help="of a bare environment")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit-s", type=float, help="for the CPU time of every case")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = summarize(measure(args.python.absolute(), args.rounds))
    if args.json:
        print(json.dumps(rows))
    else:
        for name, row in rows.items():
            low, high = row["quartiles_cpu_s"]
            print(
                f"  {name:26} wall {row['wall_s']:.3f} s   CPU {row['cpu_s']:.3f} s   "
                f"CPU above empty {row['above_empty_cpu_s']:+.3f} s ({low:+.3f} to {high:+.3f})"
            )
    too_slow = args.limit_s is not None and any(r["cpu_s"] > args.limit_s for r in rows.values())
    return 1 if too_slow else 0


def measure(python: Path, num_rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every case, one pair a round; the first round warms up."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for index in range(num_rounds + 1):
        for name, arguments in CASES.items():
            pair = run_once([str(python), *arguments])
            if index:
                samples[name].append(pair)
    return samples


def run_once(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process, away from the repository."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, cwd="/")
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return wall_s, usage.ru_utime + usage.ru_stime


def summarize(samples: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, object]]:
    """Medians, and median and quartiles of the CPU time above the empty one of the same round."""
    rows: dict[str, dict[str, object]] = {}
    for name, pairs in samples.items():
        cpu = [pair[1] for pair in pairs]
        above = [value - empty[1] for value, empty in zip(cpu, samples["empty"], strict=True)]
        low, _, high = statistics.quantiles(above, n=4)
        rows[name] = {
            "wall_s": round(statistics.median(pair[0] for pair in pairs), 4),
            "cpu_s": round(statistics.median(cpu), 4),
            "above_empty_cpu_s": round(statistics.median(above), 4),
            "quartiles_cpu_s": [round(low, 4), round(high, 4)],
        }
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
