"""What a run of `screen` is to look at, in order, before any picture is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.examination import EYES

__all__ = ["PlannedExamination", "PlannedEye", "PlannedPicture", "ScreenPlan"]


@dataclass(frozen=True, kw_only=True)
class PlannedPicture:
    """One picture file of one eye.

    Attributes:
        path: Where it lies, or None when it was expected and not named. Left out of `repr`.
        name: What the operator reads for it; never in a record or a log.
        expected_sha256: Hash that the camera took of it, 64 lower-case hex digits.
    """

    path: Path | None = field(repr=False)
    name: str = field(repr=False)
    expected_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedEye:
    """The pictures (fields) of one eye, one or two, in the order of their field numbers."""

    eye: str
    pictures: tuple[PlannedPicture, ...]

    def __post_init__(self) -> None:
        """Refuse an unknown eye and an eye without a place for a picture."""
        if self.eye not in EYES or not self.pictures:
            raise ValueError(f"eye {self.eye!r} with {len(self.pictures)} pictures")

    @property
    def name(self) -> str:
        """The pictures' names as one text."""
        return ", ".join(picture.name for picture in self.pictures)


@dataclass(frozen=True, kw_only=True)
class PlannedExamination:
    """The eyes that are decided together."""

    eyes: tuple[PlannedEye, ...]
    examination_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class ScreenPlan:
    """All examinations in the order of their input_index, and what was passed over, counted."""

    examinations: tuple[PlannedExamination, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
