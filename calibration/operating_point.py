"""Choose a threshold that reaches a stated target on `val`, with honest intervals around it.

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
from edge_runtime.manifest import OperatingPoint
from edge_runtime.metrics import (
    Interval,
    cluster_bootstrap,
    confusion_counts,
    wilson_interval,
)

__all__ = ["Target", "derive_operating_point", "require_enough", "share_right"]

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


def derive_operating_point(
    labels: FloatArray,
    probabilities: FloatArray,
    patient_ids: NDArray[np.str_],
    target: Target,
    *,
    split: str = "val",
    num_draws: int = 2000,
    seed: int = 0,
) -> OperatingPoint:
    """Choose the threshold and say what it reaches.

    Args:
        labels: (N,) 0 or 1, both present (see `require_enough`).
        probabilities: (N,) in 0..1; the test is positive at or above the threshold.
        patient_ids: (N,) whose eye it is.
        target: what must be reached; the other measure is then as high as possible.
        split: name of the set, stored beside the numbers.
        num_draws: of the bootstrap.
        seed: of the bootstrap.
    """
    threshold = _choose_threshold(labels, probabilities, target)
    counts = confusion_counts(labels, probabilities, threshold)
    right = (probabilities >= threshold) == (labels == 1)
    bootstrap = [
        cluster_bootstrap(
            share_right, patient_ids, labels == truth, right, num_draws=num_draws, seed=seed
        )
        for truth in (1, 0)
    ]
    wilson = (
        wilson_interval(counts.true_positive, counts.num_positive),
        wilson_interval(counts.true_negative, counts.num_negative),
    )
    return OperatingPoint(
        threshold=threshold,
        target=target.text,
        sensitivity=wilson[0].value,
        sensitivity_interval=_wider(wilson[0], bootstrap[0]),
        specificity=wilson[1].value,
        specificity_interval=_wider(wilson[1], bootstrap[1]),
        num_positive=counts.num_positive,
        num_negative=counts.num_negative,
        split=split,
    )


def share_right(members: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    """Share of the members judged rightly: sensitivity of the diseased, specificity of the others.

    Raises:
        ValueError: there is no member (a resample may have none).
    """
    count = np.count_nonzero(members)
    if count == 0:
        raise ValueError("no eye of this class")
    return float(np.count_nonzero(members & right) / count)


def _choose_threshold(labels: FloatArray, probabilities: FloatArray, target: Target) -> float:
    """The threshold that just reaches the target, in the middle of the gap behind it."""
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


def _needed(share: float, count: int) -> int:
    """Smallest number of `count` that is at least `share` of them (0.9 of 10 is 9, not 10)."""
    return max(1, math.ceil(share * count - 1e-9))


def _middle(low: float, high: float) -> float:
    """A number above `low` and at most `high`."""
    middle = (low + high) / 2
    return middle if middle > low else high


def _wider(first: Interval, second: Interval) -> tuple[float, float]:
    return min(first.low, second.low), max(first.high, second.high)
