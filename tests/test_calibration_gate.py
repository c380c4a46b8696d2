"""The gate passes what is as good and refuses, with numbers, what is not."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.gate import GateCase, GateLimits, judge, require_passed
from edge_runtime.errors import ConfigError, GateRefusedError
from edge_runtime.metrics import auroc


def case(noise: float, *, name="glaucoma", count=300, threshold=0.5, seed=0, **options) -> GateCase:
    """Eyes whose INT8 logits are the FP32 ones plus noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.4).astype(float)
    logits = rng.normal(labels * 2 - 1)
    return GateCase(
        name=name,
        patient_ids=np.array([f"P{i // 2}" for i in range(count)]),
        labels=labels,
        logits_fp32=logits,
        logits_int8=logits + rng.normal(0, noise, count),
        temperature=1.0,
        threshold=threshold,
        **options,
    )


def test_equal_models_pass_with_zero_loss():
    outcome = judge([case(0.0)], GateLimits(), num_images=300)
    label = outcome.report.labels[0]
    assert outcome.report.passed
    assert outcome.reasons == ()
    assert (label.drop, label.drop_interval) == (0.0, (0.0, 0.0))
    assert label.auroc_fp32 == auroc(case(0.0).labels, case(0.0).logits_fp32)
    assert (outcome.report.mean_auroc_drop, outcome.report.decision_flips) == (0.0, 0)
    require_passed(outcome)


def test_a_small_loss_passes_and_flips_are_counted():
    small = case(0.05, count=1000)
    outcome = judge([small], GateLimits(), num_images=300)
    expected = np.sum((small.logits_fp32 >= 0) != (small.logits_int8 >= 0))
    assert outcome.report.passed
    assert outcome.report.decision_flips == expected
    assert expected > 0


def test_a_real_loss_is_refused_with_its_numbers():
    outcome = judge([case(2.0), case(0.0, name="amd")], GateLimits(), num_images=300)
    assert not outcome.report.passed
    drop = outcome.report.labels[0].drop
    assert drop > 0.05
    assert outcome.report.mean_auroc_drop == pytest.approx(drop / 2)
    with pytest.raises(GateRefusedError) as refusal:
        require_passed(outcome)
    text = str(refusal.value)
    assert f"mean AUROC falls by {drop / 2:.4f}, the limit is 0.0100" in text
    assert f"glaucoma: AUROC falls by {drop:.4f}" in text
    assert "amd" not in text
    assert refusal.value.exit_code == 8


def test_one_bad_label_is_refused_though_the_mean_is_good():
    cases = [case(0.8, name="bad"), *(case(0.0, name=f"good{i}") for i in range(14))]
    outcome = judge(cases, GateLimits(), num_images=300)
    assert outcome.report.mean_auroc_drop < 0.01
    assert any(reason.startswith("bad: AUROC") for reason in outcome.reasons)


def test_lost_sensitivity_is_refused_though_the_ranking_is_kept():
    exact = case(0.0)
    shifted = GateCase(**{**vars(exact), "logits_int8": exact.logits_fp32 - 0.5})
    outcome = judge([shifted], GateLimits(), num_images=300)
    assert outcome.report.labels[0].drop == 0.0
    assert len(outcome.reasons) == 1
    assert "glaucoma: sensitivity falls by" in outcome.reasons[0]


def test_one_lost_eye_is_below_the_resolution_of_a_small_set():
    labels = np.repeat([1.0, 0.0], [10, 30])
    logits = np.where(labels == 1, 2.0, -2.0)
    worse = logits.copy()
    worse[0] = -0.1
    base = {
        "name": "x",
        "patient_ids": np.arange(40).astype(str),
        "labels": labels,
        "logits_fp32": logits,
        "temperature": 1.0,
        "threshold": 0.5,
    }
    one = judge([GateCase(logits_int8=worse, **base)], GateLimits(), num_images=40)
    assert one.report.passed
    assert one.report.labels[0].sensitivity_int8 == 0.9
    worse[1] = -0.1
    two = judge([GateCase(logits_int8=worse, **base)], GateLimits(), num_images=40)
    assert "(2 of 10 eyes)" in two.reasons[0]


def test_gradability_is_judged_but_not_averaged():
    cases = [case(0.0), case(3.0, name="gradability", in_mean=False)]
    outcome = judge(cases, GateLimits(), num_images=300)
    assert outcome.report.mean_auroc_drop == 0.0
    assert any(reason.startswith("gradability: AUROC") for reason in outcome.reasons)


def test_proof_needs_more_eyes_than_a_small_set_has():
    strict = GateLimits(require_bounds=True)
    few = judge([case(0.3, count=60)], strict, num_images=60)
    assert "may be as large as" in "; ".join(few.reasons)
    many = judge([case(0.01, count=6000)], strict, num_images=6000)
    assert many.report.passed


def test_limits_and_cases_are_checked():
    with pytest.raises(ConfigError, match=r"max_auroc_drop is -0\.1"):
        GateLimits(max_auroc_drop=-0.1)
    with pytest.raises(ValueError, match="at least one disease"):
        judge([case(0.0, in_mean=False)], GateLimits(), num_images=1)
