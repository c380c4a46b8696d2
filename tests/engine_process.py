"""A training process of its own, for tests that start several of them or kill one.

    python engine_process.py '{"out": ..., "runs": [{"name": ..., "engine": {...}}]}'

Rank 0 writes NAME.json for each run: metrics, and a SHA-256 of the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from training_factory import make_split, tiny_config

from train.device import CPU
from train.engine.distributed import current_ranks, process_group, total
from train.engine.settings import EngineConfig
from train.engine.source import MemorySource
from train.oct_targets import make_oct_targets
from train.pretrain import pretrain
from train.routes import route_table

NUM_STEPS = 6


def settings(**changes):
    """A float32 run whose batch is the whole data set of 16 eyes."""
    return tiny_config(**{"num_steps": NUM_STEPS, "batch_size": 16, "bfloat16": False, **changes})


def weights_sha256(model) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def train(engine, *, nan_eye=None, table="oct_informed", one_scan=False):
    """One run on the eyes that every process of a test shares."""
    data, config = make_split(8), settings(routes=route_table(table))
    targets = None
    if one_scan:  # in each batch, one slice holds the only eye that has scans
        present = np.zeros((len(data), 2), np.bool_)
        present[3] = True
        data = replace(data, scans_present_nv=present)
        config = replace(config, oct_target=replace(config.oct_target, num_components=0))
    if nan_eye is not None:  # seen by one slice of every batch, so by one rank
        config = replace(config, oct_target=replace(config.oct_target, num_components=0))
        targets = torch.from_numpy(make_oct_targets(data.scans_nvzx, config.oct_target))
        targets[nan_eye] = np.nan
    return pretrain(data, config, oct_targets=targets, engine=engine)


def engine_of(options) -> EngineConfig:
    states = options.get("states")
    return EngineConfig(**{**options, "states": None if states is None else Path(states)})


def main(job) -> None:
    if "kill_at" in job:
        _kill_when_drawing(job["kill_at"])
    with process_group(CPU):
        for run in job["runs"]:
            options = {k: run[k] for k in ("nan_eye", "table", "one_scan") if k in run}
            done = train(engine_of(run["engine"]), **options)
            own = weights_sha256(done.model)
            # Every rank holds the same weights: the sum of a digit is that digit times ranks.
            digits = torch.tensor([int(own[:6], 16)])
            assert int(total(digits.clone())) == current_ranks().world_size * int(digits)
            if current_ranks().is_main:
                record = {"metrics": done.metrics, "weights": own}
                (Path(job["out"]) / f"{run['name']}.json").write_text(json.dumps(record))


def _kill_when_drawing(number: int) -> None:
    """End this process by SIGKILL when it draws its batch of that number."""
    plain = MemorySource.stream

    def stream(self, picked):
        for drawn, batch in enumerate(plain(self, picked), start=1):
            if drawn == number:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    MemorySource.stream = stream


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
