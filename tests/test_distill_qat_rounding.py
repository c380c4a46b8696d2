"""Fake quantisation: rounding by hand, its gradient, and equality with the INT8 file itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from training_factory import make_split

from calibration.quantize import plan_quantization, quantize
from calibration.run_models import score_models
from distill.agreement import student_logits
from distill.backbone import build_backbone
from distill.qat.fake_quant import FakeQuant, fake_quantize, round_up_to_half, weight_scale
from distill.qat.measure_ranges import measure_ranges
from distill.qat.rounded_conv import RoundedConv, worth_int8
from distill.qat.rounded_student import RoundedStudent
from distill.student import Student, StudentConfig
from distill.views import Pictures
from edge_runtime.errors import ConfigError
from export.to_onnx import export_onnx
from train.arrays import normalize_cfp

LABELS = ("edema", "glaucoma")
TINY = StudentConfig(size_px=64, channels=(16, 16, 16, 24), stem_width=16)


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def settled(config: StudentConfig = TINY) -> Student:
    """A student whose running statistics are not the start values and whose heads say something."""
    torch.manual_seed(0)
    student = Student(config, LABELS)
    for norm in [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.7, 1.3)  # the last of a block begins at 0
    student.train()
    for _ in range(20):
        student(torch.randn(8, 3, config.size_px, config.size_px))
    with torch.no_grad():
        student.evidence.weight.normal_(std=0.5)
    return student.eval()


def pictures(num_patients: int = 4) -> Pictures:
    split = make_split(num_patients, size_px=64)
    return Pictures(split, LABELS, teacher_px=64, student_px=64, device=torch.device("cpu"))


def slow_fake_quantize(value: float, scale: float, low: int, high: int) -> float:
    """Python's round is to even, too."""
    return max(low, min(high, round(value / scale))) * scale


def test_rounding_is_the_formula(draw) -> None:
    values = torch.randn(200, generator=draw) * 30
    scale = torch.tensor(0.25)
    expected = [slow_fake_quantize(v, 0.25, -128, 127) for v in values.tolist()]
    assert fake_quantize(values, scale).tolist() == expected


def test_values_on_the_grid_stay_and_none_moves_further_than_half_a_step(draw) -> None:
    scale = torch.tensor(0.3)
    grid = torch.arange(-128, 128) * scale
    torch.testing.assert_close(fake_quantize(grid, scale), grid, atol=0, rtol=1e-6)
    values = (torch.rand(1000, generator=draw) - 0.5) * 250 * scale
    moved = (fake_quantize(values, scale) - values).abs().max()
    assert float(moved) <= 0.15 * (1 + 1e-5)


def test_the_gradient_is_one_inside_and_zero_outside() -> None:
    values = torch.tensor([-200.0, -128.0, 0.4, 127.0, 127.6], requires_grad=True)
    fake_quantize(values, torch.tensor(1.0)).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_no_gradient_reaches_the_scale() -> None:
    scale = torch.tensor(1.0, requires_grad=True)
    values = torch.tensor([0.3], requires_grad=True)
    fake_quantize(values, scale).sum().backward()
    assert scale.grad is None


def test_weights_have_one_scale_a_channel_and_a_channel_of_zeros_is_no_division_by_zero() -> None:
    weight = torch.tensor([[1.0, -12.7], [0.0, 0.0]]).reshape(2, 2, 1, 1)
    scale = weight_scale(weight)
    assert scale.shape == (2, 1, 1, 1)
    assert 0.1 <= float(scale[0]) < 0.1 * (1 + 2**-10)
    assert bool(torch.isfinite(fake_quantize(weight, scale)).all())


def test_a_watched_tensor_is_shown_and_not_rounded() -> None:
    one, seen = FakeQuant(1.0), []
    values = torch.tensor([0.333])
    assert float(one(values)) == pytest.approx(42 / 127)
    one.watch = seen.append
    assert torch.equal(one(values), values)
    assert torch.equal(seen[0], values)


@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_convolution_is_convolution_then_batch_norm(draw, bias) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8)
    for _ in range(5):
        norm(conv(torch.randn(16, 4, 8, 8, generator=draw) * 3 + 1))
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    both = nn.Sequential(conv, norm).eval()
    folded = RoundedConv(conv, norm)
    folded.rounded = False
    x = torch.randn(2, 4, 8, 8, generator=draw)
    torch.testing.assert_close(folded(x), both(x), atol=1e-5, rtol=1e-4)
    folded.rounded = True
    difference = (folded(x) - both(x)).detach().abs().max()
    assert 0 < float(difference) < 0.05 * float(both(x).detach().abs().max())


@pytest.mark.parametrize(
    ("conv", "is_first", "worth"),
    [
        (nn.Conv2d(3, 16, 3), True, True),
        (nn.Conv2d(3, 16, 3), False, True),
        (nn.Conv2d(3, 8, 3), True, True),
        (nn.Conv2d(8, 8, 3), False, False),
        (nn.Conv2d(16, 12, 1), False, True),
        (nn.Conv2d(17, 9, 1), False, False),
        (nn.Conv2d(8, 32, (1, 3)), False, False),
        (nn.Conv2d(16, 16, 3, groups=16), False, True),
        (nn.Conv2d(16, 16, 1, groups=16), False, False),
    ],
)
def test_which_convolutions_become_int8(conv, is_first, worth) -> None:
    assert worth_int8(conv, is_first=is_first) is worth


