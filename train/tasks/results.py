"""What a run of the tasks gives: measurements, results with intervals, and the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import Interval
from train.tasks.registry import TASKS
from train.tasks.statistics import bootstrap_interval
from train.tasks.weighted_metrics import METRICS, ScoredEyes

__all__ = ["Measurement", "TaskResult", "TaskRun", "result_of", "row_key"]


def row_key(task: str, readout: str, num_labels: int) -> str:
    """Name of one row of a run: 'glaucoma/probe/100'."""
    return f"{task}/{readout}/{num_labels}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Predictions of one row before anything is said about them.

    Attributes:
        task: name in the registry.
        readout: how the encoder was read.
        num_labels: labelled eyes; patients a class in few-shot tasks; 0 = all there are.
        eyes: what was scored; None where the row could not be measured.
        chance: value of a guess; None = that of the metric.
        extra: further numbers by name.
        seconds: wall time.
        note: why there is nothing to score; '' otherwise.
    """

    task: str
    readout: str
    num_labels: int
    eyes: ScoredEyes | None
    chance: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""

    @property
    def key(self) -> str:
        """Name of the row."""
        return row_key(self.task, self.readout, self.num_labels)


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One row of a run.

    Attributes:
        task: name in the registry.
        readout: 'probe', 'finetune', 'few_shot', 'ridge', 'zero_shot' or 'decoder'.
        num_labels: labelled eyes; patients a class in few-shot tasks; 0 = all there are.
        metric: as a reader knows it.
        interval: value and 95 % interval over test patients; None if not measured.
        num_eyes: test eyes scored.
        num_patients: their patients.
        chance: value of a guess; None where there is no such thing.
        extra: further numbers by name, such as the spread over label draws.
        seconds: wall time.
        note: why there is no value; '' otherwise.
    """

    task: str
    readout: str
    num_labels: int
    metric: str
    interval: Interval | None
    num_eyes: int
    num_patients: int
    chance: float | None
    extra: Mapping[str, float]
    seconds: float
    note: str

    @property
    def key(self) -> str:
        """Name of the row."""
        return row_key(self.task, self.readout, self.num_labels)


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """All rows of one encoder and one seed.

    Attributes:
        results: in the order of the registry.
        predictions: row name -> the eyes that were scored; a row not measured has none.
        seed: of label draws and fine-tuning.
        settings: of the run, as JSON types.
        data_fingerprint: SHA-256 of the data set.
        synthetic: the data set declares its eyes to be synthetic.
        cpu_seconds: processor time of each stage by name.
        seconds: wall time of the whole.
    """

    results: tuple[TaskResult, ...]
    predictions: Mapping[str, ScoredEyes]
    seed: int
    settings: Mapping[str, Any]
    data_fingerprint: str
    synthetic: bool
    cpu_seconds: Mapping[str, float]
    seconds: float

    def result(self, task: str, readout: str, num_labels: int = 0) -> TaskResult:
        """One row.

        Raises:
            ConfigError: the run has no such row.
        """
        key = row_key(task, readout, num_labels)
        for one in self.results:
            if one.key == key:
                return one
        raise ConfigError(f"the run has no row '{key}'; it has {[r.key for r in self.results]}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, without the predictions."""
        return {
            "seed": self.seed,
            "settings": dict(self.settings),
            "data_fingerprint": self.data_fingerprint,
            "synthetic": self.synthetic,
            "cpu_seconds": dict(self.cpu_seconds),
            "seconds": self.seconds,
            "results": [asdict(one) for one in self.results],
        }


def result_of(measured: Measurement, *, num_draws: int, seed: int) -> TaskResult:
    """Score one row; a metric that is undefined on these eyes is stated, not raised."""
    spec = TASKS[measured.task]
    interval, note = None, measured.note
    if measured.eyes is not None:
        try:
            interval = bootstrap_interval(
                measured.eyes, spec.metric, num_draws=num_draws, seed=seed
            )
        except DataError as error:
            note = str(error)
    patients = () if measured.eyes is None else np.unique(measured.eyes.patient_ids)
    chance = METRICS[spec.metric].chance if measured.chance is None else measured.chance
    return TaskResult(
        task=measured.task,
        readout=measured.readout,
        num_labels=measured.num_labels,
        metric=spec.shown,
        interval=interval,
        num_eyes=0 if measured.eyes is None else len(measured.eyes.truth),
        num_patients=len(patients),
        chance=chance,
        extra=dict(measured.extra),
        seconds=measured.seconds,
        note=note,
    )
