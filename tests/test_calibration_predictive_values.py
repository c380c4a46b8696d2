"""PPV and NPV against a table of known values, and floors against known sample sizes."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.floors import judge_floor, num_eyes_for_floor
from calibration.operating_point import Accuracy, measure
from calibration.predictive_values import predictive_values, require_prevalences
from edge_runtime.errors import ConfigError
from edge_runtime.metrics import Interval, wilson_interval


def accuracy(sensitivity, specificity, *, width=0.02, level=0.975):
    def interval(value):
        low, high = max(0.0, value - width), min(1.0, value + width)
        return Interval(value=value, low=low, high=high, level=level)

    return Accuracy(
        sensitivity=interval(sensitivity),
        specificity=interval(specificity),
        num_positive=100,
        num_negative=900,
        num_positive_patients=60,
        num_negative_patients=500,
    )


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "prevalence", "ppv", "npv"),
    [
        (0.85, 0.825, 0.03, 13.1, 99.4),
        (0.85, 0.825, 0.20, 54.8, 95.7),
        (0.872, 0.907, 0.05, 33.0, 99.3),
        (0.96, 0.88, 0.10, 47.1, 99.5),
    ],
)
def test_known_values(sensitivity, specificity, prevalence, ppv, npv):
    found = predictive_values(accuracy(sensitivity, specificity), prevalence)
    assert (round(100 * found.ppv, 1), round(100 * found.npv, 1)) == (ppv, npv)
    assert found.ppv_interval[0] < found.ppv < found.ppv_interval[1]
    assert found.npv_interval[0] < found.npv < found.npv_interval[1]


def test_what_is_never_said_has_no_value_and_the_level_is_checked():
    never = predictive_values(accuracy(0.0, 1.0, width=0.0), 0.1)
    assert (never.ppv, never.npv) == (0.0, pytest.approx(0.9))
    with pytest.raises(ValueError, match=r"0\.975"):
        predictive_values(accuracy(0.9, 0.9, level=0.95), 0.1)
    for values in ((), (0.1, 0.0), (1.0,), (float("nan"),)):
        with pytest.raises(ConfigError, match="prevalences"):
            require_prevalences(values)


@pytest.mark.slow
def test_both_predictive_values_are_covered_together():
    rng = np.random.default_rng(1)
    truth = predictive_values(accuracy(0.9, 0.85), 0.08)
    held = []
    for _ in range(300):
        labels = np.repeat([1.0, 0.0], [60, 120])
        right = rng.random(180) < np.where(labels == 1, 0.9, 0.85)
        called = right == (labels == 1)
        found = predictive_values(
            measure(labels, called, np.arange(180).astype(str), level=0.975, num_draws=300), 0.08
        )
        held.append(
            found.ppv_interval[0] <= truth.ppv <= found.ppv_interval[1]
            and found.npv_interval[0] <= truth.npv <= found.npv_interval[1]
        )
    assert np.mean(held) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize(
    ("share", "floor", "needed"), [(0.92, 0.85, 100), (0.90, 0.85, 196), (0.87, 0.825, 274)]
)
def test_numbers_that_exceed_a_floor_are_the_known_ones(share, floor, needed):
    assert num_eyes_for_floor(share, floor) == needed
    # Slow reference: the first n at which Wilson's lower end, for the share itself, exceeds it.
    z2 = 1.959963984540054**2

    def lower(n):
        half = np.sqrt(z2) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
        return (share + z2 / (2 * n) - half) / (1 + z2 / n)

    assert lower(needed) > floor >= lower(needed - 1)
    with pytest.raises(ValueError, match="no number of eyes"):
        num_eyes_for_floor(floor, floor)


@pytest.mark.parametrize(
    ("right", "n", "status"), [(95, 100, "shown"), (9, 10, "too_few"), (84, 100, "below")]
)
def test_a_floor_is_shown_or_too_few_or_below(right, n, status):
    found = judge_floor(wilson_interval(right, n), 0.85, num_eyes=n, num_patients=n)
    assert found.status == status
    assert (found.num_patients_needed is None) == (status == "below")
    if status == "too_few":
        assert found.num_patients_needed == 196


def test_eyes_in_patients_need_more_of_them():
    wide = Interval(value=0.9, low=0.78, high=0.96)
    alone = judge_floor(wilson_interval(90, 100), 0.85, num_eyes=100, num_patients=100)
    pairs = judge_floor(wide, 0.85, num_eyes=100, num_patients=50)
    assert pairs.status == alone.status == "too_few"
    assert 2 * pairs.num_patients_needed > 1.5 * alone.num_patients_needed
