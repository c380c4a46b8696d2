"""The CPU file computes the integers of the portable file, and its kernels are integer kernels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from calibration_graphs import GraphBuilder, build_student, finish, heads, images, input_chain
from onnx import numpy_helper
from test_calibration_quantize import MINMAX, make_portable, run

from calibration.cpu_form import to_cpu_form
from calibration.int8_models import require_same_integers
from calibration.quantize import plan_quantization, quantize
from calibration.ranges import observe_activations, ranges_of
from edge_runtime.errors import BundleFormatError, ParityError


def relu6_student() -> bytes:
    """Clip(0, 6) instead of Relu, and a branch whose activation is read twice."""
    b = GraphBuilder(3)
    low = b.constant("low", np.array(0, np.float32))
    high = b.constant("high", np.array(6, np.float32))
    x = b.node("Clip", [b.conv(input_chain(b), "stem", 3, 16, 3, 2, gain=1 / 16), low, high], "c0")
    y = b.node("Clip", [b.conv(x, "a", 16, 16, gain=3.0), low, high], "c1")
    y = b.node("Add", [b.conv(y, "b", 16, 16), x], "add")
    pooled = {"kernel_shape": [2, 2], "strides": [2, 2]}
    y = b.node("MaxPool", [b.node("Relu", [y], "r")], "p", **pooled)
    y = b.node("AveragePool", [b.conv(y, "c", 16, 16)], "q", **pooled)
    heads(b, b.node("Relu", [b.conv(y, "d", 16, 32)], "last"), 32, 2)
    return finish(b, 32, 2, 32)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_bit_for_bit_equal_without_graph_optimisation(seed):
    model, pictures = build_student(seed), images(8, seed=seed)
    portable = make_portable(model, pictures[:5])
    first = run(portable, pictures, optimized=False)
    second = run(to_cpu_form(portable), pictures, optimized=False)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
        assert np.ptp(a) > 0


def test_bit_for_bit_equal_with_relu6_pools_and_shared_activations():
    pictures = images(8)
    portable = make_portable(relu6_student(), pictures[:4])
    cpu = to_cpu_form(portable)
    for a, b in zip(
        run(portable, pictures, optimized=False), run(cpu, pictures, optimized=False), strict=True
    ):
        assert np.array_equal(a, b)
    kinds = Counter(node.op_type for node in onnx.load_model_from_string(cpu).graph.node)
    assert kinds["Clip"] == 4  # two Clip(0, 6), the Relu before the pool, the last; all on uint8


def test_saturated_activations_stay_equal():
    """Ranges taken from dim images saturate on bright ones, at the same integers in both."""
    model = build_student(5)
    dim = (images(3) // 16 + 120).astype(np.uint8)
    portable = make_portable(model, dim)
    bright = images(6, seed=9)
    first = run(portable, bright, optimized=False)
    second = run(to_cpu_form(portable), bright, optimized=False)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.abs(first[0] - run(model, bright)[0]).max() > 0.05 * np.abs(first[0]).max()


def test_optimised_kernels_agree_to_a_few_steps():
    model, pictures = build_student(), images(8)
    cpu = to_cpu_form(make_portable(model, pictures))
    for a, b in zip(run(cpu, pictures), run(cpu, pictures, optimized=False), strict=True):
        assert np.abs(a - b).max() <= 0.02 * np.abs(b).max()


def test_every_quantised_convolution_becomes_an_integer_kernel(tmp_path):
    import onnxruntime

    cpu = to_cpu_form(make_portable(build_student(), images()))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(cpu, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["QLinearConv"] == 6
    assert kinds["Conv"] == 1  # the evidence head
    assert kinds["QLinearAdd"] == 2


def test_no_quantiser_reads_the_image_and_weights_are_stored_as_int8():
    model = build_student()
    portable = make_portable(model, images())
    cpu = to_cpu_form(portable)
    graph = onnx.load_model_from_string(cpu).graph
    assert [node.op_type for node in graph.node[:3]] == [
        "Concat",  # a fourth channel, for integer kernels
        "Transpose",
        "DequantizeLinear",
    ]
    assert graph.node[0].input[0] == "image_nhwc"
    assert {"Cast", "Sub"} & {node.op_type for node in graph.node} == set()
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    assert values["/layer1.conv1/weight_int8"].dtype == np.int8
    assert values["/layer1.conv1/bias_int32"].dtype == np.int32
    assert len(cpu) < 0.4 * len(portable)


def test_refuses_a_file_that_is_not_portable_int8():
    half = onnx.load_model_from_string(make_portable(build_student(), images()))
    for node in half.graph.node:
        if node.name == "/stem":
            node.input[0] = "image_nchw"
    with pytest.raises(BundleFormatError, match="not quantised right after"):
        to_cpu_form(half.SerializeToString())
    cpu = to_cpu_form(make_portable(build_student(), images()))
    with pytest.raises(BundleFormatError, match="offset 0"):
        to_cpu_form(cpu)


def test_a_float_model_stays_as_it_is():
    model, pictures = build_student(), images()
    for a, b in zip(run(model, pictures), run(to_cpu_form(model), pictures), strict=True):
        assert np.array_equal(a, b)


def test_a_difference_is_found_and_named():
    pictures = images()
    portable = make_portable(build_student(), pictures)
    other = to_cpu_form(make_portable(build_student(), pictures[1:3]))
    with pytest.raises(ParityError, match=r"differ in \w+ by"):
        require_same_integers(portable, other, pictures)
    require_same_integers(portable, to_cpu_form(portable), pictures)


def dense_student() -> bytes:
    """HGNetV2's parts: clamps at other limits than 0, Pad, MaxPool and Concats of one scale."""
    b = GraphBuilder(4)
    low, high = (b.constant(n, np.array(x, np.float32)) for n, x in (("low", -0.3), ("high", 0.4)))
    pads = b.constant("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
    x = b.node("Clip", [b.conv(input_chain(b), "stem", 3, 16, 3, 2, gain=1 / 64), low], "c0")
    x = b.node("Pad", [x, pads], "pad")
    y = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[1, 1])
    z = b.node("Clip", [b.conv(y, "a", 16, 16), "", high], "c1")
    w = b.node("Relu", [b.conv(z, "b", 16, 8, gain=3.0)], "c2")
    v = b.conv(x, "c", 16, 8, 2, gain=0.2)
    next(a for a in b.nodes[-1].attribute if a.name == "pads").ints[:] = [0, 0, 0, 0]
    joined = b.node("Concat", [y, z, w, v], "cat", axis=1)
    t = b.node("Relu", [b.conv(joined, "d", 48, 16, 3, 2)], "c3")
    again = b.node("Concat", [t, b.node("Relu", [b.conv(t, "e", 16, 16)], "c4")], "cat2", axis=1)
    heads(b, b.node("Relu", [b.conv(again, "f", 32, 16, 3, 2)], "last"), 16, 2)
    return finish(b, 32, 2, 16)


def test_bit_for_bit_equal_with_clamps_pads_and_concats_all_in_integers():
    model, pictures = dense_student(), images(8)
    portable = make_portable(model, pictures[:4])
    cpu = to_cpu_form(portable)
    require_same_integers(portable, cpu, pictures)
    exact, approximate = run(model, pictures), run(portable, pictures)
    assert np.corrcoef(exact[0].ravel(), approximate[0].ravel())[0, 1] > 0.99
    nodes = onnx.load_model_from_string(cpu).graph.node
    made = {name: node for node in nodes for name in node.output}
    for node in nodes:  # each quantiser stands right behind a convolution
        if node.op_type == "QuantizeLinear":
            assert made[node.input[0]].op_type == "Conv"


def test_a_float_stem_keeps_the_image_chain():
    model, pictures = build_student(), images()
    plan = plan_quantization(model, excluded=["/stem"])
    ranges = ranges_of(observe_activations(model, plan.observed, pictures), MINMAX)
    portable = quantize(model, plan, ranges)
    cpu = to_cpu_form(portable)
    require_same_integers(portable, cpu, pictures)
    assert onnx.load_model_from_string(cpu).graph.node[0].op_type == "Cast"
