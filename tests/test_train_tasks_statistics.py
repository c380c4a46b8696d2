"""Weighted metrics against slow ones, resampling against the runtime's, Holm by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import auroc, cluster_bootstrap, paired_cluster_bootstrap
from train.tasks import weighted_metrics
from train.tasks.statistics import (
    bootstrap_interval,
    holm,
    over_seeds,
    paired_difference,
    score,
)
from train.tasks.weighted_metrics import ScoredEyes


def eyes(num_patients=60, *, rows=1, seed=0, kind="auroc", decimals=1):
    """Two eyes a patient; scores are rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    num = 2 * num_patients
    truth = rng.integers(0, 2 if kind == "auroc" else 5, num).astype(np.float32)
    scores = (truth + rng.normal(0, 1, (rows, num))).round(decimals)
    if kind == "quadratic_kappa":
        scores = np.clip(scores.round(), 0, 4)
    return ScoredEyes(
        patient_ids=np.array([f"P{i // 2}" for i in range(num)]),
        truth=truth,
        scores=scores.astype(np.float32),
    )


def repeated(one, weights):
    """The slow way: every eye as often as its patient was drawn."""
    return np.repeat(np.arange(len(one.truth)), weights[one.patient_numbers()].astype(int))


@pytest.mark.parametrize("rows", [1, 3])
def test_weighted_auroc_is_scikit_learns_on_repeated_eyes(rows, rng):
    one = eyes(rows=rows)
    patients = one.patient_numbers()
    weights = rng.integers(0, 4, (5, patients.max() + 1)).astype(np.float32)
    fast = weighted_metrics.METRICS["auroc"].of_weights(one, patients)(weights)
    for value, draw in zip(fast, weights, strict=True):
        at = repeated(one, draw)
        slow = [roc_auc_score(one.truth[at], row[at]) for row in one.scores]
        assert value == pytest.approx(np.mean(slow), abs=1e-12)


def test_weighted_kappa_is_scikit_learns_on_repeated_eyes(rng):
    one = eyes(rows=2, kind="quadratic_kappa")
    patients = one.patient_numbers()
    weights = rng.integers(0, 4, (5, patients.max() + 1)).astype(np.float32)
    fast = weighted_metrics.METRICS["quadratic_kappa"].of_weights(one, patients)(weights)
    for value, draw in zip(fast, weights, strict=True):
        at = repeated(one, draw)
        slow = [
            cohen_kappa_score(one.truth[at], row[at], weights="quadratic") for row in one.scores
        ]
        assert value == pytest.approx(np.mean(slow), abs=1e-12)


def test_weighted_mean_leaves_undefined_values_out(rng):
    one = eyes(rows=2)
    one.scores[:, ::5] = np.nan
    patients = one.patient_numbers()
    weights = rng.integers(0, 4, (5, patients.max() + 1)).astype(np.float32)
    fast = weighted_metrics.METRICS["mean"].of_weights(one, patients)(weights)
    for value, draw in zip(fast, weights, strict=True):
        assert value == pytest.approx(np.nanmean(one.scores[:, repeated(one, draw)]), rel=1e-6)


def test_blocks_and_double_precision_change_nothing(monkeypatch):
    one = eyes(rows=3)
    plain = bootstrap_interval(one, "auroc", num_draws=120)
    monkeypatch.setattr(weighted_metrics, "_POSITIVES_AT_ONCE", 7)
    monkeypatch.setattr(weighted_metrics, "_DRAWS_AT_ONCE", 50)
    assert bootstrap_interval(one, "auroc", num_draws=120) == plain
    monkeypatch.setattr(weighted_metrics, "_EXACT_IN_FLOAT32", 0)
    assert bootstrap_interval(one, "auroc", num_draws=120) == plain


@pytest.mark.parametrize("num_patients", [6, 60])
def test_intervals_are_those_of_the_runtime(num_patients):
    """Same draws, same redraws: few patients leave some resamples with one class."""
    one = eyes(num_patients)
    ours = bootstrap_interval(one, "auroc", num_draws=300, seed=4)
    theirs = cluster_bootstrap(
        auroc, one.patient_ids, one.truth, one.scores[0], num_draws=300, seed=4
    )
    assert ours.num_redrawn == theirs.num_redrawn
    assert (ours.value, ours.low, ours.high) == pytest.approx(
        (theirs.value, theirs.low, theirs.high), abs=1e-12
    )


def test_redraws_are_met_in_the_test_above():
    lopsided = eyes(6)
    lopsided.truth[:] = 0
    lopsided.truth[0] = 1
    assert bootstrap_interval(lopsided, "auroc", num_draws=100).num_redrawn > 10


def test_paired_differences_are_those_of_the_runtime():
    a, b = eyes(seed=1), eyes(seed=2)
    b = replace(b, truth=a.truth)
    ours = paired_difference(a, b, "auroc", num_draws=300, seed=3).interval
    theirs = paired_cluster_bootstrap(
        auroc, a.patient_ids, a.truth, a.scores[0], b.scores[0], num_draws=300, seed=3
    )
    assert (ours.value, ours.low, ours.high) == pytest.approx(
        (theirs.value, theirs.low, theirs.high), abs=1e-12
    )


def test_an_arm_against_itself_differs_by_nothing():
    found = paired_difference(eyes(), eyes(), "auroc", num_draws=100)
    assert (found.interval.low, found.interval.high, found.p_value) == (0, 0, 1)


