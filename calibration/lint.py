"""Check the two INT8 files against the rules that TensorRT's parser and our CPU form need.

Rules of explicit quantisation (TensorRT 8.5 to 11; onnx-tensorrt, NvInfer.h):

    OPSET  opset 17 of the standard domain only     R3  scale constant, positive, float32
    IR     IR version 8                             R4  per-axis only on a Conv weight, axis 0
    DATA   no external tensor data                  R5  no int32 DQ (a quantised bias)
    R1     zero point present, all zero, as long    R6  no com.microsoft, QLinear*, *Integer
           as the scale                             R7  every Q has its DQ with the same scale
    R2     zero point int8                          P1  inputs are quantised, not outputs
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.onnx_graph import constants, consumers, producers
from edge_runtime.errors import BundleFormatError

if TYPE_CHECKING:
    import onnx

__all__ = ["Finding", "lint_cpu", "lint_portable", "require_clean"]

_OPSET = 17
_IR_VERSION = 8
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_REFUSED_PARTS = ("QLinear", "Integer", "DynamicQuantize", "FusedConv")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One broken rule: its name, the node (or part of the model) and what is wrong."""

    rule: str
    node: str
    message: str


class _Graph:
    """One model with the look-ups that the rules need."""

    def __init__(self, model_bytes: bytes) -> None:
        import onnx

        # Read as it is: `onnx_graph.load_model` would repair what is to be judged.
        self.model: onnx.ModelProto = onnx.load_model_from_string(model_bytes)
        graph = self.model.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.values = {} if _external(self.model) else constants(graph)
        self.made, self.readers = producers(graph), consumers(graph)

    def value(self, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
        """Constant at an input of a node, or None."""
        return self.values.get(node.input[index]) if len(node.input) > index else None

    def source(self, node: onnx.NodeProto, index: int) -> onnx.NodeProto | None:
        """The node that makes an input, or None."""
        return self.made.get(node.input[index]) if len(node.input) > index else None


def lint_portable(model_bytes: bytes) -> list[Finding]:
    """Return every broken rule of the TensorRT-portable file; empty when it is clean."""
    graph = _Graph(model_bytes)
    return [
        *_check_model(graph),
        *_check_symmetric(graph),
        *_check_scales(graph),
        *_check_pairs(graph),
        *_check_placement(graph),
    ]


def lint_cpu(model_bytes: bytes) -> list[Finding]:
    """Return every broken rule of the CPU file: uint8 activations at 128, int8 weights at 0."""
    graph = _Graph(model_bytes)
    return [*_check_model(graph), *_check_offsets(graph), *_check_scales(graph)]


def require_clean(name: str, findings: list[Finding]) -> None:
    """Raise BundleFormatError that names every finding, if there is any."""
    if findings:
        lines = "; ".join(f"{f.rule} at {f.node}: {f.message}" for f in findings)
        raise BundleFormatError(f"{name} breaks {len(findings)} rules: {lines}")


def _external(model: onnx.ModelProto) -> list[str]:
    return [t.name for t in model.graph.initializer if t.data_location == 1 or t.external_data]


def _check_model(graph: _Graph) -> Iterator[Finding]:
    opsets = {item.domain: item.version for item in graph.model.opset_import}
    if opsets != {"": _OPSET}:
        yield Finding(rule="OPSET", node="model", message=f"opsets are {opsets}, not {_OPSET}")
    if graph.model.ir_version != _IR_VERSION:
        found = graph.model.ir_version
        yield Finding(rule="IR", node="model", message=f"IR version is {found}, not {_IR_VERSION}")
    for name in _external(graph.model):
        yield Finding(rule="DATA", node=name, message="tensor data lies in another file")
    for node in graph.nodes:
        if node.domain or any(part in node.op_type for part in _REFUSED_PARTS):
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            yield Finding(rule="R6", node=node.name, message=f"{kind} is not portable")


def _check_symmetric(graph: _Graph) -> Iterator[Finding]:
    """R1, R2 and R5."""
    for node in graph.nodes:
        if node.op_type not in _PAIR:
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


def _check_offsets(graph: _Graph) -> Iterator[Finding]:
    """The CPU file's form of R1 and R2: uint8 at 128 on activations, zero on stored integers."""
    for node in graph.nodes:
        if node.op_type not in _PAIR:
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


def _check_scales(graph: _Graph) -> Iterator[Finding]:
    """R3 and R4."""
    for node in graph.nodes:
        if node.op_type not in _PAIR:
            continue
        scale = graph.value(node, 1)
        if scale is None:
            yield Finding(rule="R3", node=node.name, message="scale is not constant")
            continue
        usable = scale.dtype == np.float32 and scale.ndim <= 1 and np.isfinite(scale).all()
        if not usable or not (scale > np.finfo(np.float32).tiny).all():
            yield Finding(rule="R3", node=node.name, message="scale is not positive float32")
        if scale.ndim == 1 and not _is_channel_scale(graph, node, scale.size):
            yield Finding(
                rule="R4", node=node.name, message="per-axis scale is not a Conv weight's"
            )


def _is_channel_scale(graph: _Graph, node: onnx.NodeProto, size: int) -> bool:
    """Whether this Q or DQ belongs to a constant of `size` output channels on axis 0."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    source = graph.source(node, 0)
    name = node.input[0] if source is None else source.input[0]
    held = graph.values.get(name)
    return axis == 0 and held is not None and held.shape[0] == size


def _check_pairs(graph: _Graph) -> Iterator[Finding]:
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


def _check_placement(graph: _Graph) -> Iterator[Finding]:
    """P1: the input of an INT8 Conv is quantised, and no pair splits a Conv from its Relu."""
    for node in graph.nodes:
        if node.op_type == "Conv":
            sources = [graph.source(node, index) for index in (0, 1)]
            pairs = [s is not None and s.op_type == "DequantizeLinear" for s in sources]
            if pairs[1] and not pairs[0]:
                yield Finding(rule="P1", node=node.name, message="its input has no pair")
        if node.op_type in ("Relu", "Clip"):
            pair = graph.source(node, 0)
            quantizer = None if pair is None else graph.source(pair, 0)
            before = None if quantizer is None else graph.source(quantizer, 0)
            if pair is not None and pair.op_type == "DequantizeLinear" and before is not None:
                yield Finding(rule="P1", node=node.name, message=f"a pair follows {before.op_type}")
