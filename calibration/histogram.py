"""Histogram of the magnitudes of one activation over a stream of images, in constant memory.

Symmetric INT8 treats x and -x alike, so |x| is counted, in equal bins over [0, limit). `limit`
is the smallest power of two above the largest magnitude; when a larger value arrives it doubles
and neighbouring bins merge in pairs. Scaling by a power of two and truncation are exact in
floating point, so bin i holds exactly the values with floor(|x| * BINS / limit) = i. Hence the
counts depend neither on the order of the images nor on how they were shared out between
histograms that are merged, and a network scaled by 2^k has the same counts.

Minimum and maximum are those of all values. Of a tensor with more than MAX_COUNTED values every
k-th is counted: neighbours in a feature map are alike, and 32,768 of them from each of hundreds of
images fix a percentile far better than the choice of the images does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "MAX_COUNTED", "RangeHistogram"]

BINS = 8192
# Values of one tensor and image that are counted; float32 counts of cv2 are exact up to 2^24.
MAX_COUNTED = 1 << 15
# A tensor that is zero on every image still needs a positive scale (TensorRT refuses 0).
_SMALLEST_PEAK = 2.0**-30


@dataclass
class RangeHistogram:
    """What INT8 ranges are chosen from.

    Attributes:
        limit: upper end of the bins, a power of two; None before the first value.
        low: smallest value seen, exact.
        high: largest value seen, exact.
        counts: (BINS,) int64, counted values with |x| in [i, i + 1) * limit / BINS.
    """

    limit: float | None = None
    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def update(self, values: NDArray[np.float32]) -> None:
        """Add the values of one tensor of one image, of any shape.

        Raises:
            ValueError: a value is not finite, or the tensor is empty; nothing was added.
        """
        if values.size == 0:
            raise ValueError("the activation is empty")
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"the activation is not finite (smallest {low}, largest {high})")
        self._include(low, high)
        self.counts += self._count(values.reshape(-1)[:: _step(values.shape)])

    def merge(self, other: RangeHistogram) -> None:
        """Add what another histogram has seen, as if this one had seen it; `other` is kept."""
        if other.limit is None:
            return
        self._include(other.low, other.high)
        assert self.limit is not None
        self.counts += _widened(other.counts, round(self.limit / other.limit))

    @property
    def largest(self) -> float:
        """Largest magnitude seen, at least 2^-30: what min-max holds, and no method exceeds.

        Raises:
            ValueError: nothing was observed.
        """
        if self.limit is None:
            raise ValueError("no activation was observed; pass at least one image")
        return _magnitude(self.low, self.high)

    @property
    def bin_width(self) -> float:
        """Width of one bin, a power of two.

        Raises:
            ValueError: nothing was observed.
        """
        if self.limit is None:
            raise ValueError("no activation was observed; pass at least one image")
        return self.limit / BINS

    def _include(self, low: float, high: float) -> None:
        """Widen minimum, maximum and limit."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        # frexp: peak = m * 2^e with m in [0.5, 1), so 2^e is the smallest power of two above it.
        limit = math.ldexp(1.0, math.frexp(_magnitude(low, high))[1])
        if self.limit is None:
            self.limit = limit
        elif limit > self.limit:
            self.counts = _widened(self.counts, round(limit / self.limit))
            self.limit = limit

    def _count(self, flat: NDArray[np.float32]) -> NDArray[np.int64]:
        """(BINS,) counts; cv2 counts several times faster than NumPy."""
        scaled = flat * np.float32(1 / self.bin_width)
        bins = np.abs(scaled, out=scaled).astype(np.uint16)
        found = cv2.calcHist([bins.reshape(1, -1)], [0], None, [BINS], [0, BINS])
        counts: NDArray[np.int64] = found.ravel().astype(np.int64)
        return counts


def _step(shape: tuple[int, ...]) -> int:
    """Every how many values one is counted; coprime to the rows, so that every column is met."""
    step = -(-math.prod(shape) // MAX_COUNTED)
    while step > 1 and math.gcd(step, shape[-1]) > 1:
        step += 1
    return step


def _magnitude(low: float, high: float) -> float:
    """Largest magnitude in [low, high], at least the smallest one with a usable scale."""
    return max(-low, high, _SMALLEST_PEAK)


def _widened(counts: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """The counts with bins `factor` (a power of two) times as wide; a new array."""
    if factor >= BINS:
        return np.concatenate([[counts.sum()], np.zeros(BINS - 1, np.int64)])
    wide = np.zeros(BINS, np.int64)
    wide[: BINS // factor] = counts.reshape(-1, factor).sum(axis=1)
    return wide
