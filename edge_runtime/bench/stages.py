"""How long an eye takes on this machine, stage by stage, FP32 and INT8 side by side.

One engine a benchmark, so that the ratio compares precisions and nothing else; TensorRT has an
FP16 row, too, where its engine was built. All precisions are run in every round and the order
alternates, so that a busy or throttling machine slows all alike; the ratio is the median over
rounds of FP32 / INT8. Inside the timed
region: everything that `Screener.screen` does from the file's bytes in memory to the typed result.
Outside: start-up, reading the disk, making JSON.

`decode` is timed beside the pipeline, by decoding the same bytes alone at the scale that
preprocessing chose; it is a part of `preprocess` and not of `total` a second time.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.bench.latencies import StageTimes, summarize
from edge_runtime.bundle import Bundle
from edge_runtime.engines import PRECISIONS, EngineFacts, open_engine
from edge_runtime.errors import ConfigError, EngineNotBuiltError, ImageUnreadableError
from edge_runtime.eye_pipeline import STAGES
from edge_runtime.image import decode_image
from edge_runtime.opencv_floor import require_opencv
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from edge_runtime.result import NOTICE, FieldResult
from edge_runtime.screener import Screener

__all__ = ["TIMED_REGION", "BenchReport", "package_versions", "run_bench", "screen_for_bench"]

TIMED_REGION = (
    "one eye, batch 1, from the file's bytes in memory: hash, decode + preprocessing, quality "
    "gate, inference, decision, typed result; without start-up, disk and JSON. `decode` is timed "
    "alone, beside the pipeline, and is contained in `preprocess`"
)
TENSORRT_ROW = "not measured; build an engine on the device and give --engine tensorrt"

BENCH_STAGES = ("decode", *STAGES)

_Samples = dict[str, dict[str, list[float]]]  # precision -> stage -> ms, one a round and picture


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Stage times of every precision, a ratio, and what they were measured on.

    `engines` holds, by precision, what the engine says it runs on: memory, graph, versions.
    `samples_ms` holds every sample by precision and stage, a picture after another, round by round.
    """

    bundle_name: str
    bundle_version: str
    synthetic: bool
    num_images: int
    num_rounds: int
    num_warmup_rounds: int
    num_threads: int
    engine: str
    engines: Mapping[str, EngineFacts]
    stages: Mapping[str, Mapping[str, StageTimes]]
    ratio_fp32_to_int8: Mapping[str, float]
    machine: Mapping[str, str]
    samples_ms: Mapping[str, Mapping[str, Sequence[float]]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of `edge-screen bench --json`; raw samples are for `--raw`."""
        whole = asdict(self)
        del whole["samples_ms"]
        return {
            **whole,
            "timed_region": TIMED_REGION,
            "tensorrt": "measured" if self.engine == "tensorrt" else TENSORRT_ROW,
            "notice": NOTICE,
        }


def run_bench(
    bundle: Bundle,
    images: Sequence[bytes],
    *,
    repeats: int = 50,
    warmup: int = 5,
    num_threads: int = 1,
    engine: str = "onnxruntime",
    cache_dir: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> BenchReport:
    """Time the precisions of one engine on the same pictures in one process.

    Args:
        bundle: Verified, calibrated bundle.
        images: Encoded pictures; every one must pass the quality gate, because a picture that is
            refused early would make the pipeline look fast.
        repeats: Timed rounds; every round screens every picture in every precision.
        warmup: Rounds before, not counted.
        num_threads: Threads inside one run of ONNX Runtime.
        engine: "onnxruntime" or "tensorrt"; TensorRT needs its FP32 and INT8 engines built.
        cache_dir: Root of the engine cache; None: the default.
        progress: Called with 1 after every round, warm-up included.

    Raises:
        ConfigError: If there is no picture, or a count is out of range.
        EngineError: If an engine cannot be opened, or OpenCV is too old to decode with.
        ImageUnreadableError: If a picture does not reach the model.
    """
    require_opencv()
    if not images or repeats < 1 or warmup < 0:
        raise ConfigError(
            f"{len(images)} pictures, repeats {repeats}, warmup {warmup}; give at least one "
            "picture, repeats >= 1, warmup >= 0"
        )
    with ExitStack() as stack:
        screeners = _open_all(bundle, engine, num_threads, cache_dir, stack)
        precisions = tuple(screeners)
        samples: _Samples = {p: {stage: [] for stage in BENCH_STAGES} for p in precisions}
        for number in range(-warmup, repeats):
            # Alternating order: no precision always runs on another's warm caches.
            order = precisions if number % 2 == 0 else precisions[::-1]
            for precision in order:
                _one_round(screeners[precision], images, samples[precision], keep=number >= 0)
            if progress is not None:
                progress(1)
    return BenchReport(
        bundle_name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        synthetic=bundle.manifest.is_synthetic,
        num_images=len(images),
        num_rounds=repeats,
        num_warmup_rounds=warmup,
        num_threads=num_threads,
        engine=engine,
        engines={p: screener.engine.facts for p, screener in screeners.items()},
        stages={p: {s: summarize(v) for s, v in samples[p].items()} for p in precisions},
        ratio_fp32_to_int8=_ratios(samples, num_images=len(images)),
        machine=package_versions(),
        samples_ms=samples,
    )


def _open_all(
    bundle: Bundle, engine: str, num_threads: int, cache_dir: Path | None, stack: ExitStack
) -> dict[str, Screener]:
    """Open every precision that there is; `stack` closes them."""
    if engine not in ("onnxruntime", "tensorrt"):
        raise ConfigError(f"engine is {engine!r}; name 'onnxruntime' or 'tensorrt' to time it")
    optional = ("fp16",) if engine == "tensorrt" else ()
    opened: dict[str, Screener] = {}
    for precision in (*PRECISIONS, *optional):
        try:
            found = open_engine(
                bundle,
                engine=engine,
                precision=precision,
                num_threads=num_threads,
                cache_dir=cache_dir,
            )
        except EngineNotBuiltError:
            if precision not in optional:
                raise
            continue
        stack.callback(found.close)
        # What is timed decides nothing, so an unproven INT8 model may be timed.
        opened[precision] = Screener(bundle, found, allow_unproven_int8=True)
    return opened


def _one_round(
    screener: Screener, images: Sequence[bytes], samples: dict[str, list[float]], *, keep: bool
) -> None:
    for index, data in enumerate(images):
        field = screen_for_bench(screener, data, index)
        decode_ms = _decode_ms(screener.bundle, data)
        if keep:
            for stage, value_ms in {"decode": decode_ms, **field.timings_ms}.items():
                samples[stage].append(value_ms)


def screen_for_bench(screener: Screener, data: bytes, index: int) -> FieldResult:
    """Screen one picture; a picture that is refused early would make the pipeline look fast.

    Raises:
        ImageUnreadableError: It does not reach the model.
    """
    (field,) = screener.screen(data).eyes[0].fields
    if not field.labels:
        raise ImageUnreadableError(
            f"bench picture {index + 1} does not reach the model "
            f"({', '.join(field.quality.reasons)}); give a gradable fundus photograph"
        )
    return field


def _decode_ms(bundle: Bundle, data: bytes) -> float:
    """Decode once more, alone, at the scale that preprocessing ends at; return milliseconds."""
    spec = bundle.manifest.preprocess_spec()
    reduction = _reduction(data, spec)
    started = time.perf_counter()
    decode_image(data, target_px=spec.size_px, max_reduction=reduction)
    return (time.perf_counter() - started) * 1e3


@lru_cache(maxsize=64)
def _reduction(data: bytes, spec: PreprocessSpec) -> int:
    return load_for_model(data, spec)[0].reduction


def _ratios(samples: _Samples, *, num_images: int) -> dict[str, float]:
    """Median over rounds of the FP32 time over the INT8 time of the same round."""
    ratios = {}
    for stage in ("inference", "total"):
        fp32, int8 = (
            np.asarray(samples[p][stage]).reshape(-1, num_images).sum(axis=1) for p in PRECISIONS
        )
        ratios[stage] = round(float(np.median(fp32 / int8)), 3)
    return ratios


def package_versions() -> dict[str, str]:
    """Return what decodes and computes here, by name."""
    found = {"machine": platform.machine(), "python": platform.python_version()}
    for package in ("numpy", "onnxruntime", "opencv-python-headless", "simplejpeg"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed under this name"
    return found
