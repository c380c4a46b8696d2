"""What an answer is worth where the disease is as common as the user says (PPV and NPV)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.operating_point import Accuracy
from edge_runtime.errors import ConfigError

__all__ = ["PREVALENCES", "PredictiveValues", "predictive_values", "require_prevalences"]

#: The prevalences of the usual table of screening programmes; the user's own replace them.
PREVALENCES = (0.03, 0.05, 0.10, 0.20)


@dataclass(frozen=True, kw_only=True)
class PredictiveValues:
    """Values at one prevalence, with 95 % intervals."""

    prevalence: float
    ppv: float
    ppv_interval: tuple[float, float]
    npv: float
    npv_interval: tuple[float, float]


def require_prevalences(values: Sequence[float]) -> None:
    """Refuse no prevalence, or one that is no share.

    Raises:
        ConfigError: names the value.
    """
    if not values or not all(0.0 < value < 1.0 for value in values):
        raise ConfigError(f"prevalences are {tuple(values)}; give shares between 0 and 1")


def predictive_values(accuracy: Accuracy, prevalence: float) -> PredictiveValues:
    """PPV and NPV by Bayes' rule, with intervals that hold both at once.

    Both values rise with sensitivity and with specificity, so their intervals are between the
    lower ends and between the upper ends of those two. With each of the two at 97.5 %, both hold
    together, and with them the values, in at least 95 % (Bonferroni).

    Args:
        accuracy: with intervals of level 0.975.
        prevalence: share of eyes with the disease where the camera stands, in (0, 1).

    Raises:
        ValueError: the intervals are of another level.
    """
    sensitivity, specificity = accuracy.sensitivity, accuracy.specificity
    if not sensitivity.level == specificity.level == 0.975:
        raise ValueError("both intervals must be of level 0.975, so that both hold in 95 %")
    ends = [
        _by_bayes(getattr(sensitivity, end), getattr(specificity, end), prevalence)
        for end in ("low", "value", "high")
    ]
    (ppv_low, npv_low), (ppv, npv), (ppv_high, npv_high) = ends
    return PredictiveValues(
        prevalence=prevalence,
        ppv=ppv,
        ppv_interval=(ppv_low, ppv_high),
        npv=npv,
        npv_interval=(npv_low, npv_high),
    )


def _by_bayes(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV; where no answer of a kind is ever given, 0: nothing can be claimed for it."""
    true_positive, false_negative = sensitivity * prevalence, (1.0 - sensitivity) * prevalence
    true_negative = specificity * (1.0 - prevalence)
    false_positive = (1.0 - specificity) * (1.0 - prevalence)
    called, cleared = true_positive + false_positive, true_negative + false_negative
    ppv = true_positive / called if called > 0.0 else 0.0
    npv = true_negative / cleared if cleared > 0.0 else 0.0
    return ppv, npv
