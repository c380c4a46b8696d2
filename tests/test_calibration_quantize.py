"""The portable file: which tensors get pairs, which integers, and how close to FP32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import (
    GraphBuilder,
    build_student,
    finish,
    heads,
    images,
    input_chain,
)
from onnx import numpy_helper

from calibration.observers import RangeMethod
from calibration.quantize import plan_quantization, quantize
from calibration.ranges import observe_activations, ranges_of
from calibration.run_models import open_session
from edge_runtime.errors import BundleFormatError, EngineError

MINMAX = RangeMethod(name="minmax")


def make_portable(model: bytes, pictures: np.ndarray) -> bytes:
    plan = plan_quantization(model)
    ranges = ranges_of(observe_activations(model, plan.observed, pictures), MINMAX)
    return quantize(model, plan, ranges)


def run(model: bytes, pictures: np.ndarray, *, optimized: bool = True) -> list[np.ndarray]:
    """Four outputs, each with one row an image."""
    session = open_session(model, optimized=optimized)
    rows = [session.run(None, {"image_nhwc": picture[None]}) for picture in pictures]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def parts(model: bytes):
    graph = onnx.load_model_from_string(model).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return graph, values, {name: node for node in graph.node for name in node.output}


def test_plan_of_a_residual_student():
    plan = plan_quantization(build_student())
    assert plan.input_tensor == "image_nchw"
    assert plan.input_step == 1.0
    assert plan.observed == (
        "stem.pool",
        "layer1.relu1",
        "layer1.conv2",
        "layer1.relu2",
        "layer2.relu1",
        "layer2.conv2",
        "layer2.down",
        "layer2.relu2",  # the features that the float heads read
    )
    assert plan.float_nodes == ("/evidence", "/gradability_logit")
    assert len(plan.conv_names) == 6


def test_both_inputs_of_every_residual_add_have_a_pair():
    graph, _, made = parts(make_portable(build_student(), images()))
    adds = [node for node in graph.node if node.op_type == "Add"]
    assert len(adds) == 2
    for add in adds:
        assert [made[name].op_type for name in add.input] == ["DequantizeLinear"] * 2


def test_image_is_quantised_without_loss():
    _, values, made = parts(make_portable(build_student(), images()))
    quantizer = made["image_nchw/quantized"]
    assert values[quantizer.input[1]] == np.float32(1.0)
    assert values[quantizer.input[2]].dtype == np.int8
    assert values[quantizer.input[2]] == 0


def test_weights_are_whole_steps_of_their_channel_and_close_to_the_original():
    model = build_student()
    _, values, made = parts(make_portable(model, images()))
    original = parts(model)[1]["layer1.conv1.weight"]
    weight, scale = values["/layer1.conv1/weight"], values["/layer1.conv1/weight_scale"]
    steps = weight / scale[:, None, None, None]
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert np.abs(steps).reshape(16, -1).max(axis=1) == pytest.approx(127)
    assert (np.abs(weight - original) <= scale[:, None, None, None] * 0.5001).all()
    assert made["/layer1.conv1/weight/quantized"].attribute[0].i == 0


def test_biases_are_float_and_whole_multiples_of_both_scales():
    graph, values, made = parts(make_portable(build_student(), images()))
    convs = [n for n in graph.node if n.op_type == "Conv" and n.name != "/evidence"]
    assert len(convs) == 6
    for conv in convs:
        bias = values[conv.input[2]]
        steps = bias / (values[made[conv.input[0]].input[1]] * values[made[conv.input[1]].input[1]])
        assert bias.dtype == np.float32
        np.testing.assert_allclose(steps, np.rint(steps), rtol=1e-6)
        assert np.abs(steps).max() < 2**22


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_int8_stays_close_to_fp32(seed):
    model, pictures = build_student(seed), images(6, seed=seed)
    exact, approximate = run(model, pictures), run(make_portable(model, pictures), pictures)
    for a, b in zip(exact, approximate, strict=True):
        assert np.abs(a - b).max() < 0.05 * np.abs(a).max()
        assert not np.array_equal(a, b)


def test_a_channel_of_zeros_and_a_huge_bias_are_representable():
    model = onnx.load_model_from_string(build_student())
    for tensor in model.graph.initializer:
        if tensor.name in ("layer1.conv1.weight", "layer1.conv1.bias"):
            value = numpy_helper.to_array(tensor).copy()
            value[0] = 0.0
            if value.ndim == 1:
                value[1] = 5e4
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    _, values, _ = parts(make_portable(model.SerializeToString(), images()))
    assert (values["/layer1.conv1/weight_scale"] > np.finfo(np.float32).tiny).all()
    assert values["/layer1.conv1/bias"][1] == pytest.approx(5e4, rel=1e-5)
    assert values["/layer1.conv1/weight"][0].max() == 0


def test_depthwise_and_odd_convolutions():
    b = GraphBuilder(0)
    x = b.node("Relu", [b.conv(input_chain(b), "stem", 3, 16, 3, 4, gain=1 / 64)], "r0")
    x = b.node("Relu", [b.conv(x, "depthwise", 16, 16, 3, 2, groups=16)], "r1")
    x = b.node("Relu", [b.conv(x, "odd", 16, 12, 1)], "r2")
    x = b.node("Relu", [b.conv(x, "small", 12, 12, 3)], "r3")
    x = b.node("Relu", [b.conv(x, "grouped_1x1", 12, 32, 1, groups=4)], "r4")
    heads(b, x, 32, 2)
    model = finish(b, 32, 2, 32)
    plan = plan_quantization(model)
    assert plan.conv_names == ("/stem", "/depthwise", "/odd")
    assert plan.float_nodes == ("/small", "/grouped_1x1", "/evidence", "/gradability_logit")
    exact, approximate = run(model, images()), run(make_portable(model, images()), images())
    assert np.abs(exact[0] - approximate[0]).max() < 0.05 * np.abs(exact[0]).max()


def test_convolution_without_bias():
    b = GraphBuilder(0)
    x = b.node("Relu", [b.conv(input_chain(b), "stem", 3, 8, 3, 8, bias=False, gain=1 / 64)], "r0")
    heads(b, x, 8, 2)
    model = finish(b, 32, 2, 8)
    graph, _, _ = parts(make_portable(model, images()))
    stem = next(node for node in graph.node if node.name == "/stem")
    assert len(stem.input) == 2


def broken_student(mean: float = 128.0, kind: str | None = None) -> bytes:
    b = GraphBuilder(0)
    x = b.conv(input_chain(b, mean), "stem", 3, 8, 3, 8)
    if kind == "BatchNormalization":
        ones = [b.constant(f"bn{i}", np.ones(8, np.float32)) for i in range(4)]
        x = b.node("BatchNormalization", [x, *ones], "bn")
    heads(b, b.node("Relu", [x], "r0"), 8, 2)
    return finish(b, 32, 2, 8)


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (broken_student(mean=127.5), "offset -127.5"),
        (broken_student(kind="BatchNormalization"), "BatchNormalization"),
        (b"not a model \xff\xff", "not an ONNX model"),
    ],
)
def test_refuses_graphs_that_cannot_be_exact(model, word):
    with pytest.raises(BundleFormatError, match=word):
        plan_quantization(model)


@pytest.mark.parametrize("bad", [{}, {"stem.pool": np.nan}, {"stem.pool": 0.0}])
def test_refuses_missing_or_useless_ranges(bad):
    model = build_student()
    plan = plan_quantization(model)
    ranges = dict.fromkeys(plan.observed, 1.0)
    ranges.pop("stem.pool")
    with pytest.raises(BundleFormatError, match=r"stem\.pool"):
        quantize(model, plan, {**ranges, **bad})


def test_observation_refuses_no_image_and_infinite_activations():
    model = build_student()
    plan = plan_quantization(model)
    with pytest.raises(EngineError, match="no image"):
        observe_activations(model, plan.observed, [])
    huge = onnx.load_model_from_string(model)
    for tensor in huge.graph.initializer:
        if tensor.name == "layer1.conv1.weight":
            value = np.full_like(numpy_helper.to_array(tensor), 3e38)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    with pytest.raises(EngineError, match=r"layer1\.relu1.* on image 1"):
        observe_activations(huge.SerializeToString(), plan.observed, images(2, seed=4)[1:])


def test_observation_sees_what_the_graph_computes():
    model, pictures = build_student(), images(5)
    histograms = observe_activations(model, ["layer1.conv2", "stem.pool"], pictures)
    exposed = onnx.load_model_from_string(model)
    info = onnx.helper.make_tensor_value_info("stem.pool", onnx.TensorProto.FLOAT, None)
    exposed.graph.output.append(info)
    arrays = run(exposed.SerializeToString(), pictures)[-1]
    assert histograms["stem.pool"].high == pytest.approx(arrays.max())
    assert histograms["stem.pool"].low == pytest.approx(arrays.min(), abs=1e-6)
    assert histograms["stem.pool"].counts.sum() == arrays.size
