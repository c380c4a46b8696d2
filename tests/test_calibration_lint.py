"""Each rule finds the fault it is for, and nothing in clean files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import build_student, images
from onnx import helper, numpy_helper
from test_calibration_quantize import make_portable

from calibration.cpu_form import to_cpu_form
from calibration.lint import lint_cpu, lint_portable, require_clean
from edge_runtime.errors import BundleFormatError

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