def test_scales_are_float16_numbers_rounded_up(draw) -> None:
    scale = torch.rand(1000, generator=draw) * 2.0 ** torch.randint(
        -20, 10, (1000,), generator=draw
    )
    scale = scale.clamp_min(2.0**-24)
    rounded = round_up_to_half(scale)
    expected = scale.numpy().astype(np.float16)
    low = expected.astype(np.float64) < scale.numpy()
    expected[low] = np.nextafter(expected[low], np.float16(np.inf))
    np.testing.assert_array_equal(rounded.numpy(), expected.astype(np.float32))
    assert bool((rounded >= scale).all())
    assert torch.equal(round_up_to_half(rounded), rounded)


class OddConv(nn.Conv2d):
    """A convolution that may do anything."""


def test_layers_without_an_int8_form_are_refused() -> None:
    with pytest.raises(ConfigError, match="OddConv"):
        RoundedConv(OddConv(3, 8, 3), None)
    with pytest.raises(ConfigError, match="cannot be folded"):
        RoundedConv(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False))


def test_watching_gives_the_float_student() -> None:
    student = settled()
    rounded = RoundedStudent(student)
    x = normalize_cfp(make_split(2, size_px=64).images_tensor())
    with torch.no_grad(), rounded.watching(lambda *_: None):
        torch.testing.assert_close(rounded(x).evidence, student(x).evidence, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert float((rounded(x).evidence - student(x).evidence).abs().max()) > 1e-3


def test_it_is_the_students_own_weights_that_learn_and_statistics_that_stand_still() -> None:
    student = settled()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    rounded = RoundedStudent(student)
    measure_ranges(rounded, pictures(), torch.arange(4), percentile=100.0)
    own = {id(parameter) for parameter in student.parameters()}
    assert {id(parameter) for parameter in rounded.parameters()} == own
    rounded.train()
    out = rounded(torch.randn(4, 3, 64, 64))
    (out.logits.sum() + out.laterality_logit.sum() + out.gradability_logit.sum()).backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None]
    assert silent == []
    for name, value in student.state_dict().items():
        assert torch.equal(before[name], value), name


def test_ranges_are_percentiles() -> None:
    rounded = RoundedStudent(settled())
    shown: dict[str, list[torch.Tensor]] = {}
    data, picked = pictures(), torch.arange(6)
    with torch.no_grad(), rounded.watching(lambda n, v: shown.setdefault(n, []).append(v.abs())):
        rounded(data.plain(picked).student_nchw)
    largest = measure_ranges(rounded, data, picked, percentile=100.0)
    assert list(largest) == list(rounded.ranges)
    for name, parts in shown.items():
        peak = float(torch.cat(parts).max())
        assert peak * (1 - 1e-6) <= largest[name] <= peak * (1 + 2**-9)
    inner = measure_ranges(rounded, data, picked, percentile=99.0)
    for name, parts in shown.items():
        share = float((torch.cat(parts) <= inner[name]).float().mean())
        assert 0.99 <= share < 0.9925 or inner[name] == pytest.approx(largest[name])
    assert rounded.range_values() == pytest.approx(inner)


def test_the_rounded_student_is_the_int8_file() -> None:
    """The same ranges in both: the file's graph and the trained form agree on random pictures."""
    student = settled()
    rounded = RoundedStudent(student)
    ranges = list(measure_ranges(rounded, pictures(), torch.arange(8), percentile=99.9).values())
    fp32 = export_onnx(student, metadata={})
    plan = plan_quantization(fp32)
    int8 = quantize(fp32, plan, dict(zip(plan.observed, ranges, strict=True)))
    images = np.random.default_rng(3).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    in_files = score_models({"fp32": fp32, "int8": int8}, images)
    apart = np.abs(student_logits(rounded, images).diseases - in_files["int8"].logits)
    lost = np.abs(in_files["int8"].logits - in_files["fp32"].logits)
    # Sums in another order flip a rounding now and then, and a flip travels on in a small random
    # network; where none happens the two agree to float32's last digits.
    assert lost.mean() > 0
    assert apart.mean() < 0.5 * lost.mean()
    assert np.median(apart) < 1e-5


def test_weights_outside_layers_are_refused() -> None:
    student = settled()
    student.backbone = build_backbone(
        StudentConfig(size_px=64, arch="hgnetv2_b0", channels=(), stem_width=0)
    )
    with pytest.raises(ConfigError, match="weight outside"):
        RoundedStudent(student)


def test_a_backbone_that_branches_on_its_input_is_refused() -> None:
    student = settled()
    student.backbone = Branching()
    with pytest.raises(ConfigError, match="cannot be traced"):
        RoundedStudent(student)


class Branching(nn.Module):
    """Data-dependent control flow, which no trace can hold."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_the_catalogues_default_traces() -> None:
    backbone = build_backbone(StudentConfig())
    names = {type(m).__name__ for m in backbone.modules()}
    assert "BatchNorm2d" in names
    rounded = RoundedStudent(Student(StudentConfig(), LABELS))
    convs = [m for m in rounded._traced[0].modules() if isinstance(m, RoundedConv)]
    assert convs
    assert all(conv.rounded and conv.norm is not None for conv in convs)
