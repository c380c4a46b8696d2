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
    """One row of the plan; `screened` is None when the run was interrupted before it.

    Attributes:
        shared_with: input_index and examination id of every other examination of the run that was
            given a picture of this one, earlier and later ones alike. The answer itself can name
            none: that of the first was told before the other was looked at.
    """

    input_index: int
    planned: PlannedExamination
    screened: Screened | None
    shared_with: tuple[tuple[int, str | None], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that a report must warn of: shared pictures first, then what the answer says."""
        shared = (
            f"the same picture was given for examination {index} ({name}); find out whose it is"
            for index, name in self.shared_with
        )
        return (*shared, *(() if self.screened is None else self.screened.result.warnings))
