"""What every statistic checks of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["FloatArray", "IntArray", "aligned", "checked", "dense_ranks", "require_both_classes"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def checked(
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


def aligned(
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
    return dense_ranks(patients), columns


def dense_ranks(values: FloatArray) -> IntArray:
    """(N,) position of each value among the distinct values."""
    ranks: IntArray = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return ranks


def require_both_classes(num_positive: int, num_negative: int) -> None:
    """Raise ValueError unless there is an eye of each class."""
    if num_positive == 0 or num_negative == 0:
        raise ValueError(
            f"both classes are needed, found {num_positive} positive and {num_negative} negative"
        )
