"""The material of the downstream tasks: three splits in memory and the index of their masks.

Nothing is flipped: laterality is one of the tasks, and an OS eye stays as it was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.errors import ConfigError, DataError
from train.data.index import SPLITS, DataIndex, read_index
from train.dataset_arrays import SplitArrays, load_split

__all__ = ["TaskData", "load_task_data"]

_SCANS = ("oct_h", "oct_v")


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """What every task reads; no task writes to it.

    Attributes:
        train: labels are drawn from here, and few-shot patients.
        val: settings are chosen here.
        test: scored, and nothing else.
        index: the data set as it is on disk; segmentation reads its masks from it.
        size_px: side S of the preprocessed CFPs.
    """

    train: SplitArrays
    val: SplitArrays
    test: SplitArrays
    index: DataIndex
    size_px: int

    def __post_init__(self) -> None:
        """Refuse splits of different shape or label order, and a patient in two of them."""
        for name in SPLITS:
            split: SplitArrays = getattr(self, name)
            if split.images_nhwc.shape[1:3] != (self.size_px, self.size_px):
                raise ConfigError(
                    f"split '{name}' holds images of {split.images_nhwc.shape[1:3]} px where "
                    f"size_px is {self.size_px}; load all splits at one size"
                )
            if split.label_names != self.train.label_names:
                raise DataError(
                    f"split '{name}' has labels {split.label_names}, 'train' has "
                    f"{self.train.label_names}; load all splits from one data set"
                )
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            self._require_apart(first, second)

    def _require_apart(self, first: str, second: str) -> None:
        both = np.intersect1d(getattr(self, first).patient_ids, getattr(self, second).patient_ids)
        if both.size:
            raise DataError(
                f"patient '{both[0]}' is in '{first}' and in '{second}' ({both.size} such "
                "patients); put all visits of a patient in one split"
            )


def load_task_data(folder: Path, size_px: int, with_oct: bool = True) -> TaskData:
    """Read all three splits of a data set.

    Args:
        folder: the data set's folder.
        size_px: side S of the preprocessed CFPs.
        with_oct: also read both B-scans where every split has some; retrieval needs them, and
            says so where they are missing.

    Raises:
        DataError: the data set breaks its contract, or a split has no usable visit.
    """
    index = read_index(folder)
    with_oct = with_oct and all(
        any(name in visit.files for visit in index.split(split) for name in _SCANS)
        for split in SPLITS
    )
    train, val, test = (
        load_split(index, name, size_px=size_px, with_oct=with_oct) for name in SPLITS
    )
    return TaskData(train=train, val=val, test=test, index=index, size_px=size_px)
