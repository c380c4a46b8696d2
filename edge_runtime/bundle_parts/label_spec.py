"""One output of the model in a bundle: temperature, operating point and abstention band."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_runtime.value_rules import (
    require,
    require_count,
    require_interval,
    require_name,
    require_share,
    require_text,
)

__all__ = ["AbstentionBand", "HeldOut", "LabelSpec", "OperatingPoint"]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What the rule that chose a threshold reaches on patients it was not chosen on.

    The patients are dealt into `num_folds` groups; each group is judged at the temperature and
    threshold chosen on the others. Intervals are 95 % intervals that respect patients.
    """

    num_folds: int
    sensitivity: float
    sensitivity_interval: tuple[float, float]
    specificity: float
    specificity_interval: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse shares outside 0..1, unordered intervals and a single fold."""
        require(self.num_folds >= 2, "num_folds", self.num_folds, "at least 2")
        require_share("sensitivity", self.sensitivity)
        require_share("specificity", self.specificity)
        require_interval("sensitivity_interval", self.sensitivity_interval)
        require_interval("specificity_interval", self.specificity_interval)


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold on the probability (0..1) with what it reached on the set it was chosen on.

    `target` says in words what was asked for, e.g. 'sensitivity >= 0.90'; the intervals
    are 95 % intervals of `sensitivity` and `specificity` on `split`. Those flatter, because the
    same eyes chose the threshold: `held_out` does not.
    """

    threshold: float
    target: str
    sensitivity: float
    sensitivity_interval: tuple[float, float]
    specificity: float
    specificity_interval: tuple[float, float]
    num_positive: int
    num_negative: int
    split: str
    held_out: HeldOut

    def __post_init__(self) -> None:
        """Refuse shares outside 0..1, unordered intervals and empty classes."""
        for name in ("threshold", "sensitivity", "specificity"):
            require_share(name, getattr(self, name))
        require_interval("sensitivity_interval", self.sensitivity_interval)
        require_interval("specificity_interval", self.specificity_interval)
        require_text("target", self.target)
        require_text("split", self.split)
        require_count("num_positive", self.num_positive)
        require_count("num_negative", self.num_negative)


@dataclass(frozen=True, kw_only=True)
class AbstentionBand:
    """Probabilities from `low` up to the threshold, of which nothing is said: 'ungradable'.

    `low` is such that the expected share of patients with the disease who have an eye below it
    is at most `risk`, by conformal risk control on `num_patients` patients with the disease; the
    guarantee holds for patients exchangeable with them and for no others.
    """

    low: float
    risk: float
    num_patients: int

    def __post_init__(self) -> None:
        """Refuse a share outside 0..1 and a risk that so few patients cannot bound."""
        require_share("low", self.low)
        require(0.0 < self.risk < 1.0, "risk", self.risk, "between 0 and 1")
        require_count("num_patients", self.num_patients)
        enough = 1.0 / (self.num_patients + 1) <= self.risk
        require(enough, "num_patients", self.num_patients, f"at least 1 / {self.risk:g} - 1")


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """One output of the model; probability = sigmoid(logit / temperature).

    `abstention` is null unless it was asked for.
    """

    name: str
    temperature: float | None
    operating_point: OperatingPoint | None
    abstention: AbstentionBand | None = None

    def __post_init__(self) -> None:
        """Refuse a name that is no word, a temperature at or below 0, a band without its end."""
        require_name("name", self.name)
        if self.abstention is not None:
            low, point = self.abstention.low, self.operating_point
            below = point is not None and low <= point.threshold
            require(below, "abstention.low", low, "at most the threshold of an operating point")
        if self.temperature is not None:
            usable = math.isfinite(self.temperature) and self.temperature > 0.0
            require(usable, "temperature", self.temperature, "finite and above 0")

    @property
    def calibrated(self) -> bool:
        """Whether a logit of this output can become a decision."""
        return self.temperature is not None and self.operating_point is not None
