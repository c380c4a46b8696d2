"""Statistics of a binary screening test, with intervals that respect patients (NumPy only).

Labels are 0/1 (bool, integer or float); a score or probability is larger for more
disease; a test is positive when `score >= threshold`. Two eyes of a patient are
correlated, so every bootstrap here resamples patients and takes all their eyes.

    arrays       what every statistic checks of its arguments
    proportions  Wilson and Clopper-Pearson intervals of a share, and the `Interval` itself
    ranking      AUROC, ROC curve, counts at a threshold
    reliability  Brier score, expected calibration error, reliability bins
    resampling   patient-cluster bootstrap of one statistic or of a paired difference

>>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
0.75
"""

from __future__ import annotations

from edge_runtime.metrics.proportions import Interval, clopper_pearson_interval, wilson_interval
from edge_runtime.metrics.ranking import (
    ConfusionCounts,
    auroc,
    confusion_counts,
    roc_curve,
    sensitivity_specificity,
)
from edge_runtime.metrics.reliability import (
    ReliabilityBin,
    brier,
    expected_calibration_error,
    reliability_bins,
)
from edge_runtime.metrics.resampling import cluster_bootstrap, mean, paired_cluster_bootstrap

__all__ = [
    "ConfusionCounts",
    "Interval",
    "ReliabilityBin",
    "auroc",
    "brier",
    "clopper_pearson_interval",
    "cluster_bootstrap",
    "confusion_counts",
    "expected_calibration_error",
    "mean",
    "paired_cluster_bootstrap",
    "reliability_bins",
    "roc_curve",
    "sensitivity_specificity",
    "wilson_interval",
]
