"""What the gate is given: one label on the eyes of both models, and how much may be lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.cross_fit import Choice, CrossFitted
from calibration.paired_shares import PairedCounts, count_pairs
from calibration.probability import probabilities
from edge_runtime.errors import ConfigError

__all__ = ["GateCase", "GateLimits"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """How much INT8 may lose; shares, not percent."""

    max_auroc_drop: float = 0.01
    max_sensitivity_drop: float = 0.02
    max_specificity_drop: float = 0.02

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_auroc_drop", "max_sensitivity_drop", "max_specificity_drop"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; give above 0, up to 1: no set of eyes "
                    "shows that nothing at all is lost"
                )


@dataclass(frozen=True, kw_only=True)
class GateCase:
    """One label on the N eyes where it is known: both models, and what decides.

    Attributes:
        name: of the label.
        patient_ids: (N,) whose eye it is.
        image_sha256: (N,) hashes of the image files, to name flips by.
        labels: (N,) 0 or 1.
        logits_fp32: (N,).
        logits_int8: (N,).
        shipped: temperature and threshold that go into the bundle.
        held_out: decisions at thresholds chosen on other patients.
        groups: attribute -> (N,) value, e.g. 'site' -> clinic of each eye.
        is_disease: False for the gradability head: it is no disease, is not averaged and need
            not be shown to pass, because ungradable eyes are few.
    """

    name: str
    patient_ids: NDArray[np.str_]
    image_sha256: NDArray[np.str_]
    labels: FloatArray
    logits_fp32: FloatArray
    logits_int8: FloatArray
    shipped: Choice
    held_out: CrossFitted
    groups: Mapping[str, NDArray[np.str_]]
    is_disease: bool = True

    @property
    def flipped(self) -> BoolArray:
        """(N,) eyes on which the two models differ at the shipped threshold."""
        flipped: BoolArray = self.shipped.calls(self.logits_fp32) != self.shipped.calls(
            self.logits_int8
        )
        return flipped

    def probability(self, logits: FloatArray) -> FloatArray:
        """(N,) probabilities at the shipped temperature."""
        return probabilities(logits, self.shipped.temperature)

    def pairs(self, truth: int, members: BoolArray | None = None) -> PairedCounts | None:
        """Held-out judgements of the eyes of one class; None where there is no eye."""
        chosen = self.labels == truth
        chosen = chosen if members is None else chosen & members
        if not chosen.any():
            return None
        right = [
            called[chosen] == (truth == 1)
            for called in (self.held_out.called_fp32, self.held_out.called_int8)
        ]
        return count_pairs(self.patient_ids[chosen], *right)
