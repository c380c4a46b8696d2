"""Intervals and paired differences of any per-eye metric, by resampling patients.

The two eyes of a patient are correlated, so whole patients are drawn. A resample is how
often each patient was drawn; a metric is computed for all resamples at once from those
weights, which is what makes 2,000 draws cheap. One seed gives one set of draws: two arms
scored on the same eyes are compared on the same resamples.

Several score rows (label draws of a probe) belong to one result: the metric is the mean
over rows in every resample. Training seeds do not belong here: they are runs of their own,
reported apart by `over_seeds`.

Legend: N eyes, D score rows, B resamples, P patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import Interval
from train.tasks.weighted_metrics import METRICS, ScoredEyes

__all__ = [
    "Difference",
    "SeedSummary",
    "Statistic",
    "bootstrap_interval",
    "difference_of",
    "holm",
    "interval_of",
    "over_seeds",
    "paired_difference",
    "score",
]

FloatArray = npt.NDArray[np.float64]
# As in edge_runtime.metrics: a metric undefined in nearly every resample has no interval.
_MAX_DRAWN_PER_DRAW = 11
# (B, P) weights of patients -> (B,) values, NaN where undefined.
Statistic = Callable[[npt.NDArray[np.float32]], FloatArray]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Metric of arm A minus metric of arm B.

    Attributes:
        interval: value, percentile ends and level.
        p_value: two-sided, of 'no difference': twice the smaller share of resamples on
            either side of 0, each side counting one resample more than was seen. The same
            resamples give the interval, so the two agree; no test is run over resamples.
    """

    interval: Interval
    p_value: float


@dataclass(frozen=True, kw_only=True)
class SeedSummary:
    """One metric over training seeds; never part of an interval over patients.

    Attributes:
        mean: over seeds.
        sd: sample standard deviation over seeds; None for one seed.
        num_seeds: how many.
    """

    mean: float
    sd: float | None
    num_seeds: int


def score(eyes: ScoredEyes, metric: str) -> float:
    """The metric on all eyes, mean over score rows.

    Raises:
        ConfigError: there is no metric of that name.
        DataError: the metric is undefined on these eyes.
    """
    statistic, num_patients = _statistic(eyes, metric)
    value = float(statistic(np.ones((1, num_patients), np.float32))[0])
    if not np.isfinite(value):
        raise DataError(
            f"{metric} is undefined on {len(eyes.truth)} eyes: "
            f"{METRICS[metric].undefined}; score more eyes"
        )
    return value


