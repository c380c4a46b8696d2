"""The band keeps its promise in simulation, and refuses what so few patients cannot promise."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.abstention import choose_band
from edge_runtime.errors import ConfigError, DataError


def band(labels, values, patients, *, threshold=0.9, risk=0.1):
    arrays = np.asarray(labels, float), np.asarray(values, float), np.asarray(patients).astype(str)
    return choose_band("glaucoma", *arrays, threshold=threshold, risk=risk)


def test_the_lower_end_by_hand():
    values = np.arange(1, 20) / 20  # 19 patients, all with the disease: 0.05, 0.10, ... 0.95
    # floor(0.1 * 20) - 1 = 1 patient may lie below: between 0.05 and 0.10.
    found = band(np.ones(19), values, np.arange(19))
    assert found.low == pytest.approx(0.075)
    assert (found.risk, found.num_patients) == (0.1, 19)
    # With the smallest possible risk nobody may: below the lowest.
    assert band(np.ones(19), values, np.arange(19), risk=0.05).low == pytest.approx(0.025)


def test_the_worse_diseased_eye_counts_and_healthy_eyes_do_not():
    labels = np.array([1, 1] * 9 + [0, 0])
    values = np.array([0.9, 0.3] * 9 + [0.01, 0.02])
    found = band(labels, values, np.arange(20) // 2)
    assert found.num_patients == 9
    assert found.low == pytest.approx((0.3 + 0.02) / 2)


def test_a_band_never_reaches_above_the_threshold():
    found = band(np.ones(40), np.linspace(0.5, 0.9, 40), np.arange(40), threshold=0.2)
    assert found.low == 0.2


@pytest.mark.parametrize(("num_patients", "risk", "needed"), [(8, 0.1, 9), (18, 0.05, 19)])
def test_too_few_patients_are_told_how_many_are_needed(num_patients, risk, needed):
    with pytest.raises(DataError, match=rf"glaucoma: {num_patients} patients .* {needed} are"):
        band(np.ones(num_patients), np.full(num_patients, 0.5), np.arange(num_patients), risk=risk)
    band(np.ones(needed), np.linspace(0.1, 0.8, needed), np.arange(needed), risk=risk)


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, float("nan")])
def test_a_risk_is_a_share(risk):
    with pytest.raises(ConfigError, match="abstention risk"):
        band(np.ones(3), np.ones(3), np.arange(3), risk=risk)


@pytest.mark.slow
@pytest.mark.parametrize("risk", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("num_patients", [20, 57, 200])
def test_the_next_patient_falls_below_the_band_no_more_often_than_the_risk(num_patients, risk):
    """Patients have one or two correlated eyes; a model of any quality keeps the promise."""
    rng = np.random.default_rng(6)

    def draw(count):
        severity = rng.normal(0, 1, count)
        two = rng.random(count) < 0.6
        eyes = np.concatenate([severity, severity[two]]) + rng.normal(0, 0.5, count + two.sum())
        patients = np.concatenate([np.arange(count), np.arange(count)[two]])
        return 1 / (1 + np.exp(-eyes)), patients

    misses = []
    for _ in range(1500):
        values, patients = draw(num_patients)
        found = band(np.ones(values.size), values, patients, threshold=1.0, risk=risk)
        values, patients = draw(30)
        lowest = np.ones(30)
        np.minimum.at(lowest, patients, values)
        misses.append(np.mean(lowest < found.low))
    error = np.std(misses) / np.sqrt(len(misses))
    assert np.mean(misses) <= risk + 3 * error
    # Not by saying nothing at all: the bound is met to within 2 / (n + 1).
    assert np.mean(misses) >= risk - 2 / (num_patients + 1) - 3 * error