def test_a_clear_difference_has_the_smallest_p_and_its_mirror_too():
    good = eyes()
    good.scores[0] = good.truth
    for first, second in ((good, eyes()), (eyes(), good)):
        found = paired_difference(first, second, "auroc", num_draws=199)
        assert found.p_value == pytest.approx(2 / 200)
        assert (found.interval.low > 0) == (first is good)


def test_p_values_of_equal_arms_are_spread_evenly():
    """Two arms with noise of the same size: about a tenth of the p values are below 0.1."""
    values = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        a = eyes(40, seed=seed)
        b = replace(a, scores=(a.truth + rng.normal(0, 1, (1, 80))).astype(np.float32))
        values.append(paired_difference(a, b, "auroc", num_draws=200, seed=seed).p_value)
    # 100 draws of a binomial at 0.1: 3 standard deviations are 0.09.
    assert np.mean(np.array(values) < 0.1) == pytest.approx(0.1, abs=0.09)
    assert np.mean(values) == pytest.approx(0.5, abs=0.09)


def test_2000_draws_of_2400_eyes_take_well_under_a_second():
    import time

    one = eyes(1200, decimals=6)
    start = time.process_time()
    bootstrap_interval(one, "auroc", num_draws=2000)
    assert time.process_time() - start < 1.0


def test_two_eyes_of_a_patient_widen_the_interval():
    one = eyes(100)
    double = ScoredEyes(
        patient_ids=np.repeat(np.arange(200).astype(str), 2),
        truth=np.repeat(one.truth, 2),
        scores=np.repeat(one.scores, 2, axis=1),
    )
    alone = replace(double, patient_ids=np.arange(400).astype(str))
    widths = [
        found.high - found.low
        for found in (bootstrap_interval(eye, "auroc", num_draws=500) for eye in (double, alone))
    ]
    assert widths[0] > 1.2 * widths[1]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.5, 0.9]) == (1.0, 1.0)
    assert holm([0.2]) == (0.2,)
    assert holm([]) == ()
    with pytest.raises(ConfigError, match="numbers from 0 to 1"):
        holm([0.1, float("nan")])


def test_seeds_have_a_mean_and_a_sample_spread():
    found = over_seeds([0.8, 0.9, 1.0])
    assert (found.mean, found.sd, found.num_seeds) == (pytest.approx(0.9), pytest.approx(0.1), 3)
    assert over_seeds([0.8]).sd is None
    for bad in ([], [0.8, float("nan")]):
        with pytest.raises(ConfigError, match="one finite number a seed"):
            over_seeds(bad)


@pytest.mark.parametrize(
    ("kind", "metric", "message"),
    [
        ("auroc", "auroc", "only one class is there"),
        ("auroc", "quadratic_kappa", "only one grade is there"),
    ],
)
def test_one_class_is_refused_by_name(kind, metric, message):
    one = eyes(kind=kind)
    one.truth[:] = 0
    one.scores[:] = 0
    with pytest.raises(DataError, match=f"{metric} is undefined on 120 eyes: {message}"):
        bootstrap_interval(one, metric, num_draws=100)


def test_a_constant_grade_has_kappa_0_and_a_constant_score_auroc_one_half():
    graded, binary = eyes(kind="quadratic_kappa"), eyes()
    graded.scores[:] = 2
    binary.scores[:] = 2
    assert score(graded, "quadratic_kappa") == pytest.approx(0, abs=1e-12)
    assert bootstrap_interval(binary, "auroc", num_draws=100).high == 0.5


def test_a_class_that_is_nearly_never_drawn_is_refused():
    one = eyes(60)
    one.truth[:] = np.nan
    one.scores[:] = np.nan
    one.scores[0, 0] = 1
    spread = replace(one, patient_ids=np.array([f"P{i}" for i in range(120)]))
    assert bootstrap_interval(spread, "mean", num_draws=100).num_redrawn > 10
    with pytest.raises(DataError, match="undefined in"):
        _with_chance(0.01)


def _with_chance(share):
    """A statistic that is defined in one resample of a hundred."""
    from train.tasks import statistics

    rng = np.random.default_rng(0)

    def statistic(weights):
        return np.where(rng.random(len(weights)) < share, 1.0, np.nan)

    return statistics._defined_draws(statistic, 10, 100, 0)


def test_malformed_input_is_refused():
    one = eyes()
    with pytest.raises(ConfigError, match="metric is 'f1'; choose one of auroc"):
        score(one, "f1")
    with pytest.raises(ConfigError, match="num_draws is 0"):
        bootstrap_interval(one, "auroc", num_draws=0)
    with pytest.raises(ConfigError, match="level is 1"):
        bootstrap_interval(one, "auroc", num_draws=100, level=1)
    with pytest.raises(ValueError, match=r"120 patient ids, truth \(119,\)"):
        replace(one, truth=one.truth[1:])
    with pytest.raises(DataError, match="no eye was scored"):
        ScoredEyes(patient_ids=np.array([]), truth=np.zeros(0), scores=np.zeros((1, 0)))
    with pytest.raises(DataError, match="not finite"):
        score(replace(one, scores=one.scores * np.nan), "auroc")
    with pytest.raises(DataError, match="truth must be 0 or 1"):
        score(eyes(kind="quadratic_kappa"), "auroc")
    with pytest.raises(DataError, match="integers from 0 to 4"):
        score(one, "quadratic_kappa")


def test_other_eyes_or_other_truth_are_not_paired():
    one = eyes()
    with pytest.raises(DataError, match="scored on other eyes"):
        paired_difference(one, eyes(50), "auroc")
    with pytest.raises(DataError, match="truth of 120 eyes differs"):
        paired_difference(one, replace(one, truth=1 - one.truth), "auroc")
