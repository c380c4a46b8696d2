"""Metrics of many resamples at once: eyes count as often as their patient was drawn.

Every metric is a function of patient weights (B, P) that returns (B,) values, NaN where it
is undefined. Nothing is sorted or copied again for a resample: what does not depend on
the weights (which positive beats which negative, who is in which cell of the confusion
matrix) is computed once, and the resamples are one matrix product.

Legend: N eyes, D score rows, B resamples, P patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError

__all__ = ["METRICS", "NUM_GRADES", "ScoredEyes", "WeightedMetric"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]
NUM_GRADES = 5
# Bounds of the blocks below: (draws, eyes) and (positive, negative) arrays of a few MB.
_DRAWS_AT_ONCE = 500
_POSITIVES_AT_ONCE = 1024
_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True, kw_only=True)
class ScoredEyes:
    """The eyes of one result: all that is needed to score it again or to pair it.

    Attributes:
        patient_ids: (N,) str.
        truth: (N,) float32; 0/1, a grade, or 0 where the scores are per-eye values.
        scores: (D, N) float32, one row a label draw. NaN only where a per-eye value is
            undefined.
    """

    patient_ids: npt.NDArray[np.str_]
    truth: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse rows that do not belong together."""
        num = len(self.patient_ids)
        if self.truth.shape != (num,) or self.scores.ndim != 2 or self.scores.shape[1] != num:
            raise ValueError(
                f"{num} patient ids, truth {self.truth.shape}, scores {self.scores.shape}: "
                "expected (N,), (N,), (D, N)"
            )
        if num == 0 or len(self.scores) == 0:
            raise DataError("no eye was scored; the test split lacks this label or image")

    def patient_numbers(self) -> IntArray:
        """(N,) patients numbered from 0 in the order of their ids."""
        numbers: IntArray = np.unique(self.patient_ids, return_inverse=True)[1].astype(np.int64)
        return numbers

    def require_same_eyes(self, other: ScoredEyes) -> None:
        """Refuse to pair results of other eyes.

        Raises:
            DataError: patients or truth differ.
        """
        if not np.array_equal(self.patient_ids, other.patient_ids):
            raise DataError(
                f"the runs were scored on other eyes ({len(self.patient_ids)} and "
                f"{len(other.patient_ids)}); evaluate both on one data set"
            )
        if not np.array_equal(self.truth, other.truth, equal_nan=True):
            num = int((self.truth != other.truth).sum())
            raise DataError(
                f"the truth of {num} eyes differs between the runs; evaluate both on one data set"
            )


@dataclass(frozen=True, kw_only=True)
class WeightedMetric:
    """One metric.

    Attributes:
        of_weights: (eyes, patient number of each eye) -> function of (B, P) weights.
        undefined: when it has no value, in words.
        chance: value of a guess, None where there is no such thing.
    """

    of_weights: Callable[[ScoredEyes, IntArray], Callable[[Weights], FloatArray]]
    undefined: str
    chance: float | None


def _auroc(eyes: ScoredEyes, patients: IntArray) -> Callable[[Weights], FloatArray]:
    """Area under the ROC curve, ties half: wins of positives over negatives, once for all."""
    truth, scores = _binary(eyes), _finite_scores(eyes)
    order = np.argsort(patients, kind="stable")
    positive, negative = order[truth[order]], order[~truth[order]]

    def of_weights(weights: Weights) -> FloatArray:
        twice_wins = np.zeros(len(weights))
        for rows in _slices(len(positive), _POSITIVES_AT_ONCE):
            wins = _twice_wins(scores[:, positive[rows]], scores[:, negative])
            wins, winners = _sum_of_patients(wins, patients[positive[rows]])
            wins, losers = _sum_of_patients(wins.T, patients[negative])
            for draws in _slices(len(weights), _DRAWS_AT_ONCE):
                beaten = _exact_product(weights[draws][:, winners], wins.T)
                twice_wins[draws] += (beaten * weights[draws][:, losers]).sum(1)
        num_positive, num_negative = (
            (weights @ np.bincount(patients[one], minlength=weights.shape[1])).astype(np.float64)
            for one in (positive, negative)
        )
        return _ratio(twice_wins, 2.0 * len(scores) * num_positive * num_negative)

    return of_weights


