"""Patient-cluster bootstrap: whole patients are drawn, with all their eyes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_runtime.metrics.arrays import IntArray, aligned
from edge_runtime.metrics.proportions import Interval
from edge_runtime.metrics.ranking import auroc, auroc_of_weights

__all__ = ["cluster_bootstrap", "mean", "paired_cluster_bootstrap"]

Statistic = Callable[..., float]

# A statistic undefined in most draws (one class in nearly every sample) has no interval worth
# printing; give up after this many undefined draws for each draw asked for.
_MAX_REDRAWS_PER_DRAW = 10


def mean(values: ArrayLike) -> float:
    """Mean of numbers or share of true values; ValueError where there is none."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError("need a vector of one or more values")
    return float(array.mean())


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
    `statistic=auroc` takes a path without sorting, `statistic=mean` one without copying; both give
    the same numbers.

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
    patients, columns = aligned(patient_ids, arrays)
    value = float(statistic(*columns))
    if statistic is auroc:
        weigh = auroc_of_weights(columns[0], columns[1])
    elif statistic is mean:
        weigh = _mean_of_weights(columns[0])
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
    patients, columns = aligned(patient_ids, (labels, scores_a, scores_b))
    truth, a, b = columns
    value = float(statistic(truth, a)) - float(statistic(truth, b))
    if statistic is auroc:
        first, second = auroc_of_weights(truth, a), auroc_of_weights(truth, b)
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


def _mean_of_weights(values: ArrayLike) -> Callable[[IntArray], float]:
    """Evaluate the mean of a draw without repeating values."""
    array = np.asarray(values, np.float64)
    return lambda weights: float(np.dot(weights, array) / weights.sum())


def _by_repeating(statistic: Statistic, columns: list[NDArray[Any]]) -> Callable[[IntArray], float]:
    """Evaluate a statistic on a draw by repeating each eye as often as it was drawn."""
    positions = np.arange(len(columns[0]))

    def weigh(weights: IntArray) -> float:
        index = np.repeat(positions, weights)
        return float(statistic(*(column[index] for column in columns)))

    return weigh
