"""Two runs side by side: paired differences on the same eyes and draws, corrected by Holm.

A row's p value is corrected over a report of the tasks: every task once, measured as this
row is where the task can be, and by its headline row otherwise (most labelled eyes by
probe, eight patients a class, ridge retrieval). So a difference at 100 labelled eyes by
fine-tuning is one of up to sixteen, whatever else was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.errors import DataError
from edge_runtime.metrics import Interval
from train.tasks.registry import TASKS
from train.tasks.results import TaskResult, TaskRun
from train.tasks.statistics import Difference, SeedSummary, holm, over_seeds, paired_difference

__all__ = ["PairedDifference", "compare_runs", "summarize_seeds"]

_HEADLINE_READOUTS = ("probe", "few_shot", "ridge", "decoder")
_HEADLINE_SHOTS = 8


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """One row of run A minus the same row of run B.

    Attributes:
        task: name in the registry.
        readout: how the encoders were read.
        num_labels: as in `TaskResult`.
        metric: as a reader knows it.
        value_a: of run A.
        value_b: of run B.
        interval: A minus B, with its interval over test patients.
        p_value: two-sided, of no difference.
        p_holm: the same, corrected over the tasks.
        num_tasks: tasks it was corrected over.
        num_eyes: test eyes, the same in both.
        num_patients: their patients.
    """

    task: str
    readout: str
    num_labels: int
    metric: str
    value_a: float
    value_b: float
    interval: Interval
    p_value: float
    p_holm: float
    num_tasks: int
    num_eyes: int
    num_patients: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def compare_runs(
    a: TaskRun, b: TaskRun, *, num_draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[PairedDifference, ...]:
    """Every row that both runs measured, A minus B.

    Args:
        a: one arm.
        b: the other, on the same data set with the same settings.
        num_draws: resamples of patients, the same ones for both arms.
        seed: of the resamples.
        level: coverage of the intervals.

    Raises:
        DataError: the runs are of other data or other settings, share no row, or were
            scored on other eyes.
    """
    _require_comparable(a, b)
    others = {row.key: row for row in b.results}
    shared = [
        (row, others[row.key])
        for row in a.results
        if row.key in a.predictions and row.key in b.predictions
        if row.interval is not None and others[row.key].interval is not None
    ]
    if not shared:
        raise DataError("the runs have no measured row in common; evaluate the same tasks")
    found = {
        row.key: paired_difference(
            a.predictions[row.key],
            b.predictions[row.key],
            TASKS[row.task].metric,
            num_draws=num_draws,
            seed=seed,
            level=level,
        )
        for row, _ in shared
    }
    rows = [row for row, _ in shared]
    return tuple(_difference(row, other, found, rows) for row, other in shared)


def summarize_seeds(runs: Sequence[TaskRun]) -> dict[str, SeedSummary]:
    """Row name -> mean and spread over the seeds of one arm, of rows measured in every run.

    Raises:
        DataError: no run, the same seed twice, or runs of other data or settings.
    """
    if not runs:
        raise DataError("no run to summarize; give one run a seed")
    if len({run.seed for run in runs}) < len(runs):
        raise DataError(f"seeds {[run.seed for run in runs]} repeat; give one run a seed")
    for run in runs[1:]:
        _require_comparable(runs[0], run)
    values: dict[str, list[float]] = {}
    for run in runs:
        for row in run.results:
            if row.interval is not None:
                values.setdefault(row.key, []).append(row.interval.value)
    return {key: over_seeds(one) for key, one in values.items() if len(one) == len(runs)}


def _require_comparable(a: TaskRun, b: TaskRun) -> None:
    if a.data_fingerprint != b.data_fingerprint:
        raise DataError("the runs are of other data sets; evaluate both on one")
    differing = sorted(
        name for name in {*a.settings, *b.settings} if a.settings.get(name) != b.settings.get(name)
    )
    if differing:
        raise DataError(
            f"the runs differ in {', '.join(differing)}; evaluate both with the same settings"
        )


def _difference(
    row: TaskResult, other: TaskResult, found: dict[str, Difference], rows: list[TaskResult]
) -> PairedDifference:
    assert row.interval is not None
    assert other.interval is not None
    family = _family(row, rows)
    adjusted = holm([found[one.key].p_value for one in family])
    return PairedDifference(
        task=row.task,
        readout=row.readout,
        num_labels=row.num_labels,
        metric=row.metric,
        value_a=row.interval.value,
        value_b=other.interval.value,
        interval=found[row.key].interval,
        p_value=found[row.key].p_value,
        p_holm=adjusted[family.index(row)],
        num_tasks=len(family),
        num_eyes=row.num_eyes,
        num_patients=row.num_patients,
    )


def _family(row: TaskResult, rows: list[TaskResult]) -> list[TaskResult]:
    """One row a task: this row, and of every other task the row most like it."""
    family = {row.task: row}
    for task in dict.fromkeys(one.task for one in rows):
        own = [one for one in rows if one.task == task]
        alike = [o for o in own if (o.readout, o.num_labels) == (row.readout, row.num_labels)]
        family.setdefault(task, alike[0] if alike else min(own, key=_headline_order))
    return list(family.values())


def _headline_order(row: TaskResult) -> tuple[bool, int]:
    """Sorts a task's headline row first."""
    distance = abs(row.num_labels - _HEADLINE_SHOTS)
    return (
        row.readout not in _HEADLINE_READOUTS,
        distance if row.readout == "few_shot" else -row.num_labels,
    )
