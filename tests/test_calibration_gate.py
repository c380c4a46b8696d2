"""The gate tells apart what is shown to be as good, what lost, and what is too small to say."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from calibration.cross_fit import Choice, cross_fit
from calibration.gate import GateCase, GateLimits, judge, require_not_failed
from calibration.gate_shares import auroc_patients_needed
from edge_runtime.errors import ConfigError, GateRefusedError
from edge_runtime.metrics import Interval, auroc

CHOICE = Choice(temperature=1.0, threshold=0.5)


def make(labels, fp32, int8, *, name="glaucoma", patients=None, groups=None, **options) -> GateCase:
    """A case in which every group's rule chose the same threshold."""
    count = len(labels)
    patients = np.arange(count) // 2 if patients is None else patients
    patients = patients.astype(str)
    held_out = cross_fit(patients, labels, int8, fp32, lambda *_: CHOICE, num_folds=5, seed=0)
    return GateCase(
        name=name,
        patient_ids=patients,
        image_sha256=np.array([hashlib.sha256(b"%d" % i).hexdigest() for i in range(count)]),
        labels=labels,
        logits_fp32=fp32,
        logits_int8=int8,
        shipped=CHOICE,
        held_out=held_out,
        groups=groups or {},
        **options,
    )


def case(noise: float, *, count=300, seed=0, **options) -> GateCase:
    """Eyes whose INT8 logits are the FP32 ones plus noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.4).astype(float)
    logits = rng.normal(labels * 2 - 1)
    return make(labels, logits, logits + rng.normal(0, noise, count), **options)


def run(*cases: GateCase, **limits):
    return judge(cases, GateLimits(**limits), num_images=300, num_draws=400)


def test_equal_models_on_enough_patients_pass_with_zero_loss():
    exact = case(0.0, count=2000)
    outcome = run(exact)
    (label,) = outcome.report.labels
    assert outcome.report.passed
    assert outcome.reasons == ()
    assert (label.drop, label.drop_interval) == (0.0, (0.0, 0.0))
    assert label.auroc_fp32 == auroc(exact.labels, exact.logits_fp32)
    assert outcome.report.flips == ()
    assert outcome.report.num_patients == 1000
    require_not_failed(outcome)


def test_equal_models_on_few_patients_are_not_shown_to_be_equal():
    outcome = run(case(0.0))
    assert outcome.report.status == "not_shown"
    assert outcome.report.labels[0].drop == 0.0
    needed = outcome.report.labels[0].sensitivity.num_patients_needed
    assert any(f"about {needed} are needed" in reason for reason in outcome.reasons)
    require_not_failed(outcome)
    # As many patients as it asks for are enough when nothing is lost.
    assert run(case(0.0, count=4 * needed)).report.passed


def test_flips_are_listed_with_their_images_and_both_probabilities():
    small = case(0.05, count=1000)
    report = run(small).report
    flipped = (small.logits_fp32 >= 0) != (small.logits_int8 >= 0)
    assert report.decision_flips == len(report.flips) == np.sum(flipped) > 0
    assert {one.image_sha256 for one in report.flips} == set(small.image_sha256[flipped])
    assert all((one.probability_fp32 >= 0.5) != (one.probability_int8 >= 0.5)
               for one in report.flips)  # fmt: skip
    change = np.abs(
        small.probability(small.logits_fp32) - small.probability(small.logits_int8)
    ).max()
    assert report.max_probability_change == pytest.approx(change)
    assert report.num_decisions == 1000


def test_a_real_loss_is_refused_with_its_numbers():
    outcome = run(case(2.0), case(0.0, name="amd"))
    assert outcome.report.status == "failed"
    drop = outcome.report.labels[0].drop
    assert drop > 0.05
    assert outcome.report.mean_auroc_drop == pytest.approx(drop / 2)
    with pytest.raises(GateRefusedError) as refusal:
        require_not_failed(outcome)
    text = str(refusal.value)
    assert f"mean AUROC falls by {drop / 2:.4f}, the limit is 0.0100" in text
    assert f"glaucoma: AUROC falls by {drop:.4f}" in text
    assert "--write-failed" in text
    assert refusal.value.exit_code == 8


def test_one_bad_label_is_refused_though_the_mean_is_good():
    outcome = run(case(0.8, name="bad"), *(case(0.0, name=f"good{i}") for i in range(14)))
    assert outcome.report.mean_auroc_drop < 0.01
    assert outcome.report.status == "failed"
    assert any(reason.startswith("bad: AUROC") for reason in outcome.reasons)


def test_lost_sensitivity_is_refused_though_the_ranking_is_kept():
    exact = case(0.0)
    outcome = run(make(exact.labels, exact.logits_fp32, exact.logits_fp32 - 0.5))
    assert outcome.report.labels[0].drop == 0.0
    assert outcome.report.labels[0].sensitivity.status == "failed"
    assert any("glaucoma: sensitivity falls by" in reason for reason in outcome.reasons)


def test_lost_specificity_is_refused_once_it_is_real():
    exact = case(0.0)
    outcome = run(make(exact.labels, exact.logits_fp32, exact.logits_fp32 + 0.5))
    assert outcome.report.labels[0].specificity.status == "failed"
    assert any("glaucoma: specificity falls by" in reason for reason in outcome.reasons)


@pytest.mark.parametrize(("eyes_lost", "status"), [(1, "not_shown"), (2, "failed")])
def test_one_lost_eye_is_below_the_resolution_of_a_small_set(eyes_lost, status):
    labels = np.repeat([1.0, 0.0], [10, 30])
    logits = np.where(labels == 1, 2.0, -2.0)
    worse = logits.copy()
    worse[:eyes_lost] = -0.1
    report = run(make(labels, logits, worse, patients=np.arange(40))).report
    assert report.labels[0].sensitivity.status == status
    assert report.labels[0].sensitivity.int8 == 1.0 - eyes_lost / 10
    assert report.labels[0].sensitivity.lost == eyes_lost


def test_gradability_is_judged_but_not_averaged_and_need_not_be_shown():
    rng = np.random.default_rng(4)
    labels = (rng.random(2000) < 0.99).astype(float)
    logits = rng.normal(labels * 4 - 2)
    few = make(labels, logits, logits, name="gradability", is_disease=False)
    report = run(case(0.0, count=2000), few).report
    assert report.passed
    assert report.labels[1].status == "not_shown"
    outcome = run(case(0.0, count=2000), case(3.0, name="gradability", is_disease=False))
    assert outcome.report.mean_auroc_drop == 0.0
    assert outcome.report.status == "failed"
    assert any(reason.startswith("gradability: AUROC") for reason in outcome.reasons)


def test_a_loss_at_one_site_is_found_though_the_whole_set_hides_it():
    rng = np.random.default_rng(2)
    labels = (rng.random(4000) < 0.5).astype(float)
    logits = rng.normal(labels * 3 - 1.5)
    site = np.where(np.arange(4000) % 50 < 2, "small", "large")
    int8 = np.where(site == "small", logits - 1.0, logits)
    outcome = run(make(labels, logits, int8, groups={"site": site}))
    assert outcome.report.labels[0].sensitivity.drop < 0.02
    assert outcome.report.status == "failed"
    assert any(reason.startswith("glaucoma where site is small: sensitivity falls")
               for reason in outcome.reasons)  # fmt: skip
    by_value = {group.value: group for group in outcome.report.subgroups}
    assert by_value["small"].failed
    assert not by_value["large"].failed


@pytest.mark.slow
def test_equal_models_fail_in_no_subgroup_however_many_there_are():
    rng = np.random.default_rng(8)
    groups = {f"g{i}": rng.integers(0, 5, 2000).astype(str) for i in range(8)}
    failures = 0
    for seed in range(20):
        report = run(case(0.03, count=2000, seed=seed, groups=groups)).report
        failures += any(group.failed for group in report.subgroups)
    assert failures <= 3  # 5 % of 20 runs in expectation


def test_a_subgroup_of_few_eyes_is_not_printed():
    groups = {"site": np.where(np.arange(300) < 20, "small", "large")}
    report = run(case(0.1, groups=groups)).report
    by_value = {group.value: group for group in report.subgroups}
    assert (by_value["small"].sensitivity, by_value["small"].specificity) == (None, None)
    assert by_value["small"].num_eyes == 20
    assert by_value["large"].sensitivity.num_eyes > 20


def test_patients_that_an_auroc_needs_shrink_its_interval_to_the_limit():
    interval = Interval(value=0.002, low=-0.02, high=0.026)
    assert auroc_patients_needed(interval, 100, 0.01) == 901
    assert auroc_patients_needed(interval, 100, 0.002) is None


def test_limits_and_cases_are_checked():
    for name in ("max_auroc_drop", "max_sensitivity_drop", "max_specificity_drop"):
        for value in (-0.1, 0.0, 1.1, float("nan")):
            with pytest.raises(ConfigError, match=name):
                GateLimits(**{name: value})
    with pytest.raises(ValueError, match="at least one disease"):
        run(case(0.0, is_disease=False))
