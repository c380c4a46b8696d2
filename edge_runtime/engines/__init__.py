"""Inference engines: one small protocol, and the only place where an engine is chosen.

An engine takes the preprocessed picture as it is, uint8 (1, S, S, 3) RGB, because the
normalisation lies inside the ONNX graph. There is no fallback: an engine that was asked for and
cannot run is an `EngineError`, never another engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge_runtime.engines.ort_providers import find_provider
from edge_runtime.errors import ConfigError, EngineNotBuiltError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edge_runtime.bundle import Bundle
    from edge_runtime.engines.trt_options import TrtOptions

__all__ = [
    "ENGINES",
    "MAX_CALLERS",
    "PRECISIONS",
    "TENSORRT_PRECISIONS",
    "Engine",
    "EngineFacts",
    "ModelOutput",
    "has_tensorrt",
    "open_engine",
]

ENGINES = ("auto", "onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "int8")  # of every engine
TENSORRT_PRECISIONS = ("fp32", "fp16", "int8")
MAX_CALLERS = 64  # more threads than any camera has cores; an engine may allow fewer


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelOutput:
    """What one run returns: float32 arrays that belong to the caller.

    Attributes:
        logits: (L,) one logit a disease, in the manifest's order.
        gradability_logit: Logit of 'gradable'.
        embedding: (D,) pooled features.
        evidence: (L, h, w) class evidence before pooling, in logits.
    """

    logits: NDArray[np.float32]
    gradability_logit: float
    embedding: NDArray[np.float32]
    evidence: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What an engine runs on; goes into every result, so that a figure can be traced.

    Attributes:
        details: Texts by name: versions, the GPU, the kind of memory, why this engine.
        warnings: What it had to do without, for whoever reads the results.
    """

    details: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def with_more(self, details: Mapping[str, str], warnings: tuple[str, ...] = ()) -> EngineFacts:
        """Return these facts followed by others."""
        return EngineFacts(
            details={**self.details, **details}, warnings=(*self.warnings, *warnings)
        )


class Engine(Protocol):
    """Something that runs the graph of a bundle; `run` may be called from several threads."""

    @property
    def name(self) -> str:
        """Name of the engine, as the result JSON carries it."""

    @property
    def precision(self) -> str:
        """One of "fp32", "fp16" and "int8"."""

    @property
    def facts(self) -> EngineFacts:
        """What it runs on, and what it had to do without."""

    @property
    def max_callers(self) -> int:
        """How many threads may call `run` at the same time without one being refused."""

    def run(self, image_nhwc: NDArray[np.uint8], *, timeout_s: float | None = None) -> ModelOutput:
        """Run one picture, uint8 (1, S, S, 3) RGB.

        `timeout_s` is how long the caller wants to wait; an engine that cannot stop waiting
        answers later. Raises EngineError when it fails, EngineBusyError when it is late.
        """

    def close(self) -> None:
        """Release the engine; a later `run` raises EngineError."""


def open_engine(
    bundle: Bundle,
    *,
    engine: str = "auto",
    precision: str = "int8",
    num_threads: int = 1,
    cache_dir: Path | None = None,
    tensorrt: TrtOptions | None = None,
    provider: str = "cpu",
) -> Engine:
    """Open the engine that was asked for on the verified bytes of the bundle.

    "auto" is TensorRT where it is installed and an engine of this bundle was built here, and ONNX
    Runtime otherwise; which and why is in `facts.details["chosen"]`, and a TensorRT without a
    built engine is a warning. A TensorRT that is installed and broken is an error, also for
    "auto": a device that has a fault must not hide it by being slower.

    Args:
        bundle: Verified bundle.
        engine: "auto", "onnxruntime" or "tensorrt". Nothing runs in the place of what is named.
        precision: "int8", "fp32", or "fp16" (TensorRT only).
        num_threads: Threads inside one run of ONNX Runtime; more than 1 rarely pays (screen in
            threads instead).
        cache_dir: Root of the engine cache; None: see `trt_cache.cache_root`.
        tensorrt: How to run a TensorRT engine; None: the defaults of `TrtOptions`.
        provider: Execution provider of ONNX Runtime: "cpu", "cuda" or "tensorrt". The last two
            need `engine="onnxruntime"`, and nothing runs in their place.

    Raises:
        ConfigError: If an argument is unknown or out of range.
        EngineError: If the engine cannot be opened.
        EngineNotBuiltError: If "tensorrt" has no engine for this bundle yet.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}; use one of {', '.join(ENGINES)}")
    if precision not in TENSORRT_PRECISIONS:
        words = ", ".join(TENSORRT_PRECISIONS)
        raise ConfigError(f"precision is {precision!r}; use one of {words}")
    if not 1 <= num_threads <= 64:
        raise ConfigError(f"num_threads is {num_threads}; use 1 to 64")
    if not find_provider(provider).is_cpu and engine != "onnxruntime":
        raise ConfigError(
            f"provider {provider!r} is one of ONNX Runtime and engine is {engine!r}; use engine "
            "'onnxruntime' with it"
        )
    if engine == "onnxruntime":
        return _open_onnxruntime(bundle, precision, num_threads, EngineFacts(), provider)
    if engine == "tensorrt":
        return _open_tensorrt(bundle, precision, cache_dir, tensorrt, EngineFacts())
    if not has_tensorrt():
        facts = _chosen("ONNX Runtime on the CPU, because TensorRT is not installed")
        return _open_onnxruntime(bundle, precision, num_threads, facts)
    try:
        facts = _chosen("a TensorRT engine was built here")
        return _open_tensorrt(bundle, precision, cache_dir, tensorrt, facts)
    except EngineNotBuiltError as error:
        facts = _chosen(f"ONNX Runtime on the CPU, because {error}", is_warning=True)
    return _open_onnxruntime(bundle, precision, num_threads, facts)


def _chosen(reason: str, *, is_warning: bool = False) -> EngineFacts:
    """Return what "auto" chose and why; a warning where something better was expected."""
    text = f"auto: {reason}"
    return EngineFacts(details={"chosen": text}, warnings=(text,) if is_warning else ())


def has_tensorrt() -> bool:
    """Whether TensorRT is installed; that it can be loaded is for `import_tensorrt` to say."""
    try:
        import tensorrt  # noqa: F401
    except ModuleNotFoundError as error:
        return error.name != "tensorrt"
    except Exception:  # installed and broken
        return True
    return True


def _open_tensorrt(
    bundle: Bundle,
    precision: str,
    cache_dir: Path | None,
    options: TrtOptions | None,
    facts: EngineFacts,
) -> Engine:
    from edge_runtime.engines.trt_open import open_tensorrt

    return open_tensorrt(
        bundle, precision=precision, cache_dir=cache_dir, options=options, facts=facts
    )


def _open_onnxruntime(
    bundle: Bundle, precision: str, num_threads: int, facts: EngineFacts, provider: str = "cpu"
) -> Engine:
    from edge_runtime.engines.ort import OrtEngine

    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision is {precision!r}, which ONNX Runtime does not have here; use one of "
            f"{', '.join(PRECISIONS)}, or engine 'tensorrt' with an engine built for it"
        )
    return OrtEngine(
        bundle.model_bytes(find_provider(provider).bundle_precision(precision)),
        precision=precision,
        size_px=bundle.manifest.preprocess_spec().size_px,
        num_labels=len(bundle.manifest.labels),
        num_threads=num_threads,
        provider=provider,
        facts=facts,
    )
