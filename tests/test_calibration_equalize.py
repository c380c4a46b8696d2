"""Equalisation leaves the FP32 function bit for bit and makes channels alike."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import GraphBuilder, build_student, finish, heads, images, input_chain
from onnx import numpy_helper
from test_calibration_cpu_form import dense_student, relu6_student
from test_calibration_quantize import make_portable, run

from calibration.channels import observe_channels
from calibration.equalize import equalize
from edge_runtime.errors import EngineError


def uneven_student(seed: int = 0) -> bytes:
    """Dense and depthwise convolutions whose channels differ by up to 2**6, as DFQ describes."""
    b = GraphBuilder(seed)
    x = b.node("Relu", [b.conv(input_chain(b), "stem", 3, 16, 3, 2, gain=1 / 64)], "r0")
    y = b.node("Relu", [b.conv(x, "expand", 16, 32, 1)], "r1")
    y = b.node("Relu", [b.conv(y, "depthwise", 32, 32, 3, 2, groups=32)], "r2")
    y = b.node("Relu", [b.conv(y, "project", 32, 16, 1)], "r3")
    heads(b, b.node("Relu", [b.conv(y, "last", 16, 16, 3, 2)], "r4"), 16, 2)
    model = onnx.load_model_from_string(finish(b, 32, 2, 16))
    rng = np.random.default_rng(seed + 1)
    for first, second, axis in (
        ("expand", "depthwise", 0),
        ("depthwise", "project", 1),
        ("project", "last", 1),
    ):
        values = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
        factor = np.exp2(rng.uniform(-3, 3, values[f"{first}.bias"].size)).astype(np.float32)
        values[f"{first}.weight"] *= factor[:, None, None, None]
        values[f"{first}.bias"] *= factor
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        values[f"{second}.weight"] /= factor.reshape(shape)
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("build", "num_pairs"),
    [(build_student, 2), (relu6_student, 0), (uneven_student, 4), (dense_student, 0)],
)
def test_the_float_function_is_the_same_to_the_last_bit(build, num_pairs):
    model, pictures = build(), images()
    equal, found = equalize(model, pictures)
    assert found == num_pairs
    for optimized in (False, True):
        for a, b in zip(
            run(model, pictures, optimized=optimized),
            run(equal, pictures, optimized=optimized),
            strict=True,
        ):
            assert np.array_equal(a, b)


def test_channels_become_alike_and_int8_loses_less():
    model, pictures, unseen = uneven_student(), images(6), images(12, seed=9)
    equal, _ = equalize(model, pictures)
    spreads = []
    for data in (model, equal):
        amax = observe_channels(data, ["r1"], pictures)["r1"].amax
        spreads.append(np.log2(amax[amax > 0]).std())
    assert spreads[1] < 0.7 * spreads[0]
    exact = run(model, unseen)[2]
    errors = [
        np.square(run(make_portable(data, pictures), unseen)[2] - exact).mean()
        for data in (model, equal)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_a_second_sweep_finds_nothing_to_do():
    model, pictures = uneven_student(3), images()
    once, _ = equalize(model, pictures)
    twice, _ = equalize(once, pictures)
    for a, b in zip(weights(once), weights(twice), strict=True):
        assert np.array_equal(a, b)


def weights(model: bytes) -> list[np.ndarray]:
    graph = onnx.load_model_from_string(model).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return [values[node.input[1]] for node in graph.node if node.op_type == "Conv"]


def test_weights_change_by_powers_of_two_only():
    model = uneven_student()
    equal, _ = equalize(model, images())
    for a, b in zip(weights(model), weights(equal), strict=True):
        mantissa, _ = np.frexp(b[a != 0] / a[a != 0])
        assert (np.abs(mantissa) == 0.5).all()


def test_channel_statistics_and_no_image():
    model, pictures = build_student(), images(3)
    stats = observe_channels(model, ["layer1.relu1"], pictures)["layer1.relu1"]
    exposed = onnx.load_model_from_string(model)
    info = onnx.helper.make_tensor_value_info("layer1.relu1", onnx.TensorProto.FLOAT, None)
    exposed.graph.output.append(info)
    array = run(exposed.SerializeToString(), pictures)[-1]
    np.testing.assert_allclose(stats.amax, np.abs(array).max((0, 2, 3)))
    np.testing.assert_allclose(stats.mean, array.mean((0, 2, 3)), rtol=1e-5)
    with pytest.raises(EngineError, match="no image"):
        observe_channels(model, ["layer1.relu1"], pictures[:0])


def test_a_channel_that_no_image_woke_keeps_its_scale():
    """Asleep on these images is not dead: a factor a sweep would let it shout on others."""
    model = onnx.load_model_from_string(uneven_student(5))
    for tensor in model.graph.initializer:
        if tensor.name == "expand.bias":
            value = numpy_helper.to_array(tensor).copy()
            value[3] = -1e6
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    equal, _ = equalize(model.SerializeToString(), images())
    graph = onnx.load_model_from_string(equal).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    (conv,) = (n for n in graph.node if n.op_type == "Conv" and "expand" in n.input[1])
    assert values[conv.input[2]][3] == -1e6
