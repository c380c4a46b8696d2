"""Mean squared error: the range whose INT8 values lie closest to the float values.

For a candidate A with step s = A / 127, a magnitude x becomes the code k = min(round(x / s), 127)
and the error is

    E(A) = sum over codes k of  S2_k - 2 k s S1_k + (k s)^2 S0_k

where S0_k, S1_k, S2_k are the sums of 1, x and x^2 over the values with code k, that is over
[(k - 1/2) s, (k + 1/2) s), the last one open upwards. With values spread evenly inside a bin,
running sums over the bins give all three in closed form, so a candidate costs 128 look-ups
however many values and bins there are. The first bin is left out: it holds the zeros of a ReLU,
which INT8 represents exactly, and nothing above 1/4096 of the largest magnitude. (The criterion
is the usual one, for example 'MSE' in Nagel et al., A White Paper on Neural Network Quantization,
arXiv 2106.08295, section 3.1.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import BINS, RangeHistogram

__all__ = ["mse_amax", "mse_candidates", "squared_error"]

_LEVELS = 127
# 32 candidates an octave (2.2 % apart; the error is flat near its minimum) over ten octaves.
_RATIOS = 2.0 ** (-np.arange(321) / 32)


def mse_amax(histogram: RangeHistogram) -> float:
    """The candidate with the smallest squared error; of equals, the largest.

    Raises:
        ValueError: nothing was observed.
    """
    candidates = mse_candidates(histogram)
    errors = squared_error(histogram.counts, candidates / histogram.bin_width)
    return float(candidates[np.argmin(errors)])


def mse_candidates(histogram: RangeHistogram) -> NDArray[np.float64]:
    """(C,) ranges to try, falling from the largest magnitude."""
    candidates: NDArray[np.float64] = histogram.largest * _RATIOS
    return candidates


def squared_error(
    counts: NDArray[np.int64], candidates: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(C,) sums E(A) over all values.

    Args:
        counts: (BINS,) values in each bin.
        candidates: (C,) ranges A, in bins.
    """
    step = candidates[:, None] / _LEVELS
    codes = np.arange(_LEVELS + 1)
    edges = (codes[1:] - 0.5) * step
    values = codes * step
    zeroth, first, second = (_differences(sums) for sums in _running_sums(counts, edges))
    errors = second - 2 * values * first + values**2 * zeroth
    total: NDArray[np.float64] = errors.sum(axis=1)
    return total


def _running_sums(
    counts: NDArray[np.int64], edges: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Sums of 1, x and x^2 over [0, edge) for each edge, and over everything in a last column.

    x is in bins; inside a bin the density is constant: the integral of x^p over [i, e) is
    (e^(p+1) - i^(p+1)) / (p + 1).
    """
    weights = counts.astype(np.float64)
    weights[0] = 0.0
    low = np.arange(BINS, dtype=np.float64)
    bins = np.minimum(edges.astype(np.int64), BINS - 1)
    sums = []
    for power in (1, 2, 3):
        inside = weights * ((low + 1) ** power - low**power) / power
        before = np.concatenate([[0.0], np.cumsum(inside)])
        part = weights[bins] * (np.minimum(edges, BINS) ** power - low[bins] ** power) / power
        at_edges = before[bins] + part
        sums.append(np.column_stack([at_edges, np.full(len(edges), before[-1])]))
    return sums


def _differences(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of each code from running sums."""
    return np.diff(sums, axis=1, prepend=0.0)
