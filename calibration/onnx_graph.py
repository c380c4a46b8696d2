"""Small reading and editing helpers for ONNX graphs that quantise, cpu_form and lint share."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleFormatError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "add_constant",
    "attribute_int",
    "constants",
    "consumers",
    "find_input_chain",
    "fold_constants",
    "load_model",
    "producers",
    "prune",
    "read_model",
    "save_model",
]

# What may stand between the uint8 image and the first convolution (all exact on pixels).
_INPUT_OPS = ("Cast", "Sub", "Mul", "Div", "Transpose")


def read_model(data: bytes) -> onnx.ModelProto:
    """Parse a model and leave it as it is.

    Raises:
        BundleFormatError: the bytes are not an ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise BundleFormatError(f"not an ONNX model ({error}); export the bundle again") from error


def load_model(data: bytes) -> onnx.ModelProto:
    """Parse a model and bring it to one form: constants as initialisers, no Identity nodes.

    Raises:
        BundleFormatError: the bytes are not an ONNX model.
    """
    model = read_model(data)
    _constants_to_initializers(model.graph)
    _remove_identities(model.graph)
    for node in model.graph.node:
        while node.input and not node.input[-1]:  # an optional input that is left out
            node.input.pop()
    del model.graph.value_info[:]
    return model


def save_model(model: onnx.ModelProto) -> bytes:
    """Serialise, after dropping initialisers that nothing reads."""
    prune(model.graph)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Initialisers by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output}


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor, in order; graph outputs are not nodes."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def add_constant(graph: onnx.GraphProto, name: str, value: NDArray[Any]) -> str:
    """Add an initialiser, or reuse the one of that name if it is equal; returns the name."""
    from onnx import numpy_helper

    for tensor in graph.initializer:
        if tensor.name == name:
            held = numpy_helper.to_array(tensor)
            if held.dtype != value.dtype or not np.array_equal(held, value):
                raise ValueError(f"initialiser '{name}' exists with another value")
            return name
    graph.initializer.append(numpy_helper.from_array(np.array(value, order="C"), name))
    return name


def attribute_int(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node, or its default."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def prune(graph: onnx.GraphProto) -> None:
    """Drop nodes and initialisers that no graph output depends on."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    nodes = list(reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def fold_constants(model: onnx.ModelProto) -> None:
    """Compute every node that reads constants only, such as the pads that an exporter derives."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    graph, values, nodes = model.graph, constants(model.graph), []
    for node in graph.node:
        if any(name and name not in values for name in node.input):
            nodes.append(node)
            continue
        inputs = {name: values[name] for name in node.input if name}
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        part = helper.make_graph([node], "part", [_info(n, v) for n, v in inputs.items()], outputs)
        run = ReferenceEvaluator(helper.make_model(part, opset_imports=list(model.opset_import)))
        for name, value in zip(node.output, run.run(None, inputs), strict=True):
            values[name] = np.asarray(value)
            add_constant(graph, name, values[name])
    del graph.node[:]
    graph.node.extend(nodes)


def _info(name: str, value: NDArray[Any]) -> onnx.ValueInfoProto:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)


def find_input_chain(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], float]:
    """Nodes from the uint8 image to the tensor the network starts with, and its step per level.

    The value of a pixel p there is `(p - 128) * step`, which INT8 with scale `step` and zero
    point 0 holds without loss (edge-screen's students are trained with mean 128).

    Raises:
        BundleFormatError: there is no such chain, so the input could not be quantised exactly.
    """
    readers, values = consumers(graph), constants(graph)
    inputs = [item for item in graph.input if item.name not in values]
    if len(inputs) != 1:
        raise BundleFormatError(f"the graph has {len(inputs)} inputs; it must have one, the image")
    chain: list[onnx.NodeProto] = []
    name, offset, step = inputs[0].name, 0.0, 1.0
    while len(readers[name]) == 1 and readers[name][0].op_type in _INPUT_OPS:
        node = readers[name][0]
        if node.op_type in ("Sub", "Mul", "Div"):
            number = _scalar_operand(node, values)
            offset = offset - number if node.op_type == "Sub" else offset
            step = step * number if node.op_type == "Mul" else step
            step = step / number if node.op_type == "Div" else step
            if node.op_type == "Sub" and step != 1.0:
                raise BundleFormatError(
                    "the input is scaled before 128 is subtracted; export again"
                )
        chain.append(node)
        name = node.output[0]
    if offset != -128.0 or step <= 0 or [node.op_type for node in chain].count("Transpose") != 1:
        raise BundleFormatError(
            f"the input is not uint8 -> minus 128 -> NCHW (found {[n.op_type for n in chain]}, "
            f"offset {offset:g}, step {step:g}); export the bundle with mean 128"
        )
    return chain, step


def _scalar_operand(node: onnx.NodeProto, values: dict[str, NDArray[Any]]) -> float:
    """The one number that Sub, Mul or Div applies to the image."""
    operand = values.get(node.input[1])
    if operand is None or np.unique(operand).size != 1:
        raise BundleFormatError(
            f"{node.op_type} on the input does not use one constant for all channels; export the "
            "bundle with one mean and fold the standard deviations into the first convolution"
        )
    return float(np.unique(operand)[0])


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    from onnx import numpy_helper

    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            array = numpy_helper.to_array(node.attribute[0].t)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _remove_identities(graph: onnx.GraphProto) -> None:
    """Let readers of an Identity read its source; exporters use it to share equal weights."""
    outputs = {output.name for output in graph.output}
    source: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
