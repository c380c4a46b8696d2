"""From a verified bundle to the bytes of an engine: taken from the cache, or built and then kept.

    loaded = ensure_plan(bundle, cache_dir=cache_dir, precision="int8")
    for message in loaded.messages: ...      # what a person must be told
    runtime.deserialize_cuda_engine(loaded.plan)   # None is still possible and is an error

The plan's bytes were hashed in the same read that returns them. Nothing is built when a whole
entry with exactly this recipe on this device is there; any other entry is named with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.engines.trt_build_process import BuildResult, run_build, workspace_limit
from edge_runtime.engines.trt_cache import CacheEntry, EngineCache
from edge_runtime.engines.trt_capabilities import check_recipe, import_tensorrt, tensorrt_version
from edge_runtime.engines.trt_device import DeviceIdentity, read_device
from edge_runtime.engines.trt_recipe import EngineRecipe, cache_key, make_recipe
from edge_runtime.engines.trt_sidecar import SIDECAR_VERSION, Sidecar, TensorSpec
from edge_runtime.errors import BundleSignatureError, ConfigError, EngineError, EngineNotBuiltError
from edge_runtime.machine_memory import available_bytes

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["LoadedPlan", "TensorSpec", "ensure_plan"]


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
        EngineError: TensorRT is missing or does not fit, or the build failed.
        EngineNotBuiltError: `if_missing` is "refuse" and there is no entry.
        BundleError: The bundle is unsigned or lacks a file.
    """
    _check_request(bundle, if_missing)
    tell = progress or _say_nothing
    trt = import_tensorrt()
    version = tensorrt_version(trt)
    recipe, notes = make_recipe(bundle, tensorrt_version=version, precision=precision)
    check_recipe(trt, recipe)
    device = device or read_device()
    cache = EngineCache(cache_dir, bundle.sha256, may_make=if_missing == "build")
    key = cache_key(recipe, device)
    entry, reasons = (None, ()) if rebuild else cache.find(key, recipe, device)
    if entry is None and if_missing == "refuse":
        raise EngineNotBuiltError(_missing_text(recipe, device, reasons))
    if entry is not None:
        return _loaded(entry, was_built=False, messages=notes)
    with cache.building(tell) as work_dir:
        entry, reasons = (None, ()) if rebuild else cache.find(key, recipe, device)
        if entry is not None:  # another process has built it meanwhile
            return _loaded(entry, was_built=False, messages=notes)
        for reason in reasons:
            tell(reason)
        entry, warnings = _build(cache, bundle, recipe, device, work_dir, notes, tell)
    return _loaded(entry, was_built=True, messages=(*notes, *reasons, *warnings))


def _check_request(bundle: Bundle, if_missing: str) -> None:
    if if_missing not in ("build", "refuse"):
        raise ConfigError(f"if_missing is {if_missing!r}; use 'build' or 'refuse'")
    if bundle.key_id is None:
        raise BundleSignatureError(
            "an engine is built from a verified bundle only, and this one was read without "
            "checking its signature; sign it with `edge-screen calibrate --signing-key`"
        )


def _build(
    cache: EngineCache,
    bundle: Bundle,
    recipe: EngineRecipe,
    device: DeviceIdentity,
    work_dir: Path,
    notes: tuple[str, ...],
    tell: Callable[[str], None],
) -> tuple[CacheEntry, tuple[str, ...]]:
    """Build and keep an engine; return its entry and warnings."""
    workspace_bytes = workspace_limit(available_bytes())
    timings = cache.timings(recipe.tensorrt_version, device)
    tell(
        f"building {recipe.precision} from {recipe.file} with TensorRT {recipe.tensorrt_version} "
        f"on {device.name}, workspace {workspace_bytes >> 20} MiB; this takes minutes, once"
    )
    result = run_build(
        recipe,
        bundle.contents[recipe.file],
        work_dir=work_dir,
        workspace_bytes=workspace_bytes,
        timing_cache=timings,
        progress=tell,
    )
    sidecar = Sidecar(
        sidecar_version=SIDECAR_VERSION,
        key=cache_key(recipe, device),
        bundle_sha256=bundle.sha256,
        recipe=recipe,
        device=device,
        plan_sha256=hashlib.sha256(result.plan).hexdigest(),
        plan_bytes=len(result.plan),
        tensors=result.tensors,
        workspace_bytes=workspace_bytes,
        timing_cache_was_warm=bool(timings),
        build_s=result.build_s,
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        notes=notes,
        log=result.log,
        num_log_lines_dropped=result.num_log_lines_dropped,
    )
    path = cache.store(sidecar, result.plan)
    warnings = _keep_timings(cache, recipe, device, result)
    return CacheEntry(sidecar=sidecar, plan=result.plan, path=path), warnings


def _keep_timings(
    cache: EngineCache, recipe: EngineRecipe, device: DeviceIdentity, result: BuildResult
) -> tuple[str, ...]:
    """Keep the timings; without them only the next build is slower, so a failure is a warning."""
    try:
        cache.store_timings(recipe.tensorrt_version, device, result.timing_cache)
    except EngineError as error:
        return (f"{error}; the next build will be slower",)
    return ()


def _loaded(entry: CacheEntry, *, was_built: bool, messages: tuple[str, ...]) -> LoadedPlan:
    sidecar = entry.sidecar
    return LoadedPlan(
        plan=entry.plan,
        tensors=sidecar.tensors,
        recipe=sidecar.recipe,
        device=sidecar.device,
        key=sidecar.key,
        path=entry.path,
        was_built=was_built,
        messages=messages,
    )


def _missing_text(recipe: EngineRecipe, device: DeviceIdentity, reasons: tuple[str, ...]) -> str:
    why = "".join(f"; {reason}" for reason in reasons)
    return (
        f"there is no {recipe.precision} engine for TensorRT {recipe.tensorrt_version} on "
        f"{device.name}{why}; build it first with "
        f"`edge-screen engine build --precision {recipe.precision}`"
    )


def _say_nothing(line: str) -> None:
    """Progress that nobody asked for."""
    del line
