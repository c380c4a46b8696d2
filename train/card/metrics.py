"""Metrics of a card as functions of patient weights, so that 2,000 resamples are cheap.

Each takes the scored eyes and returns a function of (B, P) weights that gives (B,) values,
NaN where the metric is undefined: `train.tasks.statistics` makes intervals of them.

Legend: N eyes, P patients, B resamples, G distinct scores, K bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from train.tasks.statistics import Statistic
from train.tasks.weighted_metrics import METRICS, ScoredEyes

__all__ = [
    "Scored",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "calibration_error",
    "mean_of",
    "sensitivity",
    "sensitivity_at",
    "specificity",
]

FloatArray = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]
_DRAWS_AT_ONCE = 250
_TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Eyes of one output of one model that have both a score and a known truth.

    Attributes:
        truth: (N,) bool.
        scores: (N,) float64, larger for more disease; 0 or 1 where calls are scored.
        patients: (N,) int, numbered from 0; two results are paired only in one numbering.
        num_patients: P.
    """

    truth: npt.NDArray[np.bool_]
    scores: FloatArray
    patients: npt.NDArray[np.int64]
    num_patients: int

    def called(self, threshold: float) -> Scored:
        """The same eyes with calls in the place of scores: 1 at or above the threshold."""
        return self.with_scores((self.scores >= threshold).astype(np.float64))

    def with_scores(self, scores: FloatArray) -> Scored:
        """The same eyes with other scores."""
        return Scored(
            truth=self.truth,
            scores=scores,
            patients=self.patients,
            num_patients=self.num_patients,
        )


def auroc(eyes: Scored) -> Statistic:
    """Area under the ROC curve, ties half."""
    return METRICS["auroc"].of_weights(_as_rows(eyes, eyes.scores), eyes.patients)


def brier(eyes: Scored) -> Statistic:
    """Mean squared difference of probability and truth (Brier 1950)."""
    squared = (eyes.scores - eyes.truth) ** 2
    return _mean_of_eyes(eyes, squared)


def average_precision(eyes: Scored) -> Statistic:
    """Area under the precision-recall curve in steps, one a distinct score (AUPRC)."""
    curve = _Curve(eyes)

    def of_weights(weights: Weights) -> FloatArray:
        values = np.full(len(weights), np.nan)
        for rows, positives, negatives in curve.cumulative(weights):
            precision = positives / np.maximum(positives + negatives, _TINY)
            steps = np.diff(positives, axis=1, prepend=0.0)
            values[rows] = _ratio((steps * precision).sum(1), positives[:, -1])
            values[rows][negatives[:, -1] == 0] = np.nan
        return values

    return of_weights


def sensitivity_at(eyes: Scored, least_specificity: float) -> Statistic:
    """Largest sensitivity among the points of the ROC curve with at least that specificity.

    A property of the curve on these eyes: the point is found anew in every resample, so the
    interval holds the doubt about where it lies. It is no claim about a locked threshold.
    """
    curve = _Curve(eyes)

    def of_weights(weights: Weights) -> FloatArray:
        values = np.full(len(weights), np.nan)
        for rows, positives, negatives in curve.cumulative(weights):
            allowed = (1.0 - least_specificity) * negatives[:, -1:] + _TINY
            reached = np.where(negatives <= allowed, positives, 0.0).max(1)
            values[rows] = _ratio(reached, positives[:, -1])
            values[rows][negatives[:, -1] == 0] = np.nan
        return values

    return of_weights


def calibration_error(eyes: Scored, num_bins: int) -> Statistic:
    """Adaptive expected calibration error: bins of about equally many eyes.

    The edges are quantiles of all eyes and stay where they are in the resamples. On all eyes the
    value is that of `edge_runtime.metrics.expected_calibration_error`.
    """
    edges = np.quantile(eyes.scores, np.arange(1, num_bins) / num_bins)
    bins = np.searchsorted(edges, eyes.scores, side="right")
    gaps = np.zeros((eyes.num_patients, num_bins))
    np.add.at(gaps, (eyes.patients, bins), eyes.truth - eyes.scores)
    counts = np.bincount(eyes.patients, minlength=eyes.num_patients)
    return lambda weights: _ratio(np.abs(weights @ gaps).sum(1), weights @ counts)


def sensitivity(calls: Scored) -> Statistic:
    """Share of positive eyes that are called."""
    return _share(calls, calls.truth, calls.scores > 0)


def specificity(calls: Scored) -> Statistic:
    """Share of negative eyes that are not called."""
    return _share(calls, ~calls.truth, calls.scores == 0)


def balanced_accuracy(calls: Scored) -> Statistic:
    """Mean of sensitivity and specificity."""
    return mean_of([sensitivity(calls), specificity(calls)])


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Mean of several; undefined in a resample in which one of them is."""

    def of_weights(weights: Weights) -> FloatArray:
        values: FloatArray = np.mean([one(weights) for one in statistics], axis=0)
        return values

    return of_weights


class _Curve:
    """Eyes in descending order of score, ties together."""

    def __init__(self, eyes: Scored) -> None:
        order = np.argsort(-eyes.scores, kind="stable")
        self._patients, self._truth = eyes.patients[order], eyes.truth[order]
        self._last = np.flatnonzero(np.append(np.diff(eyes.scores[order]) != 0, True))

    def cumulative(self, weights: Weights) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """(draws, (b, G) positives, (b, G) negatives at or above each distinct score)."""
        for start in range(0, len(weights), _DRAWS_AT_ONCE):
            rows = slice(start, start + _DRAWS_AT_ONCE)
            each = weights[rows][:, self._patients].astype(np.float64)
            positives = np.cumsum(each * self._truth, axis=1)[:, self._last]
            negatives = np.cumsum(each * ~self._truth, axis=1)[:, self._last]
            yield rows, positives, negatives


def _share(eyes: Scored, among: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]) -> Statistic:
    size = eyes.num_patients
    hits = np.bincount(eyes.patients, among & counted, size)
    totals = np.bincount(eyes.patients, among, size)
    return lambda weights: _ratio(weights @ hits, weights @ totals)


def _mean_of_eyes(eyes: Scored, values: FloatArray) -> Statistic:
    sums = np.bincount(eyes.patients, values, eyes.num_patients)
    counts = np.bincount(eyes.patients, minlength=eyes.num_patients)
    return lambda weights: _ratio(weights @ sums, weights @ counts)


def _as_rows(eyes: Scored, scores: FloatArray) -> ScoredEyes:
    return ScoredEyes(
        patient_ids=eyes.patients.astype(np.str_),
        truth=eyes.truth.astype(np.float32),
        scores=scores[None].astype(np.float32),
    )


def _ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> FloatArray:
    out = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
