"""The sixteen tasks, the truth of an eye in each, and the splits that they are measured on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from tasks_factory import LABELS, relabeled, task_data, task_split

from edge_runtime.errors import ConfigError, DataError
from train.tasks.data import load_task_data
from train.tasks.registry import KINDS, TASKS, TaskSpec, tasks_of_kind, truth_of

BASE = {"name": "x", "kind": KINDS[0], "label": "y", "metric": "auroc", "shown": "AUROC"}


def test_there_are_sixteen_of_four_kinds():
    assert len(TASKS) == 16
    assert all(name == spec.name for name, spec in TASKS.items())
    counts = Counter(spec.kind for spec in TASKS.values())
    assert counts == {"classification": 8, "segmentation": 4, "few_shot": 2, "retrieval": 2}
    assert sum(len(tasks_of_kind(kind)) for kind in KINDS) == 16
    assert [spec.label for spec in tasks_of_kind("segmentation")] == [
        *("vessels", "disc", "cup", "lesions")
    ]


def test_some_tasks_by_name():
    names = ("laterality", "glaucoma", "disc")
    found = [spec.name for spec in tasks_of_kind("classification", names)]
    assert found == ["glaucoma", "laterality"]
    with pytest.raises(ConfigError, match="no task 'cataract'; the tasks are macular_edema"):
        tasks_of_kind("classification", ("cataract",))


@pytest.mark.parametrize(
    "change", [{"kind": "reading"}, {"metric": "accuracy"}, {"num_classes": 3}]
)
def test_a_task_that_cannot_be_measured_is_refused(change):
    with pytest.raises(ConfigError, match="task 'x'"):
        TaskSpec(
            **{"name": "x", "kind": KINDS[0], "label": "y", "metric": "auroc", "shown": "A"}
            | change
        )


def test_what_cannot_be_seen_has_no_truth():
    split = task_split("A", 20, 0)
    hidden = split.label("gradable") == 0
    assert 0 < hidden.sum() < len(split)
    for name in ("macular_edema", "any_dr", "dr_grade", "few_shot_edema"):
        np.testing.assert_array_equal(np.isnan(truth_of(TASKS[name], split)), hidden)
    for name in ("gradable", "laterality"):
        assert np.isfinite(truth_of(TASKS[name], split)).all()


def test_any_dr_is_a_grade_above_0_and_unknown_stays_unknown():
    split = task_split("A", 20, 0)
    grades = np.where(np.arange(40) == 3, np.nan, np.arange(40) % 5)
    split = relabeled(relabeled(split, "dr_grade", grades), "gradable", 1)
    truth = truth_of(TASKS["any_dr"], split)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(truth)), [3])
    np.testing.assert_array_equal(truth[truth == truth], (grades > 0)[truth == truth])


def test_laterality_is_the_eye_and_the_split_is_not_written_to():
    split = task_split("A", 5, 0)
    before = split.labels.copy()
    np.testing.assert_array_equal(truth_of(TASKS["laterality"], split), split.eyes == "OS")
    for name in ("any_dr", "macular_edema"):
        truth_of(TASKS[name], split)
    np.testing.assert_array_equal(split.labels, before)


def test_an_eye_of_which_nobody_says_the_side_has_no_laterality():
    split = task_split("A", 5, 0)
    eyes = np.where(np.arange(10) == 3, "", split.eyes)
    truth = truth_of(TASKS["laterality"], replace(split, eyes=eyes))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(truth)), [3])
    assert truth[1] == 1


def test_without_a_column_every_eye_is_gradable_but_the_task_is_not_there():
    split = task_split("A", 5, 0)
    without = replace(split, labels=split.labels[:, :-1], label_names=LABELS[:-1])
    assert np.isfinite(truth_of(TASKS["amd"], without)).all()
    with pytest.raises(DataError, match="'gradable' needs the label 'gradable'; the data set has"):
        truth_of(TASKS["gradable"], without)


def test_splits_must_fit_each_other():
    data = task_data(train=4, val=4, test=4)
    with pytest.raises(DataError, match=r"patient 'A000' is in 'train' and in 'test' \(4 such"):
        replace(data, test=data.train)
    with pytest.raises(ConfigError, match="size_px is 48"):
        replace(data, size_px=48)
    with pytest.raises(DataError, match="'val' has labels"):
        replace(data, val=replace(data.val, label_names=LABELS[::-1]))


def test_a_data_set_is_read_whole_and_unflipped(phantom_dir, tmp_path):
    data = load_task_data(phantom_dir, 32)
    assert data.size_px == 32
    assert len(data.train) + len(data.val) + len(data.test) == len(data.index.visits)
    assert data.train.scans_nvzx is not None
    assert load_task_data(phantom_dir, 32, with_oct=False).train.scans_nvzx is None
    with pytest.raises(DataError, match=r"index\.csv"):
        load_task_data(tmp_path, 32)
