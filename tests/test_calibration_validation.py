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
        labels=labels,
        logits_fp32=logits,
        logits_int8=logits,
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
