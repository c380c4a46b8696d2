"""The QAT stage and the comparison with the teacher, from checkpoints to checkpoints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from training_factory import TINY_ENCODER, make_split

from distill.backbone import build_backbone
from distill.cli import distill as distill_command
from distill.comparison import compare_checkpoints, compare_with_teacher
from distill.comparison_cli import compare_student
from distill.label_free import LabelFreeConfig
from distill.qat.stage import qat_checkpoint
from distill.qat.training import QatConfig, train_rounded
from distill.stage import SaveConfig, distill_checkpoint
from distill.student import Student, StudentConfig, load_student
from distill.teaching import DistillConfig
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import auroc, paired_cluster_bootstrap
from export.assemble import ExportConfig, assemble_bundle
from train.encoder import CfpEncoder
from train.evaluate import Logits
from train.teacher import Teacher, save_teacher

LABELS = ("macular_edema", "glaucoma")
STUDENT = StudentConfig(size_px=32, channels=(8, 8, 8, 16), stem_width=8)
TASK = DistillConfig(num_steps=2, batch_size=8, student=STUDENT, seed=3)
QAT = QatConfig(num_steps=4, batch_size=8, num_range_images=8, seed=7)


def write_teacher(folder, seed: int = 0):
    torch.manual_seed(seed)
    save_teacher(folder, Teacher(CfpEncoder(TINY_ENCODER), LABELS), {"finetune": {"seed": 4}})
    return folder


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("qat") / "teacher")


@pytest.fixture(scope="module")
def student_dir(teacher_dir, phantom_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("qat") / "student"
    label_free = LabelFreeConfig(num_steps=2, batch_size=8, queue_size=16, seed=3)
    distill_checkpoint(teacher_dir, phantom_dir, out, TASK, label_free=label_free)
    return out


@pytest.fixture(scope="module")
def qat_dir(student_dir, teacher_dir, phantom_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("qat") / "rounded"
    qat_checkpoint(student_dir, teacher_dir, phantom_dir, out, QAT)
    return out


def test_both_stages_are_in_the_record(student_dir) -> None:
    _, record = load_student(student_dir)
    assert record["label_free"]["num_steps"] == 2
    assert np.isfinite(record["label_free"]["training"]["loss_relation"])
    assert record["distill"]["num_steps"] == 2
    assert record["quant_lint"] == []
    assert record["distill"]["allow_quant_lint"] is False


def test_backbone_weights_are_begun_with_and_named(teacher_dir, phantom_dir, tmp_path) -> None:
    torch.manual_seed(9)
    path = tmp_path / "weights.safetensors"
    backbone = build_backbone(STUDENT)
    save_file(backbone.state_dict(), str(path))
    slow = replace(TASK, num_steps=1, learning_rate=1e-6)
    distill_checkpoint(teacher_dir, phantom_dir, tmp_path / "s", slow, backbone_weights=path)
    student, record = load_student(tmp_path / "s")
    assert record["backbone_weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    first = student.backbone.conv1[0].weight
    torch.testing.assert_close(first, backbone.conv1[0].weight, atol=1e-5, rtol=0)


def test_a_qat_student_is_an_ordinary_checkpoint_with_its_ranges(qat_dir, student_dir) -> None:
    before, old = load_student(student_dir)
    after, new = load_student(qat_dir)
    assert after.config == before.config
    assert not torch.equal(after.evidence.weight, before.evidence.weight)
    # BatchNorm stood still.
    statistics = [k for k in before.state_dict() if "running_" in k]
    assert all(torch.equal(before.state_dict()[k], after.state_dict()[k]) for k in statistics)
    assert new["distill"] == old["distill"]
    assert new["qat"]["seed"] == 7
    assert set(new["qat"]["val"]) == {"rounded_before", "rounded", "float"}
    assert new["metrics"]["val"] == new["qat"]["val"]["float"]
    assert new["qat"]["ranges"]
    assert all(value > 0 for value in new["qat"]["ranges"].values())


def test_export_takes_it_and_names_its_seed(qat_dir, phantom_dir, tmp_path) -> None:
    config = ExportConfig(name="tiny", version="1.0", num_golden=2)
    done = assemble_bundle(qat_dir, phantom_dir, tmp_path / "bundle", config)
    seeds = {"finetune": 4, "label_free": 3, "distill": 3, "qat": 7}
    assert done.manifest.provenance["seeds"] == seeds


def test_another_teacher_is_refused(student_dir, phantom_dir, tmp_path) -> None:
    other = write_teacher(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="taught by the teacher"):
        qat_checkpoint(student_dir, other, phantom_dir, tmp_path / "out", QAT)
    with pytest.raises(ConfigError, match="taught by the teacher"):
        compare_checkpoints(other, student_dir, phantom_dir, split="test", num_draws=100)


def test_the_same_seed_gives_the_same_weights_and_ranges() -> None:
    data = make_split(8)
    done = []
    for _ in range(2):
        torch.manual_seed(5)
        teacher = Teacher(CfpEncoder(TINY_ENCODER), LABELS).eval()
        student = Student(STUDENT, LABELS)
        done.append(train_rounded(teacher, student, data, QAT))
    first, second = (one.student.state_dict() for one in done)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert done[0].ranges == done[1].ranges


def test_rounding_costs_less_after_training_with_it() -> None:
    """A student whose channels have very different sizes: rounding hurts, training mends."""
    torch.manual_seed(5)
    teacher = Teacher(CfpEncoder(TINY_ENCODER), LABELS).eval()
    student, data = Student(STUDENT, LABELS), make_split(16)
    with torch.no_grad():
        student.evidence.weight.normal_()
        student.backbone.layer1[0].bn1.weight[0] = 60.0  # one channel eats the range
    settings = replace(QAT, num_steps=80, learning_rate=3e-3, feature_weight=0.0)
    done = train_rounded(teacher, student, data, settings, val=data)
    before, after = done.val["rounded_before"], done.val["rounded"]
    assert after["probability_difference"] < 0.7 * before["probability_difference"]


@pytest.mark.parametrize(
    "changes",
    [{"soft_weight": 0.0}, {"percentile": 40.0}, {"num_range_images": 0}, {"num_steps": 0}],
)
def test_qat_settings_out_of_range_are_refused(changes) -> None:
    with pytest.raises(ConfigError):
        replace(QAT, **changes)


# The commands ---------------------------------------------------------------------------


def run(command, *words: object):
    return CliRunner().invoke(command, [str(word) for word in words])


def test_the_command_with_qat(student_dir, teacher_dir, phantom_dir, tmp_path) -> None:
    words = ["--teacher", teacher_dir, "--data", phantom_dir, "--qat", student_dir]
    words += ["--num-steps", 2, "--batch-size", 8, "--json", "--device", "cpu"]
    outcome = run(distill_command, *words, "--out", tmp_path / "rounded")
    assert outcome.exit_code == 0, outcome.output
    printed = json.loads(outcome.stdout)
    _, record = load_student(tmp_path / "rounded")
    assert printed["metrics"]["val"] == record["qat"]["val"]
    outcome = run(distill_command, *words, "--out", tmp_path / "no", "--backbone", "resnet18")
    assert outcome.exit_code == 2
    assert "--backbone cannot be used with --qat" in outcome.output


def test_the_command_with_every_stage_and_states(teacher_dir, phantom_dir, tmp_path) -> None:
    words = ["--teacher", teacher_dir, "--data", phantom_dir, "--out", tmp_path / "s"]
    words += ["--label-free-steps", 2, "--num-steps", 2, "--batch-size", 8, "--size-px", 64]
    words += ["--save-every", 1, "--mixup", "--device", "cpu"]
    outcome = run(distill_command, *words)
    assert outcome.exit_code == 0, outcome.output
    student, record = load_student(tmp_path / "s")
    assert student.config.size_px == 64
    assert record["distill"]["mixup"] is True
    first = (tmp_path / "s" / "model.safetensors").read_bytes()
    outcome = run(distill_command, *words, "--resume")
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "s" / "model.safetensors").read_bytes() == first
    outcome = run(distill_command, *words[:6], "--resume")
    assert outcome.exit_code != 0


def test_a_stopped_chain_goes_on_where_it_was(teacher_dir, phantom_dir, tmp_path) -> None:
    def chain(out, *, resume: bool, progress=None):
        return distill_checkpoint(
            teacher_dir,
            phantom_dir,
            out,
            TASK,
            label_free=LabelFreeConfig(num_steps=2, batch_size=8, queue_size=16),
            save=SaveConfig(folder=tmp_path / "states", save_every=1, resume=resume),
            progress=progress,
        )

    calls: list[int] = []

    def stop_in_the_task_stage(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain(tmp_path / "a", resume=False, progress=stop_in_the_task_stage)
    resumed = chain(tmp_path / "a", resume=True)
    whole = chain(tmp_path / "b", resume=False)
    first, second = resumed.student.state_dict(), whole.student.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# The comparison -------------------------------------------------------------------------


def noisy(data, noise: float, seed: int) -> Logits:
    rng = np.random.default_rng(seed)
    truth = np.stack([data.label(name) for name in LABELS], 1).astype(np.float64)
    return Logits(
        diseases=truth + rng.normal(0, noise, truth.shape), gradability=np.zeros(len(data))
    )


def test_the_comparison_is_the_paired_bootstrap_of_gradable_eyes() -> None:
    data = make_split(40)
    teacher, student = noisy(data, 0.6, 1), noisy(data, 0.9, 2)
    found = compare_with_teacher(teacher, student, data, LABELS, num_parameters=5, num_draws=200)
    seen = data.label("gradable") == 1
    assert found.num_eyes == int(seen.sum())
    means = []
    for logits in (teacher, student):
        scores = [
            auroc(data.label(name)[seen], logits.diseases[seen, k]) for k, name in enumerate(LABELS)
        ]
        means.append(float(np.mean(scores)))
    assert found.teacher.value == pytest.approx(means[0])
    assert found.student.value == pytest.approx(means[1])
    assert found.difference.value == pytest.approx(means[1] - means[0])
    assert found.ratio.value == pytest.approx(means[1] / means[0])
    one = compare_with_teacher(
        teacher, student, data, (LABELS[0], "unknown"), num_parameters=5, num_draws=200
    )
    expected = paired_cluster_bootstrap(
        auroc,
        data.patient_ids[seen],
        data.label(LABELS[0])[seen],
        student.diseases[seen, 0],
        teacher.diseases[seen, 0],
        num_draws=200,
    )
    assert one.labels == (LABELS[0],)
    assert one.difference.low == pytest.approx(expected.low)
    assert one.difference.high == pytest.approx(expected.high)


def test_a_student_that_says_the_same_differs_by_nothing() -> None:
    data = make_split(20)
    same = noisy(data, 0.5, 1)
    found = compare_with_teacher(same, same, data, LABELS, num_parameters=1, num_draws=100)
    assert (found.difference.low, found.difference.high) == (0.0, 0.0)
    assert (found.ratio.low, found.ratio.high) == (1.0, 1.0)


def test_without_labels_nothing_is_claimed() -> None:
    data = make_split(4)
    with pytest.raises(DataError, match="no disease"):
        compare_with_teacher(
            noisy(data, 1, 1), noisy(data, 1, 2), data, ("other",), num_parameters=1
        )


def test_the_comparison_command(student_dir, teacher_dir, phantom_dir) -> None:
    words = ["--teacher", teacher_dir, "--student", student_dir, "--data", phantom_dir]
    words += ["--num-draws", 100, "--split", "test"]
    outcome = run(compare_student, *words)
    assert outcome.exit_code == 0, outcome.output
    assert "student minus teacher" in outcome.output
    assert "synthetic phantom eyes" in outcome.output
    printed = json.loads(run(compare_student, *words, "--json").stdout)
    assert printed["data"]["synthetic"] is True
    assert printed["ratio"]["low"] <= printed["ratio"]["value"] <= printed["ratio"]["high"]
