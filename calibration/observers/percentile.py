"""Percentile: hold a stated share of the magnitudes and let the largest saturate."""

from __future__ import annotations

import numpy as np

from calibration.histogram import RangeHistogram

__all__ = ["percentile_amax"]


def percentile_amax(histogram: RangeHistogram, percentile: float) -> float:
    """Upper edge of the bin in which the wanted share of all magnitudes is reached.

    Zeros count as values, as in ONNX Runtime's PercentileCalibrater: behind a ReLU that is zero
    half of the time, 99.99 % saturates one in 5,000 of the others. Where zeros alone reach the
    share, the few other values are all that the tensor says, and every one is held.

    Args:
        histogram: what was observed.
        percentile: above 50 and at most 100.

    Returns:
        At most one bin above the exact percentile, and never above the largest magnitude.

    Raises:
        ValueError: nothing was observed.
    """
    largest, reached = histogram.largest, np.cumsum(histogram.counts)
    wanted = percentile / 100 * reached[-1]
    last = int(np.searchsorted(reached, wanted))
    return min((last + 1) * histogram.bin_width, largest) if last > 0 else largest
