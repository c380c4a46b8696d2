"""Statistics of a binary screening test, with intervals that respect patients (NumPy only).

Labels are 0/1 (bool, integer or float); a score or probability is larger for more
disease; a test is positive when `score >= threshold`. Two eyes of a patient are
correlated, so every bootstrap here resamples patients and takes all their eyes.

>>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
0.75
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ConfusionCounts",
    "Interval",
    "auroc",
    "brier",
    "cluster_bootstrap",
    "confusion_counts",
    "expected_calibration_error",
    "paired_cluster_bootstrap",
    "roc_curve",
    "sensitivity_specificity",
    "wilson_interval",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Statistic = Callable[..., float]

# A statistic undefined in most draws (one class in nearly every sample) has no interval worth
# printing; give up after this many undefined draws for each draw asked for.
_MAX_REDRAWS_PER_DRAW = 10


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its two-sided interval.

    Attributes:
        value: the estimate on all data.
        low: lower end.
        high: upper end.
        level: coverage, in (0, 1).
        num_redrawn: bootstrap draws repeated because the statistic was undefined in them.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    num_redrawn: int = 0

    def __post_init__(self) -> None:
        """Check the order of the ends and the level."""
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"level is {self.level}; give a number between 0 and 1")
        if not self.low <= self.high:
            raise ValueError(f"interval ends are out of order: low {self.low}, high {self.high}")


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
    truth, values = _checked(labels, scores)
    return _weighted_auroc(truth, _dense_ranks(values), np.ones(truth.size))


def confusion_counts(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float
) -> ConfusionCounts:
    """Count eyes by truth and test result; the test is positive at or above `threshold`."""
    truth, values = _checked(labels, probabilities)
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
    _require_both_classes(counts.num_positive, counts.num_negative)
    sensitivity = counts.true_positive / counts.num_positive
    return sensitivity, counts.true_negative / counts.num_negative


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points of the ROC curve, one for each distinct score.

    Returns:
        False positive rates, true positive rates (both ascending from 0 to 1) and the thresholds
        that give them (descending; the first is +inf, where nothing is positive).
    """
    truth, values = _checked(labels, scores)
    _require_both_classes(int(truth.sum()), int((~truth).sum()))
    distinct, ranks = np.unique(values, return_inverse=True)
    positives = np.bincount(ranks[truth], minlength=distinct.size)[::-1]
    negatives = np.bincount(ranks[~truth], minlength=distinct.size)[::-1]
    true_positive_rate = np.concatenate([[0.0], np.cumsum(positives) / positives.sum()])
    false_positive_rate = np.concatenate([[0.0], np.cumsum(negatives) / negatives.sum()])
    return false_positive_rate, true_positive_rate, np.concatenate([[np.inf], distinct[::-1]])


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference between probability and label (Brier 1950); 0 is best."""
    truth, values = _checked(labels, probabilities, unit_range=True)
    return float(np.mean((values - truth) ** 2))


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, *, num_bins: int = 10
) -> float:
    """Adaptive expected calibration error: mean |observed rate - mean probability| over bins.

    Bins hold about equally many eyes (Nixon et al. 2019, arXiv 1904.01685) and equal
    probabilities share a bin, so the order of the eyes does not matter.
    """
    truth, values = _checked(labels, probabilities, unit_range=True)
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; give 1 or more")
    edges = np.quantile(values, np.arange(1, num_bins) / num_bins)
    bins = np.searchsorted(edges, values, side="right")
    gap = np.bincount(bins, weights=truth - values, minlength=num_bins)
    return float(np.abs(gap).sum() / values.size)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927), without continuity correction.

    Raises:
        ValueError: `n` is not positive or `successes` lies outside 0..n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is no proportion; n must be positive")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; give a number between 0 and 1")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and n successes the exact ends are 0 and 1; rounding must not push them inwards.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return Interval(value=share, low=low, high=high, level=level)


def cluster_bootstrap(
    statistic: Statistic,
    patient_ids: ArrayLike,
    *arrays: ArrayLike,
    num_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of `statistic(*arrays)` by resampling patients.

    A draw in which the statistic raises ValueError or is not finite is drawn again and counted.
    `statistic=auroc` takes a path without sorting; it gives the same numbers.

    Args:
        statistic: called with the arrays of one resample; must be defined on the whole data.
        patient_ids: (N,) any values that compare equal within a patient.
        *arrays: each with N rows.
        num_draws: bootstrap draws.
        seed: fixes the draws: two statistics with one seed see the same resamples.
        level: coverage of the interval.

    Raises:
        ValueError: lengths differ, or the statistic is undefined on nearly every draw.
    """
    patients, columns = _aligned(patient_ids, arrays)
    value = float(statistic(*columns))
    if statistic is auroc:
        weigh = _auroc_of_weights(columns[0], columns[1])
    else:
        weigh = _by_repeating(statistic, columns)
    return _percentile_interval(value, weigh, patients, num_draws, seed, level)


