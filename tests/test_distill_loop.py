"""Views, blends, the teacher's two depths, and a loop that can stop and go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_factory import make_split

from distill.agreement import laterality_accuracy
from distill.augment import AugmentConfig
from distill.label_free import LabelFreeConfig, learn_to_see
from distill.label_free_objective import LabelFreeObjective
from distill.loop import LoopConfig, StatesConfig
from distill.mixup import draw_blend
from distill.student import Student, StudentConfig
from distill.teacher_view import TeacherEye
from distill.teaching import DistillConfig, distill
from distill.views import Pictures, resize_view
from edge_runtime.errors import CheckpointError, ConfigError
from train.arrays import circle_mask, normalize_cfp
from train.device import CPU
from train.encoder import CfpEncoder, EncoderConfig
from train.engine.state import list_states
from train.finetune import masked_bce
from train.teacher import Teacher

LABELS = ("macular_edema", "glaucoma")
ENCODER = EncoderConfig(size_px=64, width=16, depth=1, num_heads=2, stem_width=4)
STUDENT = StudentConfig(size_px=64, channels=(8, 8, 16, 16), stem_width=8)
SEE = LabelFreeConfig(num_steps=2, batch_size=8, queue_size=16, bfloat16=False)
STILL = AugmentConfig(rotation_deg=0, shift_fraction=0, gain=0)


def make_teacher(encoder: EncoderConfig = ENCODER) -> Teacher:
    torch.manual_seed(1)
    return Teacher(CfpEncoder(encoder), LABELS).eval()


def make_student(config: StudentConfig = STUDENT) -> Student:
    torch.manual_seed(2)
    return Student(config, LABELS)


def make_pictures(stored_px: int = 64, *, teacher_px: int = 64, student_px: int = 64) -> Pictures:
    split = make_split(8, size_px=stored_px)
    return Pictures(split, LABELS, teacher_px=teacher_px, student_px=student_px, device=CPU)


# Blends and views -----------------------------------------------------------------------


def test_a_blend_is_the_convex_sum_of_two_pictures() -> None:
    draw = torch.Generator().manual_seed(0)
    blend, values = draw_blend(6, draw), torch.randn(6, 2, 3)
    assert sorted(blend.partner_n.tolist()) == list(range(6))
    for n in range(6):
        share, other = float(blend.share_n[n]), values[blend.partner_n[n]]
        torch.testing.assert_close(blend.apply(values)[n], share * values[n] + (1 - share) * other)
    assert 0 <= float(blend.share_n.min()) < float(blend.share_n.max()) < 1


def test_what_is_unknown_of_one_is_unknown_of_the_blend() -> None:
    blend = draw_blend(4, torch.Generator().manual_seed(0))
    labels = torch.tensor([[0.0], [torch.nan], [1.0], [1.0]])
    unknown = torch.isnan(blend.apply(labels))[:, 0]
    expected = [n == 1 or int(blend.partner_n[n]) == 1 for n in range(4)]
    assert unknown.tolist() == expected


def test_both_networks_see_the_same_picture_at_their_own_size() -> None:
    pictures = make_pictures(64, teacher_px=32, student_px=64)
    view = pictures.plain(torch.arange(4))
    assert view.teacher_nchw.shape == (4, 3, 32, 32)
    assert view.student_nchw.shape == (4, 3, 64, 64)
    torch.testing.assert_close(view.teacher_nchw, resize_view(view.student_nchw, 32))
    torch.testing.assert_close(
        view.student_nchw, normalize_cfp(make_split(8, size_px=64).images_tensor()[:4])
    )
    assert view.right_n1.flatten().tolist() == [1, 0, 1, 0]


def test_blended_views_blend_labels_and_sides_alike() -> None:
    pictures, picked = make_pictures(), torch.arange(8)
    view = pictures.changed(picked, STILL, torch.Generator().manual_seed(5), mixup=True)
    plain = pictures.plain(picked)
    blend = draw_blend(8, torch.Generator().manual_seed(5))
    torch.testing.assert_close(view.student_nchw, blend.apply(plain.student_nchw))
    torch.testing.assert_close(view.right_n1, blend.apply(plain.right_n1))
    torch.testing.assert_close(view.labels_nl, blend.apply(plain.labels_nl), equal_nan=True)


def test_an_unknown_side_is_not_taught_and_not_scored() -> None:
    split = make_split(8, size_px=64)
    split = replace(split, eyes=np.where(np.arange(len(split)) < 2, "", split.eyes))
    pictures = Pictures(split, LABELS, teacher_px=64, student_px=64, device=CPU)
    view = pictures.plain(torch.arange(8))
    assert torch.isnan(view.right_n1).flatten().tolist() == [True] * 2 + [False] * 6
    student = make_student().eval()
    known = laterality_accuracy(student, split.images_nhwc[2:], split.eyes[2:])
    assert laterality_accuracy(student, split.images_nhwc, split.eyes) == known
    logits = torch.zeros(8, 1, requires_grad=True)
    masked_bce(logits, view.right_n1).backward()
    assert (logits.grad == 0).flatten().tolist() == [True] * 2 + [False] * 6


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="larger of the two"):
        make_pictures(64, teacher_px=32, student_px=32)


# The teacher's eye ----------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "before"), [(0, 0), (1, 0), (2, 1), (4, 3)])
def test_the_middle_tokens_are_those_after_three_quarters_of_the_blocks(depth, before) -> None:
    teacher = make_teacher(replace(ENCODER, depth=depth))
    image = torch.randn(2, 3, 64, 64)
    view = TeacherEye(teacher, bfloat16=False).look_inside(image)
    with torch.no_grad():
        tokens = teacher.encoder.embed(image)
        for block in teacher.encoder.blocks[:before]:
            tokens = block(tokens)
        torch.testing.assert_close(view.middle_ntd, tokens)
        torch.testing.assert_close(view.final_ntd, teacher.encoder(image))
        torch.testing.assert_close(view.output.logits, teacher(image).logits)
    assert not view.middle_ntd.requires_grad
    assert not teacher.encoder.norm._forward_pre_hooks


# The label-free stage -------------------------------------------------------------------


def test_two_label_free_steps_change_the_student_and_nothing_of_the_teacher() -> None:
    teacher, student = make_teacher(), make_student()
    theirs = {k: v.clone() for k, v in teacher.state_dict().items()}
    ours = {k: v.clone() for k, v in student.state_dict().items()}
    done = learn_to_see(teacher, student, make_split(8, size_px=64), SEE)
    assert all(torch.equal(theirs[k], v) for k, v in teacher.state_dict().items())
    changed = [k for k, v in student.named_parameters() if not torch.equal(ours[k], v)]
    assert "evidence.weight" in changed
    assert "backbone.conv1.0.weight" in changed
    assert "laterality.weight" not in changed  # which eye it is, is a label
    assert set(done.training) == {
        "loss_similarity", "loss_relation", "loss_feature", "loss_soft", "skipped_steps",
    }  # fmt: skip
    assert all(np.isfinite(value) for value in done.training.values())
    assert not student.training
    assert done.to_dict()["num_steps"] == 2


def test_no_label_is_read() -> None:
    known, unknown = make_split(8, size_px=64), make_split(8, size_px=64)
    unknown = replace(unknown, labels=np.zeros((16, 0), np.float32), label_names=())
    students = [make_student(), make_student()]
    for student, data in zip(students, (known, unknown), strict=True):
        learn_to_see(make_teacher(), student, data, SEE)
    first, second = (student.state_dict() for student in students)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_label_free_losses_fall() -> None:
    data = make_split(8, size_px=64)
    settings = replace(SEE, learning_rate=1e-2, mixup=False, augment=STILL, batch_size=16)
    start = learn_to_see(make_teacher(), make_student(), data, replace(settings, num_steps=1))
    end = learn_to_see(make_teacher(), make_student(), data, replace(settings, num_steps=60))
    for name in ("loss_similarity", "loss_relation", "loss_feature"):
        assert end.training[name] < 0.9 * start.training[name], name


def test_the_objective_trains_student_and_maps_once_each_and_no_teacher() -> None:
    teacher, student = make_teacher(), make_student()
    eye = TeacherEye(teacher, bfloat16=False)
    objective = LabelFreeObjective(student.eval(), eye, make_pictures(), SEE)
    names = [name for name, _ in objective.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"student", "maps"}
    assert len(objective.state_dict()) == len(set(objective.state_dict()))
    assert objective.inside.tolist() == circle_mask(4).flatten().tolist()
    assert len(objective.queue.filled()) == 16


def test_a_grid_without_places_to_compare_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(
        "distill.label_free_objective.circle_mask",
        lambda side: torch.zeros(side, side, dtype=torch.bool),
    )
    student, data = make_student(), make_split(8, size_px=64)
    with pytest.raises(ConfigError, match="too few to compare"):
        learn_to_see(make_teacher(), student, data, SEE)


@pytest.mark.parametrize(
    "changes",
    [
        {"similarity_weight": -1.0},
        {"similarity_weight": 0, "relation_weight": 0, "feature_weight": 0, "soft_weight": 0},
        {"similarity_temperature": 0.0},
        {"relation_temperature": -1.0},
        {"queue_size": 1},
        {"num_steps": 0},
        {"learning_rate": 2.0},
        {"weight_decay": -1.0},
    ],
)
def test_label_free_settings_out_of_range_are_refused(changes) -> None:
    with pytest.raises(ConfigError):
        replace(SEE, **changes)


# Stopping and going on ------------------------------------------------------------------


class Stop(Exception):
    """A kill in the middle of a run."""


def stop_after(step: int):
    def progress(done: int, *_: object) -> None:
        if done >= step:
            raise Stop

    return progress


def states(folder, *, resume: bool = False, **identity: object) -> StatesConfig:
    return StatesConfig(
        folder=folder, save_every=20, resume=resume, identity={"run": 1, **identity}
    )


def test_a_stopped_task_stage_goes_on_to_the_same_bits(tmp_path) -> None:
    data = make_split(8, size_px=64)
    settings = DistillConfig(num_steps=45, batch_size=8, student=STUDENT, bfloat16=False)
    whole = distill(make_teacher(), data, settings)
    with pytest.raises(Stop):
        distill(make_teacher(), data, settings, progress=stop_after(40), states=states(tmp_path))
    assert list(list_states(tmp_path)) == [20, 40]
    again = distill(make_teacher(), data, settings, states=states(tmp_path, resume=True))
    first, second = whole.student.state_dict(), again.student.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again.training == whole.training
    assert max(list_states(tmp_path)) == 45


def test_a_stopped_label_free_stage_goes_on_to_the_same_bits(tmp_path) -> None:
    data, settings = make_split(8, size_px=64), replace(SEE, num_steps=24)
    whole, stopped, again = make_student(), make_student(), make_student()
    done = learn_to_see(make_teacher(), whole, data, settings)
    with pytest.raises(Stop):
        learn_to_see(
            make_teacher(),
            stopped,
            data,
            settings,
            progress=stop_after(20),
            states=states(tmp_path),
        )
    resumed = learn_to_see(
        make_teacher(), again, data, settings, states=states(tmp_path, resume=True)
    )
    first, second = whole.state_dict(), again.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.training == done.training


def test_a_finished_run_is_read_back_without_a_step(tmp_path) -> None:
    data, settings = make_split(8, size_px=64), replace(SEE, num_steps=2)
    learn_to_see(make_teacher(), make_student(), data, settings, states=states(tmp_path))
    seen: list[int] = []
    learn_to_see(
        make_teacher(),
        make_student(),
        data,
        settings,
        progress=lambda done, *_: seen.append(done),
        states=states(tmp_path, resume=True),
    )
    assert seen == []


def test_a_state_of_another_run_is_refused(tmp_path) -> None:
    data = make_split(8, size_px=64)
    learn_to_see(make_teacher(), make_student(), data, SEE, states=states(tmp_path, seed=1))
    with pytest.raises(CheckpointError, match="another run: seed: 1 then, 2 now"):
        learn_to_see(
            make_teacher(),
            make_student(),
            data,
            SEE,
            states=states(tmp_path, resume=True, seed=2),
        )


def test_a_state_of_another_shape_is_refused(tmp_path) -> None:
    data = make_split(8, size_px=64)
    learn_to_see(make_teacher(), make_student(), data, SEE, states=states(tmp_path))
    other = make_student(replace(STUDENT, channels=(8, 8, 16, 24)))
    with pytest.raises(CheckpointError, match="does not fit"):
        learn_to_see(make_teacher(), other, data, SEE, states=states(tmp_path, resume=True))


def test_states_need_an_interval(tmp_path) -> None:
    with pytest.raises(ConfigError, match="save_every"):
        StatesConfig(folder=tmp_path, save_every=0, resume=False)
    with pytest.raises(ConfigError, match="batch_size"):
        LoopConfig(
            num_steps=1,
            batch_size=1,
            learning_rate=0.1,
            weight_decay=0.0,
            mixup=False,
            augment=STILL,
            seed=0,
        )


# The task stage after another -----------------------------------------------------------


def test_the_task_stage_goes_on_with_the_student_it_is_given() -> None:
    data, student = make_split(8, size_px=64), make_student()
    settings = DistillConfig(num_steps=1, batch_size=8, student=STUDENT, learning_rate=1e-6)
    before = student.evidence.weight.detach().clone()
    done = distill(make_teacher(), data, settings, start=student)
    assert done.student is student
    torch.testing.assert_close(done.student.evidence.weight, before, atol=1e-5, rtol=0)
    other = make_student(replace(STUDENT, channels=(8, 8, 16, 24)))
    with pytest.raises(ConfigError, match="to go on with"):
        distill(make_teacher(), data, settings, start=other)


def test_a_student_may_be_larger_or_smaller_than_its_teacher() -> None:
    for teacher_px, student_px in ((32, 64), (64, 32)):
        teacher = make_teacher(replace(ENCODER, size_px=teacher_px))
        settings = DistillConfig(
            num_steps=1, batch_size=8, student=replace(STUDENT, size_px=student_px)
        )
        split = make_split(8, size_px=64)
        done = distill(teacher, split, settings, val=split)
        assert done.student.config.size_px == student_px
        assert 0 <= done.val["laterality_accuracy"] <= 1


def test_a_backbone_that_quantises_badly_is_refused_and_recorded_when_allowed() -> None:
    bad = StudentConfig(size_px=64, arch="mobilenetv3_small_050", channels=(), stem_width=0)
    settings = DistillConfig(num_steps=1, batch_size=8, student=bad)
    with pytest.raises(ConfigError, match="hard_swish"):
        distill(make_teacher(), make_split(8, size_px=64), settings)
    allowed = replace(settings, allow_quant_lint=True)
    done = distill(make_teacher(), make_split(8, size_px=64), allowed)
    assert "hard_swish" in {one.rule for one in done.findings}
