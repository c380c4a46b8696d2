"""Temperatures against a fine grid search."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.probability import fit_temperature, negative_log_likelihood, probabilities
from edge_runtime import decision


def overconfident(rng, true_temperature, count=4000):
    """Logits that are `true_temperature` times too large for their labels."""
    honest = rng.normal(0, 2, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-honest))).astype(float)
    return labels, honest * true_temperature


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_made_the_logits(rng, true_temperature):
    labels, logits = overconfident(rng, true_temperature)
    fit = fit_temperature(labels, logits)
    assert fit.temperature == pytest.approx(true_temperature, rel=0.1)
    assert fit.nll_after <= fit.nll_before
    assert not fit.at_bound


def test_equals_a_grid_search(rng):
    labels, logits = overconfident(rng, 2.0, 200)
    fit = fit_temperature(labels, logits)
    grid = np.exp(np.linspace(np.log(0.5), np.log(20), 4001))
    losses = [negative_log_likelihood(labels, logits, t) for t in grid]
    assert fit.temperature == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
    assert fit.nll_after == pytest.approx(min(losses), abs=1e-6)


def test_separated_and_useless_logits_end_at_the_bounds():
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    assert fit_temperature(labels, np.array([-5.0, -4.0, 4.0, 5.0])).at_bound
    assert fit_temperature(labels, np.array([5.0, 4.0, -4.0, -5.0])).temperature > 19.9


def test_vector_form_equals_the_cameras_rule():
    logits = np.array([-800.0, -3.0, -1e-9, 0.0, 2.5, 800.0])
    expected = [decision.probability(float(x), 1.7) for x in logits]
    np.testing.assert_allclose(probabilities(logits, 1.7), expected, rtol=1e-14)


def test_likelihood_by_its_definition(rng):
    labels, logits = overconfident(rng, 1.0, 50)
    p = 1 / (1 + np.exp(-logits / 2))
    expected = -np.mean(np.where(labels == 1, np.log(p), np.log(1 - p)))
    assert negative_log_likelihood(labels, logits, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "logits"), [([1.0, 1.0], [0.1, 0.2]), ([0.0, 1.0], [0.1]), ([], [])]
)
def test_refuses_what_has_no_answer(labels, logits):
    with pytest.raises(ValueError, match="both classes"):
        fit_temperature(np.array(labels), np.array(logits))
