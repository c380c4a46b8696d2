from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from bundle_factory import tiny_onnx
from hostile_onnx import (
    attribute,
    constant,
    external,
    external_models,
    function,
    graph,
    hostile_models,
    if_node,
    inline,
    model,
    sparse,
)
from onnx import helper, numpy_helper

from edge_runtime.bundle_parts import onnx_safety
from edge_runtime.bundle_parts.onnx_operators import ALLOWED_OPERATORS
from edge_runtime.bundle_parts.onnx_safety import check_onnx
from edge_runtime.errors import BundleFormatError

EXTERNAL = external_models()


@pytest.mark.parametrize("case", EXTERNAL)
def test_external_data_is_refused_wherever_it_hides(case):
    data = EXTERNAL[case]
    assert b"secrets.bin" in data  # the case really carries it
    with pytest.raises(BundleFormatError, match=r"m\.onnx is refused: a tensor at byte \d+"):
        check_onnx(data, name="m.onnx")


@pytest.mark.parametrize("keep", ["location", "entries"])
def test_half_an_external_declaration_is_refused(keep):
    tensor = external()
    if keep == "location":
        del tensor.external_data[:]
    else:
        tensor.ClearField("data_location")
    with pytest.raises(BundleFormatError, match="a tensor at byte"):
        check_onnx(model(graph(initializers=[tensor])), name="m.onnx")


@pytest.mark.parametrize("place", ["graph", "branch", "function"])
def test_foreign_operators_are_refused(place):
    foreign = helper.make_node("QLinearAdd", ["x"], ["z"], domain="com.microsoft")
    data = {
        "graph": model(graph([foreign])),
        "branch": model(graph([if_node(graph([foreign]))])),
        "function": model(graph(), functions=[function(nodes=[foreign])]),
    }[place]
    with pytest.raises(BundleFormatError, match=r"operator domain 'com\.microsoft'"):
        check_onnx(data, name="m.onnx")


def test_a_function_outside_the_standard_domain_is_refused():
    data = model(graph(), functions=[function(domain="vendor")])
    with pytest.raises(BundleFormatError, match="a function of the operator domain 'vendor'"):
        check_onnx(data, name="m.onnx")


def _both_left_out() -> list[onnx.NodeProto]:
    return [helper.make_node("Split", ["x"], ["", name]) for name in ("d", "e")]


@pytest.mark.parametrize(
    "data",
    [
        tiny_onnx(),
        model(graph(initializers=[inline()], sparse=[sparse(inline(), inline())])),
        model(graph([constant(attribute("v", t=inline()))])),
        model(graph([helper.make_node("Identity", ["x"], ["z"], domain="ai.onnx")])),
        model(graph([helper.make_node("Split", ["x"], ["", "c"]), *_both_left_out()])),
    ],
    ids=["tiny", "tensors", "constant", "long domain", "outputs left out"],
)
def test_self_contained_models_are_accepted(data):
    check_onnx(data, name="m.onnx")


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("operator that does not exist", "the operator 'Frobnicate' is not allowed"),
        ("control flow", "the operator 'If' is not allowed"),
        ("random numbers", "the operator 'RandomNormal' is not allowed"),
        ("function that redefines Relu", "defines 1 functions of its own"),
        ("huge dimensions", r"claims \d+ numbers in \d+ bytes"),
        ("negative dimension", "claims"),
        ("dimensions beyond the data", "claims 1048576 numbers"),
        ("data in two fields", "gives its data twice"),
        ("initializer twice", "two values of one graph are called 'w'"),
        ("output twice", "two values of one graph are called 'c'"),
        ("session options in the metadata", "options of the session"),
    ],
)
def test_what_engines_may_read_differently_is_refused(case, reason):
    data = hostile_models("secrets.bin")[case]
    onnx.ModelProto.FromString(data)  # no damage: protobuf reads it
    with pytest.raises(BundleFormatError, match=reason):
        check_onnx(data, name="m.onnx")


@pytest.mark.parametrize("packed", [False, True])
def test_dimensions_are_read_in_both_spellings(packed):
    """A writer may pack repeated numbers or not; a parser takes either."""
    dims = b"\x80\x80\x40"  # 1,048,576
    tensor = (b"\x0a" + _varint(len(dims)) + dims) if packed else b"\x08" + dims
    tensor += b"\x10\x01\x4a\x08" + bytes(8)
    main = b"\x2a" + _varint(len(tensor)) + tensor
    data = b"\x3a" + _varint(len(main)) + main
    assert list(onnx.ModelProto.FromString(data).graph.initializer[0].dims) == [1 << 20]
    with pytest.raises(BundleFormatError, match="claims 1048576 numbers"):
        check_onnx(data, name="m.onnx")


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT8", "FLOAT16", "BFLOAT16", "INT64", "FLOAT"])
def test_honest_tensors_of_every_width_are_accepted(kind):
    values = np.arange(600) % 7
    for raw in (False, True):
        data_type = getattr(onnx.TensorProto, kind)
        if raw:
            dtype = helper.tensor_dtype_to_np_dtype(data_type)
            tensor = numpy_helper.from_array(values.astype(dtype), "w")
        else:
            tensor = helper.make_tensor("w", data_type, [600], values.tolist())
        check_onnx(model(graph(initializers=[tensor])), name="m.onnx")


def test_text_tensors_are_refused():
    tensor = helper.make_tensor("w", onnx.TensorProto.STRING, [1], [b"text"])
    with pytest.raises(BundleFormatError, match="holds text"):
        check_onnx(model(graph(initializers=[tensor])), name="m.onnx")


def test_every_allowed_operator_is_one_of_the_standard():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert ALLOWED_OPERATORS - known == set()
    assert not ALLOWED_OPERATORS & {"If", "Loop", "Scan", "RandomNormal", "ImageDecoder"}


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
        (model(graph()) * 2, "2 main graphs"),
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
    data = model(graph(initializers=[weights]))
    start = time.perf_counter()
    check_onnx(data, name="m.onnx")
    assert len(data) > 50_000_000
    assert time.perf_counter() - start < 0.2
