"""Every setting of the calibrate stage, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibration.abstention import require_risk
from calibration.accuracy import SearchConfig
from calibration.gate import GateLimits
from calibration.observers import RangeMethod
from calibration.operating_point import Target
from calibration.predictive_values import PREVALENCES, require_prevalences
from edge_runtime.errors import ConfigError

__all__ = ["CalibrationConfig"]


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Settings; stored whole in the bundle's provenance.

    Attributes:
        method: how INT8 ranges follow from the observed activations.
        num_images: INT8-calibration images, from `train`.
        target: what each disease threshold must reach on `val`.
        gradability_target: the same for P(gradable); its specificity is the share of ungradable
            eyes that are caught.
        min_gradable_share: the threshold of gradability is raised as far as this share of the
            gradable eyes still passes, if `gradability_target` alone would set it lower.
        min_eyes: fewest eyes with and without a label that a threshold is chosen on.
        num_folds: groups of patients, each judged at thresholds chosen on the others.
        prevalences: at which predictive values are stated.
        abstain_risk: None leaves the abstention band out; else the largest chance that a patient
            with the disease has a diseased eye below the band.
        limits: of the gate.
        residual_pairs: where a residual Add has its pairs; see `calibration.placement`.
        search: what to try when the gate refuses; None: nothing.
        num_draws: of every bootstrap.
        seed: of the choice of images and of every bootstrap.
    """

    method: RangeMethod = field(default_factory=RangeMethod)
    num_images: int = 512
    target: Target = field(default_factory=Target)
    gradability_target: Target = field(default_factory=lambda: Target(measure="specificity"))
    min_gradable_share: float = 0.98
    min_eyes: int = 10
    num_folds: int = 5
    prevalences: tuple[float, ...] = PREVALENCES
    abstain_risk: float | None = None
    limits: GateLimits = field(default_factory=GateLimits)
    residual_pairs: str = "both"
    search: SearchConfig | None = None
    num_draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the shares, the counts and the seed."""
        require_prevalences(self.prevalences)
        if self.abstain_risk is not None:
            require_risk(self.abstain_risk)
        if not 0.0 < self.min_gradable_share < 1.0:
            raise ConfigError(f"min_gradable_share is {self.min_gradable_share}; give 0 to 1")
        least_of = {"num_images": 1, "min_eyes": 1, "num_folds": 2, "num_draws": 100, "seed": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; give {least} or more")
