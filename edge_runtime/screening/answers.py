"""Where the answers of a run are kept until its reports are written, when there is no record."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from edge_runtime.result import EyeResult
from edge_runtime.screening.entries import Screened

__all__ = ["Answers", "Forgotten", "KeptInMemory"]


class Answers(Protocol):
    """Keeps answers and gives them back by their place."""

    def add(self, key: str | None, screened: Screened) -> int:
        """Keep an answer; return its place."""

    def read(self, place: int) -> Screened:
        """Return the answer at a place."""


class Forgotten:
    """For a run without reports: an answer that was told is let go."""

    def add(self, key: str | None, screened: Screened) -> int:
        """Keep nothing."""
        del key, screened
        return 0

    def read(self, place: int) -> Screened:
        """Refuse: no report reads what was not kept."""
        raise LookupError(f"answer {place} was not kept")


class KeptInMemory:
    """For a run with reports and without a record; evidence maps are let go."""

    def __init__(self) -> None:
        """Begin with no answer."""
        self._answers: list[Screened] = []

    def add(self, key: str | None, screened: Screened) -> int:
        """Keep an answer; a key is of no use here."""
        del key
        eyes = tuple(_without_evidence(eye) for eye in screened.result.eyes)
        self._answers.append(replace(screened, result=replace(screened.result, eyes=eyes)))
        return len(self._answers) - 1

    def read(self, place: int) -> Screened:
        """Return the answer at a place."""
        return self._answers[place]


def _without_evidence(eye: EyeResult) -> EyeResult:
    return replace(eye, fields=tuple(replace(one, evidence=None) for one in eye.fields))
