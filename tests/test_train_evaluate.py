"""Evaluation: AUROC as scikit-learn computes it, on the eyes that count."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from training_factory import DISEASES, TINY_ENCODER, make_split

from train.encoder import CfpEncoder
from train.evaluate import Logits, evaluate_logits, teacher_logits
from train.teacher import Teacher


@pytest.fixture(scope="module")
def data():
    split = make_split(40)
    split.labels[5:15, 0] = np.nan
    return split


@pytest.fixture(scope="module")
def logits(data):
    rng = np.random.default_rng(0)
    known = np.nan_to_num(data.labels, nan=0.5)
    scores = known + rng.normal(size=known.shape)
    return Logits(diseases=scores[:, :2], gradability=scores[:, 2])


def test_auroc_equals_scikit_learns_on_gradable_eyes_with_a_label(data, logits):
    report = evaluate_logits(logits, data, DISEASES, num_draws=50)
    gradable = data.label("gradable") == 1
    values = []
    for k, name in enumerate(DISEASES):
        used = gradable & np.isfinite(data.label(name))
        truth = data.label(name)[used]
        values.append(roc_auc_score(truth, logits.diseases[used, k]))
        found = report.labels[k]
        assert found.name == name
        assert found.auroc.value == pytest.approx(values[-1])
        assert found.auroc.low <= found.auroc.value <= found.auroc.high
        assert (found.num_positive, found.num_negative) == (truth.sum(), (truth == 0).sum())
    assert report.mean_auroc.value == pytest.approx(np.mean(values))
    expected = roc_auc_score(data.label("gradable"), logits.gradability)
    assert report.gradability.auroc.value == pytest.approx(expected)
    assert report.num_eyes == 80
    assert report.num_ungradable == int((~gradable).sum()) > 0


def test_ungradable_eyes_do_not_count_for_diseases(data, logits):
    diseases = logits.diseases.copy()
    diseases[data.label("gradable") == 0] = 1e6
    changed = evaluate_logits(replace(logits, diseases=diseases), data, DISEASES, num_draws=50)
    plain = evaluate_logits(logits, data, DISEASES, num_draws=50)
    assert changed == plain


def test_unknown_gradability_counts_as_gradable(data, logits):
    unknown = replace(data, labels=data.labels.copy())
    unknown.labels[:, 2] = np.nan
    report = evaluate_logits(logits, unknown, DISEASES, num_draws=50)
    assert report.labels[1].num_positive + report.labels[1].num_negative == 80
    assert report.num_ungradable == 0
    assert report.gradability.auroc is None


def test_a_label_of_one_class_is_counted_but_not_scored(data, logits):
    healthy = replace(data, labels=data.labels.copy())
    healthy.labels[:, 0] = 0
    report = evaluate_logits(logits, healthy, DISEASES, num_draws=50)
    edema, glaucoma = report.labels
    assert edema.auroc is None
    assert edema.num_positive == 0
    assert edema.num_negative > 0
    assert report.mean_auroc.value == pytest.approx(glaucoma.auroc.value)
    healthy.labels[:, 1] = 1
    assert evaluate_logits(logits, healthy, DISEASES, num_draws=50).mean_auroc is None


def test_a_report_is_json_and_its_draws_follow_the_seed(data, logits):
    first, again, other = (
        evaluate_logits(logits, data, DISEASES, num_draws=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.labels[0].auroc != other.labels[0].auroc
    record = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert record["labels"][1]["name"] == "glaucoma"
    assert record["labels"][1]["auroc"]["value"] == first.labels[1].auroc.value


def test_intervals_resample_patients_and_not_eyes(data, logits):
    """With every eye its own patient the draws differ, with the same value."""
    alone = replace(data, patient_ids=np.array([f"E{i}" for i in range(80)]))
    paired = evaluate_logits(logits, data, DISEASES, num_draws=50).labels[1].auroc
    single = evaluate_logits(logits, alone, DISEASES, num_draws=50).labels[1].auroc
    assert paired.value == single.value
    assert (paired.low, paired.high) != (single.low, single.high)


def test_teacher_logits_keep_rows_whatever_the_batch():
    torch.manual_seed(0)
    teacher = Teacher(CfpEncoder(TINY_ENCODER), DISEASES).eval()
    images = make_split(5).images_nhwc
    whole = teacher_logits(teacher, images)
    parts = teacher_logits(teacher, images, batch_size=3)
    assert whole.diseases.shape == (10, 2)
    assert whole.gradability.shape == (10,)
    np.testing.assert_allclose(parts.diseases, whole.diseases, atol=1e-5)
    np.testing.assert_allclose(parts.gradability, whole.gradability, atol=1e-5)
    reversed_rows = teacher_logits(teacher, images[::-1].copy())
    np.testing.assert_allclose(reversed_rows.diseases[::-1], whole.diseases, atol=1e-5)
    assert np.ptp(whole.diseases[:, 0]) > 1e-4
