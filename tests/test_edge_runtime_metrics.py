"""Metrics against slow references written from their definitions."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import beta, binom
from sklearn import metrics as sklearn_metrics

from edge_runtime import metrics
from edge_runtime.metrics import (
    Interval,
    auroc,
    brier,
    clopper_pearson_interval,
    cluster_bootstrap,
    confusion_counts,
    expected_calibration_error,
    mean,
    paired_cluster_bootstrap,
    reliability_bins,
    roc_curve,
    sensitivity_specificity,
    wilson_interval,
)


def pairwise_auroc(labels, scores):
    """Every positive against every negative, from the definition."""
    total = 0.0
    pairs = 0
    for label_p, score_p in zip(labels, scores, strict=True):
        for label_n, score_n in zip(labels, scores, strict=True):
            if label_p == 1 and label_n == 0:
                pairs += 1
                total += 1.0 if score_p > score_n else 0.5 if score_p == score_n else 0.0
    return total / pairs


def eyes(num_patients=60, seed=0, levels=None):
    """Two correlated eyes a patient, scores rounded to `levels` so that ties occur."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), 2)
    sick = generator.random(num_patients) < 0.4
    labels = np.repeat(sick, 2).astype(int)
    scores = np.repeat(generator.normal(sick * 1.0), 2) + generator.normal(0, 0.5, 2 * num_patients)
    return patients, labels, scores if levels is None else np.round(scores * levels) / levels


@pytest.mark.parametrize("levels", [None, 4, 1])
def test_auroc_equals_pairwise_and_sklearn(levels):
    _, labels, scores = eyes(levels=levels)
    assert len(set(scores)) < len(scores) or levels is None
    assert auroc(labels, scores) == pytest.approx(pairwise_auroc(labels, scores), abs=1e-12)
    reference = sklearn_metrics.roc_auc_score(labels, scores)
    assert auroc(labels, scores) == pytest.approx(reference, abs=1e-12)


def test_auroc_known_values():
    assert auroc([0, 1], [0.0, 1.0]) == 1.0
    assert auroc([0, 1], [1.0, 0.0]) == 0.0
    assert auroc([0, 1, 1, 0], [0.3] * 4) == 0.5
    assert auroc(np.array([True, False]), np.array([2, 1])) == 1.0


def test_auroc_survives_any_monotone_map():
    _, labels, scores = eyes()
    assert auroc(labels, np.exp(scores)) == auroc(labels, scores)
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))


@pytest.mark.parametrize(
    ("labels", "scores", "word"),
    [
        ([1, 1], [0.1, 0.2], "both classes"),
        ([0, 0], [0.1, 0.2], "both classes"),
        ([0, 1, 1], [0.1, 0.2], "equal length"),
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0, np.nan], [0.1, 0.2], "0 or 1"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([], [], "equal length"),
        ([[0, 1]], [[0.1, 0.2]], "equal length"),
    ],
)
def test_auroc_refuses(labels, scores, word):
    with pytest.raises(ValueError, match=word):
        auroc(labels, scores)


def test_confusion_counts_at_the_threshold_itself():
    counts = confusion_counts([1, 1, 0, 0, 0], [0.5, 0.4, 0.5, 0.1, 0.2], 0.5)
    assert (counts.true_positive, counts.false_negative) == (1, 1)
    assert (counts.false_positive, counts.true_negative) == (1, 2)
    sensitivity, specificity = sensitivity_specificity(
        [1, 1, 0, 0, 0], [0.5, 0.4, 0.5, 0.1, 0.2], 0.5
    )
    assert (sensitivity, specificity) == (0.5, pytest.approx(2 / 3))
    with pytest.raises(ValueError, match="0 positive and 2 negative"):
        sensitivity_specificity([0, 0], [0.1, 0.2], 0.5)


