"""What a build would make, decided without building: for a person, and for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle import Bundle
from edge_runtime.engines.trt_build_process import workspace_limit
from edge_runtime.engines.trt_cache import EngineCache
from edge_runtime.engines.trt_capabilities import check_recipe, import_tensorrt, tensorrt_version
from edge_runtime.engines.trt_device import DeviceIdentity, read_device
from edge_runtime.engines.trt_equivalents import polygraphy_line, trtexec_line
from edge_runtime.engines.trt_recipe import EngineRecipe, cache_key, make_recipe
from edge_runtime.errors import EngineError
from edge_runtime.machine_memory import available_bytes

__all__ = ["PlannedEngine", "plan_engine"]


@dataclass(frozen=True, kw_only=True)
class PlannedEngine:
    """What a build would make, decided without building.

    Attributes:
        recipe: What would be built from which file.
        device: Where; None where there is no GPU.
        key: Key of the cache; None without a device, and for a version that was only named, since
            the key has the full version of the installed one.
        cached: Whether a whole entry is there; None without a key.
        cache_dir: Root of the cache.
        workspace_bytes: Limit of the builder's workspace with the memory that is free now.
        notes: What a person must be told.
        trtexec: Equivalent command line.
        polygraphy: Equivalent command line.
    """

    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    recipe: EngineRecipe
    file: str
    device: DeviceIdentity | None
    key: str | None
    cached: bool | None
    cache_dir: str
    workspace_bytes: int
    notes: tuple[str, ...]
    trtexec: str
    polygraphy: str


def plan_engine(
    bundle: Bundle, *, bundle_dir: Path, precision: str, cache_dir: Path, version: str | None
) -> PlannedEngine:
    """Decide what would be built.

    Args:
        bundle: Verified.
        bundle_dir: Where it lies, for the command lines of other tools.
        precision: "fp32", "fp16" or "int8".
        cache_dir: Root of the engine cache; nothing is made in it.
        version: TensorRT to plan for, which need not be installed; None takes the installed one.

    Raises:
        ConfigError: The precision is unknown.
        EngineError: The version is unknown, has no such precision, or none is installed.
        BundleFormatError: The bundle lacks the files that could serve.
    """
    if version is None:
        trt = _installed()
        recipe, notes = make_recipe(
            bundle, tensorrt_version=tensorrt_version(trt), precision=precision
        )
        check_recipe(trt, recipe)
    else:
        recipe, notes = make_recipe(bundle, tensorrt_version=version, precision=precision)
    device, more_notes = _device()
    if device is None and version is not None:
        more_notes = ("no GPU was asked: workspace and cache are those of this machine",)
    key = None if device is None or version is not None else cache_key(recipe, device)
    workspace_bytes = workspace_limit(available_bytes())
    onnx_path = bundle_dir / recipe.file
    return PlannedEngine(
        bundle_name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        bundle_sha256=bundle.sha256,
        recipe=recipe,
        file=recipe.file,
        device=device,
        key=key,
        cached=None
        if device is None or key is None
        else _is_cached(cache_dir, bundle, recipe, device),
        cache_dir=str(cache_dir),
        workspace_bytes=workspace_bytes,
        notes=(*notes, *more_notes),
        trtexec=trtexec_line(recipe, onnx_path=onnx_path, workspace_bytes=workspace_bytes),
        polygraphy=polygraphy_line(recipe, onnx_path=onnx_path, workspace_bytes=workspace_bytes),
    )


def _installed() -> Any:
    """Return TensorRT, or say that a dry run does not need it."""
    try:
        return import_tensorrt()
    except EngineError as error:
        raise EngineError(
            f"{error}; a dry run needs none when a version is named: --dry-run --for-version 10.3"
        ) from error


def _device() -> tuple[DeviceIdentity | None, tuple[str, ...]]:
    try:
        return read_device(), ()
    except EngineError as error:
        return None, (f"the key of the cache needs the device, and {error}",)


def _is_cached(root: Path, bundle: Bundle, recipe: EngineRecipe, device: DeviceIdentity) -> bool:
    cache = EngineCache(root, bundle.sha256, may_make=False)  # a dry run makes no folder
    entry, _ = cache.find(cache_key(recipe, device), recipe, device)
    return entry is not None
