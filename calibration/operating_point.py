"""Choose a threshold that reaches a stated target, and measure what it reaches.

The threshold is put halfway between two neighbouring probabilities, so that the rounding of
another machine's kernels does not move an eye across it. Intervals are the wider of Wilson's
(by eyes; it stays open when every eye is right) and the patient-cluster bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import Interval, cluster_bootstrap, mean, wilson_interval

__all__ = ["Accuracy", "Target", "choose_threshold", "measure", "require_enough"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the threshold must reach on its set: 'sensitivity' or 'specificity' >= value."""

    measure: str = "sensitivity"
    value: float = 0.90

    def __post_init__(self) -> None:
        """Check the measure and its range."""
        if self.measure not in ("sensitivity", "specificity"):
            raise ConfigError(f"target is '{self.measure}'; use sensitivity or specificity")
        if not 0.0 < self.value <= 1.0:
            raise ConfigError(f"target {self.measure} is {self.value}; it must be in (0, 1]")

    @property
    def text(self) -> str:
        """The target in words, as the bundle and the reports print it."""
        return f"{self.measure} >= {self.value:.2f}"


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Sensitivity and specificity of decisions, with the eyes and patients they rest on."""

    sensitivity: Interval
    specificity: Interval
    num_positive: int
    num_negative: int
    num_positive_patients: int
    num_negative_patients: int


def require_enough(name: str, labels: FloatArray, minimum: int, split: str) -> None:
    """Refuse a set in which one class is too small to choose a threshold on.

    Raises:
        DataError: names the label and both counts.
    """
    num_positive, num_negative = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    if min(num_positive, num_negative) < max(minimum, 1):
        raise DataError(
            f"label {name}: {num_positive} eyes with it and {num_negative} without in {split}; a "
            f"threshold needs at least {max(minimum, 1)} of each. Add patients to {split}, or "
            "lower --min-eyes and accept wider intervals"
        )


def choose_threshold(labels: FloatArray, probabilities: FloatArray, target: Target) -> float:
    """The threshold that just reaches the target, in the middle of the gap behind it.

    The other measure is then as high as possible.

    Args:
        labels: (N,) 0 or 1, both present (see `require_enough`).
        probabilities: (N,) in 0..1; the test is positive at or above the threshold.
        target: what must be reached.
    """
    if target.measure == "sensitivity":
        # The k-th highest positive must still be called; the threshold lies below it.
        wanted = np.sort(probabilities[labels == 1])[::-1]
        edge = float(wanted[_needed(target.value, wanted.size) - 1])
        lower = probabilities[probabilities < edge]
        return _middle(float(lower.max()) if lower.size else 0.0, edge)
    # The k-th lowest negative must still be left out; the threshold lies above it.
    wanted = np.sort(probabilities[labels == 0])
    edge = float(wanted[_needed(target.value, wanted.size) - 1])
    higher = probabilities[probabilities > edge]
    return _middle(edge, float(higher.min()) if higher.size else 1.0)


def measure(
    labels: FloatArray,
    called: NDArray[np.bool_],
    patient_ids: NDArray[np.str_],
    *,
    level: float = 0.95,
    num_draws: int = 2000,
    seed: int = 0,
) -> Accuracy:
    """Sensitivity and specificity of decisions.

    Args:
        labels: (N,) 0 or 1, both present.
        called: (N,) whether the eye was called positive.
        patient_ids: (N,) whose eye it is.
        level: coverage of the intervals.
        num_draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: a class is absent.
    """
    right = called == (labels == 1)
    positive, negative = labels == 1, labels == 0
    intervals = [
        _share_right(right[members], patient_ids[members], level, num_draws, seed)
        for members in (positive, negative)
    ]
    return Accuracy(
        sensitivity=intervals[0],
        specificity=intervals[1],
        num_positive=int(np.count_nonzero(positive)),
        num_negative=int(np.count_nonzero(negative)),
        num_positive_patients=len(np.unique(patient_ids[positive])),
        num_negative_patients=len(np.unique(patient_ids[negative])),
    )


def _share_right(
    right: NDArray[np.bool_],
    patient_ids: NDArray[np.str_],
    level: float,
    num_draws: int,
    seed: int,
) -> Interval:
    """The wider of Wilson's interval and the patients' bootstrap."""
    wilson = wilson_interval(int(np.count_nonzero(right)), int(right.size), level)
    drawn = cluster_bootstrap(
        mean,
        patient_ids,
        right,
        num_draws=num_draws,
        seed=seed,
        level=level,
    )
    low, high = min(wilson.low, drawn.low), max(wilson.high, drawn.high)
    return Interval(value=wilson.value, low=low, high=high, level=level)


def _needed(share: float, count: int) -> int:
    """Smallest number of `count` that is at least `share` of them (0.9 of 10 is 9, not 10)."""
    return max(1, math.ceil(share * count - 1e-9))


def _middle(low: float, high: float) -> float:
    """A number above `low` and at most `high`."""
    middle = (low + high) / 2
    return middle if middle > low else high
