"""Thresholds reach their target and nothing is claimed that the counts do not carry."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.operating_point import Target, derive_operating_point, require_enough
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import sensitivity_specificity, wilson_interval


def eyes(rng, count=200, levels=None):
    labels = (rng.random(count) < 0.3).astype(float)
    values = 1 / (1 + np.exp(-rng.normal(labels * 1.5 - 0.5)))
    values = values if levels is None else np.round(values * levels) / levels
    return labels, values, np.array([f"P{i // 2}" for i in range(count)])


@pytest.mark.parametrize("measure", ["sensitivity", "specificity"])
@pytest.mark.parametrize("value", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("levels", [None, 10])
def test_reaches_the_target_with_the_best_other_measure(rng, measure, value, levels):
    labels, values, patients = eyes(rng, levels=levels)
    point = derive_operating_point(labels, values, patients, Target(measure=measure, value=value))
    k = ("sensitivity", "specificity").index(measure)
    reached = sensitivity_specificity(labels, values, point.threshold)
    assert reached == (point.sensitivity, point.specificity)
    assert reached[k] >= value
    # Slow reference: every distinct threshold that reaches the target is no better.
    for threshold in [*np.unique(values), 1.0]:
        other = sensitivity_specificity(labels, values, threshold)
        if other[k] >= value:
            assert other[1 - k] <= reached[1 - k]


def test_threshold_lies_in_the_middle_of_a_gap():
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    values = np.array([0.1, 0.3, 0.7, 0.9])
    patients = np.array(["a", "b", "c", "d"])
    point = derive_operating_point(labels, values, patients, Target())
    assert point.threshold == pytest.approx(0.5)
    point = derive_operating_point(labels, values, patients, Target(measure="specificity"))
    assert point.threshold == pytest.approx(0.5)
    assert point.target == "specificity >= 0.90"


def test_a_perfect_result_keeps_an_open_interval():
    labels = np.repeat([0.0, 1.0], 10)
    values = np.linspace(0.05, 0.95, 20)
    patients = np.arange(20).astype(str)
    point = derive_operating_point(labels, values, patients, Target())
    assert point.sensitivity == 0.9
    assert point.specificity == 1.0
    assert point.specificity_interval[0] == pytest.approx(wilson_interval(10, 10).low)
    assert point.specificity_interval[1] == 1.0


def test_intervals_widen_when_eyes_come_in_patients(rng):
    labels, values, _ = eyes(rng, 60)
    ten = {"labels": np.tile(labels, 6), "probabilities": np.tile(values, 6), "target": Target()}
    alone = derive_operating_point(patient_ids=np.arange(360).astype(str), **ten)
    shared = derive_operating_point(patient_ids=np.tile(np.arange(60), 6).astype(str), **ten)
    assert alone.sensitivity == shared.sensitivity
    width = [np.ptp(point.sensitivity_interval) for point in (alone, shared)]
    assert width[1] > 1.5 * width[0]


def test_nine_of_ten_is_ninety_percent():
    labels = np.array([0.0] + [1.0] * 10)
    values = np.linspace(0.0, 1.0, 11)
    point = derive_operating_point(labels, values, np.arange(11).astype(str), Target())
    assert point.sensitivity == 0.9


@pytest.mark.parametrize(("positive", "negative"), [(3, 97), (97, 3), (0, 50)])
def test_too_few_eyes_are_refused_with_their_number(positive, negative):
    labels = np.repeat([1.0, 0.0], [positive, negative])
    with pytest.raises(
        DataError, match=f"glaucoma: {positive} eyes with it and {negative} without in val"
    ):
        require_enough("glaucoma", labels, 10, "val")
    require_enough("glaucoma", np.repeat([1.0, 0.0], [10, 10]), 10, "val")


@pytest.mark.parametrize("options", [{"measure": "auroc"}, {"value": 0.0}, {"value": 1.1}])
def test_target_checks_itself(options):
    with pytest.raises(ConfigError):
        Target(**options)
