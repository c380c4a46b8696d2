"""Write the portable INT8 graph: explicit symmetric Q/DQ that TensorRT and ONNX Runtime read.

    x -> Q -> DQ -> Conv <- DQ <- Q <- w
                     ^ float bias, a whole multiple of s_x * s_w

Activations: one scale a tensor, zero point 0. Weights: one scale an output channel, kept as
float with a Q/DQ pair (TensorRT 8.x wants that). The first input holds (p - 128) exactly.
Where the pairs stand is decided in `calibration.placement`. ONNX Runtime's own quantiser with
the settings that TensorRT needs places the same pairs with the same scales, to the rounding to
float16 (a test compares them); what it lacks is here: snapped biases, weights stored as whole
steps, scales that fit float16, the shared scale of a Concat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.onnx_graph import add_constant, constants, load_model, save_model
from calibration.placement import FLOAT_READERS, QuantizationPlan, plan_quantization
from edge_runtime.errors import BundleFormatError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "QuantizationPlan",
    "activation_scales",
    "plan_quantization",
    "quantize",
    "round_up_to_half",
]

# A bias is a whole number of steps s_x * s_w. Below 2**22 steps float32 holds every such number
# exactly, and int32 accumulators keep ample room for the products.
_MAX_BIAS_STEPS = 2.0**22
_LARGEST_HALF = float(np.finfo(np.float16).max)


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
    scales = activation_scales(plan, amax)
    _quantize_convs(model.graph, set(plan.conv_names), scales)
    _insert_pairs(model.graph, scales)
    model.ir_version = 8
    return save_model(model)


def activation_scales(plan: QuantizationPlan, amax: Mapping[str, float]) -> dict[str, np.float32]:
    """Scale by quantised tensor: amax / 127 rounded up to float16, the largest of each Concat.

    Raises:
        BundleFormatError: a range is missing or not a positive number.
    """
    scales = {name: _scale(name, amax) for name in plan.observed}
    for family in plan.shared:
        scales.update(dict.fromkeys(family, max(scales[name] for name in family)))
    if plan.quantizes_input:
        scales[plan.input_tensor] = np.float32(plan.input_step)
    return scales


def _scale(name: str, amax: Mapping[str, float]) -> np.float32:
    value = amax.get(name, np.nan) / 127
    if not (np.isfinite(value) and np.finfo(np.float32).tiny < value < _LARGEST_HALF):
        raise BundleFormatError(
            f"the INT8 range of activation '{name}' is {amax.get(name)}; observe it on images first"
        )
    rounded: np.float32 = round_up_to_half(np.array([value]))[0]
    return rounded


def round_up_to_half(values: NDArray[Any]) -> NDArray[np.float32]:
    """Smallest float16 numbers that are at least `values` (> 0, below 65504), as float32.

    With such scales model.int8fp16.onnx, whose scales are float16, holds the same integers as
    the other files; a range grows by one part in 2048 at most, more only below 2**-14.
    """
    half = values.astype(np.float16)
    low = half.astype(np.float64) < values
    return np.where(low, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)


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
    return round_up_to_half(np.maximum(scale, np.float32(2.0**-24)))


def _insert_pairs(graph: onnx.GraphProto, scales: Mapping[str, np.float32]) -> None:
    """Put one Q/DQ pair after each activation; nodes that read it read the pair (P3, P4)."""
    zero = add_constant(graph, "activation_zero", np.zeros((), np.int8))
    for name, scale in scales.items():
        add_constant(graph, f"{name}/scale", np.asarray(scale, np.float32))
    nodes = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in scales and node.op_type not in FLOAT_READERS:
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
