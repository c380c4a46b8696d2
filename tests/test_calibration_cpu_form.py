"""The CPU file computes the integers of the portable file, and its kernels are integer kernels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from calibration_graphs import GraphBuilder, build_student, finish, heads, images, input_chain
from onnx import numpy_helper
from test_calibration_quantize import make_portable, run

from calibration.cpu_form import to_cpu_form
from calibration.int8_models import require_same_integers
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
    assert kinds["Clip"] == 3  # two Clip(0, 6) and the Relu before the pool, all on uint8


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
    assert kinds["QLinearAdd"] == 1  # the last Add feeds float heads


def test_no_quantiser_reads_the_image_and_weights_are_stored_as_int8():
    model = build_student()
    portable = make_portable(model, images())
    cpu = to_cpu_form(portable)
    graph = onnx.load_model_from_string(cpu).graph
    assert graph.node[0].op_type == "Transpose"
    assert graph.node[0].input[0] == "image_nhwc"
    assert {"Cast", "Sub"} & {node.op_type for node in graph.node} == set()
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    assert values["/layer1.conv1/weight_int8"].dtype == np.int8
    assert values["/layer1.conv1/bias_int32"].dtype == np.int32
    assert len(cpu) < 0.4 * len(portable)


def test_refuses_a_file_that_is_not_portable_int8():
    with pytest.raises(BundleFormatError, match="not quantised right after"):
        to_cpu_form(build_student())
    cpu = to_cpu_form(make_portable(build_student(), images()))
    with pytest.raises(BundleFormatError, match="offset 0"):
        to_cpu_form(cpu)


def test_a_difference_is_found_and_named():
    pictures = images()
    portable = make_portable(build_student(), pictures)
    other = to_cpu_form(make_portable(build_student(), pictures[1:3]))
    with pytest.raises(ParityError, match=r"differ in \w+ by"):
        require_same_integers(portable, other, pictures)
    require_same_integers(portable, to_cpu_form(portable), pictures)
