"""What a reader study reports: frozen results of one label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.metrics import Interval

__all__ = ["Difference", "GroupReport", "MatchedPoint", "ObserverReport", "ReaderReport"]


@dataclass(frozen=True, kw_only=True)
class ObserverReport:
    """One reader, or the model: a point with an interval over cases alone.

    Attributes:
        observer: reader id, or 'model'.
        group: of the reader; 'model' for the model.
        num_cases: cases counted.
        num_undecided: cases where the observer could not tell.
        rates: by measure.
    """

    observer: str
    group: str
    num_cases: int
    num_undecided: int
    rates: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Model minus group, on the cases that each reader read.

    Attributes:
        interval: over readers and cases.
        p_value: two-sided, of 'no difference'.
        p_holm: the same, corrected over the groups of the study.
        over_readers: False where the group is one reader: then over cases alone.
    """

    interval: Interval
    p_value: float
    p_holm: float
    over_readers: bool


@dataclass(frozen=True, kw_only=True)
class MatchedPoint:
    """The model's ROC point that is at least as specific as a group, at its best sensitivity.

    Chosen on these very cases, so it describes the curve; it is no operating point.
    `threshold` None: nothing would be called positive.
    """

    sensitivity: float
    specificity: float
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """Readers of one group together.

    Attributes:
        group: its name.
        num_readers: R of the group.
        rates: by measure, mean over its readers, over readers and cases.
        model_minus_group: by measure.
        matched: the model's ROC point at the group's mean specificity.
    """

    group: str
    num_readers: int
    rates: dict[str, Interval]
    model_minus_group: dict[str, Difference]
    matched: MatchedPoint


@dataclass(frozen=True, kw_only=True)
class ReaderReport:
    """One label's study; `num_redrawn` resamples lacked a class for some reader."""

    label: str
    num_cases: int
    num_positive: int
    num_patients: int
    undecided: str
    num_draws: int
    num_redrawn: int
    synthetic: bool
    model: ObserverReport
    readers: tuple[ObserverReport, ...]
    groups: tuple[GroupReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)
