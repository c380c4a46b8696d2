"""Tells a person how a build goes: phases and steps of the builder as a few lines of text."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Narrator"]

_INTERVAL_S = 2.0


class Narrator:
    """Turns progress events into lines, at most one in two seconds except for new main phases."""

    def __init__(
        self, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count time; `tell` receives the lines."""
        self._tell = tell
        self._clock = clock
        self._start = self._last = clock()
        self._num_steps: dict[str, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Take an event "phase", "step" or "finish" of `trt_builder`."""
        name = event["name"]
        if event["event"] == "phase":
            self._num_steps[name] = event["num_steps"]
            if event["parent"] is None:
                self._say(f"{name} ...")
        elif event["event"] == "step" and self._clock() - self._last >= _INTERVAL_S:
            self._say(f"{name}: step {event['step'] + 1} of {self._num_steps.get(name, '?')}")

    def still_at_it(self) -> None:
        """Say that the builder works although it is silent."""
        self._say("the builder is at work")

    def _say(self, text: str) -> None:
        self._last = self._clock()
        self._tell(f"[{self._last - self._start:5.0f} s] {text}")
