"""Entropy: the range that loses least information, after TensorRT's published method.

S. Migacz, 8-bit Inference with TensorRT, GTC 2017 (s7310), slides 38 to 41: for every candidate
of i bins, P is the first i bins with everything beyond added to the last one, Q is the same bins
merged into 128 levels and spread out again over the bins that are not empty, and the candidate
with the smallest KL(P || Q) is taken. Details follow NVIDIA's pytorch-quantization
(`calib/histogram.py`): levels divide the candidate evenly, the bin at zero counts as much as the
one after it (a ReLU's zeros are exact in INT8 and must not hide the rest), and of equally good
candidates the largest is taken. As in ONNX Runtime's EntropyCalibrater, the last bin counts as
not empty when values were added there in P; if its level holds no value of its own, Q has 1e-4 of
a value in it, since an infinite divergence would let one outlier decide; a candidate that keeps no
value at all is refused.

With h the counts, O the sum beyond i, N = sum(h), G = N - O, G_j and Z_j the count and the number
of bins that are not empty of level j, L the last level, and e = 1e-4 if O > 0 and G_L = 0, else 0:

    N KL = sum_{b < i-1} h_b ln h_b + (h_{i-1} + O) ln(h_{i-1} + O) - N ln N
           - sum_j G_j ln(G_j / Z_j) - O ln max(G_L / Z_L, e) + N ln(G + e)

so running sums of h, of [h > 0] and of h ln h give all candidates at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import BINS, RangeHistogram

__all__ = ["NUM_LEVELS", "divergence", "entropy_amax", "folded_counts"]

NUM_LEVELS = 128
_NUM_BINS = 2048
_SMALLEST_COUNT = 1e-4


def entropy_amax(histogram: RangeHistogram) -> float:
    """Upper edge of the best candidate, at most the largest magnitude.

    Raises:
        ValueError: nothing was observed.
    """
    largest = histogram.largest
    counts = folded_counts(histogram)
    if len(counts) <= NUM_LEVELS:
        return largest
    divergences = divergence(counts)
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    width = histogram.bin_width * (BINS // _NUM_BINS)
    return float(min((NUM_LEVELS + best) * width, largest))


def folded_counts(histogram: RangeHistogram) -> NDArray[np.int64]:
    """(1025 to 2048,) counts of the bins up to the largest magnitude, zero bin as the next one."""
    folded = histogram.counts.reshape(_NUM_BINS, -1).sum(axis=1)
    used: NDArray[np.int64] = folded[: int(np.flatnonzero(folded)[-1]) + 1]
    if len(used) > 1:
        used[0] = used[1]
    return used


def divergence(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """KL(P || Q) in nats of the candidates of NUM_LEVELS to B bins.

    Args:
        counts: (B,) with B > NUM_LEVELS, the last one not 0.
    """
    total = counts.sum()
    ends = np.arange(NUM_LEVELS, len(counts) + 1)
    kept = np.cumsum(counts)[ends - 1]
    beyond = (total - kept).astype(np.float64)
    fine = _running(_x_log_x(counts))[ends - 1] + _x_log_x(counts[ends - 1] + beyond)
    coarse, last_mean = _level_terms(counts, ends, beyond > 0)
    floor = np.where((beyond > 0) & (last_mean == 0), _SMALLEST_COUNT, 0.0)
    lost = beyond * np.log(np.maximum(last_mean + floor, _SMALLEST_COUNT))
    result: NDArray[np.float64] = (fine - coarse - lost) / total - np.log(total)
    return np.where(kept > 0, result + np.log(np.maximum(kept + floor, _SMALLEST_COUNT)), np.inf)


def _level_terms(
    counts: NDArray[np.int64], ends: NDArray[np.int64], has_beyond: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each candidate, sum_j G_j ln(G_j / Z_j), and G_L / Z_L (0 for an empty level)."""
    levels = np.arange(NUM_LEVELS + 1)
    # Level j holds the bins b with j i / 128 <= b < (j + 1) i / 128.
    edges = -(-levels * ends[:, None] // NUM_LEVELS)
    sums = np.diff(_running(counts)[edges], axis=1)
    filled = np.diff(_running(counts > 0)[edges], axis=1)
    filled[:, -1] += has_beyond & (counts[ends - 1] == 0)
    terms = _x_log_x(sums) - sums * np.log(np.maximum(filled, 1))
    return terms.sum(axis=1), sums[:, -1] / np.maximum(filled[:, -1], 1)


def _running(values: NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.float64]) -> NDArray:  # type: ignore[type-arg]
    """(B + 1,) sums of the first 0, 1, ... B values."""
    return np.concatenate([[0], np.cumsum(values)])


def _x_log_x(values: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x ln x, and 0 at 0."""
    x = values.astype(np.float64)
    logs: NDArray[np.float64] = np.log(x, where=x > 0, out=np.zeros_like(x))
    return x * logs
