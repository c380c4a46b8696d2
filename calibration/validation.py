"""From model scores on `val` eyes to temperatures, thresholds and the gate's cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.abstention import choose_band
from calibration.config import CalibrationConfig
from calibration.cross_fit import Choice, CrossFitted, cross_fit
from calibration.dataset import GRADABLE, Eye
from calibration.gate import GateCase
from calibration.operating_point import Accuracy, Target, choose_threshold, measure, require_enough
from calibration.probability import TemperatureFit, fit_temperature, probabilities
from calibration.run_models import ModelScores
from edge_runtime.bundle_parts.manifest import HeldOut, LabelSpec, Manifest, OperatingPoint

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
    """One output of the models on the N `val` eyes whose truth is known.

    Attributes:
        name: of the output.
        is_disease: False for the gradability head.
        patient_ids: (N,) whose eye it is.
        image_sha256: (N,) hashes of the image files.
        labels: (N,) 0 or 1.
        logits_fp32: (N,).
        logits_int8: (N,).
        groups: attribute -> (N,) value of each eye, for subgroups.
    """

    name: str
    is_disease: bool
    patient_ids: NDArray[np.str_]
    image_sha256: NDArray[np.str_]
    labels: FloatArray
    logits_fp32: FloatArray
    logits_int8: FloatArray
    groups: Mapping[str, NDArray[np.str_]]


@dataclass(frozen=True, kw_only=True)
class CalibratedOutput:
    """One output with its temperature and operating point, and its held-out judgements."""

    scores: OutputScores
    spec: LabelSpec
    fit: TemperatureFit
    held_out: CrossFitted

    @property
    def shipped(self) -> Choice:
        """The temperature and the threshold that go into the bundle."""
        assert self.spec.operating_point is not None
        return Choice(
            temperature=self.fit.temperature, threshold=self.spec.operating_point.threshold
        )

    def gate_case(self) -> GateCase:
        """What the gate compares."""
        return GateCase(
            name=self.scores.name,
            patient_ids=self.scores.patient_ids,
            image_sha256=self.scores.image_sha256,
            labels=self.scores.labels,
            logits_fp32=self.scores.logits_fp32,
            logits_int8=self.scores.logits_int8,
            shipped=self.shipped,
            held_out=self.held_out,
            groups=self.scores.groups,
            is_disease=self.scores.is_disease,
        )


def require_enough_eyes(eyes: Sequence[Eye], manifest: Manifest, minimum: int) -> None:
    """Refuse a `val` split with too few eyes of a class, before any long work.

    Raises:
        DataError: names the label and its counts.
    """
    for name in (*manifest.label_names, GRADABLE):
        require_enough(name, _truth(eyes, name)[0], minimum, "val")


def split_outputs(
    manifest: Manifest,
    eyes: Sequence[Eye],
    image_sha256: Sequence[str],
    scores: Mapping[str, ModelScores],
) -> list[OutputScores]:
    """Scores of the disease labels in manifest order, then of gradability.

    Args:
        manifest: names of the outputs.
        eyes: the N eyes that were scored, in order.
        image_sha256: hashes of their images.
        scores: 'fp32' and 'int8', N rows each.
    """
    fp32, int8 = scores["fp32"], scores["int8"]
    hashes, groups = np.array(image_sha256), _groups(eyes, fp32)
    names = [(name, name) for name in manifest.label_names]
    names.append((manifest.gradability.name, GRADABLE))
    columns = [
        np.column_stack([one.logits, one.gradability_logits]).astype(np.float64)
        for one in (fp32, int8)
    ]
    outputs = []
    for index, (name, column) in enumerate(names):
        labels, known = _truth(eyes, column)
        outputs.append(
            OutputScores(
                name=name,
                is_disease=column != GRADABLE,
                patient_ids=np.array([eye.patient_id for eye in eyes])[known],
                image_sha256=hashes[known],
                labels=labels,
                logits_fp32=columns[0][known, index],
                logits_int8=columns[1][known, index],
                groups={attribute: values[known] for attribute, values in groups.items()},
            )
        )
    return outputs


def calibrate_output(scores: OutputScores, config: CalibrationConfig) -> CalibratedOutput:
    """Choose temperature, then threshold, both on the INT8 logits: INT8 is what is shipped.

    Raises:
        DataError: too few eyes or patients of a class are left after images that never reach the
            model were dropped, or too few to bound the abstention risk that was asked for.
    """
    require_enough(scores.name, scores.labels, config.min_eyes, "val (images that pass the gate)")
    fit = fit_temperature(scores.labels, scores.logits_int8)
    if fit.at_bound:
        _LOG.warning(
            "temperature of %s is at its bound %.3g: val separates it too well or not at all",
            scores.name,
            fit.temperature,
        )
    targets = _targets(scores, config)
    shipped = _choose(scores.labels, scores.logits_int8, targets)
    held_out = cross_fit(
        scores.patient_ids,
        scores.labels,
        scores.logits_int8,
        scores.logits_fp32,
        lambda labels, logits: _choose(labels, logits, targets),
        num_folds=config.num_folds,
        seed=config.seed,
    )
    point = _operating_point(scores, shipped, held_out, targets, config)
    spec = LabelSpec(
        name=scores.name,
        temperature=shipped.temperature,
        operating_point=point,
        abstention=None
        if config.abstain_risk is None or not scores.is_disease
        else choose_band(
            scores.name,
            scores.labels,
            probabilities(scores.logits_int8, shipped.temperature),
            scores.patient_ids,
            threshold=shipped.threshold,
            risk=config.abstain_risk,
        ),
    )
    return CalibratedOutput(scores=scores, spec=spec, fit=fit, held_out=held_out)


def _targets(scores: OutputScores, config: CalibrationConfig) -> tuple[Target, ...]:
    """The disease's target; for gradability two, of which the stricter holds.

    Catching most of the ungradable eyes of `val` says nothing of doubtful pictures that are
    unlike them: where the two classes are far apart, a threshold that just does it lies among
    the worst pictures and lets everything between the classes pass. So the threshold is also
    as high as keeps `min_gradable_share` of the gradable eyes.
    """
    if scores.is_disease:
        return (config.target,)
    kept = Target(measure="sensitivity", value=config.min_gradable_share)
    return (config.gradability_target, kept)


def _choose(labels: FloatArray, logits: FloatArray, targets: Sequence[Target]) -> Choice:
    """The rule that ships: temperature by likelihood, then the highest threshold asked for."""
    temperature = fit_temperature(labels, logits).temperature
    values = probabilities(logits, temperature)
    thresholds = [choose_threshold(labels, values, target) for target in targets]
    return Choice(temperature=temperature, threshold=max(thresholds))


def _operating_point(
    scores: OutputScores,
    shipped: Choice,
    held_out: CrossFitted,
    targets: Sequence[Target],
    config: CalibrationConfig,
) -> OperatingPoint:
    def measured(called: NDArray[np.bool_]) -> Accuracy:
        return measure(
            scores.labels,
            called,
            scores.patient_ids,
            num_draws=config.num_draws,
            seed=config.seed,
        )

    values = probabilities(scores.logits_int8, shipped.temperature)
    reached = max(targets, key=lambda one: choose_threshold(scores.labels, values, one))
    apparent, honest = measured(values >= shipped.threshold), measured(held_out.called_int8)
    return OperatingPoint(
        threshold=shipped.threshold,
        target=reached.text,
        sensitivity=apparent.sensitivity.value,
        sensitivity_interval=(apparent.sensitivity.low, apparent.sensitivity.high),
        specificity=apparent.specificity.value,
        specificity_interval=(apparent.specificity.low, apparent.specificity.high),
        num_positive=apparent.num_positive,
        num_negative=apparent.num_negative,
        split="val",
        held_out=HeldOut(
            num_folds=held_out.num_folds,
            sensitivity=honest.sensitivity.value,
            sensitivity_interval=(honest.sensitivity.low, honest.sensitivity.high),
            specificity=honest.specificity.value,
            specificity_interval=(honest.specificity.low, honest.specificity.high),
        ),
    )


def _groups(eyes: Sequence[Eye], fp32: ModelScores) -> dict[str, NDArray[np.str_]]:
    """Subgroups: the site (each has its camera), the eye, and the better and worse pictures."""
    median = np.median(fp32.gradability_logits)
    return {
        "site": np.array([eye.site or "unknown" for eye in eyes]),
        "eye": np.array([eye.laterality or "unknown" for eye in eyes]),
        "quality": np.where(fp32.gradability_logits < median, "lower half", "upper half"),
    }


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
