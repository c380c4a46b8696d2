"""How long every layer of an engine takes, for engineers; not how the camera runs.

TensorRT reports layer times only for plain enqueueing and slows the run down while it does so:
read the shares, and take the latency from `edge-screen bench`. Names are those that TensorRT gave
the fused layers when it built the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.engines.trt_open import load_plan, plan_details
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.engines.trt_session import TrtSession
from edge_runtime.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["LayerProfile", "LayerTime", "profile_layers"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer over all runs; `share` is its part of the sum of means, 0..1."""

    name: str
    p50_ms: float
    mean_ms: float
    share: float


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """Every layer in the engine's order, and what it ran on."""

    precision: str
    num_runs: int
    sum_of_means_ms: float
    details: Mapping[str, str]
    layers: tuple[LayerTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of `edge-screen bench --layers`."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def profile_layers(
    bundle: Bundle,
    *,
    precision: str = "int8",
    cache_dir: Path | None = None,
    num_runs: int = 50,
    options: TrtOptions | None = None,
) -> LayerProfile:
    """Run the first golden picture and collect the time of every layer.

    The calling thread owns the device for the length of the call.

    Args:
        bundle: Verified and signed, with its engine built.
        precision: "int8", "fp16" or "fp32".
        cache_dir: Root of the engine cache; None: the default.
        num_runs: Runs that are counted, after those that warm up.
        options: How to run it; a graph is not used.

    Raises:
        ConfigError: `num_runs` is not positive.
        EngineError: The engine is not built or fails, or TensorRT reports no layer.
    """
    if num_runs < 1:
        raise ConfigError(f"num_runs is {num_runs}; use 1 or more")
    loaded = load_plan(bundle, precision=precision, cache_dir=cache_dir)
    times: dict[str, list[float]] = {}
    session = TrtSession(
        loaded.plan,
        size_px=bundle.manifest.preprocess_spec().size_px,
        num_labels=len(bundle.manifest.labels),
        options=options or TrtOptions(),
        profiler=lambda trt: _make_profiler(trt, times),
    )
    try:
        facts = session.open()
        times.clear()  # the warm-up
        for _ in range(num_runs):
            session.run(bundle.golden().image_nhwc[:1])
    finally:
        session.close()
    return _summary(times, precision, num_runs, {**plan_details(loaded), **facts.details})


def _make_profiler(trt: Any, times: dict[str, list[float]]) -> Any:
    class LayerTimes(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(float(ms))

    return LayerTimes()


def _summary(
    times: dict[str, list[float]], precision: str, num_runs: int, details: Mapping[str, str]
) -> LayerProfile:
    if not times:
        raise EngineError("TensorRT reported no layer; build the engine again and report this")
    means = {name: float(np.mean(values)) for name, values in times.items()}
    total = sum(means.values())
    layers = tuple(
        LayerTime(
            name=name,
            p50_ms=round(float(np.median(values)), 5),
            mean_ms=round(means[name], 5),
            share=round(means[name] / total, 5) if total > 0.0 else 0.0,
        )
        for name, values in times.items()
    )
    return LayerProfile(
        precision=precision,
        num_runs=num_runs,
        sum_of_means_ms=round(total, 5),
        details=details,
        layers=layers,
    )
