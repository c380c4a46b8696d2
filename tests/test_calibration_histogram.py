"""The streaming histogram: exact counts whatever the order, the sharing out and the scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.histogram import BINS, MAX_COUNTED, RangeHistogram

# Magnitudes far from the ends of float32, so that scaling by a power of two is exact.
values = st.one_of(
    st.just(0.0),
    st.floats(2.0**-20, 2.0**20, width=32),
    st.floats(-(2.0**20), -(2.0**-20), width=32),
)
tensors = st.lists(
    st.lists(values, min_size=1, max_size=20).map(lambda v: np.array(v, np.float32)),
    min_size=1,
    max_size=6,
)


def observed(*arrays: np.ndarray) -> RangeHistogram:
    histogram = RangeHistogram()
    for array in arrays:
        histogram.update(array)
    return histogram


def same(a: RangeHistogram, b: RangeHistogram) -> bool:
    return (a.limit, a.low, a.high) == (b.limit, b.low, b.high) and np.array_equal(
        a.counts, b.counts
    )


def slow_counts(flat: np.ndarray, limit: float) -> np.ndarray:
    """floor(|x| * BINS / limit), one value after the other, in double precision."""
    counts = np.zeros(BINS, np.int64)
    for value in flat.astype(np.float64):
        counts[int(abs(value) * BINS / limit)] += 1
    return counts


@given(tensors)
@settings(max_examples=100, deadline=None)
def test_counts_are_exactly_those_of_the_definition(arrays):
    histogram, flat = observed(*arrays), np.concatenate(arrays)
    assert histogram.low == flat.min()
    assert histogram.high == flat.max()
    assert histogram.limit / 2 <= histogram.largest < histogram.limit
    np.testing.assert_array_equal(histogram.counts, slow_counts(flat, histogram.limit))


@given(tensors, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_does_not_matter(arrays, random):
    shuffled = list(arrays)
    random.shuffle(shuffled)
    assert same(observed(*arrays), observed(*shuffled))


@given(tensors, st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_merged_shards_equal_one_histogram(arrays, cut):
    first, second = observed(*arrays[:cut]), observed(*arrays[cut:])
    kept = observed(*arrays[cut:])
    first.merge(second)
    assert same(first, observed(*arrays))
    assert same(second, kept)


@given(tensors, st.integers(-8, 20))
@settings(max_examples=100, deadline=None)
def test_scaling_by_a_power_of_two_scales_the_limit_alone(arrays, exponent):
    factor = np.float32(2.0**exponent)
    plain, scaled = observed(*arrays), observed(*(array * factor for array in arrays))
    if plain.high == plain.low == 0.0:
        return
    assert scaled.limit == plain.limit * factor
    assert scaled.largest == plain.largest * factor
    np.testing.assert_array_equal(scaled.counts, plain.counts)


@pytest.mark.parametrize("value", [1.0, -1.0, 64.0, 0.25])
def test_values_equal_to_a_power_of_two_do_not_vanish(value):
    """Saturated gates and capped activations lie there, and the limit is one, too."""
    histogram = observed(np.full((2, 64), value, np.float32))
    assert histogram.counts.sum() == 128
    assert histogram.limit == 2 * abs(value)


@pytest.mark.parametrize("size", [1, 7, 4096, 4097, MAX_COUNTED])
def test_every_value_of_a_tensor_that_is_not_large_is_counted(size, rng):
    assert observed(rng.normal(size=size).astype(np.float32)).counts.sum() == size


@pytest.mark.parametrize("shape", [(1, 32, 64, 64), (1, 96, 56, 56), (1, 16, 7, 500), (40_001,)])
def test_of_a_large_tensor_some_are_counted_from_every_column_and_extremes_are_exact(shape):
    column = np.broadcast_to(np.arange(1, shape[-1] + 1), shape).astype(np.float32)
    histogram = observed(column)
    assert MAX_COUNTED / 2 < histogram.counts.sum() <= MAX_COUNTED
    if shape[-1] < BINS / 2:
        width = shape[-1]
        filled = histogram.counts[histogram.counts > 0]
        assert filled.size == width
        assert filled.max() <= filled.min() + 1
    rare = np.zeros(shape, np.float32)
    rare.flat[1], rare.flat[2] = -3.0, 5.0
    assert (observed(rare).low, observed(rare).high) == (-3.0, 5.0)


def test_what_is_counted_of_a_large_tensor_has_its_distribution(rng):
    values = rng.normal(size=(1, 64, 112, 112)).astype(np.float32)
    histogram = observed(values)
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.arange(1, BINS + 1) * histogram.bin_width
    exact = np.searchsorted(np.sort(np.abs(values.ravel())), edges) / values.size
    # Three standard deviations of the Kolmogorov distance of 32,768 independent values are 0.01.
    assert np.abs(shares - exact).max() < 0.01


def test_views_and_strides_are_counted_as_they_read(rng):
    base = rng.normal(size=(8, 6)).astype(np.float32)
    assert same(observed(base.T[::2]), observed(base.T[::2].copy()))


def test_memory_does_not_grow_and_no_value_is_lost(rng):
    histogram = RangeHistogram()
    for power in range(40):
        histogram.update(rng.normal(0, 2.0**power, 100).astype(np.float32))
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.sum() == 4000


def test_extremes_of_float32_stay_exact():
    largest, tiny = np.finfo(np.float32).max, np.finfo(np.float32).tiny
    histogram = observed(np.array([tiny], np.float32), np.array([-largest], np.float32))
    assert (histogram.low, histogram.high) == (-largest, tiny)
    assert histogram.counts[0] == histogram.counts[-1] == 1


def test_zero_activations_have_a_positive_peak():
    histogram = observed(np.zeros((1, 4, 4, 4), np.float32))
    assert histogram.largest == 2.0**-30
    assert histogram.counts[0] == 64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite_and_adds_nothing(bad):
    histogram = observed(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        histogram.update(np.array([1.0, bad, 5.0], np.float32))
    assert same(histogram, observed(np.ones(3, np.float32)))


def test_refuses_empty_and_unobserved():
    with pytest.raises(ValueError, match="empty"):
        observed(np.zeros((0, 3), np.float32))
    for name in ("largest", "bin_width"):
        with pytest.raises(ValueError, match="no activation"):
            getattr(RangeHistogram(), name)
    histogram = observed(np.ones(3, np.float32))
    histogram.merge(RangeHistogram())
    assert same(histogram, observed(np.ones(3, np.float32)))
