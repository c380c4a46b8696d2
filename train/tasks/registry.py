"""The sixteen downstream tasks as data, and the truth of an eye in each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError
from train.dataset_arrays import SplitArrays
from train.labels import GRADABLE
from train.tasks.weighted_metrics import METRICS, NUM_GRADES

__all__ = ["KINDS", "LATERALITY", "TASKS", "TaskSpec", "tasks_of_kind", "truth_of"]

KINDS = ("classification", "segmentation", "few_shot", "retrieval")
LATERALITY = "laterality"
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task.

    Attributes:
        name: of the task.
        kind: one of `KINDS`.
        label: index column whose value is the truth; a mask column for segmentation;
            'laterality' comes from the eye itself; '' where nothing is labelled.
        metric: a name of `train.tasks.weighted_metrics.METRICS`.
        shown: the metric as a reader knows it.
        num_classes: 2, or 5 for a grade; 0 where nothing is classified.
        above: a label above this is positive; None = the label is 0 or 1 already.
        all_eyes: also ungradable eyes have a truth. What cannot be seen in a photograph
            is neither learnt nor scored as absent, so diseases leave them out.
    """

    name: str
    kind: str
    label: str
    metric: str
    shown: str
    num_classes: int = 2
    above: float | None = None
    all_eyes: bool = False

    def __post_init__(self) -> None:
        """Refuse a kind or a metric that does not exist."""
        if self.kind not in KINDS:
            raise ConfigError(f"task '{self.name}': kind is {self.kind!r}; use one of {KINDS}")
        if self.metric not in METRICS:
            raise ConfigError(f"task '{self.name}': metric {self.metric!r} does not exist")
        if self.num_classes not in (0, 2, NUM_GRADES):
            raise ConfigError(f"task '{self.name}': {self.num_classes} classes; use 0, 2 or 5")


def _binary(name: str, label: str, **more: object) -> TaskSpec:
    base = {"kind": "classification", "metric": "auroc", "shown": "AUROC"}
    return TaskSpec(name=name, label=label, **{**base, **more})  # type: ignore[arg-type]


def _segmentation(target: str) -> TaskSpec:
    return TaskSpec(
        name=target, kind="segmentation", label=target, metric="mean", shown="Dice", num_classes=0
    )


def _retrieval(name: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        kind="retrieval",
        label="",
        metric="mean",
        shown="R@10",
        num_classes=0,
        all_eyes=True,
    )


_ALL = (
    _binary("macular_edema", "macular_edema"),
    _binary("myopic_schisis", "myopic_schisis"),
    _binary("glaucoma", "glaucoma"),
    _binary("any_dr", "dr_grade", above=0.0),
    _binary(
        "dr_grade", "dr_grade", metric="quadratic_kappa", shown="kappa", num_classes=NUM_GRADES
    ),
    _binary("amd", "amd"),
    _binary("gradable", GRADABLE, all_eyes=True),
    _binary("laterality", LATERALITY, all_eyes=True),
    *(_segmentation(target) for target in ("vessels", "disc", "cup", "lesions")),
    _binary("few_shot_edema", "macular_edema", kind="few_shot"),
    _binary("few_shot_schisis", "myopic_schisis", kind="few_shot"),
    _retrieval("cfp_to_oct"),
    _retrieval("oct_to_cfp"),
)
TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _ALL}


def tasks_of_kind(kind: str, names: tuple[str, ...] | None = None) -> tuple[TaskSpec, ...]:
    """The tasks of one kind, in the order of the registry.

    Args:
        kind: one of `KINDS`.
        names: only these; None = all.

    Raises:
        ConfigError: a name is not in the registry.
    """
    for name in names or ():
        if name not in TASKS:
            raise ConfigError(f"no task '{name}'; the tasks are {', '.join(TASKS)}")
    return tuple(
        spec for spec in _ALL if spec.kind == kind and (names is None or spec.name in names)
    )


def truth_of(spec: TaskSpec, split: SplitArrays) -> FloatArray:
    """(N,) 0/1 or a grade for each eye of a split; NaN = unknown, or not to be seen.

    Laterality is 1 for OS, NaN where nobody says which eye it is. A data set without a column
    'gradable' has no ungradable eyes.

    Raises:
        DataError: the data set has no such label.
    """
    if spec.label == LATERALITY:
        is_left: FloatArray = np.equal(split.eyes, "OS").astype(np.float64)
        is_left[split.eyes == ""] = np.nan
        return is_left
    if spec.label not in split.label_names:
        raise DataError(
            f"task '{spec.name}' needs the label '{spec.label}'; the data set has "
            f"{', '.join(split.label_names) or 'none'}"
        )
    value: FloatArray = split.label(spec.label).astype(np.float64)  # a copy
    if spec.above is not None:
        known = np.isfinite(value)
        value[known] = value[known] > spec.above
    if spec.all_eyes or GRADABLE not in split.label_names:
        return value
    value[split.label(GRADABLE) == 0] = np.nan
    return value
