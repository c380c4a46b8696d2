"""Check INT8 files against the rules that TensorRT's parser and our CPU form need.

Rules of explicit quantisation (TensorRT 8.5 to 11; onnx-tensorrt, NvInfer.h). Those on where
pairs stand, P1 to P9, are in `calibration.lint_placement`.

    OPSET  opset 17 of the standard domain only (19 with float16 scales)
    IR     IR version 8 (9)
    DATA   no external tensor data
    R1     zero point present, all zero, as long as the scale
    R2     zero point int8
    R3     scale constant, positive, float32 (float16 in the opset 19 file), scalar or 1-D
    R4     per-axis only on the weight of Conv or Gemm(transB=1), axis 0, or ConvTranspose, axis 1
    R5     no int32 DQ (a quantised bias)
    R6     no com.microsoft, QLinear*, *Integer, DynamicQuantizeLinear
    R7     every Q has its DQ with the same scale
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.lint_graph import PAIR, Finding, LintGraph, external_tensors
from calibration.lint_placement import advise, check_placement
from calibration.onnx_graph import attribute_int
from edge_runtime.errors import BundleFormatError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Finding",
    "advice",
    "kind_of",
    "lint_cpu",
    "lint_float",
    "lint_half",
    "lint_portable",
    "require_clean",
]

_REFUSED_PARTS = ("QLinear", "Integer", "DynamicQuantize", "FusedConv")


@dataclass(frozen=True, kw_only=True)
class _Contract:
    """What differs between the files of a bundle."""

    opset: int
    ir_version: int
    scale_type: str


_FULL = _Contract(opset=17, ir_version=8, scale_type="float32")
_HALF = _Contract(opset=19, ir_version=9, scale_type="float16")


def lint_portable(model_bytes: bytes) -> list[Finding]:
    """Return every broken rule of the TensorRT-portable file; empty when it is clean."""
    return _lint_symmetric(LintGraph(model_bytes), _FULL)


def lint_half(model_bytes: bytes) -> list[Finding]:
    """Return every broken rule of the file for strongly typed builds; empty when it is clean."""
    return _lint_symmetric(LintGraph(model_bytes), _HALF)


def lint_cpu(model_bytes: bytes) -> list[Finding]:
    """Return every broken rule of the CPU file: uint8 activations at 128, int8 weights at 0."""
    graph = LintGraph(model_bytes)
    if external_tensors(graph.model):
        return list(_check_model(graph, _FULL))
    return [*_check_model(graph, _FULL), *_check_offsets(graph), *_check_scales(graph, _FULL)]


def lint_float(model_bytes: bytes) -> list[Finding]:
    """Return every broken rule of the FP32 file: what holds for a model of any precision."""
    return list(_check_model(LintGraph(model_bytes), _FULL))


def advice(model_bytes: bytes) -> list[Finding]:
    """What the reader of a file should know although no rule is broken (P7, P9)."""
    return list(advise(LintGraph(model_bytes)))


def kind_of(model_bytes: bytes) -> str:
    """'float', 'portable', 'half' or 'cpu', by the pairs of a model; their rules differ."""
    graph = LintGraph(model_bytes)
    pairs = [node for node in graph.nodes if node.op_type in PAIR]
    zeros = [value for value in (graph.value(node, 2) for node in pairs) if value is not None]
    scales = [value for value in (graph.value(node, 1) for node in pairs) if value is not None]
    if any(zero.dtype == np.uint8 for zero in zeros):
        return "cpu"
    if any(scale.dtype == np.float16 for scale in scales):
        return "half"
    return "portable" if pairs else "float"


def require_clean(name: str, findings: list[Finding]) -> None:
    """Raise BundleFormatError that names every finding, if there is any."""
    if findings:
        lines = "; ".join(f"{f.rule} at {f.node}: {f.message}" for f in findings)
        raise BundleFormatError(f"{name} breaks {len(findings)} rules: {lines}")


def _lint_symmetric(graph: LintGraph, contract: _Contract) -> list[Finding]:
    if external_tensors(graph.model):  # the rest would have to read them
        return list(_check_model(graph, contract))
    return [
        *_check_model(graph, contract),
        *_check_symmetric(graph),
        *_check_scales(graph, contract),
        *_check_pairs(graph),
        *check_placement(graph),
    ]


def _check_model(graph: LintGraph, contract: _Contract) -> Iterator[Finding]:
    opsets = {item.domain: item.version for item in graph.model.opset_import}
    if opsets != {"": contract.opset}:
        message = f"opsets are {opsets}, not {contract.opset}"
        yield Finding(rule="OPSET", node="model", message=message)
    found = graph.model.ir_version
    if found != contract.ir_version:
        message = f"IR version is {found}, not {contract.ir_version}"
        yield Finding(rule="IR", node="model", message=message)
    for name in external_tensors(graph.model):
        yield Finding(rule="DATA", node=name, message="tensor data lies in another file")
    for node in graph.nodes:
        if node.domain or any(part in node.op_type for part in _REFUSED_PARTS):
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            yield Finding(rule="R6", node=node.name, message=f"{kind} is not portable")


def _check_symmetric(graph: LintGraph) -> Iterator[Finding]:
    """R1, R2 and R5."""
    for node in graph.nodes:
        if node.op_type not in PAIR:
            continue
        zero, scale = graph.value(node, 2), graph.value(node, 1)
        if zero is None:
            yield Finding(rule="R1", node=node.name, message="no constant zero point")
            continue
        if zero.any() or (scale is not None and zero.size != scale.size):
            yield Finding(
                rule="R1", node=node.name, message="zero point is not all zero like scale"
            )
        if zero.dtype == np.int32:
            yield Finding(rule="R5", node=node.name, message="int32 DQ: leave the bias in float")
        elif zero.dtype != np.int8:
            yield Finding(
                rule="R2", node=node.name, message=f"zero point is {zero.dtype}, not int8"
            )


def _check_offsets(graph: LintGraph) -> Iterator[Finding]:
    """The CPU file's form of R1 and R2: uint8 at 128 on activations, zero on stored integers."""
    for node in graph.nodes:
        if node.op_type not in PAIR:
            continue
        zero, stored = graph.value(node, 2), node.input[0] in graph.values
        if zero is None:
            yield Finding(rule="R1", node=node.name, message="no constant zero point")
        elif stored and (zero.any() or zero.dtype not in (np.int8, np.int32)):
            yield Finding(
                rule="R2", node=node.name, message="stored integers are not int8 or int32 at 0"
            )
        elif not stored and (zero.dtype != np.uint8 or zero.size != 1 or int(zero) != 128):
            yield Finding(rule="R2", node=node.name, message="activation is not uint8 at 128")


