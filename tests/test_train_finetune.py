"""Fine-tuning: what is learnt from which eye, what stays frozen, what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_factory import DISEASES, TINY_ENCODER, make_split, tiny_config

from edge_runtime.errors import CheckpointError, ConfigError, DataError
from train.arrays import normalize_cfp
from train.checkpoint import save_checkpoint
from train.encoder import CfpEncoder
from train.finetune import FinetuneConfig, finetune, masked_bce, save_finetuned, task_loss
from train.pretrain import pretrain, pretrained_record, save_pretrained
from train.routes import route_table
from train.teacher import Teacher, TeacherOutput, load_teacher

NAN = float("nan")


def _config(**changes) -> FinetuneConfig:
    return replace(
        FinetuneConfig(labels=DISEASES, head_steps=2, num_steps=2, batch_size=8), **changes
    )


def _encoder() -> CfpEncoder:
    torch.manual_seed(0)
    return CfpEncoder(TINY_ENCODER).eval()


@pytest.fixture(scope="module")
def data():
    return make_split(8)


def test_masked_bce_against_a_slow_reference(rng):
    logits = rng.normal(size=(9, 4)) * 4
    labels = rng.integers(0, 2, (9, 4)).astype(float)
    labels[rng.random((9, 4)) < 0.4] = NAN
    losses = []
    for logit, label in zip(logits.ravel(), labels.ravel(), strict=True):
        if not np.isnan(label):
            probability = 1 / (1 + np.exp(-logit))
            losses.append(-np.log(probability if label else 1 - probability))
    assert 10 < len(losses) < 36
    found = masked_bce(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels).float())
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_unknown_labels_have_no_gradient():
    logits = torch.randn(3, 2, requires_grad=True)
    labels = torch.tensor([[1.0, NAN], [NAN, 0.0], [NAN, NAN]])
    masked_bce(logits, labels).backward()
    assert torch.equal(logits.grad != 0, torch.isfinite(labels))


def test_no_known_label_costs_nothing_and_moves_nothing():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = masked_bce(logits, torch.full((3, 2), NAN))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_bfloat16_logits_are_scored_in_float32():
    assert masked_bce(torch.zeros(2, 1, dtype=torch.bfloat16), torch.ones(2, 1)).dtype == (
        torch.float32
    )


def _output(logits, gradability):
    empty = torch.zeros(len(logits), 1)
    return TeacherOutput(
        logits=logits, gradability_logit=gradability, embedding=empty, tokens=empty[:, None]
    )


def test_diseases_of_ungradable_eyes_are_not_learnt():
    logits = torch.randn(4, 2, requires_grad=True)
    gradability = torch.randn(4, 1, requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, NAN]])
    gradable = torch.tensor([1.0, 0.0, NAN, 1.0])
    loss = task_loss(_output(logits, gradability), labels, gradable)
    loss.backward()
    # Unknown gradability hides nothing; an eye known to be ungradable hides everything.
    assert (logits.grad != 0).tolist() == [[True] * 2, [False] * 2, [True] * 2, [True, False]]
    assert (gradability.grad[:, 0] != 0).tolist() == [True, True, False, True]
    labels[1] = 1 - labels[1]
    assert torch.equal(task_loss(_output(logits, gradability), labels, gradable), loss)


def test_two_steps_and_back_from_the_checkpoint(data, tmp_path):
    config = _config()
    teacher = finetune(_encoder(), data, config)
    assert not teacher.training
    assert teacher.label_names == DISEASES
    save_finetuned(tmp_path, teacher, config, data_fingerprint=data.fingerprint)
    loaded, stored = load_teacher(tmp_path)
    assert stored["labels"] == list(DISEASES)
    assert stored["finetune"]["head_steps"] == 2
    assert stored["data_fingerprint"] == data.fingerprint
    assert stored["metrics"] == teacher.metrics
    assert stored["pretrained"] is None
    batch = normalize_cfp(data.images_tensor())
    with torch.no_grad():
        ours, theirs = teacher(batch), loaded(batch)
    assert ours.logits.shape == (16, 2)
    assert ours.gradability_logit.shape == (16, 1)
    assert ours.embedding.shape == (16, 16)
    assert ours.tokens.shape == (16, 4, 16)
    for name in ("logits", "gradability_logit", "embedding", "tokens"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_metrics_are_the_last_losses_and_what_was_skipped(data):
    heard = []
    config = _config(head_steps=3, num_steps=58, batch_size=2)
    teacher = finetune(_encoder(), data, config, progress=lambda *args: heard.append(args))
    assert [call[:2] for call in heard] == [(23, 61), (43, 61), (61, 61)]
    assert teacher.metrics["skipped_steps"] == 0
    assert 0 < teacher.metrics["loss"] < 5
    assert finetune(_encoder(), data, _config(head_steps=0, num_steps=0)).metrics == {
        "skipped_steps": 0
    }


def test_a_skipped_step_is_counted_and_spoils_no_mean(data, monkeypatch):
    calls = []

    def once_infinite(*args):
        calls.append(1)
        return task_loss(*args) * (float("nan") if len(calls) == 1 else 1.0)

    monkeypatch.setattr("train.finetune.task_loss", once_infinite)
    metrics = finetune(_encoder(), data, _config()).metrics
    assert metrics["skipped_steps"] == 1
    assert np.isfinite(metrics["loss"])


def test_a_teacher_says_which_encoder_it_came_from(data, tmp_path):
    done = pretrain(data, tiny_config(routes=route_table("cfp_only"), seed=3))
    save_pretrained(tmp_path / "encoder", done)
    record = pretrained_record(tmp_path / "encoder")
    weights = (tmp_path / "encoder" / "model.safetensors").read_bytes()
    assert record["sha256"] == hashlib.sha256(weights).hexdigest()
    assert record["pretrain"]["seed"] == 3
    teacher = Teacher(_encoder(), DISEASES)
    save_finetuned(tmp_path, teacher, _config(), data_fingerprint="0", pretrained=record)
    assert load_teacher(tmp_path)[1]["pretrained"] == record
    with pytest.raises(CheckpointError, match="a 'encoder' is needed"):
        pretrained_record(tmp_path)


def test_the_same_seed_gives_the_same_weights(data):
    first, again, other = (
        finetune(_encoder(), data, _config(seed=seed)).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(
    ("changes", "moves"),
    [({}, True), ({"encoder_rate_scale": 0.0}, False), ({"num_steps": 0}, False)],
)
def test_the_encoder_moves_only_in_the_second_phase(data, changes, moves):
    encoder = _encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    teacher = finetune(encoder, data, _config(**changes))
    after = teacher.encoder.state_dict()
    weights = {name for name, _ in encoder.named_parameters()}
    assert any(not torch.equal(after[name], before[name]) for name in weights) is moves
    for name in set(before) - weights:  # BatchNorm keeps the statistics of pretraining
        assert torch.equal(after[name], before[name]), name
    torch.manual_seed(0)
    start = Teacher(CfpEncoder(TINY_ENCODER), DISEASES)
    assert not torch.equal(teacher.head.weight, start.head.weight)
    assert not torch.equal(teacher.standardize.running_mean, start.standardize.running_mean)


def test_the_encoder_learns_at_a_fraction_of_the_heads_rate(data):
    def moved(scale):
        encoder = _encoder()
        before = encoder.position.detach().clone()
        finetune(encoder, data, _config(head_steps=0, num_steps=1, encoder_rate_scale=scale))
        return float((encoder.position.detach() - before).abs().mean())

    assert moved(0.1) == pytest.approx(0.1 * moved(1.0), rel=0.05)


def test_a_label_the_data_lacks_is_named(data):
    with pytest.raises(DataError, match="no label 'amd'; it has macular_edema, glaucoma, gradable"):
        finetune(_encoder(), data, _config(labels=("amd",)))


@pytest.mark.parametrize("name", [*DISEASES, "gradable"])
def test_a_label_of_one_class_is_refused_by_name(data, name):
    labels = data.labels.copy()
    column = data.label_names.index(name)
    labels[:, column] = 1
    labels[::2, column] = NAN
    with pytest.raises(DataError, match=f"'{name}' has fewer than two values among 16"):
        finetune(_encoder(), replace(data, labels=labels), _config())


def test_labelled_eyes_are_drawn_by_seed(data):
    with pytest.raises(DataError, match="fewer than two values among 1 training eyes"):
        finetune(_encoder(), data, _config(num_labeled=1))
    few, again, every = (
        finetune(_encoder(), data, _config(num_labeled=num)).state_dict() for num in (12, 12, 0)
    )
    assert torch.equal(few["head.weight"], again["head.weight"])
    assert not torch.equal(few["head.weight"], every["head.weight"])


def test_more_labelled_eyes_than_there_are_is_refused(data):
    with pytest.raises(DataError, match=r"17 labelled eyes .* 16"):
        finetune(_encoder(), data, _config(num_labeled=17))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ()}, "must be distinct diseases"),
        ({"labels": ("amd", "amd")}, "must be distinct diseases"),
        ({"labels": ("amd", "gradable")}, "without gradable"),
        ({"head_steps": -1}, "cannot be negative"),
        ({"num_labeled": -1}, "cannot be negative"),
        ({"encoder_rate_scale": 1.5}, "encoder_rate_scale 1.5"),
        ({"batch_size": 1}, "batch_size 1"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**changes)


@pytest.mark.parametrize("change", [{"labels": None}, {"labels": ["a"]}, {"encoder": {"x": 1}}])
def test_a_teacher_whose_settings_do_not_fit_is_refused(tmp_path, change):
    teacher = Teacher(_encoder(), DISEASES)
    save_finetuned(tmp_path, teacher, _config(), data_fingerprint="0")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(CheckpointError):
        load_teacher(tmp_path)


def test_an_encoder_is_no_teacher(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.zeros(2)}, {"kind": "encoder"})
    with pytest.raises(CheckpointError, match="is a 'encoder', but a 'teacher' is needed"):
        load_teacher(tmp_path)
