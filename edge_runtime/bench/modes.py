"""Ways to measure besides one picture after another: many at once, after a pause, cold, for hours.

Every mode returns raw samples by series and figures by name. A sample is the whole of
`Screener.screen` on bytes in memory, except in a cold start, where it is a whole process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.bench.latencies import summarize
from edge_runtime.bench.process_memory import num_descriptors, peak_resident_mib, resident_mib
from edge_runtime.bench.stages import screen_for_bench
from edge_runtime.errors import EngineError, ImageUnreadableError
from edge_runtime.screener import Screener

__all__ = [
    "MODE_REGIONS",
    "ModeResult",
    "measure_cold_start",
    "measure_idle_gap",
    "measure_soak",
    "measure_throughput",
]

_SOAK_WINDOWS = 10
_ONE_EYE = (
    "one eye, from the file's bytes in memory to the typed result, without start-up, disk and JSON"
)
#: Mode -> what is inside one sample.
MODE_REGIONS: Mapping[str, str] = {
    "throughput": f"`latency`: {_ONE_EYE}, while the other workers screen theirs; images_per_s "
    "counts the wall time of a whole round",
    "idle-gap": f"`first`: {_ONE_EYE}, right after a pause; `next`: the same picture once more",
    "cold-start": "a whole process of `edge-screen screen --json`, from its start to its first "
    "line: interpreter, imports, verification of the bundle, session, reading the file, one eye, "
    "JSON; files in the page cache",
    "soak": f"`latency`: {_ONE_EYE}, one after another without a pause",
}


@dataclass(frozen=True, kw_only=True)
class ModeResult:
    """What a mode measured.

    Attributes:
        samples_ms: series -> samples in the order taken.
        figures: single numbers by name, unit in the name; None is 'not available'.
    """

    samples_ms: Mapping[str, Sequence[float]]
    figures: Mapping[str, Any]


def measure_throughput(
    screener: Screener,
    images: Sequence[bytes],
    *,
    repeats: int,
    warmup: int,
    num_workers: int,
    progress: Callable[[int], None] | None = None,
) -> ModeResult:
    """Screen the pictures with worker threads that share the engine.

    A round gives every worker all the pictures, so that none idles at its end for long.

    Raises:
        ImageUnreadableError: a picture does not reach the model.
    """
    work = [(i, data) for i, data in enumerate(images)] * num_workers
    latencies: list[float] = []
    rates: list[float] = []

    def one(item: tuple[int, bytes]) -> float:
        return _timed_ms(screener, item[1], item[0])

    with ThreadPoolExecutor(num_workers) as pool:
        for number in range(-warmup, repeats):
            started = time.perf_counter()
            found = list(pool.map(one, work))
            seconds = time.perf_counter() - started
            if number >= 0:
                latencies += found
                rates.append(len(work) / seconds)
            _tick(progress)
    low, middle, high = (round(float(v), 2) for v in np.quantile(rates, (0.25, 0.5, 0.75)))
    figures = {
        "images_per_s": middle,
        "images_per_s_quartiles": [low, high],
        "images_per_s_of_rounds": [round(rate, 3) for rate in rates],
        "peak_resident_mib": peak_resident_mib(),
    }
    return ModeResult(samples_ms={"latency": latencies}, figures=figures)


def measure_idle_gap(
    screener: Screener,
    images: Sequence[bytes],
    *,
    gap_s: float,
    count: int,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int], None] | None = None,
) -> ModeResult:
    """Pause, screen one picture, and at once the same again: what the pause cost.

    Raises:
        ImageUnreadableError: a picture does not reach the model.
    """
    first: list[float] = []
    again: list[float] = []
    for index, data in enumerate(images):
        _timed_ms(screener, data, index)  # neither pays for what happens only once
    for number in range(count):
        index = number % len(images)
        sleep(gap_s)
        first.append(_timed_ms(screener, images[index], index))
        again.append(_timed_ms(screener, images[index], index))
        _tick(progress)
    ratio = float(np.median(np.asarray(first) / np.asarray(again)))
    figures = {
        "first_over_next": round(ratio, 3),
        "peak_resident_mib": peak_resident_mib(),
    }
    return ModeResult(samples_ms={"first": first, "next": again}, figures=figures)


def measure_soak(
    screener: Screener,
    images: Sequence[bytes],
    *,
    minutes: float,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] | None = None,
) -> ModeResult:
    """Screen without a pause and see what grows: memory, descriptors, the slowest picture.

    The first tenth of the time is the first window, in which caches fill; growth is counted from
    its end.

    Raises:
        ImageUnreadableError: a picture does not reach the model.
    """
    windows: list[list[float]] = []
    resident: list[float | None] = []
    descriptors: list[int | None] = []
    started, number = clock(), 0
    for window in range(1, _SOAK_WINDOWS + 1):
        latencies: list[float] = []
        while not latencies or clock() - started < 60 * minutes * window / _SOAK_WINDOWS:
            index = number % len(images)
            latencies.append(_timed_ms(screener, images[index], index))
            number += 1
        windows.append(latencies)
        resident.append(resident_mib())
        descriptors.append(num_descriptors())
        _tick(progress)
    p99 = [summarize(window).p99_ms for window in windows]
    figures = {
        "num_images": number,
        "resident_mib_of_windows": resident,
        "resident_growth_mib": _growth(resident),
        "descriptors_of_windows": descriptors,
        "descriptor_growth": _growth(descriptors),
        "p99_ms_of_windows": p99,
        "p99_last_over_first": round(p99[-1] / p99[0], 3),
        "peak_resident_mib": peak_resident_mib(),
    }
    return ModeResult(samples_ms={"latency": [v for w in windows for v in w]}, figures=figures)


def measure_cold_start(
    arguments: Sequence[str],
    *,
    count: int,
    progress: Callable[[int], None] | None = None,
) -> ModeResult:
    """Start `edge-screen screen` anew `count` times and take the time to its first result.

    One start before the first is not counted: it brings the files into the page cache.

    Args:
        arguments: Of `screen`: bundle, one picture, options; `--json` is added.
        count: How many counted starts.
        progress: Called with 1 after every start.

    Raises:
        EngineError: The process printed no result.
        ImageUnreadableError: The picture does not reach the model.
    """
    command = [sys.executable, "-m", "edge_runtime", "screen", *arguments, "--json"]
    samples = []
    for number in range(-1, count):
        value_ms = _cold_ms(command)
        if number >= 0:
            samples.append(value_ms)
        _tick(progress)
    figures = {"peak_resident_mib_of_a_process": _children_peak_mib()}
    return ModeResult(samples_ms={"cold_start": samples}, figures=figures)


def _cold_ms(command: Sequence[str]) -> float:
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        value_ms = (time.perf_counter() - started) * 1e3
        _, stderr = child.communicate()
    if not line:
        words = stderr.decode("utf-8", errors="replace").strip().splitlines() or ["no message"]
        raise EngineError(f"a fresh process printed no result ({words[-1]}); run `screen` by hand")
    eye = json.loads(line)["eyes"][0]
    if not eye["fields"][0]["labels"]:
        raise ImageUnreadableError(
            f"bench picture 1 does not reach the model ({', '.join(eye['reasons'])}); "
            "give a gradable fundus photograph"
        )
    return value_ms


def _children_peak_mib() -> float | None:
    """Return the largest resident set of any child so far, in MiB; None where nobody says."""
    try:
        import resource
    except ImportError:  # not on every system
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / 1024, 1) if sys.platform.startswith("linux") else None


def _timed_ms(screener: Screener, data: bytes, index: int) -> float:
    started = time.perf_counter()
    screen_for_bench(screener, data, index)
    return (time.perf_counter() - started) * 1e3


def _growth(values: Sequence[float | None]) -> float | None:
    first, last = values[0], values[-1]
    return None if first is None or last is None else round(last - first, 1)


def _tick(progress: Callable[[int], None] | None) -> None:
    if progress is not None:
        progress(1)
