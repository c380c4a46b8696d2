"""Every eye is judged by a choice that never saw its patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.cross_fit import Choice, cross_fit, deal_patients
from calibration.operating_point import Target, choose_threshold
from calibration.probability import fit_temperature, probabilities
from edge_runtime.errors import DataError


@settings(max_examples=60, deadline=None)
@given(
    eyes=st.lists(st.tuples(st.integers(0, 15), st.booleans()), min_size=4, max_size=40),
    num_folds=st.integers(2, 8),
    seed=st.integers(0, 5),
)
def test_every_rest_has_both_classes_and_no_patient_is_divided(eyes, num_folds, seed):
    patients = np.array([f"P{name}" for name, _ in eyes])
    labels = np.array([float(sick) for _, sick in eyes])
    fewest = min(len(set(patients[labels == k])) for k in (0, 1))
    if fewest < 2:
        with pytest.raises(DataError, match="give 2 or more of each"):
            deal_patients(patients, labels, num_folds, seed)
        return
    folds = deal_patients(patients, labels, num_folds, seed)
    assert set(folds) == set(range(min(num_folds, fewest)))
    for fold in set(folds):
        assert set(labels[folds != fold]) == {0.0, 1.0}
        assert not set(patients[folds == fold]) & set(patients[folds != fold])
    np.testing.assert_array_equal(folds, deal_patients(patients, labels, num_folds, seed))


def scores(count, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.5).astype(float)
    return np.arange(count) // 2, labels, rng.normal(labels * 2 - 1)


def test_an_eye_does_not_choose_its_own_threshold():
    """The choice is a fingerprint of its data: no eye is judged by one that holds it."""
    patients, labels, logits = scores(60, 0)
    patients = patients.astype(str)
    seen = []

    def choose(_, some_logits):
        seen.append(set(some_logits.tolist()))
        return Choice(temperature=float(len(seen)), threshold=0.5)

    fitted = cross_fit(patients, labels, logits, -logits, choose, num_folds=4, seed=1)
    assert fitted.num_folds == len(seen) == 4
    for i, (patient, logit) in enumerate(zip(patients, logits, strict=True)):
        fold = fitted.fold_of[patient]
        assert logit not in seen[fold]
        expected = probabilities(np.array([logit]), fitted.choices[fold].temperature)
        assert fitted.probability_int8[i] == expected[0]
    np.testing.assert_array_equal(fitted.called_int8, logits >= 0)
    np.testing.assert_array_equal(fitted.called_fp32, -logits >= 0)
    otherwise = Choice(temperature=1.0, threshold=0.0)
    np.testing.assert_array_equal(fitted.calls(patients, logits, otherwise), fitted.called_int8)
    assert fitted.calls(np.array(["stranger"]), np.array([-9.0]), otherwise).all()


def test_held_out_sensitivity_has_none_of_the_optimism_of_the_same_eyes():
    target = Target(value=0.9)

    def choose(labels, logits):
        temperature = fit_temperature(labels, logits).temperature
        values = probabilities(logits, temperature)
        return Choice(temperature=temperature, threshold=choose_threshold(labels, values, target))

    apparent, held_out, truth = [], [], []
    _, new_labels, new_logits = scores(4000, 999)
    for seed in range(120):
        patients, labels, logits = scores(60, seed)
        sick = labels == 1
        shipped = choose(labels, logits)
        apparent.append(shipped.calls(logits)[sick].mean())
        fitted = cross_fit(
            patients.astype(str), labels, logits, logits, choose, num_folds=5, seed=seed
        )
        held_out.append(fitted.called_int8[sick].mean())
        truth.append(shipped.calls(new_logits)[new_labels == 1].mean())
    optimism = np.mean(apparent) - np.mean(truth)
    assert optimism > 0.015
    # Four standard errors of the mean over 120 sets.
    error = np.std(np.array(held_out) - truth) / np.sqrt(120)
    assert abs(np.mean(held_out) - np.mean(truth)) < min(4 * error, optimism)
