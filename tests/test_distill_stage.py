"""Distillation from files to files: the pulse of the stage that the command and the demo share."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_factory import make_rows, write_index
from training_factory import TINY_ENCODER

from distill.stage import distill_checkpoint, read_teacher_record
from distill.student import StudentConfig, load_student
from distill.teaching import DistillConfig, Distilled, distill
from edge_runtime.errors import CheckpointError, DataError
from train.dataset_arrays import load_split
from train.encoder import CfpEncoder
from train.teacher import Teacher, load_teacher, save_teacher

LABELS = ("macular_edema", "glaucoma")
# The size is not the teacher's, which the stage has to put right.
STUDENT = StudentConfig(size_px=96, channels=(8, 8, 8, 16), stem_width=8)
CONFIG = DistillConfig(num_steps=2, batch_size=4, student=STUDENT, seed=3)


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage") / "teacher"
    torch.manual_seed(0)
    record = {"finetune": {"seed": 4, "num_steps": 1}, "pretrain": {"seed": 5}, "labels_seen": {}}
    save_teacher(folder, Teacher(CfpEncoder(TINY_ENCODER), LABELS), record)
    return folder


@pytest.fixture(scope="module")
def taught(
    teacher_dir: Path, phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Distilled, list[int]]:
    out, steps = tmp_path_factory.mktemp("stage") / "student", []
    done = distill_checkpoint(
        teacher_dir, phantom_dir, out, CONFIG, progress=lambda done, *_: steps.append(done)
    )
    return out, done, steps


def test_two_steps_from_checkpoint_to_checkpoint(
    taught: tuple[Path, Distilled, list[int]], teacher_dir: Path
) -> None:
    out, done, steps = taught
    student, record = load_student(out)
    assert steps == [2]
    assert student.config == replace(STUDENT, size_px=TINY_ENCODER.size_px)
    assert student.label_names == LABELS
    saved = student.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in done.student.state_dict().items())
    weights = (teacher_dir / "model.safetensors").read_bytes()
    assert record["teacher"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert record["teacher"]["seeds"] == {"finetune": 4, "pretrain": 5}
    assert record["distill"]["seed"] == 3
    assert record["training_data"]["synthetic"] is True
    assert record["metrics"] == done.metrics
    assert {name for name in done.training if name.startswith("loss_")} == {
        "loss_soft", "loss_true", "loss_feature", "loss_laterality",
    }  # fmt: skip
    assert all(math.isfinite(value) for value in done.training.values())
    assert 0.0 <= done.val["decision_agreement"] <= 1.0


def test_the_same_seed_writes_the_same_bytes(
    taught: tuple[Path, Distilled, list[int]], teacher_dir: Path, phantom_dir: Path, tmp_path: Path
) -> None:
    distill_checkpoint(teacher_dir, phantom_dir, tmp_path / "again", CONFIG)
    distill_checkpoint(teacher_dir, phantom_dir, tmp_path / "other", replace(CONFIG, seed=4))
    first, again, other = (
        (folder / "model.safetensors").read_bytes()
        for folder in (taught[0], tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first != other


def test_the_stage_is_the_function_that_the_demo_calls(
    taught: tuple[Path, Distilled, list[int]], teacher_dir: Path, phantom_dir: Path
) -> None:
    size_px = TINY_ENCODER.size_px
    config = replace(CONFIG, student=replace(STUDENT, size_px=size_px))
    train = load_split(phantom_dir, "train", size_px=size_px, with_oct=False)
    called = distill(load_teacher(teacher_dir)[0], train, config).student.state_dict()
    ours = taught[1].student.state_dict()
    assert all(torch.equal(ours[name], called[name]) for name in ours)


def write_set(root: Path, *splits: str) -> Path:
    """Three patients without labels that the teacher knows, in the splits that are named."""
    rows = make_rows(root, num_patients=3)
    for row in rows:
        row["split"] = splits[int(row["patient_id"][1:]) % len(splits)]
        row["acquired"] = "2026-01-01"
    write_index(root, rows)
    return root


def test_without_training_eyes_nothing_is_written(teacher_dir: Path, tmp_path: Path) -> None:
    root = write_set(tmp_path / "data", "val", "test")
    with pytest.raises(DataError, match="no visit in 'train'"):
        distill_checkpoint(teacher_dir, root, tmp_path / "student", CONFIG)
    assert not (tmp_path / "student").exists()


def test_validation_eyes_and_labels_may_be_missing(teacher_dir: Path, tmp_path: Path) -> None:
    root = write_set(tmp_path / "data", "train")
    done = distill_checkpoint(teacher_dir, root, tmp_path / "student", CONFIG)
    assert done.val == {}
    _, record = load_student(tmp_path / "student")
    assert record["training_data"]["synthetic"] is False
    assert np.isfinite(done.training["loss_soft"])


def test_a_teacher_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights .*cannot be read"):
        read_teacher_record(tmp_path, {})


def test_only_seeds_of_stages_are_taken(teacher_dir: Path) -> None:
    config = {"seed": 1, "finetune": {"seed": 2}, "labels": ["seed"], "metrics": {"seed": "three"}}
    assert read_teacher_record(teacher_dir, config).seeds == {"finetune": 2}
