"""Raw logits of every head as probabilities beside the thresholds that make them decisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle import Bundle
from edge_runtime.bundle_parts.manifest import LabelSpec
from edge_runtime.decision import probability
from edge_runtime.engines import Engine
from edge_runtime.errors import BundleFormatError

__all__ = ["all_labels", "probabilities", "run_logits", "thresholds"]


def all_labels(bundle: Bundle) -> tuple[LabelSpec, ...]:
    """Return the disease labels and, last, gradability: the columns of `run_logits`."""
    return (*bundle.manifest.labels, bundle.manifest.gradability)


def run_logits(engine: Engine, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run one (S, S, 3) picture; return (L + 1,) logits, gradability last."""
    output = engine.run(image_hwc[None])
    return np.append(output.logits, np.float32(output.gradability_logit)).astype(np.float32)


def probabilities(labels: Sequence[LabelSpec], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the calibrated probabilities of (N, L + 1) logits.

    Raises:
        BundleFormatError: A label has no temperature.
    """
    temperatures = [_temperature(label) for label in labels]
    rows = [
        [probability(float(z), t) for z, t in zip(row, temperatures, strict=True)] for row in logits
    ]
    return np.array(rows, np.float64)


def thresholds(labels: Sequence[LabelSpec]) -> NDArray[np.float64]:
    """Return the (L + 1,) operating points.

    Raises:
        BundleFormatError: A label has none.
    """
    return np.array([_threshold(label) for label in labels], np.float64)


def _temperature(label: LabelSpec) -> float:
    if label.temperature is None:
        raise BundleFormatError(f"label {label.name!r} has no temperature; calibrate again")
    return label.temperature


def _threshold(label: LabelSpec) -> float:
    if label.operating_point is None:
        raise BundleFormatError(f"label {label.name!r} has no operating point; calibrate again")
    return label.operating_point.threshold
