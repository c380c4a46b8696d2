"""The step loop: exact resume from every step, slices, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_factory import make_split, tiny_config

from edge_runtime.errors import CheckpointError, ConfigError
from train.engine.settings import EngineConfig
from train.engine.state import list_states
from train.oct_targets import make_oct_targets
from train.pretrain import pretrain
from train.routes import route_table

NUM_STEPS = 5


@pytest.fixture(scope="module")
def data():
    return make_split(8)


def equal_weights(first, second):
    own, other = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(other[name], value) for name, value in own.items())


def run(data, engine=None, **changes):
    return pretrain(data, tiny_config(**{"num_steps": NUM_STEPS, **changes}), engine=engine)


@pytest.fixture(scope="module", params=[1, 2], ids=["plain", "two slices"])
def whole(request, data, tmp_path_factory):
    """A run that was never stopped, and its states of every step."""
    folder = tmp_path_factory.mktemp("states")
    engine = EngineConfig(
        num_slices=request.param, states=folder, save_every=1, keep_states=NUM_STEPS
    )
    return run(data, engine), folder


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_a_run_resumed_after_any_step_ends_the_same(data, whole, step):
    done, folder = whole
    assert list(list_states(folder)) == [*range(1, NUM_STEPS + 1)]
    again = run(data, EngineConfig(states=folder, resume_step=step, keep_states=99))
    assert again.metrics == done.metrics  # mean losses over all steps, to the bit
    assert equal_weights(again, done)


def test_states_change_nothing(data, whole):
    done, folder = whole
    slices = 1 if folder.name.endswith("0") else 2
    assert equal_weights(run(data, EngineConfig(num_slices=slices)), done)


def test_resuming_where_nothing_is_begins(data, tmp_path):
    plain = run(data)
    first = run(data, EngineConfig(states=tmp_path / "s", resume=True, save_every=2))
    assert equal_weights(first, plain)
    assert list(list_states(tmp_path / "s")) == [2, 4, 5]
    finished = run(data, EngineConfig(states=tmp_path / "s", resume=True))
    assert equal_weights(finished, plain)
    assert finished.metrics == plain.metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"num_steps": 9}, "num_steps: 5 then, 9 now"),
        ({"routes": route_table("cfp_only")}, "routes: .*'target': 'oct'.* then"),
    ],
)
def test_a_state_of_other_settings_is_refused(data, whole, changes, message):
    with pytest.raises(CheckpointError, match=message):
        run(data, EngineConfig(states=whole[1], resume=True), **changes)


def test_a_state_of_other_data_is_refused(data, whole):
    with pytest.raises(CheckpointError, match="data_fingerprint"):
        run(
            replace(data, fingerprint="1" * 64),
            EngineConfig(states=whole[1], resume=True),
        )


def test_another_number_of_slices_than_the_state_has_is_refused(data, whole):
    with pytest.raises(ConfigError, match="num_slices is 4, the interrupted run had"):
        run(data, EngineConfig(states=whole[1], resume=True, num_slices=4))


@pytest.mark.parametrize("slices", [3, 8, 16])
def test_slices_must_divide_the_batch(data, slices):
    with pytest.raises(ConfigError, match="equal slices of at least 2"):
        run(data, EngineConfig(num_slices=slices))


def test_slices_are_the_same_eyes_in_other_portions(data):
    """A slice has masks and BatchNorm statistics of its own: near one batch, and not equal."""
    one, two = (run(data, EngineConfig(num_slices=n), num_steps=1) for n in (1, 2))
    for name, loss in one.metrics.items():
        assert two.metrics[name] == pytest.approx(loss, rel=0.3)
    assert not equal_weights(one, two)


def test_a_huge_gradient_is_skipped(data):
    with pytest.raises(ConfigError, match="all 2 steps were skipped"):
        run(data, EngineConfig(huge_gradient=1e-9), num_steps=2)
    assert run(data, EngineConfig(huge_gradient=1e9)).metrics["skipped_steps"] == 0


def test_skipped_steps_are_counted_over_a_resume(data, tmp_path):
    targets = torch.from_numpy(make_oct_targets(data.scans_nvzx, tiny_config().oct_target))
    clean = targets.clone()
    targets[3] = np.nan
    config = tiny_config(
        num_steps=6, oct_target=replace(tiny_config().oct_target, num_components=0)
    )
    whole = pretrain(data, config, oct_targets=targets)
    assert 0 < whole.metrics["skipped_steps"] < 6
    engine = EngineConfig(states=tmp_path, save_every=1, keep_states=9)
    pretrain(data, config, oct_targets=targets, engine=engine)
    again = pretrain(
        data, config, oct_targets=targets, engine=EngineConfig(states=tmp_path, resume_step=3)
    )
    assert again.metrics == whole.metrics
    assert equal_weights(again, whole)
    assert pretrain(data, config, oct_targets=clean).metrics["skipped_steps"] == 0


def test_time_is_counted(data):
    seconds = run(data).seconds
    assert 0 <= seconds["waiting"] < seconds["total"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": "dp"}, "parallel is 'dp'"),
        ({"num_slices": -1}, "num_slices -1"),
        ({"keep_states": 0}, "keep_states 0"),
        ({"huge_gradient": 0.0}, "huge_gradient is 0.0"),
        ({"resume": True}, "resuming needs the folder"),
        ({"resume_step": 3}, "resuming needs the folder"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig(**changes)
