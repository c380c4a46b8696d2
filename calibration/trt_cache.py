"""The text that TensorRT 8 and 10 keep INT8 scales in, for builds without Q/DQ (implicit INT8).

    TRT-8601-EntropyCalibration2          version of TensorRT, algorithm
    /stem/Relu_output_0: 3d0a1f2b         tensor of model.fp32.onnx: its scale as float32 in hex

TensorRT reads it instead of running images when the header is its own; with another version or
algorithm it says "Calibration table does not match calibrator algorithm type" and starts over.
`trtexec --calib` is an EntropyCalibration2. A tensor without a line makes the layers around it
float: the heads, as in model.int8.onnx. TensorRT 11 has no implicit INT8; there model.int8.onnx is
the only way, and it is the better one everywhere else. The form follows caches that TensorRT wrote
and are public; no TensorRT was run on the ones written here.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.onnx_graph import consumers, load_model
from calibration.quantize import QuantizationPlan, activation_scales
from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.safe_files import write_file

__all__ = [
    "ALGORITHMS",
    "CacheTarget",
    "CalibrationCache",
    "cache_scales",
    "format_cache",
    "parse_cache",
    "version_number",
]

ALGORITHMS = ("EntropyCalibration2", "MinMaxCalibration")
_HEADER = re.compile(r"TRT-([0-9]{4,6})-([A-Za-z0-9]+)")
_LINE = re.compile(r"(\S|\S.*\S): ([0-9a-f]{8})")
# TensorRT fuses these into what comes before, or runs them on the same integers.
_KEEP_RANGE = ("Relu", "Clip", "MaxPool")


@dataclass(frozen=True, kw_only=True)
class CalibrationCache:
    """What one INT8-calibration cache holds.

    Attributes:
        version: as TensorRT writes it, 8601 for 8.6.1, 100300 for 10.3.0.
        algorithm: one of ALGORITHMS.
        scales: positive float32 numbers by tensor name, amax / 127.
    """

    version: int
    algorithm: str
    scales: Mapping[str, float]

    def __post_init__(self) -> None:
        """Refuse what TensorRT would not read back as it was meant.

        Raises:
            BundleFormatError: an unknown algorithm, no tensor, or a name or scale that cannot be.
        """
        if self.algorithm not in ALGORITHMS:
            raise BundleFormatError(
                f"INT8-calibration cache for '{self.algorithm}'; it must be one of "
                f"{', '.join(ALGORITHMS)}"
            )
        if not self.scales:
            raise BundleFormatError("the INT8-calibration cache names no tensor; write it again")
        for name, scale in self.scales.items():
            if name != name.strip() or not name.isprintable() or name == "":
                raise BundleFormatError(f"tensor name {name!r} cannot stand in a cache; rename it")
            if not (math.isfinite(scale) and scale > 0 and float(np.float32(scale)) == scale):
                raise BundleFormatError(
                    f"scale {scale!r} of tensor '{name}' is not a positive float32; observe again"
                )


@dataclass(frozen=True, kw_only=True)
class CacheTarget:
    """Where `edge-screen calibrate` writes a cache, and for which TensorRT, '8.6.1' or '10.3.0'."""

    path: Path
    tensorrt: str

    def __post_init__(self) -> None:
        """Refuse a version without implicit INT8 before the long work."""
        version_number(self.tensorrt)

    def write(self, scales: Mapping[str, float]) -> None:
        """Write the cache.

        Raises:
            BundleFormatError: see `CalibrationCache`.
            ConfigError: the file cannot be written.
        """
        version = version_number(self.tensorrt)
        cache = CalibrationCache(version=version, algorithm=ALGORITHMS[0], scales=scales)
        try:
            write_file(self.path, format_cache(cache).encode("utf-8"))
        except OSError as error:
            raise ConfigError(
                f"INT8-calibration cache {self.path} cannot be written: {error}; check --trt-cache"
            ) from error


def version_number(version: str) -> int:
    """NV_TENSORRT_VERSION of '8.6.1' (8601) or '10.3.0' (100300).

    Raises:
        ConfigError: not MAJOR.MINOR.PATCH, or a TensorRT that has no implicit INT8.
    """
    match = re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{1,2})(\.[0-9]+)?", version)
    if match is None:
        raise ConfigError(f"TensorRT version '{version}'; give three numbers such as 8.6.1")
    major, minor, patch = (int(part) for part in match.groups()[:3])
    if major not in (8, 10):
        raise ConfigError(
            f"TensorRT {version} has no use for an INT8-calibration cache (8 and 10 have); build "
            "model.int8.onnx, which holds its scales itself"
        )
    return major * (1000 if major == 8 else 10_000) + minor * 100 + patch


def cache_scales(
    fp32: bytes, plan: QuantizationPlan, amax: Mapping[str, float]
) -> dict[str, float]:
    """Scales by tensor of the FP32 graph: those of model.int8.onnx, and what follows from them.

    A tensor that only feeds a Relu, Clip or MaxPool takes the scale of what comes out: TensorRT
    fuses the first two, and all three map integers to integers.

    Args:
        fp32: the FP32 model that `plan` was made from.
        plan: what is quantised.
        amax: largest magnitude held, for every tensor of `plan.observed`.
    """
    graph = load_model(fp32).graph
    scales = {name: float(scale) for name, scale in activation_scales(plan, amax).items()}
    readers, outputs = consumers(graph), {output.name for output in graph.output}
    for node in reversed(graph.node):
        source = node.input[0] if node.op_type in _KEEP_RANGE else ""
        alone = readers[source] == [node] and source not in outputs
        if alone and node.output[0] in scales and source not in scales:
            scales[source] = scales[node.output[0]]
    made = [name for node in graph.node for name in node.output]
    return {name: scales[name] for name in made if name in scales}


def format_cache(cache: CalibrationCache) -> str:
    """The text of a cache; `parse_cache` is its inverse."""
    lines = [f"TRT-{cache.version}-{cache.algorithm}"]
    lines += [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in cache.scales.items()]
    return "\n".join(lines) + "\n"


def parse_cache(text: str) -> CalibrationCache:
    """Read the text of a cache.

    Raises:
        BundleFormatError: a line has another form, a tensor comes twice, or see
            `CalibrationCache`.
    """
    header, *lines = text.removesuffix("\n").split("\n")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise BundleFormatError(f"INT8-calibration cache begins with {header!r}, not TRT-VERSION-")
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        found = _LINE.fullmatch(line)
        if found is None or found[1] in scales:
            raise BundleFormatError(
                f"line {number} of the INT8-calibration cache, {line!r}, is not 'tensor: 8 hex "
                "digits' or repeats a tensor; write the cache again"
            )
        scales[found[1]] = struct.unpack(">f", bytes.fromhex(found[2]))[0]
    return CalibrationCache(version=int(match[1]), algorithm=match[2], scales=scales)
