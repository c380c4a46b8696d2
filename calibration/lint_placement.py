"""Rules on where Q/DQ pairs stand; each generator checks one.

    P1  inputs of an INT8 convolution are quantised, and no pair splits it from its rectifier
    P2  a residual Add: pairs on both inputs or on the identity alone, the same in all the graph
    P3  one pair a tensor, read by every node but those of P4
    P4  heads, gates behind a global pooling, Softmax, LayerNormalization and their kin are float
    P5  no INT8 weight where TensorRT has no INT8 kernel
    P6  a Concat has one scale at all its ends; so have MaxPool, Pad, Reshape and Transpose
    P7  advice: networks of depthwise convolutions lose most; plan QAT or another student
    P9  advice: from opset 19 TensorRT 10.3's implicit calibrator cannot build the graph

P8 (kernels of two runtimes round differently) cannot be seen in a graph: `edge-screen verify`
measures it on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from calibration.lint_graph import Finding, LintGraph
from calibration.onnx_graph import attribute_int
from calibration.placement import (
    FLOAT_READERS,
    WEIGHTED_OPS,
    int8_kernel_exists,
    pooled_tensors,
    shortcut_of,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["advise", "check_placement"]

_SAME_SCALE = ("MaxPool", "Pad", "Reshape", "Transpose")
_SMALLEST_MATRIX = 16
_IMPLICIT_CALIBRATOR_OPSET = 18


def check_placement(graph: LintGraph) -> Iterator[Finding]:
    """Yield every broken rule of P1 to P6."""
    for check in (
        _check_inputs,
        _check_residuals,
        _check_single_pairs,
        _check_float_parts,
        _check_kernels,
        _check_shared_scales,
    ):
        yield from check(graph)


def advise(graph: LintGraph) -> Iterator[Finding]:
    """Yield what no file must obey but its reader should know: P7 and P9."""
    convs = [n for n in graph.nodes if n.op_type == "Conv" and graph.weight(n) is not None]
    depthwise = [n for n in convs if attribute_int(n, "group", 1) > 1]
    if len(depthwise) * 4 > len(convs):
        yield Finding(
            rule="P7",
            node="model",
            message=f"{len(depthwise)} of {len(convs)} INT8 convolutions are grouped or depthwise, "
            "the worst case of post-training INT8; gate it on real eyes or plan QAT",
        )
    opset = max((o.version for o in graph.model.opset_import if not o.domain), default=0)
    if opset > _IMPLICIT_CALIBRATOR_OPSET:
        yield Finding(
            rule="P9",
            node="model",
            message=f"opset {opset}: TensorRT 10.3's implicit calibrator cannot build it; use the "
            "explicit pairs of this file, or the opset 17 file",
        )


def _check_inputs(graph: LintGraph) -> Iterator[Finding]:
    for node in graph.nodes:
        is_int8 = node.op_type in WEIGHTED_OPS and graph.weight(node) is not None
        if is_int8 and not graph.is_dequantized(node.input[0]):
            yield Finding(rule="P1", node=node.name, message="its input has no pair")
        if node.op_type in ("Relu", "Clip") and graph.is_dequantized(node.input[0]):
            quantizer = graph.source(graph.made[node.input[0]], 0)
            before = None if quantizer is None else graph.source(quantizer, 0)
            if before is not None:
                yield Finding(rule="P1", node=node.name, message=f"a pair follows {before.op_type}")


def _check_residuals(graph: LintGraph) -> Iterator[Finding]:
    forms = set()
    for node in graph.nodes:
        if node.op_type != "Add" or any(name in graph.values for name in node.input):
            continue
        pairs = [graph.is_dequantized(name) for name in node.input]
        if all(pairs):
            forms.add("both")
        elif any(pairs) and pairs[list(node.input).index(shortcut_of(graph.made, node))]:
            forms.add("identity")
        elif any(pairs):
            yield Finding(
                rule="P2",
                node=node.name,
                message="the pair is on the convolution, not the identity",
            )
    if len(forms) > 1:
        yield Finding(
            rule="P2", node="model", message="some Adds have pairs on both inputs, some on one"
        )


def _check_single_pairs(graph: LintGraph) -> Iterator[Finding]:
    for name, readers in graph.readers.items():
        quantizers = [node for node in readers if node.op_type == "QuantizeLinear"]
        if name in graph.values or not quantizers:
            continue
        if len(quantizers) > 1:
            yield Finding(rule="P3", node=name, message=f"{len(quantizers)} quantisers read it")
        for node in readers:
            if node.op_type not in ("QuantizeLinear", *FLOAT_READERS):
                yield Finding(rule="P3", node=node.name, message=f"reads {name} beside its pair")


def _check_float_parts(graph: LintGraph) -> Iterator[Finding]:
    pooled = pooled_tensors(graph.graph, graph.values)
    for node in graph.nodes:
        if node.op_type in FLOAT_READERS and graph.is_dequantized(node.input[0]):
            yield Finding(rule="P4", node=node.name, message=f"{node.op_type} reads a pair")
        if node.op_type not in WEIGHTED_OPS or graph.weight(node) is None:
            continue
        if not _feeds_weights(graph, node):
            yield Finding(rule="P4", node=node.name, message="an output head is INT8")
        elif node.input[0] in pooled:
            yield Finding(rule="P4", node=node.name, message="a gate behind a pooling is INT8")


def _feeds_weights(graph: LintGraph, start: onnx.NodeProto) -> bool:
    waiting, seen = list(start.output), set()
    while waiting:
        for node in graph.readers.get(waiting.pop(), []):
            if node.op_type in WEIGHTED_OPS:
                return True
            waiting += [name for name in node.output if name not in seen]
            seen.update(node.output)
    return False


def _check_kernels(graph: LintGraph) -> Iterator[Finding]:
    first = next((node.name for node in graph.nodes if node.op_type == "Conv"), None)
    for node in graph.nodes:
        weight = graph.weight(node) if node.op_type in WEIGHTED_OPS else None
        if weight is None:
            continue
        if node.op_type == "Conv" and not int8_kernel_exists(
            node, weight, is_first=node.name == first
        ):
            yield Finding(rule="P5", node=node.name, message=f"no INT8 kernel for {weight.shape}")
        if node.op_type in ("Gemm", "MatMul") and min(weight.shape) < _SMALLEST_MATRIX:
            yield Finding(rule="P5", node=node.name, message=f"too small for INT8: {weight.shape}")


def _check_shared_scales(graph: LintGraph) -> Iterator[Finding]:
    for node in graph.nodes:
        is_concat = node.op_type == "Concat"
        if not is_concat and node.op_type not in _SAME_SCALE:
            continue
        inputs = list(node.input) if is_concat else list(node.input[:1])
        scales = [_scale_of(graph, name) for name in inputs]
        written = _quantizer_scale(graph, node.output[0])
        if is_concat and None in scales and set(scales) != {None}:
            yield Finding(
                rule="P6", node=node.name, message="some inputs of the Concat have pairs, some none"
            )
        ends = [*scales, written] if all(scale is not None for scale in scales) else scales
        if len({scale for scale in ends if scale is not None}) > 1:
            yield Finding(rule="P6", node=node.name, message=f"its scales differ: {ends}")


def _scale_of(graph: LintGraph, name: str) -> float | None:
    """Scale of the pair that makes a tensor."""
    if not graph.is_dequantized(name):
        return None
    scale = graph.value(graph.made[name], 1)
    return None if scale is None or scale.size != 1 else float(scale)


def _quantizer_scale(graph: LintGraph, name: str) -> float | None:
    """Scale of the quantiser that reads a tensor."""
    for node in graph.readers.get(name, []):
        scale = graph.value(node, 1) if node.op_type == "QuantizeLinear" else None
        if scale is not None and scale.size == 1:
            return float(scale)
    return None