def paired_cluster_bootstrap(
    statistic: Statistic,
    patient_ids: ArrayLike,
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    *,
    num_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of `statistic(labels, a) - statistic(labels, b)`, both on the same draws.

    Arguments and errors are those of `cluster_bootstrap`; the scores are (N,) of one set of eyes.
    """
    columns: list[NDArray[Any]]
    patients, columns = _aligned(patient_ids, (labels, scores_a, scores_b))
    truth, a, b = columns
    value = float(statistic(truth, a)) - float(statistic(truth, b))
    if statistic is auroc:
        first, second = _auroc_of_weights(truth, a), _auroc_of_weights(truth, b)
    else:
        first = _by_repeating(statistic, [truth, a])
        second = _by_repeating(statistic, [truth, b])

    def weigh(weights: IntArray) -> float:
        return first(weights) - second(weights)

    return _percentile_interval(value, weigh, patients, num_draws, seed, level)


def _percentile_interval(
    value: float,
    weigh: Callable[[IntArray], float],
    patients: IntArray,
    num_draws: int,
    seed: int,
    level: float,
) -> Interval:
    """Percentile interval of `weigh(times each eye was drawn)` over resamples of patients."""
    if num_draws < 1:
        raise ValueError(f"num_draws is {num_draws}; give 1 or more")
    values: list[float] = []
    num_redrawn = 0
    for weights in _draws(patients, seed):
        drawn = _defined(weigh, weights)
        if drawn is None:
            num_redrawn += 1
            if num_redrawn > _MAX_REDRAWS_PER_DRAW * num_draws:
                raise ValueError(
                    f"the statistic is undefined in {num_redrawn} of {num_redrawn + len(values)} "
                    "resamples of patients; give more patients of the rarer class"
                )
            continue
        values.append(drawn)
        if len(values) == num_draws:
            break
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(
        value=value, low=float(low), high=float(high), level=level, num_redrawn=num_redrawn
    )


def _draws(patients: IntArray, seed: int) -> Iterator[IntArray]:
    """Yield, without end, how often each eye is in a resample of whole patients."""
    generator = np.random.default_rng(seed)
    num_patients = int(patients.max()) + 1
    while True:
        drawn = generator.integers(0, num_patients, num_patients)
        yield np.bincount(drawn, minlength=num_patients)[patients]


def _defined(weigh: Callable[[IntArray], float], weights: IntArray) -> float | None:
    """The statistic of one draw, or None where it is undefined."""
    try:
        value = float(weigh(weights))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _by_repeating(statistic: Statistic, columns: list[NDArray[Any]]) -> Callable[[IntArray], float]:
    """Evaluate a statistic on a draw by repeating each eye as often as it was drawn."""
    positions = np.arange(len(columns[0]))

    def weigh(weights: IntArray) -> float:
        index = np.repeat(positions, weights)
        return float(statistic(*(column[index] for column in columns)))

    return weigh


def _auroc_of_weights(labels: ArrayLike, scores: ArrayLike) -> Callable[[IntArray], float]:
    """Evaluate the AUROC of a draw from ranks computed once: resampling never reorders scores."""
    truth, values = _checked(labels, scores)
    ranks = _dense_ranks(values)
    return lambda weights: _weighted_auroc(truth, ranks, weights)


def _weighted_auroc(truth: NDArray[np.bool_], ranks: IntArray, weights: NDArray[Any]) -> float:
    """AUROC of eyes that count `weights` times; `ranks` are dense ranks, equal for ties."""
    size = int(ranks.max()) + 1
    positives = np.bincount(ranks, weights=weights * truth, minlength=size)
    negatives = np.bincount(ranks, weights=weights * ~truth, minlength=size)
    num_positive, num_negative = positives.sum(), negatives.sum()
    _require_both_classes(int(num_positive), int(num_negative))
    negatives_below = np.cumsum(negatives) - negatives
    wins = np.dot(positives, negatives_below + negatives / 2)
    return float(wins / (num_positive * num_negative))


def _dense_ranks(values: FloatArray) -> IntArray:
    """(N,) position of each value among the distinct values."""
    ranks: IntArray = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return ranks


def _require_both_classes(num_positive: int, num_negative: int) -> None:
    if num_positive == 0 or num_negative == 0:
        raise ValueError(
            f"both classes are needed, found {num_positive} positive and {num_negative} negative"
        )


def _checked(
    labels: ArrayLike, scores: ArrayLike, *, unit_range: bool = False
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Labels as (N,) bool and scores as (N,) float64; ValueError for anything else."""
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape or truth.size == 0:
        raise ValueError(
            f"labels {truth.shape} and scores {values.shape} must be two vectors of equal length"
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be 0 or 1; drop unknown labels first")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    if unit_range and (values.min() < 0 or values.max() > 1):
        raise ValueError("probabilities must lie in 0..1")
    return truth.astype(np.bool_), values


def _aligned(
    patient_ids: ArrayLike, arrays: tuple[ArrayLike, ...]
) -> tuple[IntArray, list[NDArray[Any]]]:
    """Patients numbered from 0 and the arrays, all with one row for each eye."""
    patients = np.asarray(patient_ids)
    columns = [np.asarray(array) for array in arrays]
    if patients.ndim != 1 or patients.size == 0 or not columns:
        raise ValueError("patient_ids must be a non-empty vector, with at least one array")
    lengths = [len(column) for column in columns]
    if any(length != patients.size for length in lengths):
        raise ValueError(f"{patients.size} patient ids but arrays of {lengths} rows")
    return _dense_ranks(patients), columns
