"""Latencies in few numbers: percentiles, spread, and what a mean hides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import ConfigError

__all__ = ["StageTimes", "summarize"]

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Latencies of one kind, in milliseconds.

    Attributes:
        p50_ms: Median.
        p90_ms: Nine of ten are not slower.
        p99_ms: Ninety-nine of a hundred are not slower.
        p999_ms: 999 of 1,000 are not slower; None with fewer than 1,000 samples, where the
            figure would be the largest one under another name.
        min_ms: Fastest.
        max_ms: Slowest.
        mean_ms: Mean.
        jitter_ms: p99 - p50: how much later than usual the late ones are.
        iqr_ms: Distance of the quartiles.
        cv: Standard deviation over mean.
        num_samples: How many there are.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float | None
    min_ms: float
    max_ms: float
    mean_ms: float
    jitter_ms: float
    iqr_ms: float
    cv: float
    num_samples: int


def summarize(values_ms: Sequence[float]) -> StageTimes:
    """Summarise latencies; percentiles interpolate linearly (NumPy's default).

    Raises:
        ConfigError: There is none.
    """
    if len(values_ms) == 0:
        raise ConfigError("no latency was measured; give more repeats or more time")
    values = np.asarray(values_ms, np.float64)
    p25, p50, p75, p90, p99, p999 = np.percentile(values, [25, 50, 75, 90, 99, 99.9])
    mean = float(values.mean())
    return StageTimes(
        p50_ms=_rounded(p50),
        p90_ms=_rounded(p90),
        p99_ms=_rounded(p99),
        p999_ms=_rounded(p999) if len(values) >= 1000 else None,
        min_ms=_rounded(values.min()),
        max_ms=_rounded(values.max()),
        mean_ms=_rounded(mean),
        jitter_ms=_rounded(p99 - p50),
        iqr_ms=_rounded(p75 - p25),
        cv=_rounded(values.std() / mean) if mean > 0 else 0.0,
        num_samples=len(values),
    )


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
