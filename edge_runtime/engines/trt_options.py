"""Every setting of running a TensorRT engine, with the reason for its default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_runtime.engines.cuda_memory import BINDINGS, MEMORY_KINDS, WAITS
from edge_runtime.errors import ConfigError

__all__ = ["TrtOptions"]


@dataclass(frozen=True, kw_only=True)
class TrtOptions:
    """How an engine is run; what it computes is decided when it is built.

    Attributes:
        binding: Python package for CUDA: "auto", "cuda-python" or "pycuda".
        memory: "auto", "mapped" or "copy", see `edge_runtime.engines.cuda_memory`.
        wait: "blocking" leaves the CPU to the rest of the camera while the GPU works; "spin"
            keeps a core busy and answers with less jitter.
        cuda_graph: Replay one recorded graph instead of enqueueing every kernel anew. False
            accepts plain enqueueing without a warning.
        warmup_runs: Runs on a grey picture while opening; the first calls of a new engine are ten
            to thirty times slower than the later ones.
        keep_warm_s: Run the engine once after every so many seconds without a picture, because
            clocks fall when the GPU is idle (after about 10 s); None lets it rest. Costs energy.
        max_waiting: Calls that may wait behind the one that runs; more are refused at once.
        run_timeout_s: After this time a caller gets an error instead of waiting on.
        open_timeout_s: The same for opening and for closing.
    """

    binding: str = "auto"
    memory: str = "auto"
    wait: str = "blocking"
    cuda_graph: bool = True
    warmup_runs: int = 10
    keep_warm_s: float | None = None
    max_waiting: int = 16
    run_timeout_s: float = 10.0
    open_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse unknown words and numbers out of range."""
        for name, known in (("binding", BINDINGS), ("memory", MEMORY_KINDS), ("wait", WAITS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; use one of {known}")
        for name, low, high in (("warmup_runs", 1, 1000), ("max_waiting", 1, 1000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; use {low} to {high}")
        for name in ("keep_warm_s", "run_timeout_s", "open_timeout_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ConfigError(f"{name} is {value}; give seconds above 0")
