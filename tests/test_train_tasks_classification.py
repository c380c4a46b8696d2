"""Probes, joint fine-tuning and few shot: what is known is found, what cannot be is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tasks_factory import QUICK, knowing_features, relabeled, task_data
from training_factory import TINY_ENCODER

from edge_runtime.errors import ConfigError, DataError
from train.encoder import CfpEncoder
from train.probe import grades_by_share, probe_grades
from train.tasks import multi_head as multi_head_module
from train.tasks.classification import measure_finetuned, measure_probes
from train.tasks.features import frozen_features
from train.tasks.few_shot import draw_patients, measure_few_shot
from train.tasks.multi_head import (
    MultiHead,
    MultiHeadConfig,
    fit_multi_head,
    multi_head_loss,
    predict,
)
from train.tasks.registry import tasks_of_kind, truth_of
from train.tasks.settings import TaskSettings
from train.tasks.statistics import score

CLASSES, FEW = tasks_of_kind("classification"), tasks_of_kind("few_shot")


@pytest.fixture(scope="module")
def data():
    return task_data()


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return CfpEncoder(TINY_ENCODER).eval()


def values(measured):
    return {
        one.key: score(one.eyes, "quadratic_kappa" if one.task == "dr_grade" else "auroc")
        for one in measured
    }


def test_probes_find_what_the_features_know(data):
    found = values(measure_probes(knowing_features(data, strength=8), data, CLASSES, QUICK, seed=0))
    assert set(found) == {f"{spec.name}/probe/{n}" for spec in CLASSES for n in (20, 40)}
    # 40 labels place the cut points of five grades less well than one threshold.
    least = {key: 0.75 if "grade" in key else 0.9 for key in found if key.endswith("/40")}
    assert {key: found[key] for key in least if found[key] < least[key]} == {}


def test_probes_find_nothing_in_noise(data):
    found = values(measure_probes(knowing_features(data, strength=0), data, CLASSES, QUICK, seed=0))
    assert np.mean([v for k, v in found.items() if "dr_grade" not in k]) == pytest.approx(
        0.5, abs=0.05
    )
    assert found["dr_grade/probe/40"] == pytest.approx(0, abs=0.25)


def test_every_draw_is_kept_and_follows_the_seed(data):
    features = knowing_features(data, strength=1)
    one, again, other = (
        next(iter(measure_probes(features, data, CLASSES[:1], QUICK, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert one.eyes.scores.shape == (2, np.isfinite(truth_of(CLASSES[0], data.test)).sum())
    np.testing.assert_array_equal(one.eyes.scores, again.eyes.scores)
    assert not np.array_equal(one.eyes.scores, other.eyes.scores)
    assert not np.array_equal(one.eyes.scores[0], one.eyes.scores[1])
    assert one.extra["num_label_draws"] == 2
    assert one.extra["label_draw_sd"] > 0


def test_ungradable_eyes_are_neither_learnt_nor_scored(data, rng):
    """Their features are nonsense: used anywhere, they would ruin the score."""
    features = knowing_features(data, strength=50)
    for part, split in ((features.train, data.train), (features.test, data.test)):
        part[split.label("gradable") == 0] = rng.normal(0, 1e4)
    row = list(measure_probes(features, data, CLASSES[:1], QUICK, seed=0))[-1]
    assert score(row.eyes, "auroc") > 0.99


def test_a_rare_class_is_drawn_for_until_both_are_there(data, encoder):
    """Four cases among 120 eyes: 20 labels miss them in about half of all draws."""
    rare = replace(data, train=relabeled(data.train, "amd", np.arange(120) < 4))
    settings = replace(QUICK, probe_draws=10, budgets=(20,))
    amd = tuple(spec for spec in CLASSES if spec.name == "amd")
    row = next(
        iter(measure_probes(knowing_features(rare, strength=1), rare, amd, settings, seed=0))
    )
    assert row.eyes.scores.shape[0] == 10
    assert row.extra["num_redrawn_label_draws"] > 0
    features = frozen_features(encoder, rare)
    for seed in range(3):
        tuned = list(measure_finetuned(encoder, features, rare, amd, settings, seed=seed))
        assert tuned[0].note == ""


@pytest.mark.parametrize("measure", ["probe", "finetune"])
def test_rows_that_cannot_be_measured_say_why(data, encoder, measure):
    healthy = replace(data, train=relabeled(data.train, "glaucoma", 0))
    healthy = replace(healthy, train=relabeled(healthy.train, "amd", np.nan))
    settings = replace(QUICK, budgets=(20, 500))
    features = frozen_features(encoder, healthy)
    if measure == "probe":
        rows = list(measure_probes(features, healthy, CLASSES, settings, seed=0))
    else:
        rows = list(measure_finetuned(encoder, features, healthy, CLASSES, settings, seed=0))
    notes = {one.key: one.note for one in rows}
    assert "one class only" in notes[f"glaucoma/{measure}/20"]
    assert notes[f"macular_edema/{measure}/20"] == ""
    assert notes[f"amd/{measure}/20"] != ""
    assert "500 are needed" in notes[f"macular_edema/{measure}/500"]
    assert all((one.eyes is None) == bool(one.note) for one in rows)


def test_a_missing_label_is_named(data):
    short = {
        name: replace(
            getattr(data, name), labels=getattr(data, name).labels[:, 1:],
            label_names=data.train.label_names[1:],
        )
        for name in ("train", "val", "test")
    }  # fmt: skip
    without = replace(data, **short)
    row = next(
        iter(measure_probes(knowing_features(data, strength=1), without, CLASSES, QUICK, seed=0))
    )
    assert "needs the label 'macular_edema'" in row.note


def test_fine_tuning_leaves_the_encoder_and_gives_every_task(data, encoder):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    features = frozen_features(encoder, data)
    rows = list(measure_finetuned(encoder, features, data, CLASSES, QUICK, seed=0))
    assert [one.key for one in rows] == [
        f"{s.name}/finetune/{n}" for n in (20, 40) for s in CLASSES
    ]
    assert all(np.isfinite(score(one.eyes, "auroc")) for one in rows if one.task != "dr_grade")
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_row_does_not_depend_on_which_others_were_asked_for(data, encoder):
    features = frozen_features(encoder, data)
    every = list(measure_finetuned(encoder, features, data, CLASSES, QUICK, seed=0))
    alone = list(measure_finetuned(encoder, features, data, CLASSES[2:3], QUICK, seed=0))
    np.testing.assert_array_equal(alone[0].eyes.scores, every[2].eyes.scores)


def multi_head(encoder, features, sizes):
    return MultiHead(encoder, sizes, features.mean, features.spread)


def test_no_step_leaves_linear_probes_and_steps_leave_them(data, encoder):
    """At 0 steps the heads say what a linear probe on the same frozen features says."""
    from sklearn.linear_model import LogisticRegression

    features = frozen_features(encoder, data)
    truth = np.stack([truth_of(CLASSES[k], data.train) for k in (6, 4)], 1)
    truth[:, 1] = np.where(truth[:, 1] == 3, 4, truth[:, 1])  # a grade never seen
    outputs = []
    for num_steps in (0, 3):
        model = multi_head(CfpEncoder(TINY_ENCODER), features, (1, 5))
        model.encoder.load_state_dict(encoder.state_dict())
        config = MultiHeadConfig(num_steps=num_steps, batch_size=8)
        fit_multi_head(model, data.train.images_nhwc, features.train, truth, config, seed=0)
        outputs.append(predict(model, data.test.images_nhwc))
    probe = LogisticRegression(C=MultiHeadConfig().probe_strength, max_iter=1000)
    probe.fit(features.train, truth[:, 0])
    np.testing.assert_allclose(outputs[0][0], probe.decision_function(features.test), atol=1e-4)
    assert not np.allclose(outputs[0][0], outputs[1][0], atol=1e-3)
    known = np.isfinite(truth[:, 1])
    grades = LogisticRegression(C=MultiHeadConfig().probe_strength, max_iter=1000)
    grades.fit(features.train[known], truth[known, 1])
    expected = grades.predict_proba(features.test) @ grades.classes_
    # The unseen grade keeps a small probability.
    np.testing.assert_allclose(outputs[0][1], expected, atol=0.1)


def test_the_average_of_the_weights_sees_every_step_and_is_used(data, encoder, monkeypatch):
    """A stand-in for the engine's average puts zeros where the last weights were."""

    class Average:
        def __init__(self, module, decay):
            seen.append(("start", decay, module))

        def update(self, _module):
            seen.append("step")

        def copy_to(self, module):
            torch.nn.init.zeros_(module.head.weight)
            torch.nn.init.zeros_(module.head.bias)

    seen = []
    monkeypatch.setattr(multi_head_module, "EmaWeights", Average)
    features = frozen_features(encoder, data)
    truth = truth_of(CLASSES[6], data.train)[:, None]
    model = multi_head(encoder, features, (1,))
    config = MultiHeadConfig(num_steps=3, batch_size=4, ema_decay=0.9)
    fit_multi_head(model, data.train.images_nhwc, features.train, truth, config, seed=0)
    assert seen == [("start", 0.9, model), "step", "step", "step"]
    assert (predict(model, data.test.images_nhwc)[0] == 0).all()


