"""The loop: a student learns what its teacher says, from pictures without labels too."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from distill.agreement import agreement, student_logits
from distill.augment import AugmentConfig
from distill.cli import distill as distill_command
from distill.losses.soft_labels import soft_label_loss
from distill.stage import read_teacher_record
from distill.student import StudentConfig, load_student
from distill.teaching import DistillConfig, distill, true_labels
from edge_runtime.errors import CheckpointError, ConfigError
from edge_runtime.metrics import auroc
from train.arrays import normalize_cfp
from train.dataset_arrays import SplitArrays
from train.encoder import CfpEncoder, EncoderConfig
from train.evaluate import Logits
from train.teacher import Teacher, load_teacher, save_teacher

ENCODER = EncoderConfig(size_px=32, width=16, depth=1, stem_width=4, num_heads=2)
STUDENT = StudentConfig(size_px=32, channels=(8, 8, 8, 16), stem_width=8)
STILL = AugmentConfig(rotation_deg=0, shift_fraction=0, gain=0)


def make_teacher(labels=("red",)) -> Teacher:
    torch.manual_seed(1)
    return Teacher(CfpEncoder(ENCODER), labels).eval()


class RedTeacher(Teacher):
    """Says 'red' of what is red: a rule that a student can learn in seconds."""

    def forward(self, cfp_nchw):
        output = super().forward(cfp_nchw)
        logit = 6 * (cfp_nchw[:, :1].mean((2, 3)) - cfp_nchw[:, 2:].mean((2, 3)))
        return type(output)(
            logits=logit,
            gradability_logit=output.gradability_logit,
            embedding=output.embedding,
            tokens=output.tokens,
        )


def make_data(rng, num: int, labels: np.ndarray | None = None) -> SplitArrays:
    """Noise around a random colour, without labels unless given as (N, 2): red, gradable."""
    colour = rng.integers(60, 200, (num, 1, 1, 3))
    images = np.clip(colour + rng.normal(0, 20, (num, 32, 32, 3)), 0, 255).astype(np.uint8)
    return SplitArrays(
        images_nhwc=images,
        scans_nvzx=None,
        labels=np.zeros((num, 0), np.float32) if labels is None else labels,
        label_names=() if labels is None else ("red", "gradable"),
        eyes=np.array(["OD"] * num),
        patient_ids=np.array([f"P{i}" for i in range(num)]),
        excluded=(),
        fingerprint="0" * 64,
    )


def config(**changes) -> DistillConfig:
    settings = {"num_steps": 2, "batch_size": 8, "student": STUDENT, "bfloat16": False}
    return DistillConfig(**{**settings, **changes})


def test_the_student_learns_the_teachers_rule_from_unlabelled_pictures(rng) -> None:
    teacher = RedTeacher(CfpEncoder(ENCODER), ("red",)).eval()
    held_out = make_data(rng, 200)
    done = distill(
        teacher,
        make_data(rng, 256),
        config(num_steps=60, batch_size=32, learning_rate=1e-2, feature_weight=0.0, augment=STILL),
        val=held_out,
    )
    with torch.no_grad():
        says = teacher(normalize_cfp(held_out.images_tensor())).logits[:, 0]
    scores = student_logits(done.student, held_out.images_nhwc).diseases[:, 0]
    assert auroc((says > 0).numpy().astype(np.float64), scores) > 0.97
    assert done.val["decision_agreement"] > 0.9
    assert "auroc_student" not in done.val  # there are no labels to score against
    assert done.training["loss_true"] == 0.0
    assert not done.student.training


def test_two_steps_change_the_weights_and_nothing_of_the_teacher(rng) -> None:
    teacher, data = make_teacher(), make_data(rng, 16)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    calls: list[tuple[int, int, str]] = []
    done = distill(teacher, data, config(), progress=lambda *call: calls.append(call))
    one = distill(teacher, data, config(num_steps=1))
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not torch.equal(done.student.evidence.weight, one.student.evidence.weight)
    assert all(np.isfinite(value) for value in done.training.values())
    assert [call[:2] for call in calls] == [(2, 2)]
    assert done.val == {}


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_same_seed_gives_the_same_student(rng, bfloat16) -> None:
    teacher, data = make_teacher(), make_data(rng, 16)
    settings = config(augment=AugmentConfig(), bfloat16=bfloat16)
    first, second = (distill(teacher, data, settings).student.state_dict() for _ in range(2))
    other = distill(teacher, data, config(seed=1)).student.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["evidence.weight"], other["evidence.weight"])


def test_a_skipped_step_does_not_spoil_the_metrics(rng, monkeypatch) -> None:
    calls = []

    def once_infinite(*args):
        calls.append(1)
        return soft_label_loss(*args) * (float("nan") if len(calls) == 1 else 1.0)

    monkeypatch.setattr("distill.task_objective.soft_label_loss", once_infinite)
    training = distill(make_teacher(), make_data(rng, 16), config()).training
    assert training["skipped_steps"] == 1
    assert all(np.isfinite(value) for value in training.values())


def test_true_labels_of_an_ungradable_eye_are_unknown(rng) -> None:
    labels = np.array([[1, 1], [1, 0], [np.nan, 1], [0, np.nan]], np.float32)
    table = true_labels(make_data(rng, 4, labels), ("red", "not a column"))
    expected = [[1, np.nan, 1], [np.nan, np.nan, 0], [np.nan, np.nan, 1], [0, np.nan, np.nan]]
    np.testing.assert_array_equal(table.numpy(), np.array(expected, np.float32))
    np.testing.assert_array_equal(labels[1], [1, 0])  # the data set itself is left alone


def test_agreement_by_hand(rng) -> None:
    labels = np.array([[1, 1], [0, 1], [1, 1], [0, 1], [1, 0]], np.float32)
    teacher = Logits(diseases=np.array([[2.0], [-2], [1], [-1], [9]]), gradability=np.zeros(5))
    student = Logits(diseases=np.array([[2.0], [-2], [-3], [-1], [-9]]), gradability=np.zeros(5))
    numbers = agreement(teacher, student, make_data(rng, 5, labels), ("red",))
    sigmoid_1, sigmoid_m3 = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(3))
    assert numbers["probability_difference"] == pytest.approx((sigmoid_1 - sigmoid_m3) / 4)
    assert numbers["decision_agreement"] == 0.75
    assert numbers["auroc_teacher"] == 1.0
    assert numbers["auroc_student"] == 0.5
    assert numbers["auroc_ratio"] == 0.5


def test_one_picture_size_for_all(rng) -> None:
    with pytest.raises(ConfigError, match="32 px"):
        distill(make_teacher(), make_data(rng, 8), DistillConfig())


@pytest.mark.parametrize(
    "changes",
    [
        {"num_steps": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"soft_weight": 0.0, "true_weight": 0.0},
        {"true_weight": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(changes) -> None:
    with pytest.raises(ConfigError):
        config(**changes)


def test_the_command_writes_a_student_that_says_where_it_comes_from(phantom_dir, tmp_path) -> None:
    torch.manual_seed(0)
    labels = ("macular_edema", "glaucoma")
    save_teacher(
        tmp_path / "teacher",
        Teacher(CfpEncoder(ENCODER), labels),
        {
            "finetune": {"seed": 4},
            "pretrained": {"sha256": "0", "pretrain": {"seed": 7}, "data_fingerprint": "0"},
            "data_fingerprint": "0",
        },
    )
    command = ["--teacher", str(tmp_path / "teacher"), "--data", str(phantom_dir)]
    command += ["--out", str(tmp_path / "student"), "--num-steps", "2", "--batch-size", "4"]
    outcome = CliRunner().invoke(distill_command, [*command, "--seed", "9", "--json"])
    assert outcome.exit_code == 0, outcome.output
    printed = json.loads(outcome.stdout)
    assert printed["notice"] == "research use only; not a medical device"
    student, record = load_student(tmp_path / "student")
    assert student.label_names == labels
    assert student.config.size_px == 32
    assert record["distill"]["seed"] == 9
    assert record["teacher"]["seeds"] == {"finetune": 4, "pretrain": 7}
    assert len(record["teacher"]["sha256"]) == 64
    assert record["training_data"]["synthetic"] is True
    assert record["metrics"] == printed["metrics"]


def test_a_teacher_without_a_pretrained_encoder_has_its_own_seed_only(tmp_path) -> None:
    save_teacher(tmp_path, make_teacher(), {"finetune": {"seed": 4}, "pretrained": None})
    record = read_teacher_record(tmp_path, load_teacher(tmp_path)[1])
    assert record.seeds == {"finetune": 4}
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_teacher_record(tmp_path / "nowhere", {})


def test_the_command_refuses_what_is_no_teacher(phantom_dir, tmp_path) -> None:
    command = ["--teacher", str(tmp_path), "--data", str(phantom_dir)]
    outcome = CliRunner().invoke(distill_command, [*command, "--out", str(tmp_path / "s")])
    assert outcome.exit_code != 0
    assert not (tmp_path / "s").exists()
