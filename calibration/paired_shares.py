"""Non-inferiority of one share of eyes judged rightly, INT8 against FP32 on the same eyes.

The interval is Tango's score interval of a difference of paired proportions (Tango 1998,
Statistics in Medicine 17:891), which stays honest where no decision or one decision differs. It
assumes independent pairs, and two eyes of a patient are not: the counts are first divided by a
design effect (Rao and Scott 1992, Biometrics 48:577), the variance of the difference between
patients (Obuchowski 1998, Statistics in Medicine 17:1495) over its variance if eyes were
independent. Where too few patients differ to estimate that, the worst case is taken: the eyes of
a patient always agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edge_runtime.metrics import Interval

__all__ = [
    "PairedCounts",
    "count_pairs",
    "num_eyes_needed",
    "num_patients_needed",
    "paired_interval",
    "tango_interval",
]

BoolArray = NDArray[np.bool_]

#: With fewer patients whose decisions differ, their spread says nothing about the correlation.
MIN_DISCORDANT_PATIENTS = 10


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """How FP32 and INT8 judged the eyes of one class.

    Attributes:
        num_eyes: eyes of the class, n.
        num_patients: whose eyes they are.
        num_right_fp32: eyes that FP32 judges rightly.
        lost: right in FP32, wrong in INT8.
        gained: wrong in FP32, right in INT8.
        design_effect: eyes that count as one, at least 1.
    """

    num_eyes: int
    num_patients: int
    num_right_fp32: int
    lost: int
    gained: int
    design_effect: float

    @property
    def drop(self) -> float:
        """Share right in FP32 minus share right in INT8."""
        return (self.lost - self.gained) / self.num_eyes

    @property
    def discordance(self) -> float:
        """Share of the eyes on which the two differ."""
        return (self.lost + self.gained) / self.num_eyes


def count_pairs(
    patient_ids: NDArray[np.str_], right_fp32: BoolArray, right_int8: BoolArray
) -> PairedCounts:
    """Count the eyes of one class.

    Args:
        patient_ids: (n,) whose eye it is.
        right_fp32: (n,) whether FP32 judges the eye rightly.
        right_int8: (n,) the same for INT8.

    Raises:
        ValueError: there is no eye, or the lengths differ.
    """
    if not len(patient_ids) == right_fp32.size == right_int8.size or right_fp32.size == 0:
        raise ValueError("need one or more eyes, each with a patient and two judgements")
    patients = np.unique(patient_ids, return_inverse=True)[1]
    change = right_fp32.astype(np.int64) - right_int8.astype(np.int64)
    return PairedCounts(
        num_eyes=int(change.size),
        num_patients=int(patients.max()) + 1,
        num_right_fp32=int(np.count_nonzero(right_fp32)),
        lost=int(np.count_nonzero(change == 1)),
        gained=int(np.count_nonzero(change == -1)),
        design_effect=_design_effect(patients, change),
    )


def paired_interval(counts: PairedCounts, level: float = 0.95) -> Interval:
    """Two-sided interval of `counts.drop`: Tango's, on the counts over the design effect."""
    effect = counts.design_effect
    return tango_interval(
        counts.lost / effect, counts.gained / effect, counts.num_eyes / effect, level
    )


def tango_interval(lost: float, gained: float, n: float, level: float = 0.95) -> Interval:
    """Tango's score interval of (lost - gained) / n.

    The interval holds every difference d with |Z(d)| <= z, where

        Z(d) = (lost - gained - n d) / sqrt(n (2 q + d (1 - d)))

    and q is the likelihood's maximum for P(gained) given d: the larger root of
    2 n q^2 + (-lost - gained + (2 n - lost + gained) d) q - gained d (1 - d) = 0.

    Args:
        lost: pairs right in the first and wrong in the second; need not be whole.
        gained: the other way round.
        n: all pairs.
        level: two-sided coverage.

    Raises:
        ValueError: a count is negative, more pairs differ than there are, or `level` is no share.
    """
    if not (lost >= 0.0 and gained >= 0.0 and n > 0.0 and lost + gained <= n * (1 + 1e-12)):
        raise ValueError(f"{lost} lost and {gained} gained of {n} pairs is no paired table")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; give a number between 0 and 1")
    z, drop = NormalDist().inv_cdf(0.5 + level / 2), (lost - gained) / n

    def score(difference: float) -> float:
        return _score(lost, gained, n, difference)

    return Interval(
        value=drop,
        low=_crossing(score, z, -1.0, drop),
        high=_crossing(score, -z, drop, 1.0),
        level=level,
    )