def test_unknown_truth_has_no_gradient_and_the_loss_is_the_sum_of_its_tasks():
    torch.manual_seed(0)
    binary, grades = torch.randn(6, 1, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    truth = torch.tensor([[1.0, 0, 1, 0, 1, 0], [4, 3, 2, 1, 0, 0]]).T.clone()
    truth[2] = torch.nan
    loss = multi_head_loss((binary, grades), truth)
    loss.backward()
    assert (binary.grad[2] == 0).all()
    assert (grades.grad[2] == 0).all()
    assert (binary.grad[[0, 1, 3, 4, 5]] != 0).all()
    keep = [0, 1, 3, 4, 5]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(binary[keep, 0], truth[keep, 0])
    expected = expected + torch.nn.functional.cross_entropy(grades[keep], truth[keep, 1].long())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    nothing = multi_head_loss((binary, grades), torch.full((6, 2), torch.nan))
    assert nothing.item() == 0
    nothing.backward()


def test_grades_have_the_shares_of_the_labels(rng):
    truth = np.repeat([0, 1, 3], [70, 20, 10]).astype(float)
    values = rng.normal(size=1000)
    found = grades_by_share(values, values, truth)
    # Quantiles of the values themselves: exact to one eye.
    assert [int((found == grade).sum()) for grade in range(5)] == [700, 200, 0, 100, 0]
    assert found[values.argmax()] == 3
    assert (np.diff(found[values.argsort()]) >= 0).all()
    every = grades_by_share(values, values, np.arange(5.0))
    assert set(every) == {0, 1, 2, 3, 4}


def test_grades_of_a_linear_feature_are_found(rng):
    truth = rng.integers(0, 5, 200).astype(float)
    features = np.stack([truth * 3 + rng.normal(size=200), *rng.normal(size=(3, 200))], 1)
    patients = np.array([f"P{i // 2}" for i in range(200)])
    found = probe_grades(features[:100], truth[:100], patients[:100], features[100:], label="g")
    assert (found == truth[100:]).mean() > 0.7
    with pytest.raises(DataError, match="label 'g'"):
        probe_grades(features[:9], truth[:9] * 0, patients[:9], features, label="g")


def test_few_shot_draws_whole_patients_of_each_class(data):
    truth, patients = truth_of(FEW[0], data.train), data.train.patient_ids
    options = {"label": "few_shot_edema", "seed": 3, "draw": 1}
    picked = draw_patients(truth, patients, shots=4, **options)
    drawn = np.unique(patients[picked])
    positive = [patient for patient in drawn if truth[picked][patients[picked] == patient].any()]
    assert (len(drawn), len(positive)) == (8, 4)
    assert np.isfinite(truth[picked]).all()
    known = np.isfinite(truth)
    np.testing.assert_array_equal(picked, np.flatnonzero(known & np.isin(patients, drawn)))
    fewer = draw_patients(truth, patients, shots=2, **options)
    assert set(patients[fewer]) < set(drawn)
    again = draw_patients(truth, patients, shots=4, label="few_shot_edema", seed=3, draw=2)
    assert set(patients[again]) != set(drawn)
    with pytest.raises(DataError, match=r"50 \w+ patients were asked for"):
        draw_patients(truth, patients, shots=50, **options)


def test_few_shot_has_ten_draws_and_says_what_it_cannot_do(data):
    settings = replace(QUICK, shots=(1, 8, 64))
    rows = list(measure_few_shot(knowing_features(data, strength=10), data, FEW, settings, seed=0))
    assert [one.key for one in rows] == [f"{s.name}/few_shot/{k}" for s in FEW for k in (1, 8, 64)]
    assert all(len(one.eyes.scores) == 10 for one in rows if one.num_labels < 64)
    first, eight, many = (score(one.eyes, "auroc") if one.eyes else None for one in rows[:3])
    assert 0.5 < first < eight
    assert eight > 0.9
    assert many is None
    assert "64 positive patients were asked for" in rows[2].note


def test_features_that_are_not_finite_are_refused(data, encoder):
    with torch.no_grad():
        encoder.norm.weight[0] = torch.nan
    with pytest.raises(DataError, match="features that are not finite"):
        frozen_features(encoder, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": ()}, "budgets are"),
        ({"budgets": (300, 100)}, "ascending"),
        ({"shots": (0, 1)}, "from 1"),
        ({"readouts": ("knn",)}, "choose among"),
        ({"probe_draws": 0}, "probe_draws 0"),
        ({"num_draws": 99}, "num_draws 99"),
        ({"few_shot_draws": 9}, "needs 10 or more"),
        ({"few_shot_strength": 0.0}, "few_shot_strength"),
        ({"num_oct_components": 0}, "num_oct_components"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        TaskSettings(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"num_steps": -1},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"encoder_rate_scale": 2.0},
        {"probe_strength": 0.0},
        {"weight_decay": -1.0},
        {"ema_decay": 1.0},
    ],
)
def test_fine_tuning_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        MultiHeadConfig(**change)
