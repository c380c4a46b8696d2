"""The three scales: known by name, larger in every figure that matters, and possible."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edge_runtime.errors import ConfigError
from export.demo.presets import PRESETS, preset

GROWING = ("num_patients", "pretrain_steps", "head_steps", "finetune_steps", "distill_steps")


def test_every_scale_costs_more_than_the_one_before() -> None:
    assert list(PRESETS) == ["smoke", "small", "full"]
    for smaller, larger in pairwise(PRESETS.values()):
        for name in (*GROWING, "image_px", "size_px", "min_val_eyes", "num_int8_images"):
            assert getattr(smaller, name) <= getattr(larger, name), name
        assert smaller.num_patients < larger.num_patients
        assert smaller.pretrain_steps < larger.pretrain_steps


@pytest.mark.parametrize("name", PRESETS)
def test_a_scale_is_found_by_its_name_and_says_what_it_costs(name: str) -> None:
    size = preset(name)
    assert size.name == name
    assert size.cost
    train_eyes = 2 * 0.7 * size.num_patients
    assert max(size.num_probe_labels, size.num_int8_images) < train_eyes / 2
    assert size.size_px % 16 == 0, "the encoder's patches are 16 px"
    assert size.size_px <= size.image_px


def test_the_scale_that_never_ran_says_so() -> None:
    assert "never run" in preset("full").cost


def test_an_unknown_scale_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'large' is unknown; choose from smoke, small, full"):
        preset("large")
