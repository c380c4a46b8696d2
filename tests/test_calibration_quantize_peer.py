"""Our pairs beside those of ONNX Runtime's own quantiser with the settings TensorRT needs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import build_student, images
from test_calibration_quantize import make_portable

from calibration.onnx_graph import constants, producers

pytestmark = pytest.mark.filterwarnings("ignore")


def peer_model(model: bytes, pictures: np.ndarray, folder) -> bytes:
    """`quantize_static`, MinMax, symmetric int8, pairs at inputs only."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([{"image_nhwc": picture[None]} for picture in pictures])

        def get_next(self):
            return next(self.rows, None)

    (folder / "float.onnx").write_bytes(model)
    operators = [node.op_type for node in onnx.load_model_from_string(model).graph.node]
    quantize_static(
        str(folder / "float.onnx"),
        str(folder / "peer.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add"],
        nodes_to_exclude=["/evidence"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": sorted(set(operators)),
            "DedicatedQDQPair": False,
            "QDQKeepRemovableActivations": True,
            "QDQDisableWeightAdjustForInt32Bias": True,
            "QDQOpTypePerChannelSupportToAxis": {"Conv": 0},
        },
    )
    return (folder / "peer.onnx").read_bytes()


def scales(model: bytes) -> dict[str, np.ndarray]:
    """Scale of each quantised float tensor; weights by the name of their initialiser."""
    graph = onnx.load_model_from_string(model).graph
    values = constants(graph)
    return {
        node.input[0]: values[node.input[1]]
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    }


def weight_of(model: bytes, conv: str) -> np.ndarray:
    """INT8 weight of a convolution."""
    graph = onnx.load_model_from_string(model).graph
    values, made = constants(graph), producers(graph)
    node = next(node for node in graph.node if node.name == conv)
    quantizer = made[made[node.input[1]].input[0]]
    weight, scale = values[quantizer.input[0]], values[quantizer.input[1]]
    return np.clip(np.rint(weight / scale.reshape(-1, 1, 1, 1)), -127, 127)


def test_same_activations_scales_and_weights(tmp_path):
    model, pictures = build_student(), images(6)
    peer = scales(peer_model(model, pictures, tmp_path))
    own = scales(make_portable(model, pictures))
    made = producers(onnx.load_model_from_string(model).graph)
    peer_activations = {name for name in peer if name in made}
    own_activations = {name for name in own if name in made}
    # The features that float heads read are ours alone; the image has the exact scale 1.
    assert own_activations - peer_activations == {"layer2.relu2"}
    assert peer_activations <= own_activations
    for name in peer_activations - {"image_nchw"}:
        assert 1.0 <= float(own[name] / peer[name]) <= 1.0 + 2.0**-9
    weights = (
        "stem",
        "layer1.conv1",
        "layer1.conv2",
        "layer2.conv1",
        "layer2.conv2",
        "layer2.down",
    )
    assert set(peer) - set(made) - {"image_nchw"} == {f"{name}.weight" for name in weights}


@pytest.mark.parametrize("conv", ["/layer1.conv1", "/layer2.down"])
def test_same_integers_in_the_weights(tmp_path, conv):
    """Scales are rounded up to float16 by one part in 1024 at most, so few integers move, by 1."""
    model, pictures = build_student(), images(6)
    first = weight_of(peer_model(model, pictures, tmp_path), conv)
    second = weight_of(make_portable(model, pictures), conv)
    assert np.abs(first - second).max() <= 1
    assert (first == second).mean() > 0.95