def _sum_of_patients(
    rows: npt.NDArray[np.int32], patients: IntArray
) -> tuple[npt.NDArray[np.int32], IntArray]:
    """Add the rows of each patient, who are drawn together; `patients` ascend."""
    distinct, starts = np.unique(patients, return_index=True)
    if len(distinct) == len(patients):
        return rows, distinct
    return np.add.reduceat(rows, starts, axis=0), distinct


def _exact_product(weights: Weights, wins: npt.NDArray[np.int32]) -> FloatArray:
    """Product of small integers: in float32 where no sum can reach 2^24, else in float64."""
    largest = float(weights.sum(1).max(initial=0)) * int(wins.max(initial=0))
    kind = np.float32 if largest < _EXACT_IN_FLOAT32 else np.float64
    return (weights.astype(kind) @ wins.astype(kind)).astype(np.float64)


def _twice_wins(
    positive: npt.NDArray[np.float32], negative: npt.NDArray[np.float32]
) -> npt.NDArray[np.int32]:
    """(positives, negatives) over score rows: 2 for every win, 1 for every tie."""
    total = np.zeros((positive.shape[1], negative.shape[1]), np.int32)
    for high, low in zip(positive, negative, strict=True):
        total += high[:, None] > low
        total += high[:, None] >= low
    return total


def _quadratic_kappa(eyes: ScoredEyes, patients: IntArray) -> Callable[[Weights], FloatArray]:
    """Cohen's kappa with quadratic weights over grades 0 to 4 (Cohen 1968)."""
    truth, called = _grades(eyes.truth), _grades(eyes.scores)
    cells = NUM_GRADES**2
    num_rows, num_patients = len(called), int(patients.max()) + 1
    flat = (patients * num_rows + np.arange(num_rows)[:, None]) * cells
    flat = flat + truth * NUM_GRADES + called
    counts = np.bincount(flat.ravel(), minlength=num_patients * num_rows * cells)
    by_patient = counts.reshape(num_patients, num_rows * cells).astype(np.float64)
    grade = np.arange(NUM_GRADES)
    cost = ((grade[:, None] - grade) ** 2).astype(np.float64)

    def of_weights(weights: Weights) -> FloatArray:
        table = (weights @ by_patient).reshape(-1, num_rows, NUM_GRADES, NUM_GRADES)
        seen = (table * cost).sum((2, 3)) * table.sum((2, 3))
        by_luck = np.einsum("bdi,ij,bdj->bd", table.sum(3), cost, table.sum(2))
        kappa: FloatArray = (1.0 - _ratio(seen, by_luck)).mean(1)
        return kappa

    return of_weights


def _mean(eyes: ScoredEyes, patients: IntArray) -> Callable[[Weights], FloatArray]:
    """Mean of the per-eye values that are defined."""
    known = np.isfinite(eyes.scores)
    filled = np.where(known, eyes.scores, 0.0).astype(np.float64)
    num_patients = int(patients.max()) + 1
    sums = np.stack([np.bincount(patients, row, num_patients) for row in filled], 1)
    counts = np.stack([np.bincount(patients, row, num_patients) for row in known], 1)
    return lambda weights: _ratio(weights @ sums, weights @ counts).mean(1)


def _ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> FloatArray:
    out = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def _slices(num: int, size: int) -> list[slice]:
    """Blocks that bound memory: 0..num, `size` at a time."""
    return [slice(start, start + size) for start in range(0, num, size)]


def _finite_scores(eyes: ScoredEyes) -> npt.NDArray[np.float32]:
    if not np.isfinite(eyes.scores).all():
        raise DataError("a score is not finite; the model diverged, lower its learning rate")
    return eyes.scores


def _binary(eyes: ScoredEyes) -> npt.NDArray[np.bool_]:
    if not np.isin(eyes.truth, (0, 1)).all():
        raise DataError("truth must be 0 or 1; leave out eyes whose label is unknown")
    positive: npt.NDArray[np.bool_] = np.equal(eyes.truth, 1)
    return positive


def _grades(values: npt.NDArray[np.float32]) -> IntArray:
    if not np.isin(values, np.arange(NUM_GRADES)).all():
        raise DataError(f"grades must be integers from 0 to {NUM_GRADES - 1}")
    return values.astype(np.int64)


METRICS = {
    "auroc": WeightedMetric(of_weights=_auroc, undefined="only one class is there", chance=0.5),
    "quadratic_kappa": WeightedMetric(
        of_weights=_quadratic_kappa, undefined="only one grade is there", chance=0.0
    ),
    "mean": WeightedMetric(of_weights=_mean, undefined="no eye has a value", chance=None),
}
