"""Each loss against a slow reference, and the properties that make it the right loss."""

from __future__ import annotations

import math

import pytest
import torch

from distill.losses.features import FeatureScale, dense_feature_loss, feature_loss
from distill.losses.queue_similarity import EmbeddingQueue, queue_similarity_loss
from distill.losses.relations import relation_loss
from distill.losses.soft_labels import soft_label_loss
from edge_runtime.errors import ConfigError
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


def slow_cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def slow_kl(p: list[float], s: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, s, strict=True))


INSIDE = torch.tensor([True, False, True, True, True])


def test_dense_feature_loss_is_the_formula_inside_the_field(draw) -> None:
    ours, theirs = torch.randn(2, 5, 6, generator=draw) * 2, torch.randn(2, 5, 6, generator=draw)
    cosines, distances = [], []
    for n in range(2):
        for t in (0, 2, 3, 4):
            a, b = ours[n, t].tolist(), theirs[n, t].tolist()
            cosines.append(1 - slow_cosine(a, b))
            apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
            distances += [d * d / 2 if d < 1 else d - 0.5 for d in apart]
    expected = 0.9 * sum(cosines) / len(cosines) + 0.1 * sum(distances) / len(distances)
    assert float(dense_feature_loss(ours, theirs, INSIDE)) == pytest.approx(expected, rel=1e-5)


def test_dense_feature_loss_is_zero_at_equality_alone_and_blind_outside(draw) -> None:
    theirs = torch.randn(2, 5, 6, generator=draw)
    assert float(dense_feature_loss(theirs, theirs, INSIDE)) == pytest.approx(0.0, abs=1e-6)
    assert float(dense_feature_loss(2 * theirs, theirs, INSIDE)) > 1e-3
    elsewhere = theirs.clone()
    elsewhere[:, 1] = 7.0
    assert float(dense_feature_loss(elsewhere, theirs, INSIDE)) == pytest.approx(0.0, abs=1e-6)


def test_relation_loss_is_the_formula(draw) -> None:
    ours, theirs = torch.randn(2, 5, 4, generator=draw), torch.randn(2, 5, 7, generator=draw)
    places, terms = [0, 2, 3, 4], []
    for n in range(2):
        for i in places:
            rows = []
            for features in (theirs, ours):
                one = features[n].tolist()
                rows.append(
                    slow_softmax([slow_cosine(one[i], one[j]) / 0.2 for j in places if j != i])
                )
            terms.append(slow_kl(rows[0], rows[1]))
    expected = sum(terms) / len(terms)
    assert float(relation_loss(ours, theirs, INSIDE, temperature=0.2)) == pytest.approx(
        expected, rel=1e-4
    )


def test_relation_loss_does_not_see_rotations_or_scales_of_channels(draw) -> None:
    theirs = torch.randn(3, 5, 8, generator=draw)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=draw))
    assert float(relation_loss(5.0 * theirs @ turn, theirs, INSIDE)) == pytest.approx(0, abs=1e-5)
    ours = torch.randn(3, 5, 6, generator=draw)
    plain = relation_loss(ours, theirs, INSIDE)
    assert float(plain) > 0.01
    torch.testing.assert_close(relation_loss(ours, theirs @ turn, INSIDE), plain, rtol=1e-3, atol=0)


def test_relation_loss_does_not_see_the_order_of_places(draw) -> None:
    ours, theirs = torch.randn(2, 5, 4, generator=draw), torch.randn(2, 5, 7, generator=draw)
    order = torch.tensor([4, 1, 3, 0, 2])
    torch.testing.assert_close(
        relation_loss(ours[:, order], theirs[:, order], INSIDE[order]),
        relation_loss(ours, theirs, INSIDE),
    )


def test_two_places_have_no_relations(draw) -> None:
    tokens = torch.randn(1, 3, 4, generator=draw)
    with pytest.raises(ValueError, match="2 places"):
        relation_loss(tokens, tokens, torch.tensor([True, True, False]))


def test_queue_similarity_loss_is_the_formula(draw) -> None:
    ours, theirs = torch.randn(3, 6, generator=draw), torch.randn(3, 6, generator=draw)
    queue = torch.randn(5, 6, generator=draw)
    terms = []
    for a, b in zip(ours.tolist(), theirs.tolist(), strict=True):
        rows = [slow_softmax([slow_cosine(one, q) / 0.3 for q in queue.tolist()]) for one in (b, a)]
        terms.append(slow_kl(rows[0], rows[1]))
    assert float(queue_similarity_loss(ours, theirs, queue, temperature=0.3)) == pytest.approx(
        sum(terms) / 3, rel=1e-4
    )


def test_queue_similarity_loss_is_zero_at_equality_whatever_length_and_order(draw) -> None:
    ours, theirs = torch.randn(3, 6, generator=draw), torch.randn(3, 6, generator=draw)
    queue = torch.randn(9, 6, generator=draw)
    assert float(queue_similarity_loss(3 * theirs, theirs, queue)) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(
        queue_similarity_loss(ours, theirs, queue),
        queue_similarity_loss(ours, theirs, queue[torch.randperm(9, generator=draw)]),
    )


def test_the_queue_keeps_the_newest_and_forgets_the_oldest() -> None:
    queue = EmbeddingQueue(3, 1)
    assert queue.filled().shape == (0, 1)
    queue.push(torch.tensor([[1.0], [2.0]]))
    assert queue.filled().flatten().tolist() == [1, 2]
    queue.push(torch.tensor([[3.0], [4.0]]))
    assert queue.filled().flatten().tolist() == [2, 3, 4]
    queue.push(torch.arange(5.0)[:, None])
    assert queue.filled().flatten().tolist() == [2, 3, 4]
    again = EmbeddingQueue(3, 1)
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.filled(), queue.filled())
    with pytest.raises(ConfigError, match="queue_size"):
        EmbeddingQueue(1, 4)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda s, t: soft_label_loss(s[:, 0], t[:, 0]), id="soft"),
        pytest.param(lambda s, t: feature_loss(s[:, 0], t[:, 0]), id="feature"),
        pytest.param(lambda s, t: dense_feature_loss(s, t, INSIDE), id="dense"),
        pytest.param(lambda s, t: relation_loss(s, t, INSIDE), id="relation"),
        pytest.param(
            lambda s, t: queue_similarity_loss(s[:, 0], t[:, 0], t[:, 1]), id="similarity"
        ),
    ],
)
def test_every_loss_is_float32_and_teaches_the_student_alone(draw, loss) -> None:
    student = torch.randn(3, 5, 8, generator=draw).bfloat16().requires_grad_()
    teacher = torch.randn(3, 5, 8, generator=draw).bfloat16().requires_grad_()
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert value.shape == ()
    value.backward()
    assert teacher.grad is None
    assert float(student.grad.abs().sum()) > 0
