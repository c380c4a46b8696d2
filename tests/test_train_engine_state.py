"""Training states on disk: whole or absent, checked, and only as many as wanted."""

from __future__ import annotations

import json

import pytest
import torch

from edge_runtime.errors import CheckpointError
from train.engine import state as state_module
from train.engine.state import TrainingState, list_states, load_state, save_state


def make_state(step=7, **changes):
    values = {
        "step": step,
        "num_skipped": 1,
        "num_slices": 2,
        "world_size": 1,
        "sampler": {"seed": 0, "epoch": 1, "offset": 2},
        "identity": {"routes": "cfp_only", "learning_rate": 0.1},
        "tensors": {"model.w": torch.arange(6.0).reshape(2, 3), "random.torch": torch.zeros(3)},
    }
    return TrainingState(**{**values, **changes})


def test_what_is_saved_comes_back(tmp_path):
    state = make_state()
    path = save_state(tmp_path, state, keep=2)
    assert path.name == "step-00000007"
    again = load_state(tmp_path)
    for name in ("step", "num_skipped", "num_slices", "world_size", "sampler", "identity"):
        assert getattr(again, name) == getattr(state, name)
    assert set(again.tensors) == set(state.tensors)
    assert all(torch.equal(again.tensors[k], v) for k, v in state.tensors.items())
    assert list(again.group("model.")) == ["w"]


def test_no_pickle_is_written(tmp_path):
    path = save_state(tmp_path, make_state(), keep=1)
    assert sorted(one.name for one in path.iterdir()) == ["state.json", "state.safetensors"]


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save_state(tmp_path, make_state(step), keep=2)
    assert list(list_states(tmp_path)) == [15, 20]
    assert load_state(tmp_path).step == 20
    assert load_state(tmp_path, step=15).step == 15


def test_a_run_that_went_back_leaves_no_future(tmp_path):
    for step in (5, 10, 15):
        save_state(tmp_path, make_state(step), keep=3)
    save_state(tmp_path, make_state(6), keep=3)
    assert list(list_states(tmp_path)) == [5, 6]
    save_state(tmp_path, make_state(6, num_skipped=3), keep=3)
    assert load_state(tmp_path).num_skipped == 3


def test_a_killed_write_is_no_state(tmp_path, monkeypatch):
    save_state(tmp_path, make_state(5), keep=3)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(state_module, "_synchronize", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, make_state(10), keep=3)
    assert (tmp_path / "step-00000010.part").is_dir()
    assert load_state(tmp_path).step == 5
    monkeypatch.undo()
    save_state(tmp_path, make_state(10), keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000010"]


def _cut(path):
    data = (path / "state.safetensors").read_bytes()
    (path / "state.safetensors").write_bytes(data[:-8])


def _flip(path):
    data = bytearray((path / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "state.safetensors").write_bytes(data)


def _without(name):
    def damage(path):
        (path / name).unlink()

    return damage


def _record(**changes):
    def damage(path):
        record = {**json.loads((path / "state.json").read_text()), **changes}
        (path / "state.json").write_text(json.dumps(record))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "SHA-256"),
        (_flip, "SHA-256"),
        (_without("state.json"), "FileNotFound"),
        (_without("state.safetensors"), "FileNotFound"),
        (_record(format=99), "format is not 1"),
        (_record(surprise=1), "unexpected keyword"),
        (lambda path: (path / "state.json").write_text("{"), "JSONDecodeError"),
    ],
)
def test_a_damaged_state_is_refused_and_the_one_before_is_offered(tmp_path, damage, reason):
    save_state(tmp_path, make_state(5), keep=3)
    damage(save_state(tmp_path, make_state(10), keep=3))
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_state(tmp_path)
    assert "state before it is of step 5" in str(caught.value)
    assert load_state(tmp_path, step=5).step == 5


def test_a_damaged_only_state_has_none_before_it(tmp_path):
    _flip(save_state(tmp_path, make_state(10), keep=3))
    with pytest.raises(CheckpointError, match="none before it; start the run anew"):
        load_state(tmp_path)


def test_nothing_to_resume(tmp_path):
    assert load_state(tmp_path / "absent") is None
    with pytest.raises(CheckpointError, match="no state of step 3; it has: none"):
        load_state(tmp_path, step=3)
