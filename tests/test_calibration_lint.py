"""Each rule finds the fault it is for, and nothing in clean files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import GraphBuilder, build_student, finish, heads, images, input_chain
from onnx import helper, numpy_helper
from test_calibration_cpu_form import dense_student
from test_calibration_quantize import MINMAX, make_portable

from calibration.cpu_form import to_cpu_form
from calibration.half import to_half
from calibration.int8_models import require_same_integers
from calibration.lint import (
    advice,
    kind_of,
    lint_cpu,
    lint_float,
    lint_half,
    lint_portable,
    require_clean,
)
from calibration.onnx_graph import producers
from calibration.quantize import plan_quantization, quantize
from calibration.ranges import observe_activations, ranges_of
from edge_runtime.errors import BundleFormatError, ConfigError

PORTABLE = make_portable(build_student(), images())
CPU = to_cpu_form(PORTABLE)


def change(model_bytes: bytes, edit) -> bytes:
    model = onnx.load_model_from_string(model_bytes)
    edit(model)
    return model.SerializeToString()


def set_tensor(name: str, value: np.ndarray):
    def edit(model):
        for tensor in model.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(value, name))
                return
        raise AssertionError(f"no initialiser {name}")

    return edit


def find(model, output: str):
    return next(node for node in model.graph.node if output in node.output)


def drop_zero_point(model):
    find(model, "stem.pool/quantized").input.pop()


def external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")


def contrib(model):
    model.graph.node[3].domain = "com.microsoft"


def integer_kernel(model):
    model.graph.node.append(helper.make_node("QLinearConv", [], ["x"], name="q"))


def two_scales(model):
    find(model, "stem.pool/dequantized").input[1] = "layer1.relu1/scale"


def unread_quantizer(model):
    source = find(model, "stem.pool/quantized")
    model.graph.node.append(
        helper.make_node("QuantizeLinear", list(source.input), ["unread"], name="unread")
    )


def per_axis_activation(model):
    for name, dtype in (("s", np.float32), ("z", np.int8)):
        value = np.ones(16, dtype) if name == "s" else np.zeros(16, dtype)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for output in ("stem.pool/quantized", "stem.pool/dequantized"):
        node = find(model, output)
        node.input[1], node.input[2] = "s", "z"


def float_input(model):
    find(model, "layer1.conv1").input[0] = "stem.pool"


def pair_before_relu(model):
    find(model, "layer1.relu1").input[0] = "layer1.conv2/dequantized"


ZERO = "activation_zero"
BREAKS = [
    ("OPSET", lambda m: setattr(m.opset_import[0], "version", 18)),
    ("IR", lambda m: setattr(m, "ir_version", 10)),
    ("DATA", external),
    ("R1", drop_zero_point),
    ("R1", set_tensor(ZERO, np.array(3, np.int8))),
    ("R2", set_tensor(ZERO, np.array(0, np.uint8))),
    ("R3", set_tensor("stem.pool/scale", np.array(0, np.float32))),
    ("R3", set_tensor("stem.pool/scale", np.array(np.nan, np.float32))),
    ("R3", set_tensor("stem.pool/scale", np.array(0.1, np.float16))),
    ("R4", per_axis_activation),
    ("R5", set_tensor(ZERO, np.array(0, np.int32))),
    ("R6", contrib),
    ("R6", integer_kernel),
    ("R7", two_scales),
    ("R7", unread_quantizer),
    ("P1", float_input),
    ("P1", pair_before_relu),
]


def test_both_files_are_clean():
    assert lint_portable(PORTABLE) == []
    assert lint_cpu(CPU) == []
    onnx.checker.check_model(onnx.load_model_from_string(PORTABLE), full_check=True)
    onnx.checker.check_model(onnx.load_model_from_string(CPU), full_check=True)


@pytest.mark.parametrize(("rule", "edit"), BREAKS)
def test_portable_rule(rule, edit):
    assert rule in {finding.rule for finding in lint_portable(change(PORTABLE, edit))}


def test_cpu_file_must_be_uint8_at_128():
    broken = change(CPU, set_tensor("activation_zero_uint8", np.array(127, np.uint8)))
    assert {finding.rule for finding in lint_cpu(broken)} == {"R2"}
    assert {finding.rule for finding in lint_cpu(PORTABLE)} == {"R2"}
    assert "R2" in {finding.rule for finding in lint_portable(CPU)}


def test_findings_are_named_in_the_refusal():
    findings = lint_portable(change(PORTABLE, lambda m: setattr(m, "ir_version", 10)))
    with pytest.raises(BundleFormatError, match=r"model\.int8\.onnx breaks 1 rules: IR at model"):
        require_clean("model.int8.onnx", findings)
    require_clean("model.int8.onnx", [])


# What the rules on placement find. `dense` has Concat, Pad and MaxPool; `gated` a squeeze gate.


def gated_student() -> bytes:
    b = GraphBuilder(6)
    x = b.node("Relu", [b.conv(input_chain(b), "stem", 3, 16, 3, 4, gain=1 / 64)], "r0")
    x = b.node("Relu", [b.conv(x, "depthwise", 16, 16, groups=16)], "r1")
    gate = b.node("ReduceMean", [x], "squeeze", axes=[2, 3], keepdims=1)
    gate = b.conv(b.node("Relu", [b.conv(gate, "fc1", 16, 16, 1)], "r2"), "fc2", 16, 16, 1)
    x = b.node("Mul", [x, b.node("Sigmoid", [gate], "gate")], "gated")
    heads(b, b.node("Relu", [b.conv(x, "last", 16, 16, 3, 2)], "r3"), 16, 2)
    return finish(b, 32, 2, 16)


DENSE = make_portable(dense_student(), images())
GATED = make_portable(gated_student(), images())


def quantize_weight(model, name: str):
    """Give a float node an INT8 weight, as a careless quantiser would."""
    node = next(node for node in model.graph.node if node.name == name)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    channels = values[node.input[1]].shape[0]
    for suffix, array in (
        ("s", np.full(channels, 0.01, np.float32)),
        ("z", np.zeros(channels, np.int8)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(array, f"{name}/{suffix}"))
    ends = [f"{name}/s", f"{name}/z"]
    pair = [
        helper.make_node("QuantizeLinear", [node.input[1], *ends], [f"{name}/q"], axis=0),
        helper.make_node("DequantizeLinear", [f"{name}/q", *ends], [f"{name}/d"], axis=0),
    ]
    node.input[1] = f"{name}/d"
    model.graph.node.extend(pair)


def no_pair_on_identity(model):
    find(model, "layer1.add").input[1] = "stem.pool"


def one_add_without_identity(model):
    add = find(model, "layer1.add")
    add.input[0] = "layer1.conv2"


def second_quantizer(model):
    source = find(model, "stem.pool/quantized")
    for kind, ends in (
        ("QuantizeLinear", ["stem.pool", *source.input[1:]]),
        ("DequantizeLinear", ["again", *source.input[1:]]),
    ):
        output = "again" if kind == "QuantizeLinear" else "again/dequantized"
        model.graph.node.append(helper.make_node(kind, ends, [output], name=f"again/{kind}"))
    find(model, "layer1.conv1").input[0] = "again/dequantized"


def sigmoid_on_pair(model):
    find(model, "layer1.relu1").op_type = "Sigmoid"
    find(model, "layer1.relu1").input[0] = "stem.pool/dequantized"


def odd_student() -> bytes:
    b = GraphBuilder(0)
    x = b.node("Relu", [b.conv(input_chain(b), "stem", 3, 16, 3, 4, gain=1 / 64)], "r0")
    x = b.node("Relu", [b.conv(x, "a", 16, 12, 3, 2)], "r1")
    x = b.node("Relu", [b.conv(x, "odd", 12, 12)], "r2")
    heads(b, b.node("Relu", [b.conv(x, "b", 12, 16)], "r3"), 16, 2)
    return finish(b, 32, 2, 16)


ODD = make_portable(odd_student(), images())


def separate_concat_scale(model):
    """One input of a Concat at a scale of its own, as a quantiser without P6 leaves it."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "own"))
    for output in ("c1/quantized", "c1/dequantized"):
        find(model, output).input[1] = "own"


