"""The student's shape, its evidence maps and its checkpoint."""

from __future__ import annotations

import json

import pytest
import torch

from distill.student import Student, StudentConfig, load_student, save_student
from edge_runtime.errors import CheckpointError, ConfigError

LABELS = ("edema", "glaucoma", "amd")
TINY = StudentConfig(size_px=64, channels=(8, 8, 16, 16), stem_width=8)


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    model = Student(TINY, LABELS)
    model.train()(torch.randn(8, 3, 64, 64))  # running statistics that are not the start values
    return model.eval()


def test_shapes_and_means_of_the_evidence(student: Student) -> None:
    with torch.no_grad():
        out = student(torch.randn(5, 3, 64, 64))
    assert out.logits.shape == (5, 3)
    assert out.gradability_logit.shape == (5, 1)
    assert out.embedding.shape == (5, 16)
    assert out.evidence.shape == (5, 3, 2, 2)
    torch.testing.assert_close(out.logits, out.evidence.mean((2, 3)))
    weight = student.evidence.weight[:, :, 0, 0]
    torch.testing.assert_close(out.logits, out.embedding @ weight.T + student.evidence.bias)


def test_evidence_is_local(student: Student) -> None:
    """Changing one corner leaves the far corner's evidence alone when the eye is large."""
    image = torch.zeros(1, 3, 512, 512)
    changed = image.clone()
    changed[..., :16, :16] = 2.0
    with torch.no_grad():
        before, after = student(image).evidence, student(changed).evidence
    assert not torch.equal(before[..., 0, 0], after[..., 0, 0])
    assert torch.equal(before[..., -1, -1], after[..., -1, -1])


def test_the_default_student_is_compact_and_int8_friendly() -> None:
    model = Student(StudentConfig(), LABELS)
    assert model.num_parameters < 1.5e6
    kinds = {type(module).__name__ for module in model.modules() if not list(module.children())}
    assert kinds <= {"Conv2d", "BatchNorm2d", "ReLU", "Identity"}
    backbone = [m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(conv.out_channels % 8 == 0 and conv.bias is None for conv in backbone)


def test_checkpoint_round_trip(student: Student, tmp_path) -> None:
    save_student(tmp_path, student, {"distill": {"seed": 3}})
    again, config = load_student(tmp_path)
    assert again.config == TINY
    assert again.label_names == LABELS
    assert not again.training
    assert config["distill"] == {"seed": 3}
    assert config["num_parameters"] == student.num_parameters
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(image).evidence, student(image).evidence)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("student", {"size_px": 64}),
        ("student", {"size_px": 64, "channels": [1, 2], "stem_width": 8, "arch": "resnet10t"}),
        ("student", {"channels": [8, 8, 16, 24], "size_px": 64, "stem_width": 8}),
        ("labels", ["edema"]),
        ("labels", []),
        ("kind", "teacher"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(student, tmp_path, key, value) -> None:
    save_student(tmp_path, student, {})
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, key: value}))
    with pytest.raises(CheckpointError):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"size_px": 100}, "100"),
        ({"size_px": 0}, "0"),
        ({"arch": "mobilenetv3_large_100"}, "mobilenetv3"),
        ({"arch": "resnet50"}, "resnet50"),
        ({"channels": (8, 8, 8)}, "four"),
        ({"channels": (8, 8, 8, 12)}, "12"),
        ({"stem_width": 4}, "4"),
    ],
)
def test_impossible_shapes_are_refused(settings, named) -> None:
    with pytest.raises(ConfigError, match=named):
        StudentConfig(**settings)


@pytest.mark.parametrize("labels", [(), ("a", "a")])
def test_labels_must_be_distinct(labels) -> None:
    with pytest.raises(ConfigError):
        Student(TINY, labels)
