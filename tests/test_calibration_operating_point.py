"""Thresholds reach their target and nothing is claimed that the counts do not carry."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.operating_point import Target, choose_threshold, measure, require_enough
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import sensitivity_specificity, wilson_interval


def eyes(rng, count=200, levels=None):
    labels = (rng.random(count) < 0.3).astype(float)
    values = 1 / (1 + np.exp(-rng.normal(labels * 1.5 - 0.5)))
    values = values if levels is None else np.round(values * levels) / levels
    return labels, values, np.array([f"P{i // 2}" for i in range(count)])


@pytest.mark.parametrize("wanted", ["sensitivity", "specificity"])
@pytest.mark.parametrize("value", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("levels", [None, 10])
def test_reaches_the_target_with_the_best_other_measure(rng, wanted, value, levels):
    labels, values, patients = eyes(rng, levels=levels)
    chosen = choose_threshold(labels, values, Target(measure=wanted, value=value))
    found = measure(labels, values >= chosen, patients, num_draws=100)
    k = ("sensitivity", "specificity").index(wanted)
    reached = sensitivity_specificity(labels, values, chosen)
    assert reached == (found.sensitivity.value, found.specificity.value)
    assert reached[k] >= value
    # Slow reference: every distinct threshold that reaches the target is no better.
    for threshold in [*np.unique(values), 1.0]:
        other = sensitivity_specificity(labels, values, threshold)
        if other[k] >= value:
            assert other[1 - k] <= reached[1 - k]


def test_threshold_lies_in_the_middle_of_a_gap():
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    values = np.array([0.1, 0.3, 0.7, 0.9])
    assert choose_threshold(labels, values, Target()) == pytest.approx(0.5)
    specificity = Target(measure="specificity")
    assert choose_threshold(labels, values, specificity) == pytest.approx(0.5)
    assert specificity.text == "specificity >= 0.90"


def test_a_perfect_result_keeps_an_open_interval():
    labels = np.repeat([0.0, 1.0], 10)
    values = np.linspace(0.05, 0.95, 20)
    called = values >= choose_threshold(labels, values, Target())
    found = measure(labels, called, np.arange(20).astype(str))
    assert found.sensitivity.value == 0.9
    assert found.specificity.value == 1.0
    assert found.specificity.low == pytest.approx(wilson_interval(10, 10).low)
    assert found.specificity.high == 1.0
    assert (found.num_positive, found.num_negative_patients) == (10, 10)


def test_intervals_widen_when_eyes_come_in_patients(rng):
    labels, values, _ = eyes(rng, 60)
    ten = {"labels": np.tile(labels, 6), "called": np.tile(values > 0.5, 6)}
    alone = measure(patient_ids=np.arange(360).astype(str), **ten)
    shared = measure(patient_ids=np.tile(np.arange(60), 6).astype(str), **ten)
    assert alone.sensitivity.value == shared.sensitivity.value
    width = [one.sensitivity.high - one.sensitivity.low for one in (alone, shared)]
    assert width[1] > 1.5 * width[0]
    assert shared.num_positive_patients * 6 == alone.num_positive_patients


def test_nine_of_ten_is_ninety_percent():
    labels = np.array([0.0] + [1.0] * 10)
    values = np.linspace(0.0, 1.0, 11)
    called = values >= choose_threshold(labels, values, Target())
    assert called[labels == 1].mean() == 0.9


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
