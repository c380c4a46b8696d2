"""Whether probabilities can be taken at their word: Brier score and calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edge_runtime.metrics.arrays import FloatArray, IntArray, checked

__all__ = ["ReliabilityBin", "brier", "expected_calibration_error", "reliability_bins"]


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """One point of a reliability diagram: what was said, what happened, how often."""

    mean_probability: float
    observed_rate: float
    num_eyes: int


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference between probability and label (Brier 1950); 0 is best."""
    truth, values = checked(labels, probabilities, unit_range=True)
    return float(np.mean((values - truth) ** 2))


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, *, num_bins: int = 10
) -> float:
    """Adaptive expected calibration error: mean |observed rate - mean probability| over bins.

    Bins hold about equally many eyes (Nixon et al. 2019, arXiv 1904.01685) and equal
    probabilities share a bin, so the order of the eyes does not matter.
    """
    truth, values = checked(labels, probabilities, unit_range=True)
    bins = _bins(values, num_bins)
    gap = np.bincount(bins, weights=truth - values, minlength=num_bins)
    return float(np.abs(gap).sum() / values.size)


def reliability_bins(
    labels: ArrayLike, probabilities: ArrayLike, *, num_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Points of the reliability diagram, with the bins of `expected_calibration_error`."""
    truth, values = checked(labels, probabilities, unit_range=True)
    bins = _bins(values, num_bins)
    return tuple(
        ReliabilityBin(
            mean_probability=float(values[bins == k].mean()),
            observed_rate=float(truth[bins == k].mean()),
            num_eyes=int(np.count_nonzero(bins == k)),
        )
        for k in np.unique(bins)
    )


def _bins(values: FloatArray, num_bins: int) -> IntArray:
    """(N,) which bin each probability is in, from 0; some bins may be empty."""
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; give 1 or more")
    edges = np.quantile(values, np.arange(1, num_bins) / num_bins)
    return np.searchsorted(edges, values, side="right")
