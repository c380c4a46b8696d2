"""From a verified bundle to a running TensorRT engine; without a plan in the cache, an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.engines import EngineFacts
from edge_runtime.engines.trt import TrtEngine
from edge_runtime.engines.trt_cache import cache_root
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.engines.trt_plan import LoadedPlan, ensure_plan
from edge_runtime.engines.trt_session import TrtSession

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["load_plan", "open_tensorrt", "plan_details"]


def open_tensorrt(
    bundle: Bundle,
    *,
    precision: str = "int8",
    cache_dir: Path | None = None,
    options: TrtOptions | None = None,
    facts: EngineFacts | None = None,
) -> TrtEngine:
    """Open the engine that `edge-screen engine build` has built of this bundle on this machine.

    Args:
        bundle: Verified and signed.
        precision: "int8", "fp16" or "fp32".
        cache_dir: Root of the engine cache; None: see `trt_cache.cache_root`.
        options: How to run it; None: the defaults.
        facts: What the opener knows already.

    Raises:
        BundleError: The bundle is unsigned or lacks a file.
        ConfigError: The cache folder is not safe to load from.
        EngineNotBuiltError: There is no engine for this bundle, TensorRT and GPU.
        EngineError: TensorRT or CUDA refuses.
    """
    options = options or TrtOptions()
    loaded = load_plan(bundle, precision=precision, cache_dir=cache_dir)
    size_px = bundle.manifest.preprocess_spec().size_px
    session = TrtSession(
        loaded.plan,
        size_px=size_px,
        num_labels=len(bundle.manifest.labels),
        options=options,
    )
    known = (facts or EngineFacts()).with_more(plan_details(loaded), loaded.messages)
    return TrtEngine(session, precision=precision, size_px=size_px, options=options, facts=known)


def load_plan(bundle: Bundle, *, precision: str, cache_dir: Path | None) -> LoadedPlan:
    """Take the plan from the cache; a camera cannot wait for minutes while one is built."""
    return ensure_plan(
        bundle,
        cache_dir=cache_root(cache_dir),
        precision=precision,
        if_missing="refuse",
    )


def plan_details(loaded: LoadedPlan) -> dict[str, str]:
    """What a result says about the engine's origin."""
    recipe = loaded.recipe
    return {"plan": loaded.key[:16], "built_from": recipe.file, "typing": recipe.typing}
