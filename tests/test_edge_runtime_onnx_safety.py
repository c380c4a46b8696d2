from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from bundle_factory import tiny_onnx
from onnx import TensorProto, helper, numpy_helper

from edge_runtime import onnx_safety
from edge_runtime.errors import BundleFormatError
from edge_runtime.onnx_safety import check_onnx


def _external(name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secrets.bin"
    return tensor


def _inline(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.zeros(2, np.float32), name)


def _graph(nodes=(), initializers=(), sparse=()) -> onnx.GraphProto:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), *nodes]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], list(initializers))
    graph.sparse_initializer.extend(sparse)
    return graph


def _model(graph: onnx.GraphProto, **parts) -> bytes:
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, **parts)
    return model.SerializeToString()


def _sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2])


def _constant(attribute: onnx.AttributeProto) -> onnx.NodeProto:
    node = onnx.NodeProto(op_type="Constant", output=["c"])
    node.attribute.append(attribute)
    return node


def _attribute(name: str, **content) -> onnx.AttributeProto:
    attribute = onnx.AttributeProto(name=name)
    for field, value in content.items():
        target = getattr(attribute, field)
        if isinstance(value, list):
            target.extend(value)
        else:
            target.CopyFrom(value)
    return attribute


def _training_model(where: str) -> bytes:
    model = onnx.ModelProto.FromString(_model(_graph()))
    info = model.training_info.add()
    getattr(info, where).CopyFrom(_graph(initializers=[_external()]))
    return model.SerializeToString()


def _function(**parts) -> onnx.FunctionProto:
    content = {"domain": "", "fname": "f", "inputs": ["x"], "outputs": ["c"], **parts}
    nodes = content.pop("nodes", [helper.make_node("Identity", ["x"], ["c"])])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_function(nodes=nodes, opset_imports=opsets, **content)


def _function_with_default() -> bytes:
    function = _function()
    function.attribute_proto.append(_attribute("value", t=_external()))
    return _model(_graph(), functions=[function])


def _if_node(branch: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=_graph())


def _deep_node(innermost: onnx.NodeProto, depth: int) -> onnx.NodeProto:
    node = innermost
    for _ in range(depth):
        node = _if_node(_graph([node]))
    return node


_HOLED = _constant(_attribute("value", t=_external()))

EXTERNAL = {
    "initializer": _model(_graph(initializers=[_external()])),
    "sparse initializer values": _model(_graph(sparse=[_sparse(_external(), _inline())])),
    "sparse initializer indices": _model(_graph(sparse=[_sparse(_inline(), _external())])),
    "attribute t": _model(_graph([_HOLED])),
    "attribute tensors": _model(
        _graph([_constant(_attribute("v", tensors=[_inline(), _external()]))])
    ),
    "Constant.sparse_value values": _model(
        _graph([_constant(_attribute("v", sparse_tensor=_sparse(_external(), _inline())))])
    ),
    "Constant.sparse_value indices": _model(
        _graph([_constant(_attribute("v", sparse_tensor=_sparse(_inline(), _external())))])
    ),
    "attribute sparse_tensors": _model(
        _graph([_constant(_attribute("v", sparse_tensors=[_sparse(_external(), _inline())]))])
    ),
    "If branch initializer": _model(_graph([_if_node(_graph(initializers=[_external()]))])),
    "If branch, 10 deep": _model(_graph([_deep_node(_HOLED, 10)])),
    "attribute graphs": _model(
        _graph([_constant(_attribute("v", graphs=[_graph(initializers=[_external()])]))])
    ),
    "function node": _model(_graph(), functions=[_function(nodes=[_HOLED])]),
    "function attribute default": _function_with_default(),
    "training initialization": _training_model("initialization"),
    "training algorithm": _training_model("algorithm"),
}


@pytest.mark.parametrize("case", EXTERNAL)
def test_external_data_is_refused_wherever_it_hides(case):
    data = EXTERNAL[case]
    assert b"secrets.bin" in data  # the case really carries it
    with pytest.raises(BundleFormatError, match=r"m\.onnx is refused: a tensor at byte \d+"):
        check_onnx(data, name="m.onnx")


@pytest.mark.parametrize("keep", ["location", "entries"])
def test_half_an_external_declaration_is_refused(keep):
    tensor = _external()
    if keep == "location":
        del tensor.external_data[:]
    else:
        tensor.ClearField("data_location")
    with pytest.raises(BundleFormatError, match="a tensor at byte"):
        check_onnx(_model(_graph(initializers=[tensor])), name="m.onnx")


@pytest.mark.parametrize("place", ["graph", "branch", "function"])
def test_foreign_operators_are_refused(place):
    foreign = helper.make_node("QLinearAdd", ["x"], ["z"], domain="com.microsoft")
    data = {
        "graph": _model(_graph([foreign])),
        "branch": _model(_graph([_if_node(_graph([foreign]))])),
        "function": _model(_graph(), functions=[_function(nodes=[foreign])]),
    }[place]
    with pytest.raises(BundleFormatError, match=r"operator domain 'com\.microsoft'"):
        check_onnx(data, name="m.onnx")


def test_a_function_outside_the_standard_domain_is_refused():
    data = _model(_graph(), functions=[_function(domain="vendor")])
    with pytest.raises(BundleFormatError, match="a function of the operator domain 'vendor'"):
        check_onnx(data, name="m.onnx")


