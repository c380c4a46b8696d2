"""One examination of a run as reports take it: what was planned, and its answer if there is one."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.result import ScreeningResult
from edge_runtime.screening.plan import PlannedExamination

__all__ = ["NOT_SCREENED", "ReportEntry", "Screened"]

NOT_SCREENED = "not_screened"


@dataclass(frozen=True, kw_only=True)
class Screened:
    """An answer, when it was given, and by which version of this software.

    Attributes:
        screened_at: ISO 8601, UTC, to the second.
    """

    result: ScreeningResult
    screened_at: str
    software_version: str


@dataclass(frozen=True, kw_only=True)
class ReportEntry:
    """One row of the plan; `screened` is None when the run was interrupted before it."""

    input_index: int
    planned: PlannedExamination
    screened: Screened | None
