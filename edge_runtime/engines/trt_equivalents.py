"""The same build as a command line of trtexec and of Polygraphy, to cross-check ours with theirs.

They are for an engineer at the device or a workstation with the same TensorRT; the camera needs
neither. What they time or write is not used by this program.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edge_runtime.engines.trt_recipe import EngineRecipe
from edge_runtime.engines.trt_table import window_for

__all__ = ["polygraphy_line", "trtexec_line"]

#: A flag of the builder that is set -> the option, which both tools call the same.
_SET: Mapping[str, str] = MappingProxyType({"FP16": "--fp16", "INT8": "--int8"})


def trtexec_line(recipe: EngineRecipe, *, onnx_path: Path, workspace_bytes: int) -> str:
    """Return the `trtexec` command that builds and times the same engine.

    TensorRT 11 is strongly typed without being asked.
    """
    always_strong = window_for(recipe.tensorrt_version).since >= (11, 0)
    words = [
        "trtexec",
        f"--onnx={onnx_path}",
        f"--saveEngine={_stem(recipe)}.trtexec.plan",
        f"--timingCacheFile={_stem(recipe)}.trtexec.cache",
        f"--memPoolSize=workspace:{workspace_bytes >> 20}",
        f"--builderOptimizationLevel={recipe.optimization_level}",
        "--profilingVerbosity=detailed",
        *(_SET[name] for name in recipe.set_flags),
        *(["--noTF32"] if "TF32" in recipe.cleared_flags else []),
        *(["--stronglyTyped"] if recipe.typing == "strong" and not always_strong else []),
    ]
    return shlex.join(words)


def polygraphy_line(recipe: EngineRecipe, *, onnx_path: Path, workspace_bytes: int) -> str:
    """Return the `polygraphy` command that builds the same and compares it with ONNX Runtime.

    Polygraphy clears TF32 unless told otherwise, TensorRT sets it.
    """
    words = [
        *("polygraphy", "run", str(onnx_path), "--trt", "--onnxrt"),
        *("--save-engine", f"{_stem(recipe)}.polygraphy.plan"),
        *("--pool-limit", f"workspace:{workspace_bytes >> 20}M"),
        *("--builder-optimization-level", str(recipe.optimization_level)),
        *("--profiling-verbosity", "detailed"),
        *(_SET[name] for name in recipe.set_flags),
        *([] if "TF32" in recipe.cleared_flags else ["--tf32"]),
        *(["--strongly-typed"] if recipe.typing == "strong" else []),
    ]
    return shlex.join(words)


def _stem(recipe: EngineRecipe) -> str:
    return f"{recipe.precision}-{recipe.tensorrt_version}"
