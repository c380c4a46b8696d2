"""Write the portable INT8 graph: explicit symmetric Q/DQ that TensorRT and ONNX Runtime read.

    x -> Q -> DQ -> Conv <- DQ <- Q <- w        both inputs of a residual Add: Q -> DQ
                     ^ float bias, a whole multiple of s_x * s_w

Activations: one scale a tensor, zero point 0. Weights: one scale an output channel, kept as
float with a Q/DQ pair (TensorRT 8.x wants that). The first input holds (p - 128) exactly.
Heads (the 1x1 evidence convolution, pooling, Gemm, MatMul) stay float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.onnx_graph import (
    add_constant,
    constants,
    consumers,
    find_input_chain,
    load_model,
    save_model,
)
from edge_runtime.errors import BundleFormatError

if TYPE_CHECKING:
    import onnx

__all__ = ["QuantizationPlan", "plan_quantization", "quantize"]

_WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# A bias is a whole number of steps s_x * s_w. Below 2**22 steps float32 holds every such number
# exactly, and int32 accumulators keep ample room for the products.
_MAX_BIAS_STEPS = 2.0**22


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """What will be quantised.

    Attributes:
        input_tensor: the tensor holding (p - 128) * input_step.
        input_step: its scale; 1 for edge-screen's students.
        observed: activations whose ranges must be observed, in graph order.
        conv_names: convolutions that become INT8.
        float_nodes: nodes with weights that stay float.
    """

    input_tensor: str
    input_step: float
    observed: tuple[str, ...]
    conv_names: tuple[str, ...]
    float_nodes: tuple[str, ...]


def plan_quantization(model_bytes: bytes) -> QuantizationPlan:
    """Choose the tensors to quantise.

    Raises:
        BundleFormatError: BatchNormalization is left in the graph, a node has no name, the
            input is not (p - 128), or no convolution can be quantised.
    """
    graph = load_model(model_bytes).graph
    _check_graph(graph)
    chain, step = find_input_chain(graph)
    values = constants(graph)
    chosen = _quantizable_convs(graph, values)
    if not chosen:
        raise BundleFormatError("no convolution can be quantised; export a convolutional student")
    tensors = {conv.input[0] for conv in chosen}
    for node in graph.node:
        if node.op_type == "Add" and not any(name in values for name in node.input):
            tensors |= set(node.input)
    start = chain[-1].output[0]
    made = [name for node in graph.node for name in node.output]
    names = {conv.name for conv in chosen}
    return QuantizationPlan(
        input_tensor=start,
        input_step=step,
        observed=tuple(name for name in made if name in tensors and name != start),
        conv_names=tuple(node.name for node in chosen),
        float_nodes=tuple(
            n.name for n in graph.node if n.op_type in _WEIGHTED_OPS and n.name not in names
        ),
    )


def quantize(model_bytes: bytes, plan: QuantizationPlan, amax: Mapping[str, float]) -> bytes:
    """Return the portable INT8 model.

    Args:
        model_bytes: the FP32 model that `plan` was made from.
        plan: what to quantise.
        amax: largest absolute value to hold, for every tensor of `plan.observed`.

    Raises:
        BundleFormatError: a range is missing or not a positive number.
    """
    model = load_model(model_bytes)
    scales = {name: _scale(name, amax) for name in plan.observed}
    scales[plan.input_tensor] = np.float32(plan.input_step)
    _quantize_convs(model.graph, set(plan.conv_names), scales)
    _insert_pairs(model.graph, scales)
    model.ir_version = 8
    return save_model(model)


def _scale(name: str, amax: Mapping[str, float]) -> np.float32:
    value: np.float32 = np.float32(amax.get(name, np.nan) / 127)
    if not (np.isfinite(value) and value > np.finfo(np.float32).tiny):
        raise BundleFormatError(
            f"the INT8 range of activation '{name}' is {amax.get(name)}; observe it on images first"
        )
    return value


def _check_graph(graph: onnx.GraphProto) -> None:
    if any(node.op_type == "BatchNormalization" for node in graph.node):
        raise BundleFormatError(
            "the graph holds BatchNormalization; fold it into the convolutions when exporting"
        )
    names = [node.name for node in graph.node if node.op_type in _WEIGHTED_OPS]
    if "" in names or len(set(names)) < len(names):
        raise BundleFormatError("nodes with weights need distinct names; export the bundle again")


def _quantizable_convs(
    graph: onnx.GraphProto, values: Mapping[str, NDArray[Any]]
) -> list[onnx.NodeProto]:
    """Convolutions that gain from INT8 and are not heads.

    A head has no node with weights after it. Small or grouped convolutions stay float where
    TensorRT has no INT8 kernel for them (depthwise: 8 channels at a time, 3x3 or larger).
    """
    readers = consumers(graph)
    convs = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in values]
    fed = [node for node in convs if _feeds_weights(node, readers)]
    return [node for node in fed if _worth_int8(node, values[node.input[1]])]


def _feeds_weights(start: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]) -> bool:
    """Whether a node with weights lies anywhere after `start`."""
    waiting, seen = list(start.output), set()
    while waiting:
        for node in readers.get(waiting.pop(), []):
            if node.op_type in _WEIGHTED_OPS:
                return True
            waiting += [name for name in node.output if name not in seen]
            seen.update(node.output)
    return False


def _worth_int8(conv: onnx.NodeProto, weight: NDArray[Any]) -> bool:
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    if weight.ndim != 4:
        return False
    if groups > 1:
        return bool(weight.shape[0] % 8 == 0 and min(weight.shape[2:]) >= 3)
    return bool(weight.shape[0] % 8 == 0)


def _quantize_convs(
    graph: onnx.GraphProto, names: set[str], scales: Mapping[str, np.float32]
) -> None:
    """Put a Q/DQ pair before each weight and snap each bias to its integer grid."""
    values = constants(graph)
    nodes = []
    for node in graph.node:
        if node.name in names and node.op_type == "Conv":
            nodes += _quantize_weight(graph, node, values, scales[node.input[0]])
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _quantize_weight(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    values: Mapping[str, NDArray[Any]],
    input_scale: np.float32,
) -> list[onnx.NodeProto]:
    """Snap weight and bias of one convolution; return the Q/DQ nodes of the weight."""
    weight = values[conv.input[1]].astype(np.float32)
    bias = values[conv.input[2]].astype(np.float32) if len(conv.input) > 2 else None
    scale = _weight_scale(weight, bias, input_scale)
    column = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    # The stored floats are the quantised values themselves, so that no runtime's way of rounding
    # ties can turn them into other integers.
    integers = np.clip(np.rint(weight / column), -127, 127).astype(np.float32)
    base = conv.name
    conv.input[1] = add_constant(graph, f"{base}/weight", integers * column)
    if bias is not None:
        steps = input_scale * scale
        snapped = np.rint(bias.astype(np.float64) / steps).astype(np.float32) * steps
        conv.input[2] = add_constant(graph, f"{base}/bias", snapped)
    add_constant(graph, f"{base}/weight_scale", scale)
    add_constant(graph, f"{base}/weight_zero", np.zeros(scale.size, np.int8))
    pair = _pair(conv.input[1], f"{base}/weight_scale", f"{base}/weight_zero", axis=0)
    conv.input[1] = pair[1].output[0]
    return pair


def _weight_scale(
    weight: NDArray[np.float32], bias: NDArray[np.float32] | None, input_scale: np.float32
) -> NDArray[np.float32]:
    """(C_out,) scales: max |w| / 127, raised where the bias would not fit its integer grid."""
    scale = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1) / np.float32(127)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / np.float32(input_scale * _MAX_BIAS_STEPS))
    # A channel of zeros (a zero-initialised residual branch) still needs a positive scale.
    floor = np.float32(2.0**-60) / min(input_scale, np.float32(1))
    raised: NDArray[np.float32] = np.maximum(scale, floor).astype(np.float32)
    return raised


def _insert_pairs(graph: onnx.GraphProto, scales: Mapping[str, np.float32]) -> None:
    """Put one Q/DQ pair after each activation; every node that reads it reads the pair."""
    zero = add_constant(graph, "activation_zero", np.zeros((), np.int8))
    for name, scale in scales.items():
        add_constant(graph, f"{name}/scale", np.asarray(scale, np.float32))
    nodes = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in scales:
                node.input[index] = f"{name}/dequantized"
        nodes.append(node)
        for name in node.output:
            if name in scales:
                nodes += _pair(name, f"{name}/scale", zero)
    del graph.node[:]
    graph.node.extend(nodes)


def _pair(tensor: str, scale: str, zero: str, axis: int | None = None) -> list[onnx.NodeProto]:
    from onnx import helper

    attributes = {} if axis is None else {"axis": axis}
    quantized, dequantized = f"{tensor}/quantized", f"{tensor}/dequantized"
    return [
        helper.make_node(
            "QuantizeLinear", [tensor, scale, zero], [quantized], name=f"{tensor}/Q", **attributes
        ),
        helper.make_node(
            "DequantizeLinear",
            [quantized, scale, zero],
            [dequantized],
            name=f"{tensor}/DQ",
            **attributes,
        ),
    ]
