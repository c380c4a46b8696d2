"""Probability calibration: one temperature a label, chosen by likelihood on `val`.

probability = sigmoid(logit / T); T minimises the negative log-likelihood (Guo et al. 2017,
arXiv 1706.04599). The order of the eyes, and so the AUROC, does not change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TemperatureFit", "fit_temperature", "negative_log_likelihood", "probabilities"]

# A perfectly separated small set would ask for T = 0 (certainty); these ends keep a doubt.
LOWEST_TEMPERATURE = 0.5
HIGHEST_TEMPERATURE = 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2
_TOLERANCE = 1e-6  # in log T

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TemperatureFit:
    """A temperature with the mean negative log-likelihood (nats an eye) without and with it."""

    temperature: float
    nll_before: float
    nll_after: float

    @property
    def at_bound(self) -> bool:
        """Whether the search ended at an end of its range: the set says too little."""
        ends = (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)
        return any(abs(math.log(self.temperature / end)) < 1e-4 for end in ends)


def probabilities(logits: FloatArray, temperature: float) -> FloatArray:
    """sigmoid(logits / temperature) without overflow, the vector form of the camera's rule."""
    values = np.asarray(logits, np.float64) / temperature
    small = np.exp(-np.abs(values))
    result: FloatArray = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return result


def negative_log_likelihood(labels: FloatArray, logits: FloatArray, temperature: float) -> float:
    """Mean of -log P(label) in nats; log(1 + exp(-z)) with z = +-logit / T."""
    signed = np.where(np.asarray(labels) == 1, 1.0, -1.0) * np.asarray(logits) / temperature
    return float(np.mean(np.logaddexp(0.0, -signed)))


def fit_temperature(labels: FloatArray, logits: FloatArray) -> TemperatureFit:
    """Find the temperature by golden-section search over log T.

    The likelihood is convex in 1 / T, so it has one minimum and the search finds it.

    Args:
        labels: (N,) 0 or 1.
        logits: (N,) finite.

    Raises:
        ValueError: lengths differ, nothing is given, or only one class is present.
    """
    labels, logits = np.asarray(labels, np.float64), np.asarray(logits, np.float64)
    if labels.shape != logits.shape or labels.ndim != 1 or set(labels.tolist()) != {0.0, 1.0}:
        raise ValueError(f"need two equal vectors with both classes, got {labels.shape} labels")
    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(labels, logits, math.exp(log_temperature))

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    while high - low > _TOLERANCE:
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    middle = (low + high) / 2
    return TemperatureFit(
        temperature=math.exp(middle), nll_before=loss(0.0), nll_after=loss(middle)
    )
