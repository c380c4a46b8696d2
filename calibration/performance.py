"""What the INT8 model reaches on `val`, in figures that may be repeated to others.

Probabilities and decisions are the held-out ones: every eye is judged at the temperature and
threshold chosen on other patients. An eye that the camera calls ungradable is counted three
ways, because a reader cannot tell from one of them what the others would be:

    excluded  left out
    refer     counted as referred: what a programme does with it
    worst     counted as judged wrongly: a diseased eye missed, a healthy eye referred
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.config import CalibrationConfig
from calibration.dataset import Eye
from calibration.floors import SENSITIVITY_FLOOR, SPECIFICITY_FLOOR, judge_floor
from calibration.operating_point import measure
from calibration.predictive_values import predictive_values
from calibration.probability import fit_temperature, probabilities
from calibration.run_models import ModelScores
from calibration.validation import CalibratedOutput
from edge_runtime.metrics import (
    Interval,
    auroc,
    cluster_bootstrap,
    expected_calibration_error,
    mean,
    reliability_bins,
    wilson_interval,
)
from edge_runtime.strict_json import JsonValue, dataclass_to_dict

__all__ = ["CameraView", "camera_view", "output_figures", "screening_figures"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class CameraView:
    """What the camera would say of every `val` eye of one disease, image refused or not.

    Attributes:
        patient_ids: (N,) whose eye it is.
        labels: (N,) 0 or 1.
        answered: (N,) whether the eye passes the cheap gate and the gradability head.
        called: (N,) whether it is called positive; False where it is not answered.
    """

    patient_ids: NDArray[np.str_]
    labels: FloatArray
    answered: BoolArray
    called: BoolArray


def camera_view(
    disease: CalibratedOutput,
    index: int,
    gradability: CalibratedOutput,
    *,
    scored: Sequence[Eye],
    scores: ModelScores,
    refused: Sequence[Eye],
) -> CameraView:
    """Follow every eye whose label is known through the camera's rules.

    Args:
        disease: a disease output.
        index: its column in the logits.
        gradability: the gradability output.
        scored: eyes whose image reached the model, in order.
        scores: of the INT8 model on them.
        refused: eyes whose image was refused before the model.
    """
    name = disease.scores.name
    patients = np.array([eye.patient_id for eye in (*scored, *refused)])
    labels = np.array([eye.labels[name] for eye in (*scored, *refused)], np.float64)
    reached = patients[: len(scored)]
    gradable = gradability.held_out.calls(reached, scores.gradability_logits, gradability.shipped)
    positive = disease.held_out.calls(reached, scores.logits[:, index], disease.shipped)
    nothing = np.zeros(len(refused), np.bool_)
    answered = np.concatenate([gradable, nothing])
    known = ~np.isnan(labels)
    return CameraView(
        patient_ids=patients[known],
        labels=labels[known],
        answered=answered[known],
        called=np.concatenate([gradable & positive, nothing])[known],
    )


def output_figures(output: CalibratedOutput, config: CalibrationConfig) -> dict[str, JsonValue]:
    """Ranking and probability calibration of one output: before and after its temperature."""
    scores = output.scores
    raw = probabilities(scores.logits_int8, 1.0)
    area = _interval(auroc, output, scores.logits_int8, config)
    return {
        **_with_interval("auroc", area),
        "temperature_fp32": fit_temperature(scores.labels, scores.logits_fp32).temperature,
        "nll_before_temperature": output.fit.nll_before,
        "nll_after_temperature": output.fit.nll_after,
        "before_temperature": _reliability(output, raw, config),
        "after_temperature": _reliability(output, output.held_out.probability_int8, config),
        "num_eyes": int(scores.labels.size),
        "num_patients": len(np.unique(scores.patient_ids)),
    }


def screening_figures(view: CameraView, config: CalibrationConfig) -> dict[str, JsonValue]:
    """Sensitivity, specificity, floors and predictive values under each way of counting.

    A way under which a class has no eye left is null.
    """
    positive = view.labels == 1
    ways = {
        "excluded": (view.answered, view.called),
        "refer": (np.ones_like(view.answered), view.called | ~view.answered),
        "worst": (np.ones_like(view.answered), np.where(view.answered, view.called, ~positive)),
    }
    share = cluster_bootstrap(
        mean,
        view.patient_ids,
        view.answered,
        num_draws=config.num_draws,
        seed=config.seed,
    )
    wilson = wilson_interval(int(view.answered.sum()), int(view.answered.size))
    wide = (min(share.low, wilson.low), max(share.high, wilson.high))
    return {
        "gradable_share": share.value,
        "gradable_share_interval": list(wide),
        "num_eyes": int(view.labels.size),
        **{f"ungradable_{name}": _counted(view, *way, config) for name, way in ways.items()},
    }


def _counted(
    view: CameraView, kept: BoolArray, called: BoolArray, config: CalibrationConfig
) -> JsonValue:
    labels, patients = view.labels[kept], view.patient_ids[kept]
    if set(labels.tolist()) != {0.0, 1.0}:
        return None
    at = {
        level: measure(
            labels,
            called[kept],
            patients,
            level=level,
            num_draws=config.num_draws,
            seed=config.seed,
        )
        for level in (0.95, 0.975)
    }
    found = at[0.95]
    return {
        **_with_interval("sensitivity", found.sensitivity),
        **_with_interval("specificity", found.specificity),
        "num_positive": found.num_positive,
        "num_negative": found.num_negative,
        "sensitivity_floor": dataclass_to_dict(
            judge_floor(
                found.sensitivity,
                SENSITIVITY_FLOOR,
                num_eyes=found.num_positive,
                num_patients=found.num_positive_patients,
            )
        ),
        "specificity_floor": dataclass_to_dict(
            judge_floor(
                found.specificity,
                SPECIFICITY_FLOOR,
                num_eyes=found.num_negative,
                num_patients=found.num_negative_patients,
            )
        ),
        "predictive_values": [
            dataclass_to_dict(predictive_values(at[0.975], prevalence))
            for prevalence in config.prevalences
        ],
    }


def _reliability(
    output: CalibratedOutput, values: FloatArray, config: CalibrationConfig
) -> dict[str, JsonValue]:
    """Brier score and calibration error with intervals, and the points of the diagram.

    The calibration error of few eyes is never near 0, its interval least of all: compare before
    with after on the same eyes, not with 0.
    """
    squares = (values - output.scores.labels) ** 2
    score = cluster_bootstrap(
        mean,
        output.scores.patient_ids,
        squares,
        num_draws=config.num_draws,
        seed=config.seed,
    )
    return {
        **_with_interval("brier", score),
        **_with_interval(
            "expected_calibration_error",
            _interval(expected_calibration_error, output, values, config),
        ),
        "reliability": dataclass_to_dict(reliability_bins(output.scores.labels, values)),
    }


def _interval(
    statistic: Callable[..., float],
    output: CalibratedOutput,
    values: FloatArray,
    config: CalibrationConfig,
) -> Interval:
    return cluster_bootstrap(
        statistic,
        output.scores.patient_ids,
        output.scores.labels,
        values,
        num_draws=config.num_draws,
        seed=config.seed,
    )


def _with_interval(name: str, interval: Interval) -> dict[str, JsonValue]:
    return {name: interval.value, f"{name}_interval": [interval.low, interval.high]}
