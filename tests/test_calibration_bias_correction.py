"""Bias correction brings mean outputs back to FP32's and keeps biases on their integer grid."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import build_student, images
from test_calibration_equalize import uneven_student
from test_calibration_quantize import make_portable, parts

from calibration.bias_correction import correct_biases
from calibration.channels import observe_channels
from calibration.cpu_form import to_cpu_form
from calibration.int8_models import require_same_integers
from calibration.lint import lint_portable


def mean_error(fp32: bytes, int8: bytes, names: list[str], pictures: np.ndarray) -> np.ndarray:
    """Mean shift of each channel over its standard size, root mean square by convolution."""
    want, got = (observe_channels(model, names, pictures) for model in (fp32, int8))
    shifts = [(want[n].mean - got[n].mean) / want[n].amax.max() for n in names]
    return np.array([np.sqrt(np.square(shift).mean()) for shift in shifts])


def coarse(model: bytes, pictures: np.ndarray) -> bytes:
    """INT8 with ranges from dim images, so that clipping shifts means as well."""
    return make_portable(model, (pictures // 2 + 64).astype(np.uint8))


@pytest.mark.parametrize("build", [build_student, uneven_student])
@pytest.mark.parametrize("seed", [0, 1])
def test_mean_outputs_come_back_on_held_in_images(build, seed):
    model, pictures = build(seed), images(6, seed=seed)
    portable = coarse(model, pictures)
    corrected = correct_biases(portable, model, pictures)
    names = [n.output[0] for n in parts(portable)[0].node if n.op_type == "Conv"][:-1]
    before = mean_error(model, portable, names, pictures)
    after = mean_error(model, corrected, names, pictures)
    assert (after < np.maximum(0.2 * before, 1e-3)).all()
    assert before.max() > 5e-3


def test_corrected_files_are_clean_and_compute_the_same_integers():
    model, pictures = uneven_student(), images()
    steps = []
    corrected = correct_biases(
        make_portable(model, pictures), model, pictures, progress=lambda *x: steps.append(x)
    )
    assert lint_portable(corrected) == []
    require_same_integers(corrected, to_cpu_form(corrected), pictures)
    assert steps[-1] == (5, 5)


def test_only_biases_change_and_stay_whole_steps():
    model, pictures = build_student(), images()
    portable = make_portable(model, pictures)
    graph, values, made = parts(correct_biases(portable, model, pictures))
    _, before, _ = parts(portable)
    changed = {name for name in values if not np.array_equal(values[name], before[name])}
    assert changed
    assert all(name.endswith("/bias") for name in changed)
    for node in graph.node:
        if node.op_type == "Conv" and node.input[2] in changed:
            grid = values[made[node.input[0]].input[1]] * values[made[node.input[1]].input[1]]
            steps = values[node.input[2]].astype(np.float64) / grid
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_a_model_without_int8_convolutions_is_returned_as_it_is():
    model = build_student()
    same = onnx.load_model_from_string(correct_biases(model, model, images()))
    assert [n.op_type for n in same.graph.node] == [n.op_type for n in parts(model)[0].node]
