"""Groups cover the graph without lonely pairs; sensitivities see which group hurts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import build_student, images
from onnx import numpy_helper
from test_calibration_cpu_form import dense_student, relu6_student
from test_calibration_equalize import uneven_student
from test_calibration_quantize import MINMAX, run

from calibration.cpu_form import to_cpu_form
from calibration.groups import find_groups
from calibration.int8_models import require_same_integers
from calibration.lint import lint_portable
from calibration.placement import plan_quantization
from calibration.quantize import quantize
from calibration.ranges import observe_activations, ranges_of
from calibration.sensitivity import measure_sensitivity, rank_worst_first, sqnr_db, task_loss

BUILDERS = [build_student, relu6_student, dense_student, uneven_student]


def observed(model: bytes, pictures: np.ndarray):
    plan = plan_quantization(model)
    return plan, ranges_of(observe_activations(model, plan.observed, pictures), MINMAX)


@pytest.mark.parametrize("build", BUILDERS)
def test_groups_hold_every_int8_convolution_once(build):
    plan = plan_quantization(build())
    groups = find_groups(build(), plan)
    names = [name for group in groups for name in group.nodes]
    assert len(names) == len(set(names))
    assert set(plan.conv_names) <= set(names)
    assert sum(group.num_convs for group in groups) == len(plan.conv_names)


def test_a_residual_block_is_one_group():
    groups = find_groups(build_student(), plan_quantization(build_student()))
    assert [group.name for group in groups] == ["/stem", "/layer1.conv1", "/layer2.conv1"]
    assert set(groups[2].nodes) == {
        "/layer2.conv1",
        "/layer2.conv2",
        "/layer2.down",
        "/layer2.add",
    }


@pytest.mark.parametrize("build", BUILDERS)
def test_any_group_can_go_to_float_and_both_files_stay_equal_and_clean(build):
    model, pictures = build(), images()
    plan, ranges = observed(model, pictures)
    for group in find_groups(model, plan):
        part = plan_quantization(model, excluded=group.nodes)
        portable = quantize(model, part, ranges)
        assert lint_portable(portable) == []
        require_same_integers(portable, to_cpu_form(portable), pictures)
        assert not set(group.nodes) & set(part.conv_names)


def test_everything_in_float_is_the_float_model():
    model, pictures = build_student(), images()
    plan, ranges = observed(model, pictures)
    names = [name for group in find_groups(model, plan) for name in group.nodes]
    part = plan_quantization(model, excluded=names)
    assert part.conv_names == ()
    assert part.observed == ()
    cpu = to_cpu_form(quantize(model, part, ranges))
    for a, b in zip(run(model, pictures), run(cpu, pictures), strict=True):
        assert np.array_equal(a, b)


def test_the_group_with_coarse_ranges_is_ranked_worst():
    model, pictures = build_student(), images(8)
    plan, ranges = observed(model, pictures)
    groups = find_groups(model, plan)
    hurt = {**ranges, "layer1.relu1": 60 * ranges["layer1.relu1"]}
    labels = (np.random.default_rng(0).random((8, 3)) > 0.5).astype(float)
    done = []
    measured = measure_sensitivity(
        model, groups, hurt, pictures, labels, progress=lambda *x: done.append(x)
    )
    assert [item.group for item in measured] == list(groups)
    assert rank_worst_first(measured)[0].group.name == "/layer1.conv1"
    assert done[-1] == (3, 3)
    fine = measure_sensitivity(model, groups, ranges, pictures, labels)
    assert fine[1].sqnr_db > measured[1].sqnr_db + 10


def test_sqnr_against_its_definition(rng):
    exact = rng.normal(size=(20, 3))
    rough = exact + rng.normal(size=(20, 3)) * 0.1
    signal = sum(
        (exact[:, k] - exact[:, k].mean()) @ (exact[:, k] - exact[:, k].mean()) for k in range(3)
    )
    noise = ((exact - rough) ** 2).sum()
    assert sqnr_db(exact, rough) == pytest.approx(10 * np.log10(signal / noise))
    assert sqnr_db(exact, exact) == np.inf
    assert sqnr_db(exact + 100, rough + 100) == pytest.approx(sqnr_db(exact, rough))
    assert sqnr_db(exact, exact + 2 * (rough - exact)) == pytest.approx(
        sqnr_db(exact, rough) - 20 * np.log10(2)
    )


def test_task_loss_counts_known_labels_of_two_classes_only():
    labels = np.array([[0, 1.0], [0, np.nan], [1, 1], [1, 1]])
    exact = np.array([[0.0, 5], [1, 5], [2, 5], [3, 5]])
    rough = np.array([[3.0, 5], [1, 5], [2, 5], [0, 5]])
    assert task_loss(labels, exact, rough) == pytest.approx(1.0 - 0.25)
    assert task_loss(labels[:, 1:], exact[:, 1:], rough[:, 1:]) == 0.0


def test_weights_of_float_groups_are_not_touched():
    model, pictures = build_student(), images()
    plan, ranges = observed(model, pictures)
    part = plan_quantization(model, excluded=find_groups(model, plan)[0].nodes)
    after = onnx.load_model_from_string(quantize(model, part, ranges)).graph.initializer
    held = {t.name: numpy_helper.to_array(t) for t in after}
    before = onnx.load_model_from_string(model).graph.initializer
    stem = next(numpy_helper.to_array(t) for t in before if t.name == "stem.weight")
    assert np.array_equal(held["stem.weight"], stem)