def bootstrap_interval(
    eyes: ScoredEyes, metric: str, *, num_draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The metric with its percentile interval over resamples of patients.

    A resample in which the metric is undefined is drawn again and counted, as in
    `edge_runtime.metrics.cluster_bootstrap`, whose draws these are.

    Args:
        eyes: what was scored.
        metric: a name of `METRICS`.
        num_draws: resamples.
        seed: of the resamples.
        level: coverage.

    Raises:
        ConfigError: there is no metric of that name, or a setting is out of range.
        DataError: the metric is undefined on these eyes or on nearly every resample.
    """
    score(eyes, metric)  # says which metric is undefined, and why
    statistic, num_patients = _statistic(eyes, metric)
    return interval_of(statistic, num_patients, num_draws=num_draws, seed=seed, level=level)


def interval_of(
    statistic: Statistic,
    num_patients: int,
    *,
    num_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Any statistic of patient weights with its percentile interval.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the statistic is undefined on all data or on nearly every resample.
    """
    value = _on_all(statistic, num_patients)
    draws, num_redrawn = _defined_draws(statistic, num_patients, num_draws, seed)
    low, high = _percentiles(draws, level)
    return Interval(value=value, low=low, high=high, level=level, num_redrawn=num_redrawn)


def paired_difference(
    a: ScoredEyes,
    b: ScoredEyes,
    metric: str,
    *,
    num_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Arm A minus arm B on the same eyes and the same resamples.

    Raises:
        ConfigError: there is no metric of that name, or a setting is out of range.
        DataError: the arms were scored on other eyes or other truth, or the metric is
            undefined.
    """
    a.require_same_eyes(b)
    score(a, metric)
    score(b, metric)
    (first, num_patients), (second, _) = _statistic(a, metric), _statistic(b, metric)
    return difference_of(first, second, num_patients, num_draws=num_draws, seed=seed, level=level)


def difference_of(
    first: Statistic,
    second: Statistic,
    num_patients: int,
    *,
    num_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """First minus second on the same resamples of the same patients.

    Raises:
        ConfigError: a setting is out of range.
        DataError: one is undefined on all data, or on nearly every resample.
    """
    value = _on_all(first, num_patients) - _on_all(second, num_patients)

    def statistic(weights: npt.NDArray[np.float32]) -> FloatArray:
        return first(weights) - second(weights)

    draws, num_redrawn = _defined_draws(statistic, num_patients, num_draws, seed)
    low, high = _percentiles(draws, level)
    interval = Interval(value=value, low=low, high=high, level=level, num_redrawn=num_redrawn)
    return Difference(interval=interval, p_value=_two_sided_p(draws))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values (Holm 1979): the k-th smallest of m times (m - k + 1), made monotone.

    Raises:
        ConfigError: a value is no probability.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ConfigError(f"p values {p_values} must be a list of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    steps = p[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return tuple(adjusted.tolist())


def over_seeds(values: Sequence[float]) -> SeedSummary:
    """Mean and sample standard deviation of one metric over training seeds.

    Raises:
        ConfigError: no value, or one that is not finite.
    """
    if not values or not np.isfinite(values).all():
        raise ConfigError(f"values over seeds are {list(values)}; give one finite number a seed")
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return SeedSummary(mean=float(np.mean(values)), sd=sd, num_seeds=len(values))


def _statistic(eyes: ScoredEyes, metric: str) -> tuple[Statistic, int]:
    """The metric as a function of patient weights (B, P), and P."""
    if metric not in METRICS:
        raise ConfigError(f"metric is {metric!r}; choose one of {', '.join(sorted(METRICS))}")
    patients = eyes.patient_numbers()
    return METRICS[metric].of_weights(eyes, patients), int(patients.max()) + 1


def _on_all(statistic: Statistic, num_patients: int) -> float:
    """The statistic with every patient once."""
    value = float(statistic(np.ones((1, num_patients), np.float32))[0])
    if not np.isfinite(value):
        raise DataError(
            f"the metric is undefined on {num_patients} patients; give patients of both classes"
        )
    return value


def _defined_draws(
    statistic: Statistic, num_patients: int, num_draws: int, seed: int
) -> tuple[FloatArray, int]:
    """The first `num_draws` resamples with a defined metric, and how many were passed over."""
    if num_draws < 1:
        raise ConfigError(f"num_draws is {num_draws}; give 1 or more")
    drawn = num_draws
    while True:
        values = statistic(_patient_weights(num_patients, drawn, seed))
        defined = np.flatnonzero(np.isfinite(values))
        if len(defined) >= num_draws:
            used = defined[:num_draws]
            return values[used], int(used[-1]) + 1 - num_draws
        if drawn >= _MAX_DRAWN_PER_DRAW * num_draws:
            raise DataError(
                f"the metric is undefined in {drawn - len(defined)} of {drawn} resamples of "
                f"{num_patients} patients; give more patients of the rarer class"
            )
        drawn = min(2 * drawn, _MAX_DRAWN_PER_DRAW * num_draws)


@lru_cache(maxsize=4)
def _patient_weights(num_patients: int, num_draws: int, seed: int) -> npt.NDArray[np.float32]:
    """(B, P) how often each patient is in each resample; shared by all metrics, read only."""
    drawn = np.random.default_rng(seed).integers(0, num_patients, (num_draws, num_patients))
    drawn += np.arange(num_draws)[:, None] * num_patients
    counts = np.bincount(drawn.ravel(), minlength=num_draws * num_patients)
    weights = counts.reshape(num_draws, num_patients).astype(np.float32)
    weights.setflags(write=False)
    return weights


def _percentiles(draws: FloatArray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; give a number between 0 and 1")
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _two_sided_p(draws: FloatArray) -> float:
    below, above = int((draws <= 0).sum()), int((draws >= 0).sum())
    return min(1.0, 2.0 * (1 + min(below, above)) / (1 + len(draws)))
