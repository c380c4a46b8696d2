"""What the camera says of every eye, and the three ways to count what it does not judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.config import CalibrationConfig
from calibration.dataset import GRADABLE, Eye
from calibration.performance import CameraView, camera_view, output_figures, screening_figures
from calibration.run_models import ModelScores
from calibration.validation import CalibratedOutput, OutputScores, calibrate_output
from edge_runtime.metrics import brier

CONFIG = CalibrationConfig(num_draws=100, min_eyes=2, prevalences=(0.1,))


def eye(number: int, sick: float) -> Eye:
    return Eye(
        row_number=number + 2,
        patient_id=f"P{number // 2}",
        laterality=("OD", "OS")[number % 2],
        site="clinic",
        split="val",
        cfp_path=Path("x.jpg"),
        labels={"amd": sick, GRADABLE: 1.0},
    )


def output(*, is_disease: bool, count: int = 80, seed: int = 0) -> CalibratedOutput:
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 4 < 2).astype(float)
    logits = rng.normal(labels * 3 - 1.5)
    return calibrate_output(
        OutputScores(
            name="amd" if is_disease else "gradable",
            is_disease=is_disease,
            patient_ids=np.array([f"P{i // 2}" for i in range(count)]),
            image_sha256=np.array([f"{i:064x}" for i in range(count)]),
            labels=labels,
            logits_fp32=logits,
            logits_int8=logits,
            groups={},
        ),
        CONFIG,
    )


def test_an_eye_is_called_only_if_gate_and_head_let_it_pass():
    """Logits so large that no threshold of any group matters."""
    scored = [eye(i, sick) for i, sick in enumerate((1, 1, 0, 0, np.nan, 1))]
    refused = [eye(90, 1), eye(91, np.nan), eye(200, 0)]
    view = camera_view(
        output(is_disease=True),
        0,
        output(is_disease=False),
        scored=scored,
        scores=ModelScores(
            logits=np.array([[50.0], [-50], [50], [-50], [50], [50]]),
            gradability_logits=np.array([50.0, 50, 50, 50, 50, -50]),
        ),
        refused=refused,
    )
    assert view.patient_ids.tolist() == ["P0", "P0", "P1", "P1", "P2", "P45", "P100"]
    assert view.labels.tolist() == [1, 1, 0, 0, 1, 1, 0]
    assert view.answered.tolist() == [True, True, True, True, False, False, False]
    assert view.called.tolist() == [True, False, True, False, False, False, False]


def test_three_ways_to_count_an_ungradable_eye_by_hand():
    view = CameraView(
        patient_ids=np.arange(10).astype(str),
        labels=np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], float),
        answered=np.array([1, 1, 1, 0, 0, 1, 1, 1, 1, 0], bool),
        called=np.array([1, 1, 0, 0, 0, 1, 0, 0, 0, 0], bool),
    )
    found = screening_figures(view, CONFIG)
    shares = {
        way: (found[f"ungradable_{way}"]["sensitivity"], found[f"ungradable_{way}"]["specificity"])
        for way in ("excluded", "refer", "worst")
    }
    assert shares["excluded"] == pytest.approx((2 / 3, 3 / 4))
    assert shares["refer"] == pytest.approx((4 / 5, 3 / 5))
    assert shares["worst"] == pytest.approx((2 / 5, 3 / 5))
    assert found["gradable_share"] == pytest.approx(0.7)
    low, high = found["gradable_share_interval"]
    assert low < 0.7 < high
    refer = found["ungradable_refer"]
    assert (refer["num_positive"], refer["num_negative"]) == (5, 5)
    assert refer["sensitivity_floor"]["status"] == "below"
    (values,) = refer["predictive_values"]
    assert values["ppv"] == pytest.approx(0.8 * 0.1 / (0.8 * 0.1 + 0.4 * 0.9))


def test_a_way_that_leaves_a_class_without_eyes_is_null():
    view = CameraView(
        patient_ids=np.arange(4).astype(str),
        labels=np.array([1.0, 1, 0, 0]),
        answered=np.array([False, False, True, True]),
        called=np.array([False, False, True, False]),
    )
    found = screening_figures(view, CONFIG)
    assert found["ungradable_excluded"] is None
    assert found["ungradable_refer"]["sensitivity"] == 1.0
    assert found["ungradable_worst"]["sensitivity"] == 0.0


def test_probabilities_before_are_raw_and_after_are_held_out():
    done = output(is_disease=True)
    found = output_figures(done, CONFIG)
    raw = 1 / (1 + np.exp(-done.scores.logits_int8))
    assert found["before_temperature"]["brier"] == pytest.approx(brier(done.scores.labels, raw))
    expected = brier(done.scores.labels, done.held_out.probability_int8)
    assert found["after_temperature"]["brier"] == pytest.approx(expected)
    assert found["temperature_fp32"] == pytest.approx(done.fit.temperature)
    assert found["nll_after_temperature"] <= found["nll_before_temperature"]
    assert (found["num_eyes"], found["num_patients"]) == (80, 40)
