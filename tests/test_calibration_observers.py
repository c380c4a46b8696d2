"""Range methods against slow definitions, against ONNX Runtime's, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.histogram import BINS, MAX_COUNTED, RangeHistogram
from calibration.observers import METHODS, RangeMethod, amax
from calibration.observers.entropy import NUM_LEVELS, divergence, folded_counts
from calibration.observers.mse import mse_candidates, squared_error
from edge_runtime.errors import ConfigError

EVERY = [RangeMethod(name=name) for name in METHODS]
SHAPES = {
    "normal": lambda g, n: g.normal(size=n),
    "relu": lambda g, n: np.maximum(g.normal(-0.5, 1, n), 0),
    "heavy": lambda g, n: g.standard_t(3, n),
    "one_sided_heavy": lambda g, n: g.lognormal(0, 1, n),
    "relu6": lambda g, n: np.clip(g.normal(0, 5, n), 0, 6),
    "uniform": lambda g, n: g.uniform(-1, 1, n),
}


def observed(*arrays: np.ndarray) -> RangeHistogram:
    """All values counted: in pieces, as of so many images."""
    histogram = RangeHistogram()
    for array in arrays:
        flat = np.asarray(array, np.float32).ravel()
        for piece in np.array_split(flat, -(-flat.size // MAX_COUNTED)):
            histogram.update(piece)
    return histogram


def draw(shape: str, count: int = 40_000, seed: int = 0) -> np.ndarray:
    return SHAPES[shape](np.random.default_rng(seed), count).astype(np.float32)


def quantized(values: np.ndarray, largest: float) -> np.ndarray:
    step = largest / 127
    return np.clip(np.rint(values.astype(np.float64) / step), -127, 127) * step


def slow_divergence(counts: np.ndarray, num_bins: int) -> float:
    """KL(P || Q) of one candidate as the slides of GTC 2017 write it down, bin by bin."""
    p = counts[:num_bins].astype(np.float64)
    q_source = p.copy()
    p[-1] += counts[num_bins:].sum()
    q = np.zeros(num_bins)
    for level in range(NUM_LEVELS):
        members = [
            b
            for b in range(num_bins)
            if level * num_bins <= b * NUM_LEVELS < (level + 1) * num_bins and p[b] > 0
        ]
        for b in members:
            q[b] = q_source[members].sum() / len(members)
    if q_source.sum() == 0:
        return np.inf
    if p[-1] > 0 and q[-1] == 0:
        q[-1] = 1e-4
    p, q = p / p.sum(), q / q.sum()
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99])
def test_percentile_is_at_most_a_bin_above_the_sorted_values(shape, percentile):
    values = draw(shape)
    histogram = observed(values)
    order = np.sort(np.abs(values))
    exact = order[int(np.ceil(percentile / 100 * order.size)) - 1]
    found = amax(histogram, RangeMethod(percentile=percentile))
    assert exact <= found <= exact + histogram.bin_width


def test_minmax_is_exact_over_a_stream(rng):
    arrays = [rng.normal(0, s, (1, 3, 8, 8)).astype(np.float32) for s in (1.0, 30.0, 0.1)]
    expected = max(float(np.abs(a).max()) for a in arrays)
    assert amax(observed(*arrays), RangeMethod(name="minmax")) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_squared_error_is_that_of_quantising_every_value(shape):
    values = draw(shape)
    histogram = observed(values)
    candidates = mse_candidates(histogram)[:160:8]
    unit = histogram.bin_width**2
    found = squared_error(histogram.counts, candidates / histogram.bin_width) * unit
    exact = [((values - quantized(values, c)) ** 2).sum() for c in candidates]
    # Values are taken as spread evenly inside a bin, at most half a bin off; the smallest
    # candidate's step has ten bins, so that is a few thousandths of the error.
    np.testing.assert_allclose(found, exact, rtol=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_finds_the_best_range_of_all(shape):
    values = draw(shape)
    chosen = amax(observed(values), RangeMethod(name="mse"))
    peak = float(np.abs(values).max())
    errors = [np.square(values - quantized(values, peak * r)).mean() for r in np.geomspace(0.02, 1)]
    # Candidates are 2.2 % apart, so the best range is at most 1.1 % away, and the error of the
    # steps grows with their square.
    assert np.square(values - quantized(values, chosen)).mean() <= 1.011**2 * min(errors)


@given(st.lists(st.integers(0, 50), min_size=129, max_size=300).filter(lambda c: c[-1] > 0))
@settings(max_examples=30, deadline=None)
def test_divergence_is_that_of_the_slides(counts):
    found = divergence(np.array(counts, np.int64))
    ends = {NUM_LEVELS, NUM_LEVELS + 1, (NUM_LEVELS + len(counts)) // 2, len(counts)}
    for end in sorted(ends):
        expected = slow_divergence(np.array(counts), end)
        assert found[end - NUM_LEVELS] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("shape", ["normal", "relu", "heavy"])
def test_entropy_takes_the_least_divergence(shape):
    histogram = observed(draw(shape))
    counts = folded_counts(histogram)
    some = range(NUM_LEVELS, len(counts) + 1, 64)
    least = divergence(counts).min()
    assert least <= min(slow_divergence(counts, end) for end in some) + 1e-12
    found = amax(histogram, RangeMethod(name="entropy"))
    width = histogram.bin_width * 4
    bins = min(round(found / width), len(counts))
    assert divergence(counts)[bins - NUM_LEVELS] == least


def test_zeros_of_a_relu_do_not_change_what_entropy_finds():
    values = np.abs(draw("normal"))
    zeros = np.zeros(500_000, np.float32)
    method = RangeMethod(name="entropy")
    assert amax(observed(values, zeros), method) == amax(observed(values), method)


@pytest.mark.parametrize("name", ["mse", "minmax", "percentile"])
def test_sign_does_not_matter_to_symmetric_int8(name):
    values = draw("heavy")
    method = RangeMethod(name=name)
    assert (
        amax(observed(values), method)
        == amax(observed(np.abs(values)), method)
        == amax(observed(-np.abs(values)), method)
    )


@pytest.mark.parametrize("method", EVERY, ids=METHODS)
@given(st.sampled_from(sorted(SHAPES)), st.integers(0, 1000), st.integers(-12, 12))
@settings(max_examples=15, deadline=None)
def test_scaling_by_a_power_of_two_scales_the_range_exactly(method, shape, seed, exponent):
    values = draw(shape, 3000, seed)
    factor = 2.0**exponent
    plain, scaled = observed(values), observed(values * np.float32(factor))
    assert amax(scaled, method) == amax(plain, method) * factor


@pytest.mark.parametrize("method", EVERY, ids=METHODS)
@given(st.sampled_from(sorted(SHAPES)), st.integers(0, 1000), st.integers(1, 2999))
@settings(max_examples=15, deadline=None)
def test_order_and_shards_do_not_matter_and_minmax_bounds(method, shape, seed, cut):
    values = draw(shape, 3000, seed)
    whole, first, second = observed(values), observed(values[:cut]), observed(values[cut:])
    second.merge(first)
    found = amax(whole, method)
    assert amax(second, method) == amax(observed(values[::-1]), method) == found
    assert 0 < found <= np.abs(values).max()


@pytest.mark.parametrize("method", EVERY, ids=METHODS)
@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_few_values_give_a_usable_range(method, values):
    array = np.array(values, np.float32)
    largest = max(float(np.abs(array).max()), 2.0**-30)
    assert 0 < amax(observed(array), method) <= largest


@pytest.mark.parametrize("method", EVERY, ids=METHODS)
def test_a_single_outlier_is_cut_or_kept_as_the_method_says(method):
    values = np.append(draw("normal", 400_000), np.float32(200.0))
    found = amax(observed(values), method)
    assert found == 200.0 if method.name == "minmax" else found < 100.0


def test_a_tensor_of_zeros_but_for_a_few_values_keeps_them():
    values = np.zeros(1_000_000, np.float32)
    values[:50] = np.linspace(1, 2, 50)
    assert amax(observed(values), RangeMethod(percentile=99.9)) == 2.0


@pytest.mark.parametrize("method", EVERY, ids=METHODS)
def test_zero_activations_give_a_positive_range(method):
    assert amax(observed(np.zeros((1, 4, 4, 4))), method) == 2.0**-30


@pytest.mark.parametrize("method", EVERY, ids=METHODS)
def test_nothing_observed_is_refused(method):
    with pytest.raises(ValueError, match="no activation"):
        amax(RangeHistogram(), method)


@pytest.mark.parametrize("options", [{"name": "kl"}, {"percentile": 0}, {"percentile": 101}])
def test_method_checks_itself(options):
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        RangeMethod(**options)


def test_thresholds_of_a_network_take_a_moment():
    """100 tensors in under two seconds of processor time; the search is vectorised."""
    import time

    histograms = [observed(draw(shape, 5000, seed)) for seed in range(4) for shape in SHAPES]
    start = time.process_time()
    for histogram in histograms:
        for method in EVERY:
            amax(histogram, method)
    per_tensor_s = (time.process_time() - start) / len(histograms)
    assert 100 * per_tensor_s < 2.0
    assert histograms[0].counts.size == BINS
