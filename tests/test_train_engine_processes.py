"""Several processes, and processes that die: the same run on 1 and 2 ranks, before and after.

CPU and gloo only; CUDA with NCCL is written and was never run.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine_process import NUM_STEPS, train, weights_sha256

from train.engine.settings import EngineConfig
from train.engine.state import list_states, load_state

pytestmark = pytest.mark.slow
OTHER_TABLES = {"joint": {}, "oct_first": {"one_scan": True}, "contrastive": {"one_scan": True}}
ROOT = Path(__file__).resolve().parent.parent


def start(job, *, num_processes=1, timeout_s=600):
    """Run tests/engine_process.py, under torchrun if there are several."""
    command = [sys.executable, str(ROOT / "tests" / "engine_process.py"), json.dumps(job)]
    if num_processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command[1:1] = [*torchrun, str(num_processes)]
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Two slices on one rank: results, and states of every step."""
    states = tmp_path_factory.mktemp("alone")
    engine = EngineConfig(num_slices=2, states=states, save_every=1, keep_states=NUM_STEPS)
    return train(engine), states


@pytest.fixture(scope="module")
def together(alone, tmp_path_factory):
    """Everything that two ranks do, in one start of two processes."""
    out = tmp_path_factory.mktemp("together")
    from_one = out / "from_one"
    shutil.copytree(alone[1], from_one)
    states = {"save_every": 1, "keep_states": NUM_STEPS}
    old = {"states": str(from_one), "keep_states": NUM_STEPS}
    runs = [
        {"name": "ddp", "engine": {**states, "states": str(out / "ddp")}},
        {"name": "fsdp", "engine": {**states, "states": str(out / "fsdp"), "parallel": "fsdp"}},
        {"name": "four", "engine": {"num_slices": 4}},
        {"name": "resumed", "engine": {**old, "resume_step": 3}},
        {"name": "resumed_fsdp", "engine": {**old, "resume_step": 2, "parallel": "fsdp"}},
    ]
    done = start({"out": str(out), "runs": runs}, num_processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.fixture(scope="module")
def other_tables(tmp_path_factory):
    """Routes with idle weights, or whose weights are idle in one slice, on two ranks."""
    out = tmp_path_factory.mktemp("tables")
    runs = [
        {"name": f"{table}_{kind}", "table": table, "engine": {"parallel": kind}, **more}
        for table, more in OTHER_TABLES.items()
        for kind in ("ddp", "fsdp")
    ]
    done = start({"out": str(out), "runs": runs}, num_processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def result(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def same_losses(first, second):
    """Equal to float32 rounding: ranks sum gradients in another order than slices do."""
    assert set(first) == set(second)
    for name, value in first.items():
        assert math.isclose(value, second[name], rel_tol=1e-5), name


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_trains(alone, together, kind):
    same_losses(alone[0].metrics, result(together, kind)["metrics"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("table", OTHER_TABLES)
def test_two_ranks_train_every_route(other_tables, table, kind):
    alone = train(EngineConfig(num_slices=2), table=table, **OTHER_TABLES[table])
    same_losses(alone.metrics, result(other_tables, f"{table}_{kind}")["metrics"])


def test_ranks_with_several_slices_each(together):
    four = train(EngineConfig(num_slices=4))
    same_losses(four.metrics, result(together, "four")["metrics"])


@pytest.mark.parametrize("name", ["resumed", "resumed_fsdp"])
def test_one_rank_becomes_two(alone, together, name):
    same_losses(alone[0].metrics, result(together, name)["metrics"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("step", [1, 4])
def test_two_ranks_become_one(alone, together, kind, step, tmp_path):
    states = tmp_path / "states"
    shutil.copytree(together / kind, states)
    assert load_state(states, step=step).world_size == 2
    done = train(EngineConfig(states=states, resume_step=step))
    same_losses(alone[0].metrics, done.metrics)


def test_a_state_holds_the_same_whoever_wrote_it(alone, together):
    one, two, sharded = (
        load_state(folder, step=2) for folder in (alone[1], together / "ddp", together / "fsdp")
    )
    for other in (two, sharded):
        assert {k: v.shape for k, v in other.tensors.items()} == {
            k: v.shape for k, v in one.tensors.items()
        }
        assert (other.tensors["random.masks"] == one.tensors["random.masks"]).all()
        assert other.sampler == one.sampler


def test_ranks_agree_to_skip_a_step_that_one_of_them_cannot_do(tmp_path):
    """Were only one to skip, the other would wait for it until the time is out."""
    job = {"out": str(tmp_path), "runs": [{"name": "nan", "engine": {}, "nan_eye": 0}]}
    done = start(job, num_processes=2, timeout_s=300)
    assert done.returncode != 0
    assert f"all {NUM_STEPS} steps were skipped" in done.stderr


@pytest.mark.parametrize("kill_at", [1, 2, 5, 6])
def test_a_killed_run_goes_on_as_if_it_had_not_been(alone, tmp_path, kill_at):
    whole, _ = alone
    states = tmp_path / "states"
    engine = {"num_slices": 2, "states": str(states), "save_every": 1, "resume": True}
    job = {"out": str(tmp_path), "runs": [{"name": "killed", "engine": engine}]}
    # A batch is drawn for each of the two slices of a step.
    killed = start({**job, "kill_at": 2 * kill_at})
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.json").exists()
    assert list(list_states(states))[-1:] == ([kill_at - 1] if kill_at > 1 else [])
    done = start(job)
    assert done.returncode == 0, done.stderr[-4000:]
    assert result(tmp_path, "killed")["metrics"] == whole.metrics
    assert result(tmp_path, "killed")["weights"] == weights_sha256(whole.model)
