"""An optional band of probabilities of which the camera says nothing rather than 'no refer'.

Conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814, equation 4): of all lower ends
`low`, take the largest with

    (number of patients with the disease who have a diseased eye below `low` + 1) / (n + 1) <= risk

Then the next patient with the disease, exchangeable with these n, has a diseased eye below `low`
with probability at most `risk`, whatever the model. The loss is counted by patient, because two
eyes of a patient are not exchangeable with two patients. Nothing is promised about another
population, another camera or another prevalence of what makes eyes hard.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle_parts.label_spec import AbstentionBand
from edge_runtime.errors import ConfigError, DataError

__all__ = ["choose_band", "require_risk"]

FloatArray = NDArray[np.float64]


def require_risk(risk: float) -> None:
    """Refuse a risk that is no share.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not 0.0 < risk < 1.0:
        raise ConfigError(f"abstention risk is {risk}; give a share between 0 and 1, e.g. 0.05")


def choose_band(
    name: str,
    labels: FloatArray,
    probabilities: FloatArray,
    patient_ids: NDArray[np.str_],
    *,
    threshold: float,
    risk: float,
) -> AbstentionBand:
    """Choose the lower end; the upper end is the threshold, above which the eye refers.

    Args:
        name: of the label, for messages.
        labels: (N,) 0 or 1.
        probabilities: (N,) in 0..1.
        patient_ids: (N,) whose eye it is.
        threshold: of the operating point. A band that would reach above it is empty: the
            threshold alone already keeps the risk.
        risk: largest chance that a patient with the disease has a diseased eye below the band.

    Raises:
        ConfigError: `risk` is no share.
        DataError: so few patients cannot bound the risk; names how many can.
    """
    require_risk(risk)
    positive = labels == 1
    patients, index = np.unique(patient_ids[positive], return_inverse=True)
    lowest = np.ones(patients.size)
    np.minimum.at(lowest, index, probabilities[positive])
    allowed = math.floor(risk * (patients.size + 1) + 1e-9) - 1
    if allowed < 0:
        needed = math.ceil(1.0 / risk - 1e-9) - 1
        raise DataError(
            f"label {name}: {patients.size} patients with it in val cannot bound a risk of "
            f"{risk:g}; {needed} are needed. Add patients, or give a larger --abstain-risk"
        )
    edge = float(np.sort(lowest)[allowed])
    below = probabilities[probabilities < edge]
    # Half-way down to the next eye, so that another machine's rounding moves none out of the band.
    low = (edge + (float(below.max()) if below.size else 0.0)) / 2
    return AbstentionBand(low=min(low, threshold), risk=risk, num_patients=int(patients.size))
