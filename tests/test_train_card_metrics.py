"""Every metric of a card against a slow one written from its definition, on resamples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from card_factory import scored
from sklearn.metrics import average_precision_score

from edge_runtime.metrics import auroc, brier, expected_calibration_error
from train.card import metrics
from train.card.metrics import Scored
from train.tasks.statistics import Statistic

Slow = Callable[[np.ndarray, np.ndarray], float]


def _slow_sensitivity_at(least: float) -> Slow:
    def slow(truth: np.ndarray, scores: np.ndarray) -> float:
        best = 0.0
        for threshold in [*np.unique(scores), np.inf]:
            called = scores >= threshold
            if (~called[~truth]).mean() >= least - 1e-9:
                best = max(best, called[truth].mean())
        return best

    return slow


def _slow_share(among: bool, called: bool) -> Slow:
    return lambda truth, calls: float(np.mean((calls[truth == among] > 0) == called))


CASES: dict[str, tuple[Callable[[Scored], Statistic], Slow, bool]] = {
    "auroc": (metrics.auroc, auroc, False),
    "auprc": (metrics.average_precision, average_precision_score, False),
    "brier": (metrics.brier, brier, False),
    "sensitivity at 0.90": (
        lambda eyes: metrics.sensitivity_at(eyes, 0.9),
        _slow_sensitivity_at(0.9),
        False,
    ),
    "sensitivity at 0.95": (
        lambda eyes: metrics.sensitivity_at(eyes, 0.95),
        _slow_sensitivity_at(0.95),
        False,
    ),
    "sensitivity": (metrics.sensitivity, _slow_share(True, True), True),
    "specificity": (metrics.specificity, _slow_share(False, False), True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ties", [True, False])
def test_a_weighted_metric_is_the_plain_one_on_the_repeated_eyes(name: str, ties: bool) -> None:
    statistic, slow, on_calls = CASES[name]
    eyes = scored(ties=ties)
    eyes = eyes.called(0.5) if on_calls else eyes
    drawn = np.random.default_rng(1).integers(0, eyes.num_patients, (20, eyes.num_patients))
    weights = np.stack([np.bincount(one, minlength=eyes.num_patients) for one in drawn])
    found = statistic(eyes)(weights.astype(np.float32))
    for value, weight in zip(found, weights, strict=True):
        index = np.repeat(np.arange(len(eyes.truth)), weight[eyes.patients])
        assert value == pytest.approx(slow(eyes.truth[index], eyes.scores[index]), abs=1e-6)


def test_calibration_error_is_that_of_the_runtime_and_keeps_its_edges() -> None:
    eyes = scored(ties=False)
    statistic = metrics.calibration_error(eyes, 10)
    plain = expected_calibration_error(eyes.truth, eyes.scores)
    assert _on_all(statistic, eyes) == pytest.approx(plain)
    weights = np.random.default_rng(0).integers(0, 3, (1, eyes.num_patients)).astype(np.float32)
    each = weights[0][eyes.patients]
    edges = np.quantile(eyes.scores, np.arange(1, 10) / 10)
    gaps = 0.0
    for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True):
        inside = (eyes.scores >= low) & (eyes.scores < high)
        gaps += abs((each * (eyes.truth - eyes.scores.astype(float)))[inside].sum())
    assert statistic(weights)[0] == pytest.approx(gaps / each.sum())


@pytest.mark.parametrize(
    "statistic",
    [
        metrics.auroc,
        metrics.average_precision,
        lambda eyes: metrics.sensitivity_at(eyes, 0.95),
        lambda eyes: metrics.balanced_accuracy(eyes.called(0.5)),
    ],
)
def test_perfect_predictions_score_one(statistic: Callable[[Scored], Statistic]) -> None:
    eyes = scored()
    assert _on_all(statistic(eyes.with_scores(eyes.truth * 0.9)), eyes) == pytest.approx(1.0)


def test_a_constant_score_is_chance() -> None:
    eyes = scored()
    flat = eyes.with_scores(np.full(eyes.truth.size, 0.5))
    assert _on_all(metrics.auroc(flat), eyes) == 0.5
    assert _on_all(metrics.average_precision(flat), eyes) == pytest.approx(eyes.truth.mean())
    assert _on_all(metrics.sensitivity_at(flat, 0.9), eyes) == 0.0
    assert _on_all(metrics.balanced_accuracy(flat.called(0.5)), eyes) == 0.5


def test_random_scores_are_near_chance() -> None:
    eyes = scored(2000)
    noise = eyes.with_scores(np.random.default_rng(5).random(eyes.truth.size))
    assert _on_all(metrics.auroc(noise), eyes) == pytest.approx(0.5, abs=0.03)
    assert _on_all(metrics.sensitivity_at(noise, 0.9), eyes) == pytest.approx(0.1, abs=0.04)
    assert _on_all(metrics.average_precision(noise), eyes) == pytest.approx(0.35, abs=0.04)


@pytest.mark.parametrize("value", [True, False])
def test_one_class_is_undefined_in_every_ranking_metric(value: bool) -> None:
    eyes = scored()
    eyes = replace(eyes, truth=np.full(eyes.truth.size, value))
    for statistic in (
        metrics.auroc(eyes),
        metrics.average_precision(eyes),
        metrics.sensitivity_at(eyes, 0.9),
        metrics.balanced_accuracy(eyes.called(0.5)),
    ):
        assert np.isnan(_on_all(statistic, eyes))


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_eyes_does_not_matter(name: str) -> None:
    statistic, _, on_calls = CASES[name]
    eyes = scored()
    eyes = eyes.called(0.5) if on_calls else eyes
    order = np.random.default_rng(2).permutation(eyes.truth.size)
    shuffled = Scored(
        truth=eyes.truth[order],
        scores=eyes.scores[order],
        patients=eyes.patients[order],
        num_patients=eyes.num_patients,
    )
    weights = np.random.default_rng(3).integers(0, 3, (5, eyes.num_patients)).astype(np.float32)
    np.testing.assert_allclose(statistic(eyes)(weights), statistic(shuffled)(weights))


def _on_all(statistic: Statistic, eyes: Scored) -> float:
    return float(statistic(np.ones((1, eyes.num_patients), np.float32))[0])
