"""Inference engines: one small protocol, and the only place where an engine is chosen.

An engine takes the preprocessed picture as it is, uint8 (1, S, S, 3) RGB, because the
normalisation lies inside the ONNX graph. There is no fallback: an engine that was asked for and
cannot run is an `EngineError`, never another engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge_runtime.errors import ConfigError, EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_runtime.bundle import Bundle

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "EngineFacts",
    "ModelOutput",
    "bundle_precision",
    "open_engine",
]

ENGINES = ("auto", "onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "int8")


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


class Engine(Protocol):
    """Something that runs the graph of a bundle; `run` may be called from several threads."""

    @property
    def name(self) -> str:
        """Name of the engine, as the result JSON carries it."""

    @property
    def precision(self) -> str:
        """Either "fp32" or "int8"."""

    @property
    def facts(self) -> EngineFacts:
        """What it runs on, and what it had to do without."""

    def run(self, image_nhwc: NDArray[np.uint8]) -> ModelOutput:
        """Run one picture, uint8 (1, S, S, 3) RGB. Raises EngineError when it fails."""

    def close(self) -> None:
        """Release the engine; a later `run` raises EngineError."""


def bundle_precision(precision: str) -> str:
    """Return the name that the bundle's files use for a precision on the CPU."""
    return {"fp32": "fp32", "int8": "int8_cpu"}[precision]


def open_engine(
    bundle: Bundle, *, engine: str = "auto", precision: str = "int8", num_threads: int = 1
) -> Engine:
    """Open the engine that was asked for on the verified bytes of the bundle.

    Args:
        bundle: Verified bundle.
        engine: "auto" (ONNX Runtime on the CPU in this version), "onnxruntime" or "tensorrt".
        precision: "int8" or "fp32".
        num_threads: Threads inside one run; more than 1 rarely pays (screen in threads instead).

    Raises:
        ConfigError: If an argument is unknown or out of range.
        EngineError: If the engine cannot be opened.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}; use one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
    if not 1 <= num_threads <= 64:
        raise ConfigError(f"num_threads is {num_threads}; use 1 to 64")
    if engine == "tensorrt":
        raise EngineError(
            "the TensorRT engine is designed but not built yet in this version, and nothing else "
            "runs in its place; use engine 'onnxruntime' (or 'auto')"
        )
    from edge_runtime.engines.ort import OrtEngine

    return OrtEngine(
        bundle.model_bytes(bundle_precision(precision)),
        precision=precision,
        size_px=bundle.manifest.preprocess_spec().size_px,
        num_labels=len(bundle.manifest.labels),
        num_threads=num_threads,
    )
