"""ONNX models that reach outside themselves, or that two engines would read differently.

`hostile_models` gives one model a form by name. Those with external data name a file that the
caller chose; nothing may open it. All are correct protobuf; most would be loaded by an engine.
"""

from __future__ import annotations

import numpy as np
import onnx
from bundle_factory import tiny_onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = [
    "attribute",
    "constant",
    "external",
    "external_models",
    "function",
    "graph",
    "hostile_models",
    "if_node",
    "inline",
    "model",
    "sparse",
]
_FLOAT = TensorProto.FLOAT


def external(location: str = "secrets.bin", name: str = "w", **entries: str) -> TensorProto:
    """A tensor of two numbers that lie in another file."""
    tensor = TensorProto(name=name, data_type=_FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def inline(name: str = "w") -> TensorProto:
    """A tensor of two zeros in the model itself."""
    return numpy_helper.from_array(np.zeros(2, np.float32), name)


def places() -> TensorProto:
    """The indices of a sparse tensor's two values."""
    return numpy_helper.from_array(np.arange(2, dtype=np.int64), "i")


def graph(nodes=(), initializers=(), sparse=()) -> onnx.GraphProto:
    """y = x and the given nodes beside it."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), *nodes]
    x, y = (helper.make_tensor_value_info(name, _FLOAT, [2]) for name in "xy")
    made = helper.make_graph(nodes, "g", [x], [y], list(initializers))
    made.sparse_initializer.extend(sparse)
    return made


def model(main: onnx.GraphProto, **parts) -> bytes:
    """The bytes of a model around a graph."""
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(main, opset_imports=opsets, ir_version=8, **parts)
    return bytes(made.SerializeToString())


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    """A sparse tensor of two places."""
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2])


def constant(content: onnx.AttributeProto) -> onnx.NodeProto:
    """A Constant with one attribute."""
    node = onnx.NodeProto(op_type="Constant", output=["c"])
    node.attribute.append(content)
    return node


def attribute(name: str, **content) -> onnx.AttributeProto:
    """An attribute with the given field of AttributeProto filled."""
    made = onnx.AttributeProto(name=name)
    for field, value in content.items():
        target = getattr(made, field)
        if isinstance(value, list):
            target.extend(value)
        else:
            target.CopyFrom(value)
    return made


def function(**parts) -> onnx.FunctionProto:
    """A model-local function; by default of the standard domain and harmless."""
    content = {"domain": "", "fname": "f", "inputs": ["x"], "outputs": ["c"], **parts}
    nodes = content.pop("nodes", [helper.make_node("Identity", ["x"], ["c"])])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_function(nodes=nodes, opset_imports=opsets, **content)


def if_node(branch: onnx.GraphProto) -> onnx.NodeProto:
    """An If with `branch` as its first way."""
    return helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=graph())


def external_models(location: str = "secrets.bin") -> dict[str, bytes]:
    """A model for every place in which ONNX can keep a tensor, each with external data there."""
    outside, outside_places = external(location), external(location)
    outside_places.data_type = TensorProto.INT64
    holed = constant(attribute("value", t=external(location)))
    deep = holed
    for _ in range(10):
        deep = if_node(graph([deep]))
    holed_graph = graph(initializers=[outside])
    body = helper.make_node("Loop", ["", "x"], ["z"], body=holed_graph)
    scan = helper.make_node("Scan", ["x"], ["z"], body=holed_graph, num_scan_inputs=1)
    default = function()
    default.attribute_proto.append(attribute("value", t=outside))

    def in_constant(name: str = "v", **content) -> bytes:
        return model(graph([constant(attribute(name, **content))]))

    return {
        "initializer": model(holed_graph),
        "sparse initializer values": model(graph(sparse=[sparse(outside, places())])),
        "sparse initializer indices": model(graph(sparse=[sparse(inline(), outside_places)])),
        "attribute t": model(graph([holed])),
        "attribute tensors": in_constant(tensors=[inline(), outside]),
        "Constant.sparse_value values": in_constant(
            "sparse_value", sparse_tensor=sparse(outside, places())
        ),
        "Constant.sparse_value indices": in_constant(
            "sparse_value", sparse_tensor=sparse(inline(), outside_places)
        ),
        "attribute sparse_tensors": in_constant(sparse_tensors=[sparse(outside, places())]),
        "If branch initializer": model(graph([if_node(holed_graph)])),
        "If branch, 10 deep": model(graph([deep])),
        "Loop body": model(graph([body])),
        "Scan body": model(graph([scan])),
        "attribute graphs": in_constant(graphs=[holed_graph]),
        "function node": model(graph(), functions=[function(nodes=[holed])]),
        "function attribute default": model(graph(), functions=[default]),
        "training initialization": _training("initialization", holed_graph),
        "training algorithm": _training("algorithm", holed_graph),
    }


def _training(where: str, holed_graph: onnx.GraphProto) -> bytes:
    made = onnx.ModelProto.FromString(model(graph()))
    getattr(made.training_info.add(), where).CopyFrom(holed_graph)
    return bytes(made.SerializeToString())


def _foreign(domain: str, op_type: str, **attributes) -> bytes:
    return model(graph([helper.make_node(op_type, ["x"], ["z"], domain=domain, **attributes)]))


def _half_declared(keep: str, location: str) -> bytes:
    tensor = external(location)
    if keep == "location":
        del tensor.external_data[:]
    else:
        tensor.ClearField("data_location")
    return model(graph(initializers=[tensor]))


def _huge(*dims: int) -> bytes:
    tensor = TensorProto(name="w", data_type=_FLOAT, dims=dims, raw_data=bytes(8))
    return model(graph(initializers=[tensor]))


def _with_metadata(key: str, value: str) -> bytes:
    made = onnx.ModelProto.FromString(tiny_onnx())
    entry = made.metadata_props.add()
    entry.key, entry.value = key, value
    return bytes(made.SerializeToString())


def hostile_models(location: str) -> dict[str, bytes]:
    """A model a form, none of which may be accepted; external data point to `location`."""
    relu = function(fname="Relu", nodes=[helper.make_node("Neg", ["x"], ["c"])])
    twice = [helper.make_node("Neg", ["x"], ["c"]), helper.make_node("Relu", ["x"], ["c"])]
    random = helper.make_node("RandomNormal", [], ["z"], shape=[2])
    cache = {"main_context": 1, "embed_mode": 0, "ep_cache_context": location}
    return {
        **external_models(location),
        "external, with offset and length": model(
            graph(initializers=[external(location, offset="4", length="8")])
        ),
        "external location without entries": _half_declared("location", location),
        "external entries, declared inside": _half_declared("entries", location),
        "node of com.microsoft": _foreign("com.microsoft", "QLinearAdd"),
        "EPContext that names a file": _foreign("com.microsoft", "EPContext", **cache),
        "node of a vendor's library": _foreign("vendor.ops", "RunCommand"),
        "foreign node in a branch": model(
            graph([if_node(graph([helper.make_node("Evil", ["x"], ["z"], domain="vendor")]))])
        ),
        "foreign node in a function": model(
            graph(),
            functions=[function(nodes=[helper.make_node("E", ["x"], ["c"], domain="vendor")])],
        ),
        "function of a foreign domain": model(graph(), functions=[function(domain="vendor")]),
        "function that redefines Relu": model(graph(), functions=[relu]),
        "operator that does not exist": _foreign("", "Frobnicate"),
        "control flow": model(graph([if_node(graph())])),
        "random numbers": model(graph([random])),
        "decoding of images": _foreign("", "ImageDecoder"),
        "huge dimensions": _huge(1 << 40, 1 << 20),
        "negative dimension": _huge(-2),
        "dimensions beyond the data": _huge(1 << 20),
        "initializer twice": model(graph(initializers=[inline("w"), inline("w")])),
        "output twice": model(graph(twice)),
        "data in two fields": _data_twice(),
        "two main graphs": model(graph()) * 2,
        "session options in the metadata": _with_metadata("ort_config", '{"session_options": {}}'),
        "ORT format": b"\x18\x00\x00\x00ORTM" + bytes(64),
        "unknown field": tiny_onnx() + b"\xfa\x07\x03abc",
        "cut": tiny_onnx()[:-40],
    }


def _data_twice() -> bytes:
    tensor = inline()
    tensor.float_data.extend([1.0, 1.0])
    return model(graph(initializers=[tensor]))
