"""Write model.int8fp16.onnx: the portable file with float16 in place of float32, opset 19.

A strongly typed TensorRT network computes in the types that the file states. Built from the
opset 17 file, its layers without pairs would run in FP32; here they run in FP16. Float16
scales for Q/DQ are legal from opset 19 on.

    uint8 image -> Cast float16 -> ... -> Cast float32 -> outputs

`calibration.quantize` chooses scales that float16 holds exactly, so the INT8 weights and the
grids of the activations are those of the other files. What differs is rounding to 11 bits of
biases, sums and float layers: about 5e-4 of a value, which can move an activation that lies
near a rounding edge by one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.lint_graph import PAIR
from calibration.onnx_graph import add_constant, constants, load_model, save_model
from edge_runtime.errors import BundleFormatError

if TYPE_CHECKING:
    import onnx

__all__ = ["to_half"]

_OPSET, _IR_VERSION = 19, 9
_LARGEST = float(np.finfo(np.float16).max)
#: Operators whose inputs or meaning changed between opset 17 and 19; only these are rewritten.
_AXES_BECAME_INPUT = ("ReduceMax", "ReduceMean", "ReduceMin")
_CHANGED_OTHERWISE = ("Resize", "Split")


def to_half(portable_bytes: bytes) -> bytes:
    """Return the float16 form of a model that `calibration.quantize` wrote.

    Raises:
        BundleFormatError: a number or an activation range does not fit float16, or an operator
            is written in another way from opset 18 on.
    """
    model = load_model(portable_bytes)
    graph = model.graph
    changed = sorted({n.op_type for n in graph.node if n.op_type in _CHANGED_OTHERWISE})
    if changed:
        raise BundleFormatError(f"{', '.join(changed)} of opset 17 has no exact opset 19 twin here")
    _check_ranges(graph)
    _halve_constants(graph)
    _cast_to_half(graph)
    _pass_axes_as_inputs(graph)
    _return_float32(graph)
    model.opset_import[0].version = _OPSET
    model.ir_version = _IR_VERSION
    return save_model(model)


def _check_ranges(graph: onnx.GraphProto) -> None:
    values = constants(graph)
    for node in graph.node:
        if node.op_type in PAIR and node.input[0] not in values:
            scale = float(np.max(values[node.input[1]]))
            if scale * 128 > _LARGEST:
                raise BundleFormatError(
                    f"activation '{node.input[0]}' reaches {scale * 127:.3g}, float16 ends at "
                    f"{_LARGEST:g}; train the student with weight decay or leave this file out"
                )


def _halve_constants(graph: onnx.GraphProto) -> None:
    from onnx import numpy_helper

    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            if value.size and float(np.abs(value).max()) > _LARGEST:
                raise BundleFormatError(f"'{tensor.name}' does not fit float16; see _check_ranges")
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))


def _cast_to_half(graph: onnx.GraphProto) -> None:
    from onnx import TensorProto

    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16


def _pass_axes_as_inputs(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type in _AXES_BECAME_INPUT:
            for attribute in list(node.attribute):
                if attribute.name == "axes":
                    axes = np.array(attribute.ints, np.int64)
                    name = f"axes_{'_'.join(str(axis) for axis in attribute.ints)}"
                    node.input.append(add_constant(graph, name, axes))
                    node.attribute.remove(attribute)


def _return_float32(graph: onnx.GraphProto) -> None:
    """Give every output of the graph to a Cast; its name stays with the float32 tensor."""
    from onnx import TensorProto, helper

    names = {output.name: f"{output.name}_float16" for output in graph.output}
    for node in graph.node:
        for ends in (node.input, node.output):
            for index, name in enumerate(ends):
                ends[index] = names.get(name, name)
    graph.node.extend(
        helper.make_node("Cast", [half], [name], name=f"{name}/Cast", to=TensorProto.FLOAT)
        for name, half in names.items()
    )