@pytest.mark.parametrize(
    "data",
    [
        tiny_onnx(),
        _model(_graph(initializers=[_inline()], sparse=[_sparse(_inline(), _inline())])),
        _model(_graph([_if_node(_graph([_constant(_attribute("v", t=_inline()))]))])),
        _model(_graph([helper.make_node("Identity", ["x"], ["z"], domain="ai.onnx")])),
        _model(_graph(), functions=[_function()]),
    ],
    ids=["tiny", "tensors", "branch", "long domain", "function"],
)
def test_self_contained_models_are_accepted(data):
    check_onnx(data, name="m.onnx")


def test_the_walker_knows_every_field_of_the_schema():
    """Every field that onnx.proto has is known, and whatever can hold a tensor is entered."""
    protos = {
        "model": onnx.ModelProto,
        "training_info": onnx.TrainingInfoProto,
        "graph": onnx.GraphProto,
        "function": onnx.FunctionProto,
        "node": onnx.NodeProto,
        "attribute": onnx.AttributeProto,
        "tensor": onnx.TensorProto,
        "sparse_tensor": onnx.SparseTensorProto,
    }
    kinds = {proto.DESCRIPTOR.full_name: kind for kind, proto in protos.items()}
    assert set(protos) == set(onnx_safety._FIELDS)
    for kind, proto in protos.items():
        table = onnx_safety._FIELDS[kind]
        for field in proto.DESCRIPTOR.fields:
            inner = field.message_type.full_name if field.message_type else None
            assert table[field.number] == kinds.get(inner), (kind, field.name)


def test_no_message_that_is_stepped_over_can_hold_a_tensor():
    entered = {"TensorProto", "SparseTensorProto", "GraphProto", "NodeProto", "AttributeProto"}

    def reaches(message, seen):
        names = set()
        for field in message.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                names |= {inner.name} | reaches(inner, seen)
        return names

    for name in ("ValueInfoProto", "TypeProto", "TensorAnnotation", "OperatorSetIdProto"):
        assert not reaches(getattr(onnx, name).DESCRIPTOR, set()) & entered


def _accepted(data: bytes) -> bool:
    """Whether the walk accepts; anything but BundleFormatError escapes and fails the test."""
    try:
        check_onnx(data, name="m.onnx")
    except BundleFormatError:
        return False
    return True


def test_every_truncation_is_refused_or_walkable():
    data = tiny_onnx()
    outcomes = [_accepted(data[:length]) for length in range(0, len(data), 3)]
    assert not outcomes[0]
    assert sum(outcomes) < 0.02 * len(outcomes)  # only cuts behind the whole graph


def test_byte_flips_never_crash_and_never_hide_external_data(rng):
    data = bytearray(EXTERNAL["Constant.sparse_value values"])
    clean = bytearray(tiny_onnx())
    refused = 0
    for _ in range(800):
        for source in (data, clean):
            flipped = bytearray(source)
            flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
            accepted = _accepted(bytes(flipped))
            refused += not accepted
            if accepted and source is data:
                _assert_parser_sees_nothing_external(bytes(flipped))
    assert refused > 800


def _assert_parser_sees_nothing_external(data: bytes) -> None:
    """Whatever the walk accepts, the real parser must not find external data in either."""
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # the parser refuses it: no engine will load it
        return
    assert "data_location: EXTERNAL" not in str(model)
    assert "external_data" not in str(model)


def test_random_bytes_never_crash(rng):
    assert not any(_accepted(rng.bytes(int(size))) for size in rng.integers(1, 200, 500))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 main graphs"),
        (_model(_graph()) * 2, "2 main graphs"),
        (b"\x00\x01", "tag 0"),
        (b"\x3b", "wire type 3"),
        (b"\x3a\x05ab", "passes its message"),
        (b"\xff" * 12, "does not end"),
        (b"\xff\xff\xff\xff\x7f\x01", "tag"),
        (b"\x38\x01", "is no message"),
        (b"\xfa\x07\x00", "unknown field 127 in a model"),
        (b"\x18\x00\x00\x00ORTM" + bytes(8), "ORT format"),
    ],
)
def test_malformed_protobuf_is_named(data, reason):
    with pytest.raises(BundleFormatError, match=reason):
        check_onnx(data, name="m.onnx")


def test_endless_nesting_is_bounded():
    data = b""
    for _ in range(60):  # node -> attribute -> graph, each inside the other
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            data = tag + _varint(len(data)) + data
    with pytest.raises(BundleFormatError, match="deeper than 100"):
        check_onnx(b"\x3a" + _varint(len(data)) + data, name="m.onnx")


def test_number_of_fields_is_bounded(monkeypatch):
    monkeypatch.setattr(onnx_safety, "_MAX_FIELDS", 1000)
    with pytest.raises(BundleFormatError, match="more than 1000 fields"):
        check_onnx(b"\x08\x08" * 1001, name="m.onnx")


def _varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def test_large_weights_are_stepped_over():
    weights = numpy_helper.from_array(np.zeros(13_000_000, np.float32), "w")
    data = _model(_graph(initializers=[weights]))
    start = time.perf_counter()
    check_onnx(data, name="m.onnx")
    assert len(data) > 50_000_000
    assert time.perf_counter() - start < 0.2