def _check_scales(graph: LintGraph, contract: _Contract) -> Iterator[Finding]:
    """R3 and R4."""
    for node in graph.nodes:
        if node.op_type not in PAIR:
            continue
        scale = graph.value(node, 1)
        if scale is None:
            yield Finding(rule="R3", node=node.name, message="scale is not constant")
            continue
        tiny = 0.0 if scale.dtype == np.float16 else np.finfo(np.float32).tiny
        usable = scale.dtype == contract.scale_type and scale.ndim <= 1 and np.isfinite(scale).all()
        if not usable or not (scale > tiny).all():
            message = f"scale is not positive {contract.scale_type}"
            yield Finding(rule="R3", node=node.name, message=message)
        if scale.ndim == 1 and not _is_channel_scale(graph, node, scale.size):
            yield Finding(
                rule="R4", node=node.name, message="per-axis scale is not on a weight's output axis"
            )


def _is_channel_scale(graph: LintGraph, node: onnx.NodeProto, size: int) -> bool:
    """Whether this Q or DQ belongs to a constant with `size` output channels on its axis."""
    source = graph.source(node, 0)
    held = graph.values.get(node.input[0] if source is None else source.input[0])
    readers = graph.readers[node.output[0]]
    if node.op_type == "QuantizeLinear":
        readers = [after for pair in readers for after in graph.readers[pair.output[0]]]
    axes = {_output_axis(reader) for reader in readers}
    axis = attribute_int(node, "axis", 1)
    return axes == {axis} and held is not None and held.ndim > axis and held.shape[axis] == size


def _output_axis(node: onnx.NodeProto) -> int | None:
    """Axis of a weight (or bias) that counts output channels; None where per-axis is unsafe."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute_int(node, "transB", 0)):
        return 0
    return 1 if node.op_type == "ConvTranspose" else None


def _check_pairs(graph: LintGraph) -> Iterator[Finding]:
    """R7: Q and DQ come in pairs of one scale; an int8 constant may stand for the Q."""
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear":
            readers = [reader.op_type for reader in graph.readers[node.output[0]]]
            if not readers or set(readers) != {"DequantizeLinear"}:
                yield Finding(
                    rule="R7", node=node.name, message=f"Q is read by {readers}, not a DQ"
                )
        elif node.op_type == "DequantizeLinear" and node.input[0] not in graph.values:
            source = graph.source(node, 0)
            if source is None or source.op_type != "QuantizeLinear":
                yield Finding(rule="R7", node=node.name, message="DQ does not follow a Q")
            elif source.input[1:] != node.input[1:]:
                yield Finding(rule="R7", node=node.name, message="Q and DQ have different scales")
