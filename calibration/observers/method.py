"""The choice of a range method, and the one function that applies it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from calibration.histogram import RangeHistogram
from calibration.observers.entropy import entropy_amax
from calibration.observers.mse import mse_amax
from calibration.observers.percentile import percentile_amax
from edge_runtime.errors import ConfigError

__all__ = ["METHODS", "RangeMethod", "amax"]


@dataclass(frozen=True, kw_only=True)
class RangeMethod:
    """How a range follows from what was observed.

    Attributes:
        name: 'percentile' cuts the largest magnitudes, 'mse' minimises the mean squared error,
            'entropy' the Kullback-Leibler divergence, 'minmax' keeps every value.
        percentile: share of magnitudes inside the range, in percent; used by 'percentile'.
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


_OBSERVERS: Mapping[str, Callable[[RangeHistogram, RangeMethod], float]] = MappingProxyType(
    {
        "percentile": lambda histogram, method: percentile_amax(histogram, method.percentile),
        "mse": lambda histogram, _: mse_amax(histogram),
        "entropy": lambda histogram, _: entropy_amax(histogram),
        "minmax": lambda histogram, _: histogram.largest,
    }
)
METHODS = tuple(_OBSERVERS)


def amax(histogram: RangeHistogram, method: RangeMethod) -> float:
    """Largest magnitude that INT8 will hold; the scale is `amax / 127`.

    Returns:
        A positive number, at most `histogram.largest`.

    Raises:
        ValueError: nothing was observed.
    """
    return _OBSERVERS[method.name](histogram, method)
