"""The float16 file: legal, the same integers, close to the INT8 file, or refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import build_student, images
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from test_calibration_cpu_form import dense_student, relu6_student
from test_calibration_quantize import make_portable, run

from calibration.half import to_half
from calibration.lint import kind_of, lint_half
from calibration.quantize import round_up_to_half
from edge_runtime.bundle_parts.onnx_safety import check_onnx
from edge_runtime.errors import BundleFormatError


@pytest.mark.parametrize("build", [build_student, relu6_student, dense_student])
def test_close_to_int8_and_clean(build):
    model, pictures = build(), images()
    portable = make_portable(model, pictures)
    half = to_half(portable)
    check_onnx(half, name="model.int8fp16.onnx")
    onnx.checker.check_model(onnx.load_model_from_string(half), full_check=True)
    assert lint_half(half) == []
    assert kind_of(half) == "half"
    assert len(half) < 0.6 * len(portable)
    # Float16 has 11 bits; activations near a rounding edge move by one step of 127. That must
    # be less than what INT8 itself changes.
    files = (model, portable, half)
    for a, b, c in zip(*(run(f, pictures, optimized=False) for f in files), strict=True):
        assert rms(c - b) <= rms(b - a)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_the_reference_implementation_computes_the_same():
    """onnx's own evaluator rounds every node to float16; ONNX Runtime's CPU keeps float32."""
    model, pictures = build_student(size_px=16), images(4, size_px=16)
    portable = make_portable(model, pictures)
    half = to_half(portable)
    evaluator = ReferenceEvaluator(onnx.load_model_from_string(half))
    rows = [evaluator.run(None, {"image_nhwc": picture[None]}) for picture in pictures]
    rounded = [np.concatenate(column) for column in zip(*rows, strict=True)]
    files = [run(data, pictures, optimized=False) for data in (model, portable, half)]
    for a, b, c, d in zip(*files, rounded, strict=True):
        assert rms(d - c) <= rms(b - a)


def test_everything_inside_is_float16():
    model = onnx.load_model_from_string(to_half(make_portable(build_student(), images())))
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert types == {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64}
    assert [o.type.tensor_type.elem_type for o in model.graph.output] == [TensorProto.FLOAT] * 4
    assert (model.ir_version, model.opset_import[0].version) == (9, 19)


def test_scales_lose_nothing_in_float16():
    portable = onnx.load_model_from_string(make_portable(build_student(), images()))
    scales = {n.input[1] for n in portable.graph.node if n.op_type == "QuantizeLinear"}
    for tensor in portable.graph.initializer:
        if tensor.name in scales:
            value = numpy_helper.to_array(tensor)
            assert np.array_equal(value.astype(np.float16).astype(np.float32), value)


def test_rounding_up_is_the_next_float16(rng):
    values = np.exp(rng.uniform(np.log(1e-7), np.log(1e4), 2000))
    up = round_up_to_half(values)
    assert (up >= values).all()
    assert (np.nextafter(up.astype(np.float16), np.float16(0)).astype(np.float64) < values).all()
    assert np.array_equal(round_up_to_half(up), up)


def change(model_bytes: bytes, name: str, value: float) -> bytes:
    model = onnx.load_model_from_string(model_bytes)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            array = np.full_like(numpy_helper.to_array(tensor), value)
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return model.SerializeToString()


def test_refuses_what_does_not_fit_float16():
    portable = make_portable(build_student(), images())
    with pytest.raises(BundleFormatError, match=r"'stem\.pool' reaches 1.27e\+05"):
        to_half(change(portable, "stem.pool/scale", 1000.0))
    with pytest.raises(BundleFormatError, match="does not fit float16"):
        to_half(change(portable, "evidence.bias", 1e5))


def test_refuses_operators_that_opset_18_changed():
    model = onnx.load_model_from_string(make_portable(build_student(), images()))
    model.graph.node[0].op_type = "Resize"
    with pytest.raises(BundleFormatError, match="Resize of opset 17"):
        to_half(model.SerializeToString())
