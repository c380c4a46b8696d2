"""What is said of one cell: every metric with its interval or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.errors import DataError
from edge_runtime.metrics import Interval
from train.card import metrics
from train.card.cells import Cell, score
from train.card.config import CardConfig
from train.card.metrics import Scored
from train.tasks.statistics import Statistic, interval_of

__all__ = ["NO_THRESHOLD", "Measure", "measured", "measures_of"]

NO_THRESHOLD = "cannot be computed: the model has no locked operating point"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a card.

    Attributes:
        name: of the metric.
        interval: value and interval over patients; None where there is none.
        reason: why there is none; '' otherwise.
    """

    name: str
    interval: Interval | None
    reason: str = ""


def measured(
    name: str, eyes: Scored, statistic: Callable[[Scored], Statistic], config: CardConfig
) -> Measure:
    """One metric over the eyes; what is undefined is said, never NaN."""
    num_positive = int(eyes.truth.sum())
    num_negative = len(eyes.truth) - num_positive
    if not num_positive or not num_negative:
        reason = f"cannot be computed: {num_positive} positive and {num_negative} negative eyes"
        return Measure(name=name, interval=None, reason=reason)
    try:
        interval = interval_of(
            statistic(eyes),
            eyes.num_patients,
            num_draws=config.num_draws,
            seed=config.seed,
            level=config.level,
        )
    except DataError as error:
        return Measure(name=name, interval=None, reason=f"cannot be computed: {error}")
    return Measure(name=name, interval=interval)


def measures_of(cell: Cell, config: CardConfig) -> tuple[Measure, ...]:
    """Every metric over the eyes that the model answered."""
    answered = score(cell, ~cell.refused)

    def one(name: str, statistic: Callable[[Scored], Statistic]) -> Measure:
        return measured(name, answered, statistic, config)

    found = [one("auroc", metrics.auroc), one("auprc", metrics.average_precision)]
    for least in config.specificities:
        found.append(one(f"sensitivity_at_{least:.2f}_specificity", _at_specificity(least)))
    found += [
        one("brier", metrics.brier),
        one("ece", lambda eyes: metrics.calibration_error(eyes, config.num_bins)),
    ]
    at_threshold = {
        "sensitivity": metrics.sensitivity,
        "specificity": metrics.specificity,
        "balanced_accuracy": metrics.balanced_accuracy,
    }
    if cell.threshold is None:
        return (*found, *(_without_threshold(name) for name in at_threshold))
    calls = answered.called(cell.threshold)
    return (*found, *(measured(name, calls, how, config) for name, how in at_threshold.items()))


def _at_specificity(least: float) -> Callable[[Scored], Statistic]:
    return lambda eyes: metrics.sensitivity_at(eyes, least)


def _without_threshold(name: str) -> Measure:
    return Measure(name=name, interval=None, reason=NO_THRESHOLD)
