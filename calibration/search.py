"""Accuracy-aware search: as few groups in float as make the gate pass, within a time budget.

    groups worst first (calibration.sensitivity)   g1 g2 g3 g4 g5 ...
    float prefix 0, 1, 2, 4, 8, ... until one passes, then bisection to the shortest that does

The order is found once, as NNCF does; doubling and bisection ask the gate about 2 log2(n) times
where reverting one by one asks n times. They take for granted that a longer prefix is no worse,
which holds but for noise; what is returned has passed the gate itself, always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calibration.groups import LayerGroup
from edge_runtime.errors import ConfigError

__all__ = ["SearchOutcome", "Trial", "TrialResult", "search_float_groups"]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What the gate says of one model.

    Attributes:
        passed: whether it may ship.
        loss: how bad it is, smaller is better; compares models of which none passes.
        reasons: why it was refused, in words.
    """

    passed: bool
    loss: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One question to the gate: how many of the worst groups were float, and the answer."""

    num_float: int
    result: TrialResult


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """What was found.

    Attributes:
        passed: whether a model passed.
        float_groups: what is float in the model found, worst first.
        trials: every question that was asked, in order.
        stopped: why the search ended, in words.
        seconds: what it took.
    """

    passed: bool
    float_groups: tuple[LayerGroup, ...]
    trials: tuple[Trial, ...]
    stopped: str
    seconds: float

    @property
    def best(self) -> Trial:
        """The trial whose model was found."""
        return next(t for t in self.trials if t.num_float == len(self.float_groups))


def search_float_groups(
    ranked: Sequence[LayerGroup],
    evaluate: Callable[[Sequence[LayerGroup]], TrialResult],
    *,
    max_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> SearchOutcome:
    """Find the shortest prefix of `ranked` that passes when it is float.

    Args:
        ranked: groups, the most sensitive first.
        evaluate: makes the model with these groups in float and asks the gate. It is always
            asked at least once, with nothing in float.
        max_seconds: no question is begun after this time; one under way is finished.
        clock: seconds, for tests.

    Raises:
        ConfigError: the budget is not positive.
    """
    if not max_seconds > 0:
        raise ConfigError(f"the time budget of the search is {max_seconds} s; give more than 0")
    return _Search(ranked, evaluate, max_seconds, clock).run()


class _Search:
    """One search: the answers so far and the time left."""

    def __init__(
        self,
        ranked: Sequence[LayerGroup],
        evaluate: Callable[[Sequence[LayerGroup]], TrialResult],
        max_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.ranked, self.evaluate = tuple(ranked), evaluate
        self.clock, self.started, self.max_seconds = clock, clock(), max_seconds
        self.trials: list[Trial] = []

    def run(self) -> SearchOutcome:
        low, high = self._double()
        while high is not None and high - low > 1 and not self._out_of_time():
            middle = (low + high) // 2
            low, high = (low, middle) if self._passes(middle) else (middle, high)
        return self._outcome(is_shortest=high is not None and high - low <= 1)

    def _double(self) -> tuple[int, int | None]:
        """Longest prefix known to fail (-1: none) and shortest known to pass (None: none)."""
        failed, size = -1, 0
        while not self.trials or not self._out_of_time():
            if self._passes(size):
                return failed, size
            failed = size
            if size == len(self.ranked):
                break
            size = min(max(1, 2 * size), len(self.ranked))
        return failed, None

    def _passes(self, size: int) -> bool:
        result = self.evaluate(self.ranked[:size])
        self.trials.append(Trial(num_float=size, result=result))
        return result.passed

    def _out_of_time(self) -> bool:
        return self.clock() - self.started >= self.max_seconds

    def _outcome(self, *, is_shortest: bool) -> SearchOutcome:
        passing = [trial for trial in self.trials if trial.result.passed]
        if passing:
            best = min(passing, key=lambda trial: trial.num_float)
            stopped = (
                "no shorter prefix of the ranking passes"
                if is_shortest
                else f"the budget of {self.max_seconds:g} s was spent; fewer groups might do"
            )
        else:
            best = min(self.trials, key=lambda trial: (trial.result.loss, trial.num_float))
            stopped = (
                "even with every group in float the gate refuses"
                if any(trial.num_float == len(self.ranked) for trial in self.trials)
                else f"the budget of {self.max_seconds:g} s was spent before the gate passed"
            )
        return SearchOutcome(
            passed=bool(passing),
            float_groups=self.ranked[: best.num_float],
            trials=tuple(self.trials),
            stopped=stopped,
            seconds=self.clock() - self.started,
        )