def pool_changes_scale(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "own"))
    for output in ("pad/quantized", "pad/dequantized"):
        find(model, output).input[1] = "own"


def float_into_concat(model):
    find(model, "cat").input[1] = "c1"


def matrix_too_small(model):
    node = find(model, "gradability_logit")
    quantize_weight(model, node.name)


PLACEMENT = [
    ("P2", PORTABLE, no_pair_on_identity),
    ("P2", PORTABLE, one_add_without_identity),
    ("P3", PORTABLE, second_quantizer),
    ("P3", PORTABLE, float_input),
    ("P4", PORTABLE, sigmoid_on_pair),
    ("P4", PORTABLE, lambda m: quantize_weight(m, "/evidence")),
    ("P4", GATED, lambda m: quantize_weight(m, "/fc1")),
    ("P5", ODD, lambda m: quantize_weight(m, "/odd")),
    ("P5", PORTABLE, matrix_too_small),
    ("P6", DENSE, separate_concat_scale),
    ("P6", DENSE, pool_changes_scale),
    ("P6", DENSE, float_into_concat),
]


@pytest.mark.parametrize("model", [DENSE, GATED, ODD])
def test_placement_is_clean(model):
    assert lint_portable(model) == []
    assert lint_cpu(to_cpu_form(model)) == []
    assert lint_half(to_half(model)) == []