def num_eyes_needed(
    discordance: float, margin: float, *, level: float = 0.95, power: float = 0.9
) -> int:
    """Independent eyes of a class that show a drop below `margin` if there is none in truth.

    n = ((z_level s0 + z_power s1) / margin)^2, where s1^2 is the variance of a pair's change in
    truth, the discordance, and s0^2 the one that the score interval assumes at the margin (Nam
    1997, Biometrics 53:1422). With no discordance it is the number at which Tango's interval
    without a single flip, z^2 / (n + z^2), just ends below the margin. The simpler formula
    ((z_level + z_power) / margin)^2 discordance promises too much where few decisions differ.

    Args:
        discordance: share of the eyes on which the two differ.
        margin: the largest drop that is accepted, above 0, at most 1.
        level: two-sided coverage of the interval; the test is one-sided at (1 - level) / 2.
        power: chance of showing it.

    Raises:
        ValueError: a share is out of its range.
    """
    if not (0.0 <= discordance <= 1.0 and 0.0 < margin <= 1.0 and 0.0 < level < 1.0):
        raise ValueError(f"discordance {discordance}, margin {margin} or level {level} is no share")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    half = discordance / 2
    assumed = 2.0 * _likeliest_gained(half, half, 1.0, margin) + margin * (1.0 - margin)
    spread = z * math.sqrt(assumed) + NormalDist().inv_cdf(power) * math.sqrt(discordance)
    return math.floor((spread / margin) ** 2) + 1


def num_patients_needed(counts: PairedCounts, margin: float, level: float = 0.95) -> int:
    """Patients like these that would show a drop below `margin` if there is none in truth."""
    eyes = num_eyes_needed(counts.discordance, margin, level=level)
    return math.ceil(eyes * counts.design_effect * counts.num_patients / counts.num_eyes)


def _design_effect(patients: NDArray[np.int64], change: NDArray[np.int64]) -> float:
    """Variance of the mean change between patients over that of independent eyes, at least 1."""
    sizes = np.bincount(patients)
    discordant = np.unique(patients[change != 0])
    mean = change.mean()
    independent = float(((change - mean) ** 2).sum())
    if discordant.size < MIN_DISCORDANT_PATIENTS or independent == 0.0:
        return float((sizes**2).sum() / sizes.sum())
    residuals = np.bincount(patients, weights=change - mean)
    between = float((residuals**2).sum()) * sizes.size / (sizes.size - 1)
    return max(1.0, between / independent)


def _likeliest_gained(lost: float, gained: float, n: float, difference: float) -> float:
    """The likeliest P(gained) if P(lost) is larger by `difference`."""
    a = 2.0 * n
    b = -lost - gained + (2.0 * n - lost + gained) * difference
    c = -gained * difference * (1.0 - difference)
    return (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)


def _score(lost: float, gained: float, n: float, difference: float) -> float:
    q = _likeliest_gained(lost, gained, n, difference)
    variance = n * (2.0 * q + difference * (1.0 - difference))
    numerator = lost - gained - n * difference
    if variance <= 0.0:
        return 0.0 if numerator == 0.0 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def _crossing(score: Callable[[float], float], z: float, low: float, high: float) -> float:
    """Where the falling `score` crosses z between the ends, or the end it does not leave."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > z else (low, middle)
    return (low + high) / 2
