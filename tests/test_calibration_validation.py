"""Operating points of diseases and of gradability."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.config import CalibrationConfig
from calibration.validation import OutputScores, calibrate_output
from edge_runtime.errors import ConfigError


def scores(*, is_disease: bool, gap: float, seed: int = 0) -> OutputScores:
    """400 eyes, 40 of the negative class, whose logits lie `gap` apart."""
    rng = np.random.default_rng(seed)
    labels = np.ones(400)
    labels[:40] = 0
    logits = rng.normal(0, 1, 400) + np.where(labels == 1, gap / 2, -gap / 2)
    return OutputScores(
        name="x",
        is_disease=is_disease,
        patient_ids=np.array([f"P{i // 2}" for i in range(400)]),
        image_sha256=np.array([f"{i:064x}" for i in range(400)]),
        labels=labels,
        logits_fp32=logits,
        logits_int8=logits,
        groups={},
    )


def accepted(case: OutputScores, logits: np.ndarray) -> np.ndarray:
    spec = calibrate_output(case, CalibrationConfig(num_draws=100)).spec
    assert spec.operating_point is not None
    assert spec.temperature is not None
    return 1 / (1 + np.exp(-logits / spec.temperature)) >= spec.operating_point.threshold


def test_a_doubtful_picture_between_far_classes_is_ungradable() -> None:
    case = scores(is_disease=False, gap=16.0)
    passes = accepted(case, case.logits_int8)
    assert passes[case.labels == 1].mean() == pytest.approx(0.98, abs=0.003)
    assert not passes[case.labels == 0].any()
    # Half-way between the classes and well on the gradable side, yet unlike any gradable eye.
    assert not accepted(case, np.array([-8.0, -4.0, 0.0, 3.0])).any()


def test_overlapping_classes_still_catch_the_target() -> None:
    case = scores(is_disease=False, gap=2.0)
    passes = accepted(case, case.logits_int8)
    assert (~passes[case.labels == 0]).mean() >= 0.9
    assert passes[case.labels == 1].mean() < 0.98


def test_a_disease_reaches_its_sensitivity() -> None:
    case = scores(is_disease=True, gap=3.0)
    assert accepted(case, case.logits_int8)[case.labels == 1].mean() == pytest.approx(
        0.9, abs=0.003
    )


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_the_share_is_checked(share: float) -> None:
    with pytest.raises(ConfigError, match="min_gradable_share"):
        CalibrationConfig(min_gradable_share=share)


def test_held_out_figures_are_of_other_patients_and_intervals_hold_them() -> None:
    done = calibrate_output(scores(is_disease=True, gap=2.0), CalibrationConfig(num_draws=100))
    point = done.spec.operating_point
    assert point is not None
    assert point.held_out.num_folds == 5
    assert point.held_out.sensitivity == done.held_out.called_int8[done.scores.labels == 1].mean()
    low, high = point.held_out.sensitivity_interval
    assert low <= point.held_out.sensitivity <= high
    case = done.gate_case()
    assert case.shipped.threshold == point.threshold
    assert case.held_out is done.held_out


def test_a_band_is_chosen_for_diseases_only_and_only_on_demand() -> None:
    asked = CalibrationConfig(num_draws=100, abstain_risk=0.1)
    disease, gradability = (scores(is_disease=kind, gap=3.0) for kind in (True, False))
    assert calibrate_output(disease, CalibrationConfig(num_draws=100)).spec.abstention is None
    assert calibrate_output(gradability, asked).spec.abstention is None
    spec = calibrate_output(disease, asked).spec
    assert spec.abstention is not None
    assert spec.operating_point is not None
    assert 0.0 < spec.abstention.low <= spec.operating_point.threshold
    assert spec.abstention.num_patients == len(
        set(disease.patient_ids[disease.labels == 1].tolist())
    )


@pytest.mark.parametrize(
    "options",
    [{"num_folds": 1}, {"prevalences": ()}, {"prevalences": (0.0,)}, {"abstain_risk": 1.0}],
)
def test_settings_are_checked(options: dict) -> None:
    with pytest.raises(ConfigError):
        CalibrationConfig(**options)
