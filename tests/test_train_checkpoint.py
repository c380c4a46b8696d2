"""Checkpoints: bit-identical round trips, and a refusal for everything that is not whole."""

from __future__ import annotations

import json

import pytest
import torch

from edge_runtime.errors import CheckpointError
from train.checkpoint import load_checkpoint, load_weights, save_checkpoint


@pytest.fixture
def folder(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b.c": torch.arange(5), "t": torch.randn(4, 3).T}
    save_checkpoint(tmp_path / "c", tensors, {"kind": "encoder", "note": [1, "x"]})
    return tmp_path / "c"


def test_round_trip(tmp_path):
    tensors = {"a": torch.randn(3, 4), "view": torch.randn(6, 2).T, "n": torch.tensor(7)}
    save_checkpoint(tmp_path, tensors, {"kind": "encoder", "note": [1, "x"]})
    found, config = load_checkpoint(tmp_path, kind="encoder")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert config["note"] == [1, "x"]
    assert config["code_version"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        load_checkpoint(folder, kind="encoder")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_checkpoint(tmp_path / "nowhere", kind="encoder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_damaged_files_are_refused(folder, name, damage):
    content = (folder / name).read_bytes()
    broken = {"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 100}
    (folder / name).write_bytes(broken[damage])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(folder, kind="encoder")


def test_a_config_that_is_no_object_is_refused(folder):
    (folder / "config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(CheckpointError):
        load_checkpoint(folder, kind="encoder")


def test_another_kind_is_refused(folder):
    with pytest.raises(CheckpointError, match="is a 'encoder', but a 'teacher' is needed here"):
        load_checkpoint(folder, kind="teacher")


def test_a_config_needs_a_kind(tmp_path):
    with pytest.raises(ValueError, match="needs a 'kind'"):
        save_checkpoint(tmp_path, {}, {})


def test_a_config_that_cannot_be_written_leaves_the_earlier_checkpoint(folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match="Out of range float"):
        save_checkpoint(folder, {"a": torch.zeros(1)}, {"kind": "encoder", "x": float("nan")})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_stopped_between_the_files_a_folder_is_not_whole(folder, monkeypatch):
    """New weights beside old settings would be loaded without a word."""
    import train.checkpoint as module

    plain = module._replace

    def stops(path, write):
        if path.name == "config.json":
            raise KeyboardInterrupt
        plain(path, write)

    monkeypatch.setattr(module, "_replace", stops)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, {"a": torch.zeros(1)}, {"kind": "encoder"})
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_checkpoint(folder, kind="encoder")


def test_weights_must_fit_on_both_sides():
    model = torch.nn.Linear(2, 3)
    good = model.state_dict()
    load_weights(model, good)
    for bad in (
        {"weight": good["weight"]},
        {**good, "extra": torch.zeros(1)},
        {**good, "bias": torch.zeros(4)},
    ):
        with pytest.raises(CheckpointError, match="weights do not fit the model"):
            load_weights(model, bad)


def test_settings_are_readable_json(folder):
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["kind"] == "encoder"