def test_roc_curve_equals_sklearn_and_integrates_to_auroc():
    _, labels, scores = eyes(levels=4)
    fpr, tpr, thresholds = roc_curve(labels, scores)
    expected = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for ours, theirs in zip((fpr, tpr, thresholds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    area = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
    assert area == pytest.approx(auroc(labels, scores))
    for x, y, threshold in zip(fpr, tpr, thresholds, strict=True):
        sensitivity, specificity = sensitivity_specificity(labels, scores, threshold)
        assert (sensitivity, 1 - specificity) == (pytest.approx(y), pytest.approx(x))


def test_brier_equals_sklearn_and_refuses_scores_outside_the_unit_range():
    generator = np.random.default_rng(1)
    labels, probabilities = generator.integers(0, 2, 200), generator.random(200)
    assert brier(labels, probabilities) == pytest.approx(
        sklearn_metrics.brier_score_loss(labels, probabilities)
    )
    with pytest.raises(ValueError, match=r"0\.\.1"):
        brier([0, 1], [0.5, 1.5])


def test_expected_calibration_error_against_a_loop():
    generator = np.random.default_rng(2)
    probabilities = np.round(generator.random(300), 2)
    labels = (generator.random(300) < probabilities**2).astype(int)
    edges = [np.quantile(probabilities, k / 5) for k in range(1, 5)]
    expected = 0.0
    for b in range(5):
        inside = [i for i, p in enumerate(probabilities) if sum(p >= e for e in edges) == b]
        rate = np.mean([labels[i] for i in inside])
        expected += len(inside) / 300 * abs(rate - np.mean(probabilities[inside]))
    assert expected_calibration_error(labels, probabilities, num_bins=5) == pytest.approx(expected)
    order = generator.permutation(300)
    assert expected_calibration_error(
        labels[order], probabilities[order], num_bins=5
    ) == pytest.approx(expected)


def test_expected_calibration_error_is_zero_for_the_true_rate():
    assert expected_calibration_error([0, 1, 0, 1], [0.5] * 4) == 0.0
    assert expected_calibration_error([1, 1], [0.0, 0.0]) == 1.0


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, table I, method 3 (Wilson without continuity correction)
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_published_values(successes, n, low, high):
    interval = wilson_interval(successes, n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)
    assert interval.low <= interval.value <= interval.high


@pytest.mark.parametrize("n", [1, 7, 500])
def test_wilson_interval_ends_hold_the_estimate(n):
    assert wilson_interval(n, n).high == 1.0
    assert wilson_interval(0, n).low == 0.0
    assert wilson_interval(n, n).low == pytest.approx(1 - wilson_interval(0, n).high)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_interval_refuses(successes, n):
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(successes, n)


def slow_bootstrap(statistic, patients, labels, scores, num_draws, seed):
    """The same draws with Python lists: whole patients, all their eyes."""
    generator = np.random.default_rng(seed)
    names = sorted(set(patients))
    rows_of = {name: [i for i, p in enumerate(patients) if p == name] for name in names}
    values = []
    while len(values) < num_draws:
        drawn = generator.integers(0, len(names), len(names))
        rows = [row for k in drawn for row in rows_of[names[k]]]
        if len({labels[row] for row in rows}) == 2:
            values.append(statistic([labels[r] for r in rows], [scores[r] for r in rows]))
    return np.quantile(values, [0.025, 0.975])


def test_cluster_bootstrap_equals_slow_reference_and_redraws():
    patients, labels, scores = eyes(num_patients=8, seed=5, levels=2)
    fast = cluster_bootstrap(auroc, patients, labels, scores, num_draws=60, seed=3)
    low, high = slow_bootstrap(pairwise_auroc, patients, labels, scores, 60, 3)
    assert (fast.low, fast.high) == (pytest.approx(low), pytest.approx(high))
    assert fast.value == auroc(labels, scores)
    assert fast.num_redrawn > 0


def test_cluster_bootstrap_fast_path_equals_general_path():
    patients, labels, scores = eyes(levels=3)
    general = cluster_bootstrap(lambda y, s: auroc(y, s), patients, labels, scores, num_draws=200)
    fast = cluster_bootstrap(auroc, patients, labels, scores, num_draws=200)
    assert fast.low == pytest.approx(general.low, abs=1e-12)
    assert fast.high == pytest.approx(general.high, abs=1e-12)


def test_the_mean_takes_a_path_that_equals_the_general_one():
    patients, labels, scores = eyes()
    for values in (labels == 1, scores):
        fast = cluster_bootstrap(mean, patients, values, num_draws=200, seed=4)
        slow = cluster_bootstrap(
            lambda some: float(np.mean(some)), patients, values, num_draws=200, seed=4
        )
        assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))
    with pytest.raises(ValueError, match="one or more"):
        mean([])


def test_cluster_bootstrap_widens_for_patients_and_keeps_names():
    patients, labels, scores = eyes(num_patients=150)
    by_patient = cluster_bootstrap(auroc, patients, labels, scores, num_draws=400)
    by_eye = cluster_bootstrap(auroc, np.arange(patients.size), labels, scores, num_draws=400)
    assert by_patient.high - by_patient.low > 1.15 * (by_eye.high - by_eye.low)
    named = cluster_bootstrap(auroc, [f"P{p:03d}" for p in patients], labels, scores, num_draws=400)
    assert named == by_patient


def test_cluster_bootstrap_covers_the_truth_about_as_often_as_it_says():
    """A mean of patients with known expectation 0: 95 % of intervals should hold it."""
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(120):
        values = np.repeat(generator.normal(size=80), 2)
        interval = cluster_bootstrap(
            np.mean, np.repeat(np.arange(80), 2), values, num_draws=120, seed=trial
        )
        held += interval.low <= 0.0 <= interval.high
    assert 104 <= held <= 119


