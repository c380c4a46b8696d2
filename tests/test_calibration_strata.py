"""The choice of INT8-calibration images: every kind of eye, only train, the same again."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.dataset import Eye
from calibration.strata import (
    FEWEST_IMAGES,
    Stratum,
    choose_int8_eyes,
    count_strata,
    thin_strata,
)
from edge_runtime.errors import DataError

KINDS = st.tuples(
    st.sampled_from(["north", "south"]),
    st.sampled_from(["", "0", "3"]),
    st.sampled_from([0.0, 1.0, np.nan]),
    st.sampled_from([0.0, 1.0, np.nan]),
    st.sampled_from(["train", "train", "val", "test"]),
)


def make_eye(number, site="a", grade="", gradable=1.0, finding=0.0, split="train") -> Eye:
    return Eye(
        row_number=number + 2,
        patient_id=f"P{number}",
        laterality="OD",
        site=site,
        split=split,
        cfp_path=Path(f"/data/cfp/{number}.png"),
        labels={"amd": finding, "gradable": gradable},
        grade=grade,
    )


@st.composite
def data_sets(draw):
    kinds = draw(st.lists(KINDS, min_size=1, max_size=80))
    eyes = [make_eye(i, *kind) for i, kind in enumerate(kinds)]
    return [*eyes, make_eye(len(eyes))]


@given(data_sets(), st.integers(1, 120), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_as_many_train_eyes_as_asked_for_each_once(eyes, num_images, seed):
    chosen = choose_int8_eyes(eyes, num_images, seed)
    train = [eye for eye in eyes if eye.split == "train"]
    assert len(chosen) == min(num_images, len(train))
    assert len({eye.patient_id for eye in chosen}) == len(chosen)
    assert {eye.split for eye in chosen} == {"train"}


@given(data_sets(), st.integers(1, 120), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_neither_the_rows_order_nor_the_folder_matters(eyes, num_images, seed, shuffler):
    from dataclasses import replace

    moved = [replace(e, cfp_path=Path("/elsewhere/cfp") / e.cfp_path.name) for e in eyes]
    shuffler.shuffle(moved)
    first, second = (choose_int8_eyes(e, num_images, seed) for e in (eyes, moved))
    assert [e.patient_id for e in first] == [e.patient_id for e in second]


@given(data_sets(), st.integers(1, 120))
@settings(max_examples=100, deadline=None)
def test_no_stratum_goes_short_while_another_has_more_than_the_minimum(eyes, num_images):
    strata = count_strata(eyes, choose_int8_eyes(eyes, num_images, seed=0))
    assert sum(s.num_available for s in strata) == sum(e.split == "train" for e in eyes)
    short = [s for s in strata if s.num_used < min(FEWEST_IMAGES, s.num_available)]
    if short:
        least = min(s.num_used for s in short)
        # One image more than the common level is what is left over when shares are rounded.
        assert all(s.num_used <= least + 1 or s.num_used <= FEWEST_IMAGES for s in strata)
        assert sum(min(s.num_available, least + 1) for s in strata) > num_images


def test_large_strata_share_by_size():
    eyes = [make_eye(i, "north" if i < 300 else "south") for i in range(400)]
    strata = count_strata(eyes, choose_int8_eyes(eyes, 116, seed=0))
    # 8 each, then 100 by the sizes that are left, 292 and 92: 76.04 and 23.96.
    assert [s.num_used for s in strata] == [84, 32]


def test_findings_inside_a_stratum_have_their_share():
    eyes = [make_eye(i, finding=float(i < 20)) for i in range(200)]
    chosen = choose_int8_eyes(eyes, 50, seed=3)
    assert sum(eye.labels["amd"] for eye in chosen) == 5


def test_choice_depends_on_the_seed():
    eyes = [make_eye(i) for i in range(100)]
    names = [[e.patient_id for e in choose_int8_eyes(eyes, 20, seed=s)] for s in (0, 0, 1)]
    assert names[0] == names[1]
    assert set(names[0]) != set(names[2])


def test_without_train_eyes_there_is_nothing_to_choose():
    with pytest.raises(DataError, match="train split is empty"):
        choose_int8_eyes([make_eye(0, split="val")], 10, seed=0)


def test_the_table_counts_by_camera_grade_and_quality():
    eyes = [
        *(make_eye(i, "north", "0") for i in range(20)),
        *(make_eye(20 + i, "north", "4", 0.0) for i in range(3)),
        make_eye(23, "north", "4", np.nan),
        make_eye(24, "north", "4", split="val"),
    ]
    random.Random(0).shuffle(eyes)
    chosen = choose_int8_eyes(eyes, 12, seed=0)
    strata = count_strata(eyes, chosen)
    assert [str(s) for s in strata] == [
        "site north, grade 0, gradable: 8 of 20",
        "site north, grade 4, ungradable: 3 of 3",
        "site north, grade 4, unknown: 1 of 1",
    ]
    assert thin_strata(strata) == strata[1:]


def test_a_refused_image_makes_its_stratum_thin():
    eyes = [make_eye(i) for i in range(8)]
    assert thin_strata(count_strata(eyes, eyes)) == ()
    assert thin_strata(count_strata(eyes, eyes[1:])) == (
        Stratum(site="a", grade="unknown", quality="gradable", num_available=8, num_used=7),
    )
