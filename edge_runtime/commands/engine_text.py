"""Text for people from the results of the `edge-screen engine` commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.engines.io_contract import INPUT_NAME
from edge_runtime.engines.trt_dry_run import PlannedEngine
from edge_runtime.engines.trt_inventory import Cleared, ListedEngine
from edge_runtime.engines.trt_plan import LoadedPlan
from edge_runtime.engines.trt_recipe import EngineRecipe
from edge_runtime.reports.result_words import printable

__all__ = ["built_text", "cleared_text", "list_text", "planned_text"]


def planned_text(planned: PlannedEngine) -> str:
    """Return what `edge-screen engine build --dry-run` prints."""
    device, key = planned.device, planned.key
    where = "not known here"
    if device is not None:
        where = f"{device.name}, compute capability {device.compute_capability}"
    state = {
        True: "already there",
        False: "would be built",
        None: "whether it is kept already, only the device with its TensorRT knows",
    }
    lines = [
        "dry run: nothing is built",
        f"bundle     {planned.bundle_name} {planned.bundle_version}, "
        f"SHA-256 {planned.bundle_sha256[:16]}...",
        f"device     {where}",
        *_recipe_lines(planned.recipe),
        f"workspace  {planned.workspace_bytes >> 20} MiB, from the memory that is free now",
        f"cache      {planned.cache_dir}",
        f"engine     {'-' if key is None else key[:16] + '...'}: {state[planned.cached]}",
        *(f"note       {note}" for note in planned.notes),
        "the same with other tools, for cross-checking:",
        f"  {planned.trtexec}",
        f"  {planned.polygraphy}",
    ]
    return "\n".join(map(printable, lines))


def built_text(loaded: LoadedPlan) -> str:
    """Return what `edge-screen engine build` prints at its end."""
    device = loaded.device
    lines = [
        "built" if loaded.was_built else "nothing to do: the engine is there and whole",
        f"device     {device.name}, compute capability {device.compute_capability}",
        *_recipe_lines(loaded.recipe),
        f"plan       {loaded.path}, {len(loaded.plan) / (1 << 20):.1f} MiB",
        f"sidecar    {loaded.path.with_suffix('.json')}, with the builder's log",
        *(f"note       {message}" for message in loaded.messages),
    ]
    return "\n".join(map(printable, lines))


def list_text(root: Path, engines: Sequence[ListedEngine]) -> str:
    """Return what `edge-screen engine list` prints."""
    lines = [f"cache {root}: {len(engines)} engine(s)"]
    for one in engines:
        side = one.sidecar
        size = f"{one.num_bytes / (1 << 20):7.1f} MiB"
        if side is None:
            lines.append(f"  {size}  NOT USED: {one.problem}")
            continue
        recipe = side.recipe
        lines.append(
            f"  {size}  {recipe.precision:<5} {recipe.typing:<6} {recipe.file:<20} "
            f"TensorRT {recipe.tensorrt_version:<11} {side.device.name}  "
            f"bundle {side.bundle_sha256[:16]}  built {side.built_at} in {side.build_s:.0f} s"
        )
    return "\n".join(map(printable, lines))


def cleared_text(root: Path, cleared: Cleared) -> str:
    """Return what `edge-screen engine clear` prints."""
    return f"cache {root}: removed {cleared.num_files} file(s), {cleared.num_bytes >> 20} MiB"


def _recipe_lines(recipe: EngineRecipe) -> list[str]:
    changes = [*(f"{name} on" for name in recipe.set_flags)]
    changes += [f"{name} off" for name in recipe.cleared_flags]
    fingerprint = recipe.int8_fingerprint
    return [
        f"TensorRT   {recipe.tensorrt_version}, {recipe.precision}, {recipe.typing}ly typed",
        f"file       {recipe.file}, SHA-256 {recipe.onnx_sha256[:16]}...",
        f"network    {', '.join(recipe.network_flags) or 'no flags'}",
        f"builder    {', '.join(changes) or 'no flags'}, level {recipe.optimization_level}",
        f"profile    {INPUT_NAME} uint8 {recipe.input_shape}, the only shape",
        *([f"INT8       ranges from images {fingerprint[:16]}..."] if fingerprint else []),
    ]