def test_paired_cluster_bootstrap_uses_one_set_of_draws():
    patients, labels, scores = eyes(num_patients=100)
    other = scores + np.random.default_rng(9).normal(0, 0.05, scores.size)
    paired = paired_cluster_bootstrap(auroc, patients, labels, scores, other, num_draws=300)
    alone = cluster_bootstrap(auroc, patients, labels, scores, num_draws=300)
    assert paired.value == pytest.approx(auroc(labels, scores) - auroc(labels, other))
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)
    same = paired_cluster_bootstrap(auroc, patients, labels, scores, scores, num_draws=50)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_paired_cluster_bootstrap_takes_any_statistic():
    patients, labels, scores = eyes()

    def sensitivity(y, s):
        return sensitivity_specificity(y, s, 0.5)[0]

    interval = paired_cluster_bootstrap(
        sensitivity, patients, labels, scores, scores - 0.5, num_draws=200
    )
    assert interval.low <= interval.value <= interval.high
    assert interval.value > 0


def test_cluster_bootstrap_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="rows"):
        cluster_bootstrap(auroc, [1, 2], [0, 1, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="at least one array"):
        cluster_bootstrap(auroc, [1, 2])
    with pytest.raises(ValueError, match="num_draws"):
        cluster_bootstrap(auroc, [1, 2], [0, 1], [0.1, 0.2], num_draws=0)

    # One patient holds the only positive eyes: most draws of these few are fine, but with a
    # statistic that is undefined whenever a patient is drawn twice, nearly none is.
    def needs_all(values):
        if len(set(values)) < 40:
            raise ValueError("undefined")
        return 0.0

    with pytest.raises(ValueError, match="undefined in"):
        cluster_bootstrap(needs_all, np.arange(40), np.arange(40), num_draws=5)


def test_interval_checks_itself():
    with pytest.raises(ValueError, match="out of order"):
        Interval(value=0.5, low=0.6, high=0.4)
    with pytest.raises(ValueError, match="level"):
        Interval(value=0.5, low=0.4, high=0.6, level=95)


def test_two_thousand_draws_over_two_thousand_eyes_are_quick():
    patients, labels, scores = eyes(num_patients=1000)
    start = time.process_time()
    cluster_bootstrap(auroc, patients, labels, scores, num_draws=2000)
    assert time.process_time() - start < 3.0


def test_public_names_are_sorted():
    assert metrics.__all__ == sorted(metrics.__all__)
    assert all(hasattr(metrics, name) for name in metrics.__all__)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I: the four examples of its text.
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearson_published_values(successes, n, low, high):
    interval = clopper_pearson_interval(successes, n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 7), (40, 40), (499, 2000)])
def test_clopper_pearson_equals_the_beta_quantiles(successes, n, level):
    tail = (1 - level) / 2
    interval = clopper_pearson_interval(successes, n, level)
    low = 0.0 if successes == 0 else beta.ppf(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta.ppf(1 - tail, successes + 1, n - successes)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
    with pytest.raises(ValueError, match="no proportion"):
        clopper_pearson_interval(n + 1, n)


@pytest.mark.parametrize("n", [5, 30, 119])
def test_coverage_of_both_intervals_by_summing_every_outcome(n):
    counts = np.arange(n + 1)
    exact = [clopper_pearson_interval(int(k), n) for k in counts]
    wilson = [wilson_interval(int(k), n) for k in counts]
    shares = np.linspace(0.02, 0.98, 49)

    def coverage(intervals):
        held = np.array([[i.low <= p <= i.high for i in intervals] for p in shares])
        return (held * binom.pmf(counts, n, shares[:, None])).sum(axis=1)

    assert coverage(exact).min() >= 0.95 - 1e-12
    # Wilson's covers 95 % on average, not at every share.
    assert coverage(wilson).mean() == pytest.approx(0.95, abs=0.01)
    assert coverage(wilson).mean() < coverage(exact).mean()


def test_reliability_bins_hold_every_eye_once_and_give_the_calibration_error():
    _, labels, scores = eyes(levels=40)
    values = np.clip(scores / 2 + 0.3, 0, 1)
    bins = reliability_bins(labels, values)
    assert sum(one.num_eyes for one in bins) == labels.size
    said = sum(one.num_eyes * one.mean_probability for one in bins)
    assert said == pytest.approx(values.sum())
    gaps = [one.num_eyes * abs(one.observed_rate - one.mean_probability) for one in bins]
    expected = expected_calibration_error(labels, values)
    assert sum(gaps) / labels.size == pytest.approx(expected)
