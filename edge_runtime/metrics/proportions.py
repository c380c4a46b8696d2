"""Intervals of one proportion: Wilson's score interval and the exact one of Clopper and Pearson."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "clopper_pearson_interval", "wilson_interval"]


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


def clopper_pearson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson 1934); never covers less than `level`.

    The ends are the shares at which the observed count, or one further out, has the probability
    (1 - level) / 2; they are found by bisection of the binomial tail.

    Raises:
        ValueError: `n` is not positive or `successes` lies outside 0..n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is no proportion; n must be positive")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; give a number between 0 and 1")
    tail = (1.0 - level) / 2
    log_ways = _log_binomials(n)

    def at_least(share: float) -> float:
        return _tail(log_ways[successes:], np.arange(successes, n + 1), n, share)

    def at_most(share: float) -> float:
        return _tail(log_ways[: successes + 1], np.arange(successes + 1), n, share)

    low = 0.0 if successes == 0 else _bisect(lambda share: at_least(share) < tail)
    high = 1.0 if successes == n else _bisect(lambda share: at_most(share) > tail)
    return Interval(value=successes / n, low=low, high=high, level=level)


def _log_binomials(n: int) -> NDArray[np.float64]:
    """(n + 1,) logarithms of n over k."""
    steps = np.log(np.arange(n, 0, -1)) - np.log(np.arange(1, n + 1))
    return np.concatenate([[0.0], np.cumsum(steps)])


def _tail(log_ways: NDArray[np.float64], counts: NDArray[np.int64], n: int, share: float) -> float:
    """P(a count of `counts`) of a binomial of `n` and `share`, 0 < share < 1."""
    return float(
        np.exp(log_ways + counts * math.log(share) + (n - counts) * math.log1p(-share)).sum()
    )


def _bisect(below: Callable[[float], bool]) -> float:
    """The share in (0, 1) up to which `below` holds."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
