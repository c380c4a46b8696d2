"""Streaming ranges against NumPy on all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.observers import RangeHistogram, RangeMethod
from edge_runtime.errors import ConfigError

MINMAX = RangeMethod(name="minmax")


def observed(*tensors: np.ndarray) -> RangeHistogram:
    histogram = RangeHistogram()
    for tensor in tensors:
        histogram.update(tensor)
    return histogram


def test_minmax_is_exact_over_a_stream(rng):
    tensors = [rng.normal(0, s, (1, 3, 8, 8)).astype(np.float32) for s in (1.0, 30.0, 0.1)]
    expected = max(np.abs(t).max() for t in tensors)
    assert observed(*tensors).amax(MINMAX) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99])
def test_percentile_is_within_a_bin_of_numpy(rng, percentile):
    tensors = [rng.normal(0, 1 + k, 40_000).astype(np.float32) for k in range(4)]
    histogram = observed(*tensors)
    expected = np.percentile(np.abs(np.concatenate(tensors)), percentile)
    width = histogram.limit / 2048
    found = histogram.amax(RangeMethod(percentile=percentile))
    assert abs(found - expected) <= 2 * width
    assert found < histogram.amax(MINMAX)


def test_no_value_is_lost_when_the_limit_doubles(rng):
    tensors = [rng.normal(0, 4.0**k, 1000).astype(np.float32) for k in range(5)]
    histogram = observed(*tensors)
    assert histogram.counts.sum() == 5000
    assert histogram.counts.size == 4096
    assert observed(*tensors[::-1]).limit == histogram.limit


def test_counts_equal_numpy_histogram(rng):
    values = rng.uniform(-0.99, 0.99, 10_000).astype(np.float32)
    histogram = observed(values)
    assert histogram.limit == 1.0
    expected = np.histogram(values, bins=4096, range=(-1, 1))[0]
    # A value on an edge may fall on either side of it in float32.
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 3


@pytest.mark.parametrize("value", [1.0, -1.0, 64.0, 0.25])
def test_values_equal_to_a_power_of_two_do_not_vanish(value):
    histogram = observed(np.full((2, 64), value, np.float32))
    assert histogram.counts.sum() == 128
    assert histogram.amax(RangeMethod()) == abs(value)


@pytest.mark.parametrize("size", [1, 7, 4096, 4097, 12_288])
def test_any_tensor_size_is_counted(size, rng):
    assert observed(rng.normal(size=size).astype(np.float32)).counts.sum() == size


def test_zero_activations_give_a_positive_range():
    histogram = observed(np.zeros((1, 4, 4, 4), np.float32))
    assert histogram.amax(MINMAX) > 0
    assert histogram.amax(RangeMethod()) > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="not finite"):
        observed(np.array([1.0, bad], np.float32))


def test_refuses_empty_and_unobserved():
    with pytest.raises(ValueError, match="empty"):
        observed(np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="no activation"):
        RangeHistogram().amax(MINMAX)


@pytest.mark.parametrize("options", [{"name": "entropy"}, {"percentile": 0}, {"percentile": 101}])
def test_method_checks_itself(options):
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        RangeMethod(**options)
