"""The search returns the shortest passing prefix, or the best it saw and why, within its time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.groups import LayerGroup
from calibration.search import TrialResult, search_float_groups
from edge_runtime.errors import ConfigError


def groups(count: int) -> list[LayerGroup]:
    return [LayerGroup(name=f"g{i}", nodes=(f"n{i}",), num_convs=1) for i in range(count)]


class Gate:
    """Passes from `needed` groups on; every question takes one second."""

    def __init__(self, needed: int) -> None:
        self.needed, self.asked, self.now = needed, [], 0.0

    def __call__(self, chosen) -> TrialResult:
        self.asked.append(len(chosen))
        self.now += 1.0
        passed = len(chosen) >= self.needed
        reasons = () if passed else (f"{len(chosen)} are too few",)
        return TrialResult(passed=passed, loss=1.0 / (1 + len(chosen)), reasons=reasons)

    def clock(self) -> float:
        return self.now


@given(count=st.integers(1, 40), data=st.data())
def test_the_shortest_prefix_is_found_in_few_questions(count, data):
    needed = data.draw(st.integers(0, count))
    gate = Gate(needed)
    outcome = search_float_groups(groups(count), gate, max_seconds=1e9, clock=gate.clock)
    assert outcome.passed
    assert outcome.float_groups == tuple(groups(count)[:needed])
    assert len(gate.asked) <= 2 * math.log2(count + 1) + 4
    assert len(set(gate.asked)) == len(gate.asked)
    assert outcome.best.result.passed
    assert outcome.stopped == "no shorter prefix of the ranking passes"


def test_unreachable_gives_the_best_and_why():
    gate = Gate(needed=99)
    outcome = search_float_groups(groups(6), gate, max_seconds=1e9, clock=gate.clock)
    assert not outcome.passed
    assert len(outcome.float_groups) == 6  # the smallest loss
    assert outcome.stopped == "even with every group in float the gate refuses"
    assert outcome.best.result.reasons == ("6 are too few",)


def test_the_budget_ends_the_search_with_what_passed():
    gate = Gate(needed=17)
    outcome = search_float_groups(groups(40), gate, max_seconds=7.0, clock=gate.clock)
    assert outcome.passed
    assert len(outcome.float_groups) == 32
    assert "budget of 7 s was spent; fewer groups might do" in outcome.stopped
    assert outcome.seconds == 7.0


def test_the_budget_may_end_it_before_anything_passed():
    gate = Gate(needed=17)
    outcome = search_float_groups(groups(40), gate, max_seconds=2.5, clock=gate.clock)
    assert not outcome.passed
    assert gate.asked == [0, 1, 2]
    assert "spent before the gate passed" in outcome.stopped
    assert len(outcome.float_groups) == 2


def test_the_gate_is_asked_once_even_without_time():
    gate = Gate(needed=0)
    outcome = search_float_groups(groups(3), gate, max_seconds=1e-300, clock=gate.clock)
    assert outcome.passed
    assert gate.asked == [0]


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_a_budget_must_be_positive(seconds):
    with pytest.raises(ConfigError, match="time budget"):
        search_float_groups(groups(1), Gate(0), max_seconds=seconds)
