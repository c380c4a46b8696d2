"""How well scores separate two classes: AUROC, ROC curve, counts at one threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_runtime.metrics.arrays import (
    FloatArray,
    IntArray,
    checked,
    dense_ranks,
    require_both_classes,
)

__all__ = [
    "ConfusionCounts",
    "auroc",
    "auroc_of_weights",
    "confusion_counts",
    "roc_curve",
    "sensitivity_specificity",
]


@dataclass(frozen=True, kw_only=True)
class ConfusionCounts:
    """Numbers of eyes by truth and by test result at one threshold."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    @property
    def num_positive(self) -> int:
        """Eyes that have the disease."""
        return self.true_positive + self.false_negative

    @property
    def num_negative(self) -> int:
        """Eyes that do not have the disease."""
        return self.true_negative + self.false_positive


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties half.

    Raises:
        ValueError: only one class is present, lengths differ, or a value is not usable.
    """
    truth, values = checked(labels, scores)
    return _weighted_auroc(truth, dense_ranks(values), np.ones(truth.size))


def confusion_counts(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float
) -> ConfusionCounts:
    """Count eyes by truth and test result; the test is positive at or above `threshold`."""
    truth, values = checked(labels, probabilities)
    called = values >= threshold
    return ConfusionCounts(
        true_positive=int(np.sum(truth & called)),
        false_negative=int(np.sum(truth & ~called)),
        true_negative=int(np.sum(~truth & ~called)),
        false_positive=int(np.sum(~truth & called)),
    )


def sensitivity_specificity(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float
) -> tuple[float, float]:
    """Sensitivity and specificity of `probability >= threshold`.

    Raises:
        ValueError: only one class is present, so one of the two is undefined.
    """
    counts = confusion_counts(labels, probabilities, threshold)
    require_both_classes(counts.num_positive, counts.num_negative)
    sensitivity = counts.true_positive / counts.num_positive
    return sensitivity, counts.true_negative / counts.num_negative


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points of the ROC curve, one for each distinct score.

    Returns:
        False positive rates, true positive rates (both ascending from 0 to 1) and the thresholds
        that give them (descending; the first is +inf, where nothing is positive).
    """
    truth, values = checked(labels, scores)
    require_both_classes(int(truth.sum()), int((~truth).sum()))
    distinct, ranks = np.unique(values, return_inverse=True)
    positives = np.bincount(ranks[truth], minlength=distinct.size)[::-1]
    negatives = np.bincount(ranks[~truth], minlength=distinct.size)[::-1]
    true_positive_rate = np.concatenate([[0.0], np.cumsum(positives) / positives.sum()])
    false_positive_rate = np.concatenate([[0.0], np.cumsum(negatives) / negatives.sum()])
    return false_positive_rate, true_positive_rate, np.concatenate([[np.inf], distinct[::-1]])


def auroc_of_weights(labels: ArrayLike, scores: ArrayLike) -> Callable[[IntArray], float]:
    """Evaluate the AUROC of a draw from ranks computed once: resampling never reorders scores."""
    truth, values = checked(labels, scores)
    ranks = dense_ranks(values)
    return lambda weights: _weighted_auroc(truth, ranks, weights)


def _weighted_auroc(truth: NDArray[np.bool_], ranks: IntArray, weights: NDArray[Any]) -> float:
    """AUROC of eyes that count `weights` times; `ranks` are dense ranks, equal for ties."""
    size = int(ranks.max()) + 1
    positives = np.bincount(ranks, weights=weights * truth, minlength=size)
    negatives = np.bincount(ranks, weights=weights * ~truth, minlength=size)
    num_positive, num_negative = positives.sum(), negatives.sum()
    require_both_classes(int(num_positive), int(num_negative))
    negatives_below = np.cumsum(negatives) - negatives
    wins = np.dot(positives, negatives_below + negatives / 2)
    return float(wins / (num_positive * num_negative))
