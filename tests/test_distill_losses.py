"""Each loss against a slow reference, and the properties that make it the right loss."""

from __future__ import annotations

import math

import pytest
import torch

from distill.losses.features import FeatureScale, feature_loss
from distill.losses.soft_labels import soft_label_loss
from train.finetune import masked_bce


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def slow_bce(logits, targets) -> float:
    """Cross-entropy entry by entry with math.log; entries without a target are left out."""
    terms = []
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        for z, p in zip(row, wanted, strict=True):
            if not math.isnan(p):
                s = 1 / (1 + math.exp(-z))
                terms.append(-(p * math.log(s) + (1 - p) * math.log(1 - s)))
    return sum(terms) / len(terms)


def test_soft_label_loss_is_the_formula(draw) -> None:
    ours, theirs = torch.randn(5, 3, generator=draw) * 3, torch.randn(5, 3, generator=draw) * 3
    expected = slow_bce(ours.double(), theirs.double().sigmoid())
    assert float(soft_label_loss(ours, theirs)) == pytest.approx(expected, rel=1e-5)


def test_soft_label_loss_is_least_at_the_teacher(draw) -> None:
    teacher = torch.randn(6, 4, generator=draw)
    student = teacher.clone().requires_grad_()
    best = soft_label_loss(student, teacher)
    best.backward()
    assert float(student.grad.abs().max()) < 1e-6
    for _ in range(20):
        other = teacher + torch.randn(6, 4, generator=draw)
        assert soft_label_loss(other, teacher) > best


def test_soft_label_loss_teaches_only_the_student(draw) -> None:
    student = torch.randn(3, 2, generator=draw, requires_grad=True)
    teacher = torch.randn(3, 2, generator=draw, requires_grad=True)
    soft_label_loss(student, teacher).backward()
    assert teacher.grad is None
    assert float(student.grad.abs().sum()) > 0


def test_soft_label_loss_is_finite_at_extreme_logits() -> None:
    extreme = torch.tensor([[80.0, -80.0]], requires_grad=True)
    loss = soft_label_loss(extreme, -extreme)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(80.0)
    assert bool(torch.isfinite(extreme.grad).all())


def test_true_labels_count_only_where_they_are_known(draw) -> None:
    logits = torch.randn(4, 3, generator=draw)
    labels = torch.tensor([[1, 0, math.nan], [math.nan] * 3, [0.25, 1, 0], [0, math.nan, 1]])
    expected = slow_bce(logits.double(), labels.double())
    assert float(masked_bce(logits, labels)) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_labels_gives_zero_and_no_gradient(draw) -> None:
    logits = torch.randn(4, 3, generator=draw, requires_grad=True)
    loss = masked_bce(logits, torch.full((4, 3), math.nan))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(logits.grad.abs().sum()) == 0.0


def test_feature_loss_is_the_mean_of_one_minus_cosine(draw) -> None:
    ours, theirs = torch.randn(5, 8, generator=draw), torch.randn(5, 8, generator=draw)
    expected = 0.0
    for a, b in zip(ours.tolist(), theirs.tolist(), strict=True):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        expected += 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    assert float(feature_loss(ours, theirs)) == pytest.approx(expected / 5, rel=1e-5)


def test_feature_loss_sees_direction_and_not_length(draw) -> None:
    target = torch.randn(5, 8, generator=draw)
    assert float(feature_loss(3.0 * target, target)) == pytest.approx(0.0, abs=1e-6)
    assert float(feature_loss(-target, target)) == pytest.approx(2.0, abs=1e-6)


def test_feature_scale_gives_every_channel_the_same_weight(draw) -> None:
    embeddings = torch.randn(500, 4, generator=draw) * torch.tensor([1e-3, 1.0, 50.0, 0.0])
    embeddings += torch.tensor([5.0, -3.0, 100.0, 2.0])
    scaled = FeatureScale(embeddings)(embeddings)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled.std(0)[:3], torch.ones(3), atol=1e-3, rtol=0)
    assert bool((scaled[:, 3] == 0).all())  # a dead channel stays silent instead of dividing by 0
