"""Pure decision functions, tested exhaustively: nothing but clear evidence gives 'no refer'."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.decision import (
    Decision,
    decide_label,
    field_disposition,
    patient_disposition,
    probability,
    sigmoid,
)
from edge_runtime.errors import EngineError
from edge_runtime.result import LabelResult


@given(st.floats(-700, 700))
def test_sigmoid_matches_its_definition_and_is_symmetric(logit: float) -> None:
    assert sigmoid(logit) == pytest.approx(1.0 / (1.0 + math.exp(-logit)), rel=1e-12)
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1.0)


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(-1e308) == 0.0
    assert sigmoid(1e308) == 1.0


@given(st.floats(-50, 50), st.floats(0.05, 20))
def test_probability_is_monotone_in_the_logit(logit: float, temperature: float) -> None:
    assert probability(logit, temperature) <= probability(logit + 1.0, temperature)
    assert probability(0.0, temperature) == 0.5


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_an_engine_error(logit: float) -> None:
    with pytest.raises(EngineError, match="logit"):
        probability(logit, 1.0)
    with pytest.raises(EngineError, match="logit"):
        decide_label("x", logit, temperature=1.0, threshold=0.5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_must_be_positive_and_finite(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        probability(0.0, temperature)


def test_label_is_positive_when_probability_reaches_the_threshold() -> None:
    assert decide_label("x", 0.0, temperature=2.0, threshold=0.5).is_positive
    assert not decide_label("x", -1e-6, temperature=2.0, threshold=0.5).is_positive


@pytest.mark.parametrize("num_labels", [0, 1, 2, 3])
@pytest.mark.parametrize("quality_passed", [True, False])
@pytest.mark.parametrize("p_gradable", [None, math.nan, 0.0, 0.39, 0.4, 1.0])
def test_field_disposition_over_every_combination(
    num_labels: int, quality_passed: bool, p_gradable: float | None
) -> None:
    for positives in itertools.product([False, True], repeat=num_labels):
        actual = field_disposition(
            quality_passed=quality_passed,
            gradable_probability=p_gradable,
            gradable_threshold=0.4,
            labels_positive=positives,
        )
        judged = quality_passed and p_gradable in (0.4, 1.0) and num_labels > 0
        if not judged:
            assert actual is Decision.UNGRADABLE
        elif True in positives:
            assert actual is Decision.REFER
        else:
            assert actual is Decision.NO_REFER


@pytest.mark.parametrize("num_labels", [0, 1, 2, 3])
@pytest.mark.parametrize("quality_passed", [True, False])
@pytest.mark.parametrize("p_gradable", [None, math.nan, 0.39, 0.4])
def test_field_disposition_over_every_combination_of_three_answers(
    num_labels: int, quality_passed: bool, p_gradable: float | None
) -> None:
    """Negative, doubtful, positive: only an eye that is gradable and wholly negative is clear."""
    for answers in itertools.product(["negative", "doubtful", "positive"], repeat=num_labels):
        actual = field_disposition(
            quality_passed=quality_passed,
            gradable_probability=p_gradable,
            gradable_threshold=0.4,
            labels_positive=[answer == "positive" for answer in answers],
            labels_doubtful=[answer == "doubtful" for answer in answers],
        )
        judged = quality_passed and p_gradable == 0.4 and num_labels > 0
        if judged and "positive" in answers:
            assert actual is Decision.REFER
        elif judged and set(answers) == {"negative"}:
            assert actual is Decision.NO_REFER
        else:
            assert actual is Decision.UNGRADABLE


@pytest.mark.parametrize(
    ("value", "decision"),
    [
        (0.0, "negative"),
        (0.1999999, "negative"),
        (0.2, "doubtful"),
        (0.4999999, "doubtful"),
        (0.5, "positive"),
        (1.0, "positive"),
    ],
)
def test_the_band_holds_its_lower_end_and_not_the_threshold(value: float, decision: str) -> None:
    label = LabelResult(name="x", probability=value, threshold=0.5, doubtful_from=0.2)
    assert (label.decision, label.to_dict()["decision"]) == (decision, decision)
    assert (label.is_positive, label.is_doubtful) == (
        decision == "positive",
        decision == "doubtful",
    )
    without = LabelResult(name="x", probability=value, threshold=0.5)
    assert without.decision == ("positive" if decision == "positive" else "negative")
    empty = LabelResult(name="x", probability=value, threshold=0.5, doubtful_from=0.5)
    assert empty.decision == without.decision


@given(st.floats(-30, 30), st.floats(0, 1), st.floats(0, 1))
def test_a_band_only_ever_takes_away_negatives(logit: float, first: float, second: float) -> None:
    low, threshold = sorted((first, second))
    plain = decide_label("x", logit, temperature=1.0, threshold=threshold)
    banded = decide_label("x", logit, temperature=1.0, threshold=threshold, doubtful_from=low)
    assert banded.is_positive == plain.is_positive
    assert banded.decision == plain.decision or (
        (plain.decision, banded.decision) == ("negative", "doubtful")
    )


def test_an_ungradable_eye_stays_ungradable_although_the_model_is_positive() -> None:
    for passed, p_gradable in [(False, 0.9), (True, 0.1)]:
        answer = field_disposition(
            quality_passed=passed,
            gradable_probability=p_gradable,
            gradable_threshold=0.5,
            labels_positive=[True],
        )
        assert answer is Decision.UNGRADABLE


def test_patient_disposition_over_every_combination_of_up_to_four_eyes() -> None:
    for num_eyes in range(5):
        for eyes in itertools.product(Decision, repeat=num_eyes):
            actual = patient_disposition(iter(eyes))
            if Decision.REFER in eyes:
                assert actual is Decision.REFER
            elif Decision.UNGRADABLE in eyes or not eyes:
                assert actual is Decision.UNGRADABLE
            else:
                assert actual is Decision.NO_REFER
            assert actual is patient_disposition(reversed(eyes))


def test_no_examination_of_both_eyes_is_clear_unless_both_are() -> None:
    clear = [
        eyes
        for eyes in itertools.product(Decision, repeat=2)
        if patient_disposition(eyes) is Decision.NO_REFER
    ]
    assert clear == [(Decision.NO_REFER, Decision.NO_REFER)]
