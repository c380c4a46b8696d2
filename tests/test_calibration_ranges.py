"""Observing a graph: the number of threads changes nothing, and failures name the tensor."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest
from calibration_graphs import build_student, images

from calibration.observers import METHODS, RangeMethod, amax
from calibration.quantize import plan_quantization
from calibration.ranges import default_threads, observe_activations, ranges_of, with_outputs
from calibration.run_models import open_session
from edge_runtime.errors import EngineError

MODEL = build_student()
TENSORS = plan_quantization(MODEL).observed


def test_histograms_hold_every_value_of_the_graph():
    pictures = images(5)
    histograms = observe_activations(MODEL, TENSORS, pictures)
    session = open_session(with_outputs(MODEL, TENSORS))
    runs = [session.run(list(TENSORS), {"image_nhwc": image[None]}) for image in pictures]
    for name, *arrays in zip(TENSORS, *runs, strict=True):
        values = np.concatenate([array.ravel() for array in arrays])
        histogram = histograms[name]
        assert (histogram.low, histogram.high) == (values.min(), values.max())
        assert histogram.counts.sum() == values.size


@pytest.mark.parametrize("num_threads", [2, 5])
def test_threads_change_nothing(num_threads):
    pictures = images(7)
    one, many = (
        observe_activations(MODEL, TENSORS, pictures, num_threads=n) for n in (1, num_threads)
    )
    for name in TENSORS:
        np.testing.assert_array_equal(one[name].counts, many[name].counts)
        assert one[name].limit == many[name].limit
    assert ranges_of(one, RangeMethod(name="mse")) == ranges_of(many, RangeMethod(name="mse"))


def test_images_are_read_one_at_a_time_and_each_once():
    lock, pictures, taken = threading.Lock(), images(9), []

    def stream():
        for number, picture in enumerate(pictures):
            assert lock.acquire(blocking=False), "two threads read at once"
            taken.append(number)
            lock.release()
            yield picture

    observe_activations(MODEL, TENSORS, stream(), num_threads=3)
    assert taken == list(range(9))


def test_ranges_are_those_of_the_method_for_every_tensor():
    histograms = observe_activations(MODEL, TENSORS, images(3))
    for name in METHODS:
        method = RangeMethod(name=name)
        ranges = ranges_of(histograms, method)
        assert ranges == {tensor: amax(histograms[tensor], method) for tensor in TENSORS}


def test_an_activation_that_is_not_finite_is_named_and_ends_every_thread():
    huge = onnx.load_model_from_string(MODEL)
    for tensor in huge.graph.initializer:
        if tensor.name == "layer1.conv1.weight":
            value = np.full_like(onnx.numpy_helper.to_array(tensor), 3e38)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    taken = []

    def stream():
        for picture in images(200, seed=4)[1:]:
            taken.append(0)
            yield picture

    with pytest.raises(EngineError, match=r"activation 'layer1\.relu1' on image \d+: .*not finite"):
        observe_activations(huge.SerializeToString(), TENSORS, stream(), num_threads=2)
    assert len(taken) < 50


def test_a_failing_image_source_is_not_swallowed():
    def stream():
        yield images(1)[0]
        raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        observe_activations(MODEL, TENSORS, stream(), num_threads=2)


def test_no_image_is_refused():
    with pytest.raises(EngineError, match="no image"):
        observe_activations(MODEL, TENSORS, [])


def test_only_what_int8_reads_is_observed():
    """A convolution whose output goes only into Relu is one tensor too many to look at."""
    graph = onnx.load_model_from_string(MODEL).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    readers = {name: [n.op_type for n in graph.node if name in n.input] for name in made}
    assert not [t for t in TENSORS if made[t] == "Conv" and set(readers[t]) <= {"Relu", "Clip"}]


def test_default_threads_are_few():
    assert default_threads() in (1, 2)
