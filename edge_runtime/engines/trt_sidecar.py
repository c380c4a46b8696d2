"""The JSON file beside every plan: what it is, how it was made, and how to tell it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge_runtime.engines.trt_device import DeviceIdentity
from edge_runtime.engines.trt_recipe import EngineRecipe
from edge_runtime.strict_json import dataclass_to_dict, parse_json_object, read_dataclass
from edge_runtime.value_rules import require, require_count, require_sha256

__all__ = ["SIDECAR_VERSION", "Sidecar", "TensorSpec"]

SIDECAR_VERSION = 1


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


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """All that is known about one plan.

    Attributes:
        sidecar_version: Schema of this file.
        key: Key of the cache: recipe and device.
        bundle_sha256: The bundle that the graph came from.
        recipe: What was built and how.
        device: Where.
        plan_sha256: Of the plan's bytes; the plan is used only when it fits.
        plan_bytes: Size of the plan.
        tensors: Inputs, then outputs.
        workspace_bytes: Limit of the builder's workspace.
        timing_cache_was_warm: Whether earlier timings were at hand.
        build_s: Duration of the build.
        built_at: UTC, ISO 8601.
        notes: What a person must be told whenever the plan is used.
        log: The builder's messages down to INFO, the last ones where there were too many.
        num_log_lines_dropped: How many were too many.
    """

    sidecar_version: int
    key: str
    bundle_sha256: str
    recipe: EngineRecipe
    device: DeviceIdentity
    plan_sha256: str
    plan_bytes: int
    tensors: tuple[TensorSpec, ...]
    workspace_bytes: int
    timing_cache_was_warm: bool
    build_s: float
    built_at: str
    notes: tuple[str, ...]
    log: tuple[str, ...]
    num_log_lines_dropped: int

    def __post_init__(self) -> None:
        """Refuse another schema and what cannot be a hash or a size."""
        version = self.sidecar_version
        require(version == SIDECAR_VERSION, "sidecar_version", version, f"{SIDECAR_VERSION}")
        for name in ("key", "bundle_sha256", "plan_sha256"):
            require_sha256(name, getattr(self, name))
        require_count("plan_bytes", self.plan_bytes)

    def to_bytes(self) -> bytes:
        """Return the file's content; `from_bytes` is its inverse."""
        text = json.dumps(dataclass_to_dict(self), indent=1, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str) -> Sidecar:
        """Read a file's content.

        Raises:
            BundleFormatError: It is damaged, or written by another version of this program.
        """
        return read_dataclass(cls, parse_json_object(data, name=name))
