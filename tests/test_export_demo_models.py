"""Figures of the three models against scores and labels made by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_factory import LABELS, BuiltBundle, build_bundle, fundus_png, run_onnx
from training_factory import TINY_ENCODER, make_split

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.metrics import wilson_interval
from export.demo import models
from export.demo.model import Latency
from export.demo.models import (
    FP32,
    INT8,
    TEACHER,
    TestScores,
    latencies,
    model_rows,
    operating_point_rows,
    roc_curves,
    score,
)
from train.dataset_arrays import SplitArrays
from train.encoder import CfpEncoder
from train.evaluate import Logits, evaluate_logits
from train.teacher import Teacher

NAN = float("nan")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    """Thresholds of 0.5: a logit of at least 0 is positive at any temperature."""
    return build_bundle(tmp_path_factory.mktemp("models") / "bundle", gradability_threshold=0.0)


@pytest.fixture(scope="module")
def bundle(built: BuiltBundle) -> Bundle:
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


@pytest.fixture(scope="module")
def eyes() -> SplitArrays:
    """Edema: 3 positive, 4 negative. The last three eyes must not count: unknown or ungradable."""
    edema = [1, 1, 1, 0, 0, 0, 0, NAN, 1, 0]
    glaucoma = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    gradable = [1] * 8 + [0, 0]
    labels = np.array([edema, glaucoma, gradable], np.float32).T
    return replace(make_split(5), labels=labels)


def by_hand(edema: list[float], glaucoma: list[float] | None = None) -> TestScores:
    """Logits of INT8; the other models say the opposite, so that a mix-up shows."""
    columns = np.array([edema, glaucoma or edema], np.float64).T
    zero = np.zeros(len(columns))
    logits = {
        TEACHER: Logits(diseases=-columns, gradability=zero),
        FP32: Logits(diseases=-columns, gradability=zero),
        INT8: Logits(diseases=columns, gradability=zero),
    }
    return TestScores(logits=logits, reports={}, label_names=LABELS)


# Found: 2 of 3; called without cause: 1 of 4. What does not count is wrong everywhere.
EDEMA_LOGITS = [3.0, 0.0, -1.0, 2.0, -1.0, -2.0, -0.01, 5.0, -5.0, 5.0]


def test_operating_points_are_those_of_int8_on_gradable_eyes_with_a_label(
    bundle: Bundle, eyes: SplitArrays
) -> None:
    edema, glaucoma = operating_point_rows(bundle, by_hand(EDEMA_LOGITS), eyes)
    assert (edema.label, glaucoma.label) == LABELS
    assert edema.threshold == 0.5
    assert edema.test.sensitivity == pytest.approx(2 / 3)
    assert edema.test.specificity == pytest.approx(3 / 4)
    assert glaucoma.test.sensitivity == pytest.approx(3 / 4)  # eyes 1, 3, 5, 7: all but 5
    assert glaucoma.test.specificity == pytest.approx(3 / 4)  # eyes 0, 2, 4, 6: all but 0
    # What is reached on `val` held out is repeated from the manifest.
    assert (edema.val.sensitivity, edema.val.sensitivity_interval) == (0.88, (0.76, 0.94))
    assert (edema.val.specificity, edema.val.specificity_interval) == (0.84, (0.79, 0.89))


def test_intervals_are_never_narrower_than_wilsons(bundle: Bundle, eyes: SplitArrays) -> None:
    row = operating_point_rows(bundle, by_hand(EDEMA_LOGITS), eyes)[0]
    for interval, hits, total in (
        (row.test.sensitivity_interval, 2, 3),
        (row.test.specificity_interval, 3, 4),
    ):
        wilson = wilson_interval(hits, total)
        assert interval[0] <= wilson.low < wilson.high <= interval[1]
    perfect = [1.0 if label == 1 else -1.0 for label in eyes.label("macular_edema")]
    row = operating_point_rows(bundle, by_hand(perfect), eyes)[0]
    assert row.test.sensitivity == 1.0
    assert row.test.sensitivity_interval[0] == pytest.approx(wilson_interval(3, 3).low)


def area(curve) -> float:
    return float(np.trapezoid(curve.true_positive_rate, curve.false_positive_rate))


@pytest.mark.skipif(not hasattr(np, "trapezoid"), reason="numpy 2 names it so")
def test_roc_curves(eyes: SplitArrays) -> None:
    # Eyes that do not count are ranked the wrong way round.
    perfect = [1.0, 2.0, 3.0, -1.0, -2.0, -3.0, -4.0, NAN, -9.0, 9.0]
    glaucoma = [0.0] * 10
    curves = roc_curves(by_hand(perfect, glaucoma), eyes)
    found = {(curve.model, curve.label): area(curve) for curve in curves}
    assert len(curves) == len(found) == 6
    assert found[INT8, "macular_edema"] == 1.0
    assert found[TEACHER, "macular_edema"] == found[FP32, "macular_edema"] == 0.0
    assert all(found[model, "glaucoma"] == 0.5 for model in (TEACHER, FP32, INT8))
    for curve in curves:
        assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
        assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)


def test_latencies_of_both_precisions_in_milliseconds(bundle: Bundle) -> None:
    found = latencies(bundle, [fundus_png()], repeats=4)
    assert set(found) == {FP32, INT8}
    for one in found.values():
        assert 0 < one.p50 <= one.p99 < 10_000


def test_the_table_compares_the_three_models(
    bundle: Bundle, built: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_draws = partial(evaluate_logits, num_draws=100)  # intervals are not looked at here
    monkeypatch.setattr(models, "evaluate_logits", few_draws)
    eyes = make_split(10)
    torch.manual_seed(0)
    teacher = Teacher(CfpEncoder(TINY_ENCODER), LABELS).eval()
    scores = score(teacher, bundle, eyes, seed=0)
    expected, gradability = run_onnx(bundle.model_bytes("int8_cpu"), eyes.images_nhwc)
    np.testing.assert_allclose(scores.logits[INT8].diseases, expected, rtol=1e-6)
    np.testing.assert_allclose(scores.logits[INT8].gradability, gradability[:, 0], rtol=1e-6)
    assert not np.allclose(scores.logits[TEACHER].diseases, expected)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"0" * 1024**2)
    latency = {FP32: Latency(p50=2.0, p99=3.0), INT8: Latency(p50=1.0, p99=1.5)}
    rows = {row.name: row for row in model_rows(scores, teacher, bundle, weights, 123, latency)}
    assert list(rows) == [TEACHER, FP32, INT8]
    assert rows[TEACHER].latency_ms is None  # it never runs on a device
    assert rows[INT8].latency_ms == latency[INT8]
    assert rows[TEACHER].size_mib == 1.0
    size = (built.folder / "model.int8-cpu.onnx").stat().st_size
    assert rows[INT8].size_mib == pytest.approx(size / 1024**2)
    assert rows[FP32].num_parameters == rows[INT8].num_parameters == 123
    assert rows[TEACHER].num_parameters == sum(p.numel() for p in teacher.parameters())
    for row in rows.values():
        assert set(row.labels) == {*LABELS, "gradable"}
        mean = np.mean([row.labels[name].auroc for name in LABELS])
        assert row.mean_auroc.value == pytest.approx(mean)