@pytest.mark.parametrize(("rule", "model", "edit"), PLACEMENT)
def test_placement_rule(rule, model, edit):
    assert rule in {finding.rule for finding in lint_portable(change(model, edit))}


def test_gates_and_the_readers_of_float_stay_float():
    made = producers(onnx.load_model_from_string(GATED).graph)
    assert made["fc1"].input[1] == "fc1.weight"
    assert made["gate"].input[0] == "fc2"
    assert made["last"].input[1] == "/last/weight/dequantized"


def test_identity_pairs_are_clean_and_equal_in_both_files():
    model, pictures = build_student(), images()
    plan = plan_quantization(model, residual_pairs="identity")
    assert "layer1.conv2" not in plan.observed
    ranges = ranges_of(observe_activations(model, plan.observed, pictures), MINMAX)
    portable = quantize(model, plan, ranges)
    assert lint_portable(portable) == []
    require_same_integers(portable, to_cpu_form(portable), pictures)
    made = producers(onnx.load_model_from_string(portable).graph)
    kinds = [[made[name].op_type for name in made[f"layer{i}.add"].input] for i in (1, 2)]
    assert kinds[0] == ["Conv", "DequantizeLinear"]
    assert kinds[1] == ["Conv", "DequantizeLinear"]
    with pytest.raises(ConfigError, match="residual_pairs is 'one'"):
        plan_quantization(model, residual_pairs="one")


def test_advice_on_depthwise_networks_and_late_opsets():
    assert [finding.rule for finding in advice(GATED)] == ["P7"]
    assert advice(PORTABLE) == []
    assert [finding.rule for finding in advice(to_half(PORTABLE))] == ["P9"]


def test_the_half_file_is_judged_by_its_own_contract():
    assert {finding.rule for finding in lint_half(PORTABLE)} == {"OPSET", "IR", "R3"}
    assert {finding.rule for finding in lint_portable(to_half(PORTABLE))} == {"OPSET", "IR", "R3"}


def test_float_files_and_kinds():
    assert lint_float(build_student()) == []
    assert {f.rule for f in lint_float(change(build_student(), contrib))} == {"R6"}
    files = (build_student(), PORTABLE, CPU, to_half(PORTABLE))
    assert [kind_of(data) for data in files] == ["float", "portable", "cpu", "half"]


def test_a_quantised_matrix_may_have_a_scale_an_output_channel():
    """R4: Gemm with transB counts output channels on axis 0; without it the axis is another."""
    broken = change(PORTABLE, matrix_too_small)
    assert "R4" not in {finding.rule for finding in lint_portable(broken)}

    def untransposed(model):
        matrix_too_small(model)
        find(model, "gradability_logit").attribute[0].i = 0

    assert "R4" in {finding.rule for finding in lint_portable(change(PORTABLE, untransposed))}
