"""The stateful sampler: epochs are permutations, and every state goes on exactly."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest

from edge_runtime.errors import CheckpointError, ConfigError
from train.data.sampler import EpochSampler
from train.schedule import batches


def slow_reference(num_items, batch_size, num_batches, seed):
    """Epochs drawn one after the other into a queue."""
    rng, queue = np.random.default_rng(seed), np.empty(0, np.int64)
    for _ in range(num_batches):
        while len(queue) < batch_size:
            queue = np.concatenate([queue, rng.permutation(num_items)])
        yield queue[:batch_size]
        queue = queue[batch_size:]


@pytest.mark.parametrize(("num_items", "batch_size"), [(7, 3), (12, 4), (5, 5), (9, 1), (64, 63)])
def test_batches_are_those_of_a_queue_of_epochs(num_items, batch_size):
    drawn = list(islice(EpochSampler(num_items, batch_size, 3), 20))
    for own, expected in zip(drawn, slow_reference(num_items, batch_size, 20, 3), strict=True):
        assert own.tolist() == expected.tolist()
    same = [picked.tolist() for picked in batches(num_items, batch_size, 20, 3)]
    assert same == [picked.tolist() for picked in drawn]


@pytest.mark.parametrize("num_items", [1, 2, 5, 30])
def test_every_epoch_holds_every_eye_once(num_items):
    sampler = EpochSampler(num_items, 4, 0)
    stream = np.concatenate(list(islice(sampler, num_items)))
    for epoch in stream[: len(stream) // num_items * num_items].reshape(-1, num_items):
        assert sorted(epoch.tolist()) == list(range(num_items))


@pytest.mark.parametrize("done", range(12))
def test_a_state_of_every_batch_goes_on_with_the_same_batches(done):
    whole = list(islice(EpochSampler(10, 4, 5), 20))
    sampler = EpochSampler(10, 4, 5)
    list(islice(sampler, done))
    state = json.loads(json.dumps(sampler.state_dict()))
    other = EpochSampler(10, 4, 5)
    list(islice(other, 9))  # wherever it was
    other.load_state_dict(state)
    assert [b.tolist() for b in islice(other, 8)] == [b.tolist() for b in whole[done : done + 8]]


def test_skipping_is_drawing_without_the_work():
    drawn, skipped = EpochSampler(10, 4, 1), EpochSampler(10, 4, 1)
    list(islice(drawn, 7))
    skipped.skip(7)
    assert skipped.state_dict() == drawn.state_dict()
    assert skipped.draw().tolist() == drawn.draw().tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "seed 8, this run has 5"),
        ({"num_items": 11}, "num_items 11, this run has 10"),
        ({"batch_size": 2}, "batch_size 2, this run has 4"),
        ({"offset": 10}, "offset 10; an epoch has 10 eyes"),
        ({"epoch": -1}, "epoch -1"),
        ({"more": 1}, "sampler state has"),
    ],
)
def test_a_state_of_another_run_is_refused(change, message):
    sampler = EpochSampler(10, 4, 5)
    with pytest.raises(CheckpointError, match=message):
        sampler.load_state_dict({**sampler.state_dict(), **change})


def test_nothing_cannot_be_drawn_from():
    with pytest.raises(ConfigError, match="0 eyes cannot give batches"):
        EpochSampler(0, 4, 0)
