"""From model scores on `val` eyes to temperatures, thresholds and the gate's cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.config import CalibrationConfig
from calibration.dataset import GRADABLE, Eye
from calibration.gate import GateCase
from calibration.operating_point import Target, derive_operating_point, require_enough
from calibration.probability import TemperatureFit, fit_temperature, probabilities
from calibration.run_models import ModelScores
from edge_runtime.manifest import LabelSpec, Manifest, OperatingPoint
from edge_runtime.metrics import auroc, brier, cluster_bootstrap, expected_calibration_error

__all__ = [
    "CalibratedOutput",
    "OutputScores",
    "calibrate_output",
    "require_enough_eyes",
    "split_outputs",
]

_LOG = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class OutputScores:
    """One output of the models on the N `val` eyes whose truth is known."""

    name: str
    is_disease: bool
    patient_ids: NDArray[np.str_]
    labels: FloatArray
    logits_fp32: FloatArray
    logits_int8: FloatArray


@dataclass(frozen=True, kw_only=True)
class CalibratedOutput:
    """One output with its temperature and operating point."""

    scores: OutputScores
    spec: LabelSpec
    fit: TemperatureFit

    def gate_case(self) -> GateCase:
        """What the gate compares: both precisions at the threshold that will be shipped."""
        assert self.spec.operating_point is not None
        return GateCase(
            name=self.scores.name,
            patient_ids=self.scores.patient_ids,
            labels=self.scores.labels,
            logits_fp32=self.scores.logits_fp32,
            logits_int8=self.scores.logits_int8,
            temperature=self.fit.temperature,
            threshold=self.spec.operating_point.threshold,
            in_mean=self.scores.is_disease,
        )

    def metrics(self, config: CalibrationConfig) -> dict[str, float | list[float] | int]:
        """Figures of the INT8 model on `val`, for the manifest."""
        scores = self.scores
        values = probabilities(scores.logits_int8, self.fit.temperature)
        area = cluster_bootstrap(
            auroc,
            scores.patient_ids,
            scores.labels,
            scores.logits_int8,
            num_draws=config.num_draws,
            seed=config.seed,
        )
        return {
            "auroc": area.value,
            "auroc_interval": [area.low, area.high],
            "brier": brier(scores.labels, values),
            "expected_calibration_error": expected_calibration_error(scores.labels, values),
            "nll_before_temperature": self.fit.nll_before,
            "nll_after_temperature": self.fit.nll_after,
            "num_eyes": int(scores.labels.size),
        }


def require_enough_eyes(eyes: Sequence[Eye], manifest: Manifest, minimum: int) -> None:
    """Refuse a `val` split with too few eyes of a class, before any long work.

    Raises:
        DataError: names the label and its counts.
    """
    for name in (*manifest.label_names, GRADABLE):
        require_enough(name, _truth(eyes, name)[0], minimum, "val")


def split_outputs(
    manifest: Manifest, eyes: Sequence[Eye], scores: Mapping[str, ModelScores]
) -> list[OutputScores]:
    """Scores of the disease labels in manifest order, then of gradability.

    Args:
        manifest: names of the outputs.
        eyes: the N eyes that were scored, in order.
        scores: 'fp32' and 'int8', N rows each.
    """
    fp32, int8 = scores["fp32"], scores["int8"]
    outputs = []
    for index, name in enumerate(manifest.label_names):
        logits = (fp32.logits[:, index], int8.logits[:, index])
        outputs.append(_output(name, name, eyes, *logits))
    logits = (fp32.gradability_logits, int8.gradability_logits)
    return [*outputs, _output(manifest.gradability.name, GRADABLE, eyes, *logits)]


def calibrate_output(scores: OutputScores, config: CalibrationConfig) -> CalibratedOutput:
    """Choose temperature, then threshold, both on the INT8 logits: INT8 is what is shipped.

    Raises:
        DataError: too few eyes of a class are left after unreadable images were dropped.
    """
    require_enough(scores.name, scores.labels, config.min_eyes, "val (readable images)")
    fit = fit_temperature(scores.labels, scores.logits_int8)
    if fit.at_bound:
        _LOG.warning(
            "temperature of %s is at its bound %.3g: val separates it too well or not at all",
            scores.name,
            fit.temperature,
        )
    point = _operating_point(scores, probabilities(scores.logits_int8, fit.temperature), config)
    spec = LabelSpec(name=scores.name, temperature=fit.temperature, operating_point=point)
    return CalibratedOutput(scores=scores, spec=spec, fit=fit)


def _operating_point(
    scores: OutputScores, values: FloatArray, config: CalibrationConfig
) -> OperatingPoint:
    """The disease's target; for gradability the stricter of its two.

    Catching most of the ungradable eyes of `val` says nothing of doubtful pictures that are
    unlike them: where the two classes are far apart, a threshold that just does it lies among
    the worst pictures and lets everything between the classes pass. So the threshold is also
    as high as keeps `min_gradable_share` of the gradable eyes.
    """

    def derive(target: Target) -> OperatingPoint:
        return derive_operating_point(
            scores.labels,
            values,
            scores.patient_ids,
            target,
            num_draws=config.num_draws,
            seed=config.seed,
        )

    if scores.is_disease:
        return derive(config.target)
    kept = Target(measure="sensitivity", value=config.min_gradable_share)
    points = (derive(config.gradability_target), derive(kept))
    return max(points, key=lambda point: point.threshold)


def _output(
    name: str, column: str, eyes: Sequence[Eye], fp32: FloatArray, int8: FloatArray
) -> OutputScores:
    labels, known = _truth(eyes, column)
    return OutputScores(
        name=name,
        is_disease=column != GRADABLE,
        patient_ids=np.array([eye.patient_id for eye in eyes])[known],
        labels=labels,
        logits_fp32=fp32[known],
        logits_int8=int8[known],
    )


def _truth(eyes: Sequence[Eye], column: str) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Known labels of one column, and the (N,) mask of the eyes they belong to.

    Diseases are judged on eyes not known to be ungradable: on the others nobody can see them,
    and the camera never decides on them.
    """
    labels = np.array([eye.labels[column] for eye in eyes], np.float64)
    gradable = np.array([eye.labels[GRADABLE] for eye in eyes], np.float64)
    known = ~np.isnan(labels)
    if column != GRADABLE:
        known &= gradable != 0
    return labels[known], known
