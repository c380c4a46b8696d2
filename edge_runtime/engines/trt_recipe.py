"""What will be built from a bundle for one TensorRT version: decided before any build, and hashed.

A recipe is pure data, made without TensorRT: `edge-screen engine build --dry-run --for-version`
prints it on any machine. Together with the device it is the key of the engine cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.bundle import MODEL_FILES
from edge_runtime.engines.trt_device import DeviceIdentity
from edge_runtime.engines.trt_table import TRT_PRECISIONS, variant_for
from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.strict_json import JsonValue, canonical_sha256, dataclass_to_dict

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["OPTIMIZATION_LEVEL", "EngineRecipe", "cache_key", "make_recipe"]

#: TensorRT's own default, written down so that a changed default changes the key.
OPTIMIZATION_LEVEL = 3
_RECIPE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class EngineRecipe:
    """Everything that decides what an engine computes and how fast, except the device.

    Attributes:
        recipe_version: Changes when this program builds differently from the same settings.
        tensorrt_version: Full version of the binding, e.g. "10.3.0".
        precision: "fp32", "fp16" or "int8", as it was asked for.
        typing: "weak" or "strong".
        role: Role of the file in the bundle, e.g. "int8_fp16".
        onnx_sha256: Of the file's bytes.
        network_flags: Names of `NetworkDefinitionCreationFlag`.
        set_flags: Names of `BuilderFlag` that are set, `cleared_flags` those that are cleared.
        optimization_level: 0 to 5.
        input_shape: (1, S, S, 3), uint8 RGB: minimum, optimum and maximum of the one profile.
        num_labels: L, the length of the output `logits`.
        int8_fingerprint: Of the images that the INT8 ranges came from; null without INT8.
    """

    recipe_version: int
    tensorrt_version: str
    precision: str
    typing: str
    role: str
    onnx_sha256: str
    network_flags: tuple[str, ...]
    set_flags: tuple[str, ...]
    cleared_flags: tuple[str, ...]
    optimization_level: int
    input_shape: tuple[int, ...]
    num_labels: int
    int8_fingerprint: str | None

    @property
    def file(self) -> str:
        """Name of the file in the bundle."""
        return MODEL_FILES[self.role]

    def to_dict(self) -> dict[str, JsonValue]:
        """Return plain JSON types; `strict_json.read_dataclass` is the inverse."""
        return dict(dataclass_to_dict(self))


def make_recipe(
    bundle: Bundle, *, tensorrt_version: str, precision: str
) -> tuple[EngineRecipe, tuple[str, ...]]:
    """Decide what is built from a verified bundle.

    Returns:
        The recipe, and notes that a person must see (a file that had to stand in for another).

    Raises:
        ConfigError: The precision is unknown.
        EngineError: The version is unknown, or cannot have this precision.
        BundleFormatError: The bundle has none of the files that could serve.
    """
    if precision not in TRT_PRECISIONS:
        words = ", ".join(TRT_PRECISIONS)
        raise ConfigError(f"precision is {precision!r}; TensorRT engines have {words}")
    variant = variant_for(tensorrt_version, precision)
    role = _first_present(bundle, variant.roles)
    manifest = bundle.manifest
    size_px = manifest.preprocess_spec().size_px
    record = manifest.int8 if precision == "int8" else None
    recipe = EngineRecipe(
        recipe_version=_RECIPE_VERSION,
        tensorrt_version=tensorrt_version,
        precision=precision,
        typing=variant.typing,
        role=role,
        onnx_sha256=hashlib.sha256(bundle.contents[MODEL_FILES[role]]).hexdigest(),
        network_flags=variant.network_flags,
        set_flags=variant.set_flags,
        cleared_flags=variant.cleared_flags,
        optimization_level=OPTIMIZATION_LEVEL,
        input_shape=(1, size_px, size_px, 3),
        num_labels=len(manifest.labels),
        int8_fingerprint=None if record is None else record.fingerprint,
    )
    return recipe, (variant.fallback_note,) if role != variant.roles[0] else ()


def cache_key(recipe: EngineRecipe, device: DeviceIdentity) -> str:
    """Return the SHA-256 under which an engine is kept: recipe, compute capability, device name."""
    return canonical_sha256({"recipe": recipe.to_dict(), "device": dataclass_to_dict(device)})


def _first_present(bundle: Bundle, roles: tuple[str, ...]) -> str:
    """Return the first role whose file the bundle has; a role may be newer than this program."""
    for role in roles:
        if MODEL_FILES.get(role) in bundle.contents:
            return role
    names = ", ".join(MODEL_FILES[role] for role in roles if role in MODEL_FILES)
    raise BundleFormatError(f"the bundle has none of {names}; run `edge-screen calibrate` on it")
