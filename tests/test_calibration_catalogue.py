"""Every backbone of the catalogue: exported, INT8 in three files, linted, equal to the integer."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import onnx
import pytest
from test_calibration_quantize import make_portable, run

from calibration.cpu_form import to_cpu_form
from calibration.half import to_half
from calibration.int8_models import require_same_integers
from calibration.lint import lint_cpu, lint_float, lint_half, lint_portable
from calibration.tensorrt_versions import judge_builds

pytest.importorskip("torch")
from catalogue import FAMILIES, make_student, pictures

from export.parity import TOLERANCE, check_parity, probe_images
from export.to_onnx import export_onnx

SIZE_PX = 64
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@functools.lru_cache(maxsize=1)
def exported(arch: str) -> bytes:
    return export_onnx(make_student(arch, SIZE_PX), metadata={"arch": arch})


@functools.lru_cache(maxsize=1)
def portable(arch: str) -> bytes:
    return make_portable(exported(arch), pictures(4, SIZE_PX))


@pytest.mark.parametrize("arch", FAMILIES)
def test_family(arch, tmp_path):
    """One test a family, so that its three files are made once."""
    model, images = exported(arch), pictures(3, SIZE_PX, seed=7)
    images[0], images[1] = 0, 255
    check_exported(arch, model)
    int8 = portable(arch)
    cpu, half = to_cpu_form(int8), to_half(int8)
    assert lint_portable(int8) == []
    assert lint_cpu(cpu) == []
    assert lint_half(half) == []
    require_same_integers(int8, cpu, images)
    check_every_kernel_is_integer(cpu, tmp_path)
    check_half(model, int8, half)
    assert [verdict.builds for verdict in judge_builds(int8)] == [True] * 5
    assert [verdict.builds for verdict in judge_builds(half)] == [False, False, True, True, True]
    assert not any(verdict.builds for verdict in judge_builds(cpu))


def check_exported(arch: str, model: bytes) -> None:
    images = np.concatenate([probe_images(SIZE_PX, num_random=1), pictures(2, SIZE_PX, seed=3)])
    report = check_parity(make_student(arch, SIZE_PX), model, images)
    assert max(output.relative for output in report.outputs) < TOLERANCE / 2
    assert lint_float(model) == []
    kinds = {node.op_type for node in onnx.load_model_from_string(model).graph.node}
    assert not kinds & {"BatchNormalization", "Mul", "Identity", "Constant"}


def check_every_kernel_is_integer(cpu: bytes, folder) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(cpu, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)
    assert kinds["Conv"] + kinds["FusedConv"] == 2  # the heads
    assert kinds["Add"] == 0
    assert kinds["QLinearConv"] > 15


def check_half(model: bytes, int8: bytes, half: bytes) -> None:
    """Random deep networks amplify a single step, so embeddings are compared by distance to FP32.

    Without graph optimisation: ONNX Runtime 1.32 fuses a float16 Concat into a kernel that does
    not take float16 scales.
    """
    onnx.checker.check_model(onnx.load_model_from_string(half), full_check=True)
    images = pictures(4, SIZE_PX, seed=9)
    exact, full, small = (run(data, images, optimized=False)[2] for data in (model, int8, half))
    assert small.dtype == np.float32
    assert np.square(small - exact).mean() < 2 * np.square(full - exact).mean()
    weights = [int8_weights(data) for data in (int8, half)]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def int8_weights(model: bytes) -> dict[str, np.ndarray]:
    """What QuantizeLinear makes of each stored weight."""
    graph = onnx.load_model_from_string(model).graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in values:
            weight, scale = values[node.input[0]], values[node.input[1]]
            found[node.name] = np.rint(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
    return found
