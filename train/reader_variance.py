"""Intervals over readers and cases: a mean over readers, each of them seen on the same cases.

Readers and cases are both samples: other readers of the group, and other patients, would
have given other numbers. The variance of the mean of R readers is that of Obuchowski and
Rockette (1995) for one modality, with the degrees of freedom of Hillis (2007):

    Var = (MS + max(R Cov2, 0)) / R        df = (MS + max(R Cov2, 0))^2 / (MS^2 / (R - 1))

MS is the sample variance of the readers' values; Cov2 is the mean covariance of two readers
over cases, here from resamples of whole patients, because the eyes of a patient are
correlated. Applied to 'model minus reader' it compares a group with a model that was run
once (Chakraborty, Observer Performance Methods, 2017, chapter 22).

The obvious alternative resamples readers and patients together. It is conservative where
readers are many (Owen, the pigeonhole bootstrap, 2007), but with the few readers of such
studies it is too narrow: a test of this module measures both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from edge_runtime.metrics import Interval, wilson_interval

__all__ = ["MeanOverReaders", "mean_over_readers"]

FloatArray = npt.NDArray[np.float64]
_MANY = 1e9  # degrees of freedom from which t is the normal distribution


@dataclass(frozen=True, kw_only=True)
class MeanOverReaders:
    """A mean over the readers of a group.

    Attributes:
        interval: value and ends.
        p_value: two-sided, of 'the mean is 0'; only of use for a difference.
        over_readers: False for a single reader, who says nothing about other readers: the
            interval is then over cases alone.
    """

    interval: Interval
    p_value: float
    over_readers: bool


def mean_over_readers(
    values_r: FloatArray,
    draws_br: FloatArray,
    *,
    num_patients: int,
    bounds: tuple[float, float],
    level: float = 0.95,
) -> MeanOverReaders:
    """Mean, interval and p value.

    Args:
        values_r: (R,) each reader's value on all cases.
        draws_br: (B, R) the same on B resamples of patients, one resample a row.
        num_patients: patients behind a value; used where nothing varies at all.
        bounds: what a value can be at least and at most; the interval is cut there.
        level: coverage.
    """
    value, num = float(values_r.mean()), len(values_r)
    between = float(values_r.var(ddof=1)) if num > 1 else 0.0
    case = _case_variance(draws_br)
    total = between / num + case
    if total <= 0:
        return _nothing_varies(value, num, num_patients, bounds, level)
    freedom = _MANY
    if between > 0:
        freedom = min(_MANY, (num * total) ** 2 / (between**2 / (num - 1)))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * total**0.5
    p_value = 2 * float(stdtr(freedom, -abs(value) / total**0.5))
    return MeanOverReaders(
        interval=_cut(value, half, bounds, level), p_value=p_value, over_readers=num > 1
    )


def _case_variance(draws_br: FloatArray) -> float:
    """max(Cov2, 0); for one reader the variance itself."""
    covariance = np.atleast_2d(np.cov(draws_br, rowvar=False))
    num = len(covariance)
    if num == 1:
        return float(covariance[0, 0])
    mean = (covariance.sum() - np.trace(covariance)) / (num * (num - 1))
    return max(float(mean), 0.0)


def _nothing_varies(
    value: float, num: int, num_patients: int, bounds: tuple[float, float], level: float
) -> MeanOverReaders:
    """Every reader has the same value in every resample: for example, nobody missed anything.

    An interval of no width would be a lie. It gets the width of Wilson's for `num_patients`
    successes out of as many, to both sides; the difference 0 has p = 1.
    """
    half = 1 - wilson_interval(num_patients, num_patients, level).low
    return MeanOverReaders(
        interval=_cut(value, half, bounds, level),
        p_value=1.0 if value == 0 else 1.0 / (num_patients + 1),
        over_readers=num > 1,
    )


def _cut(value: float, half: float, bounds: tuple[float, float], level: float) -> Interval:
    low, high = max(value - half, bounds[0]), min(value + half, bounds[1])
    return Interval(value=value, low=low, high=high, level=level)
