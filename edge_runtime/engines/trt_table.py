"""Which graph, typing and flags serve which TensorRT version and precision: one table, no guessing.

    TensorRT         fp32                   fp16                    int8
    8.6              weak, fp32 file        weak, fp32 file, FP16   weak, int8 file, INT8 + FP16
    10.0 to 10.11    the same               the same                the same
    10.12 to 10.x    strong, fp32 file      weak, fp32 file, FP16   strong, int8fp16 file, else int8
    11.x             strong, fp32 file      refused                 strong, int8fp16 file, else int8

A weakly typed network lets TensorRT choose the precision of a layer among those whose flags are
set; a strongly typed one computes in the types that the graph states. Names stand for themselves
here and become integers only through the installed binding (`trt_capabilities`), because the
integers moved between versions. TensorRT 11 has no precision flag at all, so that FP16 would need
a graph in float16, which a bundle does not carry. INT8 Q/DQ in a strongly typed network without
float16 in the graph is valid, but the layers between run in FP32: said aloud as a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edge_runtime.errors import EngineError

__all__ = ["TRT_PRECISIONS", "WINDOWS", "Refused", "Variant", "Window", "variant_for", "window_for"]

TRT_PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How one precision is built.

    Attributes:
        roles: Files of the bundle by role, best first; the first that the bundle has is built.
        typing: "weak" or "strong".
        network_flags: Members of `NetworkDefinitionCreationFlag` to set.
        set_flags: Members of `BuilderFlag` to set.
        cleared_flags: Members of `BuilderFlag` to clear; TF32 is on unless cleared.
        fallback_note: What to say when a later role than the first is built.
    """

    roles: tuple[str, ...]
    typing: str
    network_flags: tuple[str, ...] = ()
    set_flags: tuple[str, ...] = ()
    cleared_flags: tuple[str, ...] = ()
    fallback_note: str = ""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A precision that a version cannot have, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Window:
    """Versions from `since` on and below `below`, as (major, minor), with what they build."""

    since: tuple[int, int]
    below: tuple[int, int]
    variants: Mapping[str, Variant | Refused]


_EXPLICIT = ("EXPLICIT_BATCH",)
_STRONG = ("STRONGLY_TYPED",)
_INT8_STRONG = Variant(
    roles=("int8_fp16", "int8"),
    typing="strong",
    network_flags=_STRONG,
    fallback_note="the bundle has no model.int8fp16.onnx, so model.int8.onnx is built: the layers "
    "outside the INT8 ones run in FP32 or TF32 instead of FP16, which is slower, not less exact",
)
_FP32_STRONG = Variant(
    roles=("fp32",), typing="strong", network_flags=_STRONG, cleared_flags=("TF32",)
)


def _weak(role: str, flags: tuple[str, ...], network_flags: tuple[str, ...] = ()) -> Variant:
    cleared = () if flags else ("TF32",)  # what is called FP32 is FP32, not a 10-bit mantissa
    return Variant(
        roles=(role,),
        typing="weak",
        network_flags=network_flags,
        set_flags=flags,
        cleared_flags=cleared,
    )


def _variants(**rows: Variant | Refused) -> Mapping[str, Variant | Refused]:
    return MappingProxyType(rows)


WINDOWS = (
    Window(
        since=(8, 6),
        below=(9, 0),
        variants=_variants(
            fp32=_weak("fp32", (), _EXPLICIT),
            fp16=_weak("fp32", ("FP16",), _EXPLICIT),
            int8=_weak("int8", ("FP16", "INT8"), _EXPLICIT),
        ),
    ),
    Window(
        since=(10, 0),
        below=(10, 12),
        variants=_variants(
            fp32=_weak("fp32", ()),
            fp16=_weak("fp32", ("FP16",)),
            int8=_weak("int8", ("FP16", "INT8")),
        ),
    ),
    Window(
        since=(10, 12),
        below=(11, 0),
        variants=_variants(fp32=_FP32_STRONG, fp16=_weak("fp32", ("FP16",)), int8=_INT8_STRONG),
    ),
    Window(
        since=(11, 0),
        below=(12, 0),
        variants=_variants(
            fp32=_FP32_STRONG,
            fp16=Refused(
                reason="TensorRT 11 has no FP16 flag, it takes every type from the graph, and the "
                "bundle has no FP16 graph; build int8 or fp32"
            ),
            int8=_INT8_STRONG,
        ),
    ),
)


def window_for(version: str) -> Window:
    """Return the row of a version such as "10.3" or "10.16.1.11".

    Raises:
        EngineError: Not a version, or one that no row covers.
    """
    match = re.match(r"(\d+)\.(\d+)(?:$|[.a-z])", version)
    if match is None:
        raise EngineError(f"TensorRT version {version!r} is not of the form 10.3 or 10.3.0")
    number = int(match.group(1)), int(match.group(2))
    for window in WINDOWS:
        if window.since <= number < window.below:
            return window
    raise EngineError(
        f"TensorRT {version} is outside the versions that this program knows: 8.6, and 10.0 to "
        "11.x; JetPack 6.0 or newer brings one of them (JetPack 5 is not supported)"
    )


def variant_for(version: str, precision: str) -> Variant:
    """Return how `precision` ("fp32", "fp16" or "int8") is built with a version.

    Raises:
        EngineError: The version is unknown, or it cannot have this precision.
    """
    variant = window_for(version).variants[precision]
    if isinstance(variant, Refused):
        raise EngineError(f"no {precision} engine with TensorRT {version}: {variant.reason}")
    return variant
