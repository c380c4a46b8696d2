"""Histogram of one activation over a stream of images, in constant memory, and its INT8 range.

ONNX Runtime's own percentile method keeps every activation of every image. Here each tensor
costs 4096 counts however many images pass; minimum and maximum are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError

__all__ = ["METHODS", "RangeHistogram", "RangeMethod"]

METHODS = ("percentile", "minmax")

_BINS = 4096
_HALF = _BINS // 2
# calcHist takes a matrix, not a vector: the widest row that divides the tensor is used.
_ROW_WIDTHS = (4096, 1024, 256, 64, 16, 4, 1)
# A tensor that is zero on every image still needs a positive scale (TensorRT refuses 0).
_SMALLEST_PEAK = 1e-9


@dataclass(frozen=True, kw_only=True)
class RangeMethod:
    """How a range follows from what was observed.

    Attributes:
        name: 'percentile' cuts the largest absolute values, 'minmax' keeps them all.
        percentile: share of absolute values inside the range, in percent; used by 'percentile'.
    """

    name: str = "percentile"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        """Check the name and the percentile."""
        if self.name not in METHODS:
            raise ConfigError(f"method is '{self.name}'; use one of {', '.join(METHODS)}")
        if not 50.0 < self.percentile <= 100.0:
            raise ConfigError(
                f"percentile is {self.percentile}; it must be above 50 and at most 100"
            )


@dataclass
class RangeHistogram:
    """Counts of one tensor's values in 4096 equal bins over [-limit, limit].

    `limit` is a power of two and doubles when a larger value arrives; bins then fold in pairs,
    so no value is lost and the order of the images does not matter to more than one bin.
    """

    limit: float | None = None
    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_BINS))

    def update(self, values: NDArray[np.float32]) -> None:
        """Add all values of one tensor of any shape.

        Raises:
            ValueError: a value is not finite, or the tensor is empty.
        """
        if values.size == 0:
            raise ValueError("the activation is empty")
        low, high = float(values.min()), float(values.max())
        peak = max(-low, high, _SMALLEST_PEAK)
        if not np.isfinite(peak):
            raise ValueError("the activation is not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(peak)
        self.counts += self._count(values)

    def amax(self, method: RangeMethod) -> float:
        """Largest absolute value that INT8 will hold; the scale is `amax / 127`.

        Raises:
            ValueError: nothing was observed.
        """
        if self.limit is None:
            raise ValueError("no activation was observed; pass at least one image")
        largest = max(-self.low, self.high, _SMALLEST_PEAK)
        if method.name == "minmax":
            return largest
        absolute = self.counts[_HALF:] + self.counts[:_HALF][::-1]
        wanted = method.percentile / 100 * absolute.sum()
        bins = int(np.searchsorted(np.cumsum(absolute), wanted)) + 1
        return float(min(bins * self.limit / _HALF, largest))

    def _widen(self, peak: float) -> None:
        """Double the limit until `peak` fits, folding pairs of bins into the middle half."""
        if self.limit is None:
            self.limit = float(2.0 ** np.ceil(np.log2(peak)))
        while peak > self.limit:
            folded = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(_BINS)
            self.counts[_BINS // 4 : -_BINS // 4] = folded
            self.limit *= 2

    def _count(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """(4096,) counts of one tensor. cv2 does it about seven times faster than NumPy."""
        assert self.limit is not None
        width = next(width for width in _ROW_WIDTHS if values.size % width == 0)
        rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, width)
        # addWeighted rounds to nearest; minus one half makes that the bin's lower edge.
        bins = cv2.addWeighted(rows, _HALF / self.limit, rows, 0.0, _HALF - 0.5, dtype=cv2.CV_16U)
        # One bin more than kept: a value equal to +limit (a saturated gate) falls there.
        counts = cv2.calcHist([bins], [0], None, [_BINS + 1], [0, _BINS + 1]).ravel()
        counts[-2] += counts[-1]
        return counts[:-1].astype(np.float64)
