"""Three tiny splits with every label of the sixteen tasks, and features that know some of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import training_factory  # noqa: F401 - sets one thread a process

from train.data.index import DataIndex
from train.dataset_arrays import SplitArrays
from train.tasks.data import TaskData
from train.tasks.features import FrozenFeatures
from train.tasks.multi_head import MultiHeadConfig
from train.tasks.settings import TaskSettings

LABELS = ("macular_edema", "myopic_schisis", "glaucoma", "dr_grade", "amd", "gradable")
SIZE_PX = 32
# Everything as small as it may be; two steps only, since nothing is to be learnt.
QUICK = TaskSettings(
    budgets=(20, 40),
    probe_draws=2,
    finetune=MultiHeadConfig(num_steps=2, batch_size=4),
    shots=(1, 4),
    num_oct_components=3,
    num_draws=100,
)


def task_split(name: str, num_patients: int, seed: int) -> SplitArrays:
    """Two eyes a patient with independent labels; every seventh eye is ungradable."""
    rng = np.random.default_rng(seed)
    num = 2 * num_patients
    labels = rng.integers(0, 2, (num, len(LABELS))).astype(np.float32)
    labels[:, LABELS.index("dr_grade")] = rng.integers(0, 5, num)
    labels[:, LABELS.index("gradable")] = np.arange(num) % 7 > 0
    return SplitArrays(
        images_nhwc=rng.integers(0, 256, (num, SIZE_PX, SIZE_PX, 3), dtype=np.uint8),
        scans_nvzx=rng.integers(0, 256, (num, 2, 24, 32), dtype=np.uint8),
        labels=labels,
        label_names=LABELS,
        patient_ids=np.array([f"{name}{i // 2:03d}" for i in range(num)]),
        eyes=np.array([("OD", "OS")[i % 2] for i in range(num)]),
        excluded=(),
        fingerprint="0" * 64,
    )


def task_data(*, train: int = 60, val: int = 15, test: int = 40) -> TaskData:
    """Numbers of patients a split."""
    return TaskData(
        train=task_split("A", train, 1),
        val=task_split("B", val, 2),
        test=task_split("C", test, 3),
        index=DataIndex(root=Path("no-such-folder"), visits=(), label_names=LABELS),
        size_px=SIZE_PX,
    )


def knowing_features(data: TaskData, *, strength: float) -> FrozenFeatures:
    """Noise in 16 features; each label is added to one of its own, times `strength`."""
    parts = []
    for number, split in enumerate((data.train, data.val, data.test)):
        features = np.random.default_rng([9, number]).normal(size=(len(split), 16))
        features[:, : len(LABELS)] += strength * np.nan_to_num(split.labels)
        features[:, len(LABELS)] += strength * (split.eyes == "OS")
        parts.append(features)
    mean, spread = parts[0].mean(0), parts[0].std(0)
    train, val, test = ((part - mean) / spread for part in parts)
    return FrozenFeatures(train=train, val=val, test=test, mean=mean, spread=spread)


def relabeled(split: SplitArrays, name: str, values: object) -> SplitArrays:
    """The split with other values of one label."""
    labels = split.labels.copy()
    labels[:, LABELS.index(name)] = values
    return replace(split, labels=labels)
