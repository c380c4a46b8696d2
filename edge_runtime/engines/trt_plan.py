"""From a verified bundle to the bytes of an engine: taken from the cache, or built and then kept.

    loaded = ensure_plan(bundle, cache_dir=cache_dir, precision="int8")
    for message in loaded.messages: ...      # what a person must be told
    runtime.deserialize_cuda_engine(loaded.plan)   # None is still possible and is an error

The plan's bytes were hashed in the same read that returns them. Nothing is built when a whole
entry with exactly this recipe on this device is there; any other entry is named with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.engines.trt_device import DeviceIdentity
from edge_runtime.engines.trt_recipe import EngineRecipe

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["LoadedPlan", "TensorSpec", "ensure_plan"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of an engine, as the engine itself said after it was built.

    Attributes:
        name: e.g. "image_nhwc" or "logits".
        is_input: Input or output.
        dtype: NumPy's name of the element type: "uint8", "float32", "float16", ...
        shape: Every dimension fixed; batch 1.
    """

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedPlan:
    """An engine ready to be deserialised.

    Attributes:
        plan: The serialised engine; its SHA-256 is the one in the sidecar.
        tensors: Inputs first, then outputs.
        recipe: What it was built from and how.
        device: Where it was built, which is here.
        key: Key of the cache, 64 hex digits.
        path: The plan's file; the sidecar lies beside it with the suffix .json.
        was_built: False when it came from the cache.
        messages: What a person must be told: stand-in files, stale entries, rebuilds.
    """

    plan: bytes = field(repr=False)
    tensors: tuple[TensorSpec, ...]
    recipe: EngineRecipe
    device: DeviceIdentity
    key: str
    path: Path
    was_built: bool
    messages: tuple[str, ...]


def ensure_plan(
    bundle: Bundle,
    *,
    cache_dir: Path,
    precision: str,
    device: DeviceIdentity | None = None,
    if_missing: str = "build",
    rebuild: bool = False,
    progress: Callable[[str], None] | None = None,
) -> LoadedPlan:
    """Return the engine of a verified bundle for the TensorRT and the GPU of this machine.

    Args:
        bundle: Verified; an unsigned bundle (`key_id` None) is refused.
        cache_dir: Root of the engine cache, see `trt_cache`.
        precision: "fp32", "fp16" or "int8".
        device: The GPU; asked of the driver when None.
        if_missing: "build", or "refuse" where nobody can wait for minutes.
        rebuild: Build even when a good entry is there, and replace it.
        progress: Receives one line of text at a time during a build, at least every ten seconds.

    Raises:
        ConfigError: An argument is unknown, or the cache folder is not safe to load from.
        EngineError: TensorRT is missing or does not fit, the build failed, or `if_missing` is
            "refuse" and there is no entry.
        BundleError: The bundle is unsigned or lacks a file.
    """
    raise NotImplementedError
