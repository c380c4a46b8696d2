"""The pretraining loop: a two-step pulse of each arm, reproducibility, checkpoints, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_factory import TINY_ENCODER, TINY_TARGET, make_split, tiny_config

from edge_runtime.errors import CheckpointError, ConfigError
from train.arrays import normalize_cfp
from train.batch_norm import settle_batch_norm
from train.checkpoint import load_checkpoint, save_checkpoint
from train.encoder import CfpEncoder
from train.oct_pairing import oct_pairing, scans_taking_part
from train.oct_targets import make_oct_targets
from train.pretrain import (
    load_encoder,
    load_pretrained,
    pretrain,
    random_encoder,
    save_pretrained,
)
from train.pretrain_config import PretrainConfig
from train.routes import ROUTE_TABLES, route_table
from train.structure.config import StructureConfig

CFP_ONLY = route_table("cfp_only")


@pytest.fixture(scope="module")
def data():
    return make_split(8)


@pytest.fixture(scope="module")
def informed(data):
    return pretrain(data, tiny_config())


@pytest.mark.parametrize("routes", sorted(ROUTE_TABLES))
def test_two_steps_of_each_arm_and_back_from_the_checkpoint(data, tmp_path, routes):
    done = pretrain(data, tiny_config(routes=route_table(routes)))
    names = {f"loss {route.name}" for route in route_table(routes)}
    assert set(done.metrics) == names | {"skipped_steps"}
    assert all(np.isfinite(value) for value in done.metrics.values())
    assert done.metrics["skipped_steps"] == 0

    save_pretrained(tmp_path / "arm", done)
    encoder, config = load_encoder(tmp_path / "arm")
    assert [one["weight"] for one in config["pretrain"]["routes"]] == [
        route.weight for route in route_table(routes)
    ]
    assert config["data_fingerprint"] == data.fingerprint
    assert not encoder.training
    batch = normalize_cfp(data.images_tensor())
    with torch.no_grad():
        assert torch.equal(encoder(batch), done.model.cfp_encoder(batch))
    stored, _ = load_checkpoint(tmp_path / "arm", kind="encoder")
    assert set(stored) == set(done.model.state_dict())  # decoders too
    whole = load_pretrained(tmp_path / "arm")
    assert whole.config == done.config
    assert whole.metrics == done.metrics
    assert all(torch.equal(v, whole.model.state_dict()[k]) for k, v in stored.items())


def test_training_changes_every_weight(informed):
    torch.manual_seed(0)
    start = CfpEncoder(TINY_ENCODER)
    for name, weight in informed.model.cfp_encoder.named_parameters():
        assert not torch.equal(weight, dict(start.named_parameters())[name]), name


def test_the_same_seed_gives_the_same_weights(data, informed):
    again = pretrain(data, tiny_config()).model.state_dict()
    other = pretrain(data, tiny_config(seed=1)).model.state_dict()
    weights = informed.model.state_dict()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert not torch.equal(other["cfp_encoder.position"], weights["cfp_encoder.position"])


def test_targets_made_before_change_nothing(data, informed):
    targets = torch.from_numpy(make_oct_targets(data.scans_nvzx, TINY_TARGET))
    shared = pretrain(data, tiny_config(), oct_targets=targets).model.state_dict()
    assert all(torch.equal(shared[k], v) for k, v in informed.model.state_dict().items())


def test_labels_are_not_looked_at(data, informed):
    blind = replace(data, labels=np.full_like(data.labels, np.nan))
    weights = pretrain(blind, tiny_config()).model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in informed.model.state_dict().items())


def test_the_control_arm_never_sees_the_scans(data):
    config = tiny_config(routes=CFP_ONLY)
    blank = replace(data, scans_nvzx=np.zeros_like(data.scans_nvzx))
    weights = pretrain(data, config).model.state_dict()
    other = pretrain(blank, config).model.state_dict()
    assert all(torch.equal(other[k], v) for k, v in weights.items())


def test_shuffling_the_scans_changes_the_informed_arm(data, informed):
    shuffled = pretrain(data, tiny_config(shuffle_oct=True))
    key = "decoders.oct<-cfp.query"
    assert not torch.equal(shuffled.model.state_dict()[key], informed.model.state_dict()[key])


def test_batch_norm_is_settled_on_whole_photographs(data, informed):
    """Only the arithmetic of the last batch may differ from settling the weights anew."""
    own = informed.model.cfp_encoder
    fresh = CfpEncoder(TINY_ENCODER)
    fresh.load_state_dict(own.state_dict())
    settle_batch_norm(fresh, data.images_tensor())
    for name, value in own.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


@pytest.mark.parametrize("num_patients", [2, 3, 8, 50])
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_pairing_never_pairs_a_patient_with_itself(num_patients, seed):
    patients = np.array([f"P{i // 2}" for i in range(2 * num_patients)])
    other = oct_pairing(len(patients), patients, shuffled=True, seed=seed).numpy()
    assert (patients[other] != patients).all()
    again = oct_pairing(len(patients), patients, shuffled=True, seed=seed).numpy()
    assert (other == again).all()


def test_plain_pairing_is_the_eye_itself():
    patients = np.array(["A", "A", "B"])
    assert oct_pairing(3, patients, shuffled=False, seed=0).tolist() == [0, 1, 2]


def test_one_patient_cannot_be_shuffled():
    with pytest.raises(ConfigError, match="another patient"):
        oct_pairing(2, np.array(["A", "A"]), shuffled=True, seed=0)


def test_the_control_arm_needs_no_scans_at_all(data):
    config = tiny_config(routes=CFP_ONLY)
    weights = pretrain(data, config).model.state_dict()
    without = pretrain(replace(data, scans_nvzx=None), config).model.state_dict()
    assert all(torch.equal(without[k], v) for k, v in weights.items())


def test_scans_that_do_not_take_part_change_nothing(data):
    """Also not through the whitened components: another content, the same weights."""
    config = tiny_config(num_paired=6)
    present = scans_taking_part(None, len(data), 2, num_paired=6, seed=config.seed).numpy()
    assert present.sum() == 12
    assert (present[:, 0] == present[:, 1]).all()
    noise = np.random.default_rng(5).integers(0, 256, data.scans_nvzx.shape, dtype=np.uint8)
    other = replace(data, scans_nvzx=np.where(present[..., None, None], data.scans_nvzx, noise))
    weights = pretrain(data, config).model.state_dict()
    again = pretrain(other, config).model.state_dict()
    assert all(torch.equal(again[k], v) for k, v in weights.items())
    every = pretrain(data, tiny_config()).model.state_dict()
    assert not torch.equal(every["decoders.oct<-cfp.query"], weights["decoders.oct<-cfp.query"])


def test_missing_scans_are_left_out_of_the_paired_eyes():
    present = torch.ones(4, 2, dtype=torch.bool)
    present[1] = False
    present[2, 1] = False
    for seed in range(5):
        chosen = scans_taking_part(present, 4, 2, num_paired=2, seed=seed)
        assert int(chosen.any(1).sum()) == 2
        assert not (chosen & ~present).any()
    assert scans_taking_part(present, 4, 2, num_paired=0, seed=0) is present
    with pytest.raises(ConfigError, match="4 paired eyes were asked for, 3 have an OCT"):
        scans_taking_part(present, 4, 2, num_paired=4, seed=0)


def test_two_steps_with_missing_scans_and_every_structural_switch(data):
    present = np.ones((len(data), 2), bool)
    present[::3, 1] = False
    present[::4] = False
    switches = StructureConfig(hide_weight=0.5, attention="line", loss_alpha=1.0, target_weight=0.1)
    config = tiny_config(structure=switches, decoder_depth=2)
    done = pretrain(replace(data, scans_present_nv=present), config)
    assert {"loss oct<-cfp", "loss structure<-cfp"} <= set(done.metrics)
    assert all(np.isfinite(value) for value in done.metrics.values())
    assert done.metrics["skipped_steps"] == 0


def test_random_encoder_is_settled_and_seeded(data):
    first, again = (random_encoder(TINY_ENCODER, data, seed=4) for _ in range(2))
    other = random_encoder(TINY_ENCODER, data, seed=5)
    assert not first.training
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
    assert not torch.equal(first.position, other.position)
    norm = first.stem[0][1]
    assert not torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))


def test_pretraining_without_scans_is_refused(data):
    with pytest.raises(ConfigError, match="with_oct=True"):
        pretrain(replace(data, scans_nvzx=None), tiny_config())


def test_progress_is_told_in_words(data):
    heard = []
    config = tiny_config(num_steps=20, routes=CFP_ONLY, batch_size=2)
    pretrain(data, config, progress=lambda *args: heard.append(args))
    ((done, total, text),) = heard
    assert (done, total) == (20, 20)
    assert text.startswith("cfp<-cfp ")


def test_a_skipped_step_does_not_spoil_the_metrics(data, monkeypatch, tmp_path):
    """One non-finite loss is skipped by the guard; the checkpoint must still be written."""
    from train import pretrain_model

    plain, calls = pretrain_model.PretrainModel._score_cfp, []

    def once_infinite(self, *args):
        output = plain(self, *args)
        calls.append(1)
        return replace(output, loss=output.loss * float("nan")) if len(calls) == 1 else output

    monkeypatch.setattr(pretrain_model.PretrainModel, "_score_cfp", once_infinite)
    done = pretrain(data, tiny_config(num_steps=3, routes=CFP_ONLY))
    assert done.metrics["skipped_steps"] == 1
    assert np.isfinite(done.metrics["loss cfp<-cfp"])
    save_pretrained(tmp_path, done)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routes": ()}, "give at least one"),
        ({"routes": CFP_ONLY * 2}, "each name once"),
        ({"decoder_depth": 0}, "decoder_depth 0 must be >= 1"),
        ({"num_paired": -1}, "num_paired -1 cannot be negative"),
        ({"num_steps": 0}, "num_steps 0 must be >= 1"),
        ({"batch_size": 1}, "batch_size 1 >= 2"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**changes)


def _config_of(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "change",
    [
        {"pretrain": None},
        {"pretrain": {}},
        {"pretrain": {"encoder": {"size_px": 32, "colour": 1}}},
        {"pretrain": {"encoder": {"size_px": 64, "width": 16}}},
    ],
)
def test_a_checkpoint_whose_settings_do_not_fit_is_refused(informed, tmp_path, change):
    save_pretrained(tmp_path, informed)
    config = {**_config_of(tmp_path), **change}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError):
        load_encoder(tmp_path)


def test_another_kind_of_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.zeros(2)}, {"kind": "teacher"})
    with pytest.raises(CheckpointError, match="is a 'teacher', but a 'encoder' is needed"):
        load_encoder(tmp_path)
