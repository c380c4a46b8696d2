"""What is said of one cell: every metric with its interval or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_runtime.errors import DataError
from edge_runtime.metrics import Interval, wilson_interval
from train.card import metrics
from train.card.cells import Cell, score
from train.card.config import CardConfig
from train.card.metrics import Scored
from train.tasks.statistics import Statistic, interval_of

__all__ = [
    "NO_THRESHOLD",
    "RATES",
    "Measure",
    "measured",
    "measures_of",
    "rate",
    "widened",
    "with_interval",
]

NO_THRESHOLD = "cannot be computed: the model has no locked operating point"
RATES = ("sensitivity", "specificity")


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


def measures_of(cell: Cell, config: CardConfig) -> tuple[Measure, ...]:
    """Every metric over the eyes that the model answered."""
    answered = score(cell, ~cell.refused)
    found = [
        measured("auroc", answered, metrics.auroc, config),
        measured("auprc", answered, metrics.average_precision, config),
        *(_at_specificity(answered, least, config) for least in config.specificities),
        measured("brier", answered, metrics.brier, config),
        measured("ece", answered, lambda e: metrics.calibration_error(e, config.num_bins), config),
    ]
    if cell.threshold is None:
        without = (*RATES, "balanced_accuracy")
        return (*found, *(Measure(name=n, interval=None, reason=NO_THRESHOLD) for n in without))
    calls = answered.called(cell.threshold)
    found += [rate(name, calls, config) for name in RATES]
    return (*found, measured("balanced_accuracy", calls, metrics.balanced_accuracy, config))


def measured(
    name: str, eyes: Scored, statistic: Callable[[Scored], Statistic], config: CardConfig
) -> Measure:
    """One metric that needs both classes; what is undefined is said, never NaN."""
    num_positive = int(eyes.truth.sum())
    num_negative = len(eyes.truth) - num_positive
    if num_positive and num_negative:
        return with_interval(name, statistic(eyes), eyes.num_patients, config)
    reason = f"cannot be computed: {num_positive} positive and {num_negative} negative eyes"
    return Measure(name=name, interval=None, reason=reason)


def rate(name: str, calls: Scored, config: CardConfig) -> Measure:
    """Sensitivity or specificity of calls: the wider of Wilson's interval and the bootstrap.

    The bootstrap alone has no width where no eye was called wrongly, which is not certainty.
    """
    is_sensitivity = name == "sensitivity"
    members = calls.truth if is_sensitivity else ~calls.truth
    num_members = int(members.sum())
    if not num_members:
        word = "positive" if is_sensitivity else "negative"
        return Measure(name=name, interval=None, reason=f"cannot be computed: no {word} eye")
    statistic = metrics.sensitivity(calls) if is_sensitivity else metrics.specificity(calls)
    return _widened(with_interval(name, statistic, calls.num_patients, config), num_members)


def widened(interval: Interval, num_members: int) -> Interval:
    """The interval of a share of `num_members` eyes, at least as wide as Wilson's."""
    hits = round(interval.value * num_members)
    wilson = wilson_interval(hits, num_members, interval.level)
    low, high = min(interval.low, wilson.low), max(interval.high, wilson.high)
    return replace(interval, low=low, high=high)


def with_interval(
    name: str, statistic: Statistic, num_patients: int, config: CardConfig
) -> Measure:
    """A statistic of patient weights; one that is undefined is said to be."""
    try:
        interval = interval_of(
            statistic,
            num_patients,
            num_draws=config.num_draws,
            seed=config.seed,
            level=config.level,
        )
    except DataError as error:
        return Measure(name=name, interval=None, reason=f"cannot be computed: {error}")
    return Measure(name=name, interval=interval)


def _at_specificity(eyes: Scored, least: float, config: CardConfig) -> Measure:
    name = f"sensitivity_at_{least:.2f}_specificity"
    one = measured(name, eyes, lambda e: metrics.sensitivity_at(e, least), config)
    return _widened(one, int(eyes.truth.sum()))


def _widened(one: Measure, num_members: int) -> Measure:
    if one.interval is None:
        return one
    return replace(one, interval=widened(one.interval, num_members))
