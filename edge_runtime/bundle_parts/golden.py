"""Golden vectors: inputs with the outputs that every machine must reproduce, in golden.npz.

Arrays of the file, G images of S x S pixels, L labels, P each of fp32 and (when the
bundle has INT8) int8_cpu:
    image_nhwc             uint8   (G, S, S, 3) RGB
    logits_P               float32 (G, L)
    gradability_logit_P    float32 (G, 1)
    encoded                uint8   (bytes of one PNG, a whole photograph)
    encoded_image_hwc      uint8   (S, S, 3), what preprocessing makes of it, bit for bit
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleFormatError, ConfigError

__all__ = ["GOLDEN_PRECISIONS", "GoldenVectors", "golden_bytes", "read_golden"]

GOLDEN_PRECISIONS = ("fp32", "int8_cpu")

_MAX_UNPACKED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class GoldenVectors:
    """Golden inputs and outputs; `logits` and `gradability_logit` are keyed by precision."""

    image_nhwc: NDArray[np.uint8]
    logits: Mapping[str, NDArray[np.float32]]
    gradability_logit: Mapping[str, NDArray[np.float32]]
    encoded: bytes
    encoded_image_hwc: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Refuse arrays whose shapes or dtypes do not fit together."""
        num_images, size_px = self._check_images()
        precisions = tuple(sorted(self.logits))
        known = "fp32" in precisions and set(precisions) <= set(GOLDEN_PRECISIONS)
        if not known or precisions != tuple(sorted(self.gradability_logit)):
            raise ConfigError(f"precisions {precisions} are not fp32 or fp32 and int8_cpu")
        num_labels = self.logits["fp32"].shape[-1]
        for name in precisions:
            _check(f"logits_{name}", self.logits[name], np.float32, (num_images, num_labels))
            gradability = self.gradability_logit[name]
            _check(f"gradability_logit_{name}", gradability, np.float32, (num_images, 1))
        shape = (size_px, size_px, 3)
        _check("encoded_image_hwc", self.encoded_image_hwc, np.uint8, shape)
        if not self.encoded:
            raise ConfigError("encoded is empty; it must hold the bytes of one PNG")

    def _check_images(self) -> tuple[int, int]:
        shape = self.image_nhwc.shape
        if len(shape) != 4 or shape[0] < 1 or shape[1] != shape[2]:
            raise ConfigError(f"image_nhwc has shape {shape}, not (G, S, S, 3)")
        _check("image_nhwc", self.image_nhwc, np.uint8, (shape[0], shape[1], shape[1], 3))
        return shape[0], shape[1]


def golden_bytes(golden: GoldenVectors) -> bytes:
    """Return the bytes of golden.npz; the same vectors give the same bytes."""
    arrays: dict[str, NDArray[Any]] = {
        "image_nhwc": golden.image_nhwc,
        "encoded": np.frombuffer(golden.encoded, np.uint8),
        "encoded_image_hwc": golden.encoded_image_hwc,
    }
    for name in sorted(golden.logits):
        arrays[f"logits_{name}"] = golden.logits[name]
        arrays[f"gradability_logit_{name}"] = golden.gradability_logit[name]
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def read_golden(
    data: bytes, *, num_images: int, num_labels: int, size_px: int, has_int8: bool
) -> GoldenVectors:
    """Read golden.npz and hold it against what the manifest says.

    Raises:
        BundleFormatError: Not an npz file, an array is missing or unknown, or a shape,
            a dtype or a value is impossible.
    """
    arrays = _load(data)
    precisions = GOLDEN_PRECISIONS if has_int8 else GOLDEN_PRECISIONS[:1]
    names = {"image_nhwc", "encoded", "encoded_image_hwc"}
    names |= {f"{kind}_{p}" for kind in ("logits", "gradability_logit") for p in precisions}
    if set(arrays) != names:
        wrong = ", ".join(sorted(set(arrays) ^ names))
        raise BundleFormatError(f"golden.npz: missing or unknown arrays: {wrong}; export again")
    try:
        _check("image_nhwc", arrays["image_nhwc"], np.uint8, (num_images, size_px, size_px, 3))
        _check("logits_fp32", arrays["logits_fp32"], np.float32, (num_images, num_labels))
        _check("encoded", arrays["encoded"], np.uint8, (arrays["encoded"].size,))
        return GoldenVectors(
            image_nhwc=arrays["image_nhwc"],
            logits=MappingProxyType({p: arrays[f"logits_{p}"] for p in precisions}),
            gradability_logit=MappingProxyType(
                {p: arrays[f"gradability_logit_{p}"] for p in precisions}
            ),
            encoded=arrays["encoded"].tobytes(),
            encoded_image_hwc=arrays["encoded_image_hwc"],
        )
    except ConfigError as error:
        raise BundleFormatError(f"golden.npz: {error}; export the bundle again") from error


def _load(data: bytes) -> dict[str, NDArray[Any]]:
    """Unpack the npz file within a size limit, without pickle."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MAX_UNPACKED_BYTES:
            raise BundleFormatError(f"golden.npz unpacks to {unpacked} bytes, over the limit")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except BundleFormatError:
        raise
    # Damaged archives make zipfile, zlib, tokenize and NumPy raise a dozen kinds, none documented.
    except Exception as error:
        raise BundleFormatError(f"golden.npz cannot be read ({error}); export again") from error


def _check(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    """Raise ConfigError unless the array has this dtype and shape and is finite."""
    if array.dtype != dtype or array.shape != shape:
        expected = f"{np.dtype(dtype).name} {shape}"
        raise ConfigError(f"{name} is {array.dtype} {array.shape}, not {expected}")
    if dtype is np.float32 and not bool(np.isfinite(array).all()):
        raise ConfigError(f"{name} holds values that are not finite")
