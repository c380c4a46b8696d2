"""Rewrite the portable INT8 graph so that ONNX Runtime's CPU kernels run it, same integers.

ONNX Runtime is fast with uint8 activations and int8 weights and slow with int8 activations.
The zero point moves from 0 (int8) to 128 (uint8) with the same scales: round(x / s) + 128
saturates at the same values, so both files compute the same integers. Then

    Relu -> Q        becomes  Q -> Clip(min 128)      rounding is monotone: same integers,
    MaxPool -> Q     becomes  Q -> MaxPool            and Q now follows the convolution
    Cast, Sub, Q     on the image disappear: its bytes are the quantised tensor (zero point 128)
    weights, biases  are stored as the int8 and int32 numbers they are
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.onnx_graph import (
    add_constant,
    constants,
    consumers,
    find_input_chain,
    load_model,
    producers,
    save_model,
)
from edge_runtime.errors import BundleFormatError

if TYPE_CHECKING:
    import onnx

__all__ = ["to_cpu_form"]

_ZERO_POINT = 128


def to_cpu_form(portable_bytes: bytes) -> bytes:
    """Return the CPU form of a model that `calibration.quantize` wrote.

    Raises:
        BundleFormatError: the graph is not in that form.
    """
    model = load_model(portable_bytes)
    graph = model.graph
    _use_image_as_quantized_tensor(graph)
    _store_weights_as_integers(graph)
    _store_biases_as_integers(graph)
    _move_zero_points(graph)
    while _move_one_quantizer_up(graph):
        pass
    return save_model(model)


def _use_image_as_quantized_tensor(graph: onnx.GraphProto) -> None:
    """uint8 NHWC -> Transpose -> DQ(step, 128): the first Quantize node has nothing to do."""
    from onnx import helper

    chain, step = find_input_chain(graph)
    image = chain[0].input[0]
    transpose = next(node for node in chain if node.op_type == "Transpose")
    readers = consumers(graph)[chain[-1].output[0]]
    if [node.op_type for node in readers] != ["QuantizeLinear"]:
        raise BundleFormatError("the image is not quantised right after 128 is subtracted")
    quantizer = readers[0]
    if float(constants(graph)[quantizer.input[1]]) != np.float32(step):
        raise BundleFormatError("the scale of the image is not its step per level")
    swap = helper.make_node(
        "Transpose", [image], [quantizer.output[0]], name=transpose.name or "image_nchw"
    )
    swap.attribute.extend(transpose.attribute)
    drop = {node.output[0] for node in (*chain, quantizer)}
    nodes = [node for node in graph.node if node.output[0] not in drop]
    del graph.node[:]
    graph.node.extend([swap, *nodes])


def _store_weights_as_integers(graph: onnx.GraphProto) -> None:
    """Replace float weight -> Q by the int8 weight: a quarter of the bytes, the same numbers."""
    values = constants(graph)
    nodes, made = [], producers(graph)
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in values:
            continue
        source = made.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.input[0] in values:
            weight, scale = values[source.input[0]], values[source.input[1]]
            column = scale.reshape(-1, *(1,) * (weight.ndim - 1))
            integers = np.clip(np.rint(weight / column), -128, 127).astype(np.int8)
            node.input[0] = add_constant(graph, f"{source.input[0]}_int8", integers)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _store_biases_as_integers(graph: onnx.GraphProto) -> None:
    """Replace each float bias by int32 -> DQ(s_x * s_w), which every ONNX Runtime fuses."""
    from onnx import helper

    values, made = constants(graph), producers(graph)
    nodes = []
    for node in graph.node:
        pairs = [made[name] for name in node.input[:2] if name in made]
        kinds = [pair.op_type for pair in pairs]
        if node.op_type == "Conv" and len(node.input) > 2 and kinds == ["DequantizeLinear"] * 2:
            scale = values[pairs[0].input[1]] * values[pairs[1].input[1]]
            bias, base = values[node.input[2]], f"{node.name}/bias"
            steps = np.rint(bias.astype(np.float64) / scale).astype(np.int32)
            add_constant(graph, f"{base}_int32", steps)
            add_constant(graph, f"{base}_scale", scale)
            add_constant(graph, f"{base}_zero", np.zeros(scale.size, np.int32))
            node.input[2] = f"{base}_dequantized"
            nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [f"{base}_int32", f"{base}_scale", f"{base}_zero"],
                    [node.input[2]],
                    name=f"{base}/DQ",
                    axis=0,
                )
            )
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _move_zero_points(graph: onnx.GraphProto) -> None:
    """int8 zero point z -> uint8 z + 128 on activations; weights and biases stay."""
    values = constants(graph)
    zero = add_constant(graph, "activation_zero_uint8", np.full((), _ZERO_POINT, np.uint8))
    for node in graph.node:
        is_pair = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if is_pair and node.input[0] not in values:
            held = values[node.input[2]]
            if held.dtype != np.int8 or held.any():
                raise BundleFormatError(f"'{node.name}' is not symmetric int8 with zero point 0")
            node.input[2] = zero


def _move_one_quantizer_up(graph: onnx.GraphProto) -> bool:
    """Swap one Q with the Relu, Clip(0, c) or MaxPool before it; False when none is left."""
    made, readers, values = producers(graph), consumers(graph), constants(graph)
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        source = made.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if source is None or source.op_type not in ("Relu", "Clip", "MaxPool"):
            continue
        if len(readers[source.output[0]]) > 1 or source.output[0] in outputs:
            continue
        bounds = _uint8_bounds(graph, source, float(values[node.input[1]]), values)
        if bounds is None:
            continue
        _swap(graph, source, node, bounds)
        return True
    return False


def _uint8_bounds(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    scale: float,
    values: dict[str, NDArray[Any]],
) -> list[str] | None:
    """Names of the uint8 limits that do what the float node does; None: it cannot be moved."""
    if node.op_type == "MaxPool":
        # uint8 has no second output (indices) to offer here.
        return [] if len(node.output) == 1 else None
    low = add_constant(graph, "uint8_at_zero", np.full((), _ZERO_POINT, np.uint8))
    if node.op_type == "Relu":
        return [low]
    limits = [values.get(name) for name in node.input[1:]]
    if len(limits) != 2 or limits[0] is None or limits[1] is None or float(limits[0]) != 0.0:
        return None
    top = min(255, _ZERO_POINT + round(float(np.rint(np.float32(limits[1]) / np.float32(scale)))))
    return [low, add_constant(graph, f"uint8_at_{top}", np.full((), top, np.uint8))]


def _swap(
    graph: onnx.GraphProto, source: onnx.NodeProto, quantizer: onnx.NodeProto, bounds: list[str]
) -> None:
    """Turn source -> Q into Q -> the same on uint8; the tensor after both keeps its name."""
    from onnx import helper

    raw = f"{quantizer.output[0]}/before_{source.op_type}"
    first = helper.make_node(
        "QuantizeLinear", [source.input[0], *quantizer.input[1:]], [raw], name=quantizer.name
    )
    operator = "MaxPool" if source.op_type == "MaxPool" else "Clip"
    second = helper.make_node(
        operator, [raw, *bounds], [quantizer.output[0]], name=f"{source.name}/uint8"
    )
    second.attribute.extend(source.attribute)
    nodes = []
    for node in graph.node:
        if node.output[0] == source.output[0]:
            nodes += [first, second]
        elif node.output[0] != quantizer.output[0]:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
