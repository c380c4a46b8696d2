"""Student against teacher on a test split: mean AUROC of each, and the paired difference.

The two eyes of a patient are correlated, so whole patients are drawn, and both models are
scored on the same draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.agreement import student_logits
from distill.records import read_teacher_record, require_same_teacher
from distill.student import load_student
from edge_runtime.errors import DataError
from edge_runtime.metrics import Interval, auroc, cluster_bootstrap
from train.data.index import read_index
from train.data.origin import DataOrigin, read_origin
from train.dataset_arrays import SplitArrays, load_split
from train.evaluate import Logits, teacher_logits
from train.labels import GRADABLE
from train.teacher import load_teacher

__all__ = ["StudentComparison", "compare_checkpoints", "compare_with_teacher"]


@dataclass(frozen=True, kw_only=True)
class StudentComparison:
    """What was found; diseases only, on gradable eyes.

    Attributes:
        teacher: mean AUROC over `labels`.
        student: the same.
        difference: student minus teacher, on the same draws of patients.
        ratio: student over teacher, on the same draws.
        by_label: label -> (teacher's AUROC, student's).
        labels: diseases with both values among the eyes.
        num_eyes: gradable eyes.
        num_patients: their patients.
        num_parameters: of the student.
    """

    teacher: Interval
    student: Interval
    difference: Interval
    ratio: Interval
    by_label: dict[str, tuple[float, float]]
    labels: tuple[str, ...]
    num_eyes: int
    num_patients: int
    num_parameters: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def compare_with_teacher(
    teacher: Logits,
    student: Logits,
    data: SplitArrays,
    label_names: tuple[str, ...],
    *,
    num_parameters: int,
    num_draws: int = 2000,
    seed: int = 0,
) -> StudentComparison:
    """Score both on the eyes of a split that no choice was made on.

    Args:
        teacher: rows as in `data`.
        student: likewise.
        data: the split.
        label_names: order of the disease columns.
        num_parameters: of the student, for the record.
        num_draws: bootstrap draws of patients, the same for every interval.
        seed: of the draws.

    Raises:
        DataError: no disease has both values among gradable eyes.
    """
    seen = np.ones(len(data), bool)
    if GRADABLE in data.label_names:
        seen = data.label(GRADABLE) != 0
    truth = {n: data.label(n)[seen] for n in label_names if n in data.label_names}
    names = tuple(n for n, v in truth.items() if set(v[np.isfinite(v)].tolist()) == {0.0, 1.0})
    if not names:
        raise DataError(
            "no disease has both a positive and a negative gradable eye in this split; give more "
            "labelled eyes"
        )
    columns = [label_names.index(name) for name in names]
    labels = np.stack([truth[name] for name in names], 1)
    theirs, ours = teacher.diseases[seen][:, columns], student.diseases[seen][:, columns]
    patients = data.patient_ids[seen]

    def interval(statistic: Any, *arrays: npt.NDArray[Any]) -> Interval:
        return cluster_bootstrap(statistic, patients, *arrays, num_draws=num_draws, seed=seed)

    def auroc_of(logits_nl: npt.NDArray[Any], column: int) -> float:
        return _mean_auroc(labels[:, [column]], logits_nl[:, [column]])

    return StudentComparison(
        teacher=interval(_mean_auroc, labels, theirs),
        student=interval(_mean_auroc, labels, ours),
        difference=interval(_difference, labels, theirs, ours),
        ratio=interval(_ratio, labels, theirs, ours),
        by_label={
            name: (
                _mean_auroc(labels[:, [k]], theirs[:, [k]]),
                _mean_auroc(labels[:, [k]], ours[:, [k]]),
            )
            for k, name in enumerate(names)
        },
        labels=names,
        num_eyes=int(seen.sum()),
        num_patients=len(np.unique(patients)),
        num_parameters=num_parameters,
    )


def compare_checkpoints(
    teacher_dir: Path,
    student_dir: Path,
    data_dir: Path,
    *,
    split: str,
    num_draws: int = 2000,
    seed: int = 0,
) -> tuple[StudentComparison, DataOrigin]:
    """Score a student and its teacher on one split, each at its own picture size.

    Raises:
        CheckpointError, DataError: a checkpoint or the data set cannot be used.
        ConfigError: the student was taught by another teacher.
    """
    student, record = load_student(student_dir)
    teacher, teacher_config = load_teacher(teacher_dir)
    taught_by = read_teacher_record(teacher_dir, teacher_config)
    require_same_teacher(student_dir, student, record, teacher, taught_by)
    index = read_index(data_dir)
    sizes = {teacher.encoder.config.size_px, student.config.size_px}
    arrays = {px: load_split(index, split, size_px=px, with_oct=False) for px in sizes}
    theirs, ours = arrays[teacher.encoder.config.size_px], arrays[student.config.size_px]
    if not np.array_equal(theirs.patient_ids, ours.patient_ids):
        raise DataError(
            "other eyes could be prepared at the student's size than at the teacher's; repair or "
            f"remove those left out: {sorted(set(theirs.excluded) ^ set(ours.excluded))}"
        )
    found = compare_with_teacher(
        teacher_logits(teacher, theirs.images_nhwc),
        student_logits(student, ours.images_nhwc),
        ours,
        teacher.label_names,
        num_parameters=student.num_parameters,
        num_draws=num_draws,
        seed=seed,
    )
    return found, read_origin(data_dir, fingerprint=ours.fingerprint)


def _mean_auroc(labels_nl: npt.NDArray[Any], logits_nl: npt.NDArray[Any]) -> float:
    """Mean of the columns' AUROC over known labels; ValueError where a value is absent."""
    values = []
    for column in range(labels_nl.shape[1]):
        known = np.isfinite(labels_nl[:, column])
        values.append(auroc(labels_nl[known, column], logits_nl[known, column]))
    return float(np.mean(values))


def _difference(
    labels: npt.NDArray[Any], theirs: npt.NDArray[Any], ours: npt.NDArray[Any]
) -> float:
    return _mean_auroc(labels, ours) - _mean_auroc(labels, theirs)


def _ratio(labels: npt.NDArray[Any], theirs: npt.NDArray[Any], ours: npt.NDArray[Any]) -> float:
    return _mean_auroc(labels, ours) / _mean_auroc(labels, theirs)
