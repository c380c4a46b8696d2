"""Retrieval: chance is exact, ranks are those of a loop, and an eye is in the gallery once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tasks_factory import QUICK, knowing_features, task_data

from edge_runtime.errors import ConfigError, DataError
from train.tasks.registry import tasks_of_kind
from train.tasks.results import result_of
from train.tasks.retrieval import (
    OctCodes,
    RetrievalHeads,
    measure_retrieval,
    oct_codes,
    rank_of_own,
    recall_at,
)

SPECS = tasks_of_kind("retrieval")


@pytest.fixture(scope="module")
def data():
    return task_data()


def rows_of(data, features, **options):
    found = list(measure_retrieval(features, data, SPECS, QUICK, **options))
    return {(one.task, one.readout): one for one in found}


def slow_ranks(query, gallery):
    """A loop over cosine similarities."""
    better, tied = [], []
    for i, one in enumerate(query):
        similar = []
        for item in gallery:
            length = np.linalg.norm(one) * np.linalg.norm(item)
            similar.append(0.0 if length == 0 else float(one @ item) / length)
        better.append(sum(value > similar[i] + 1e-12 for value in similar))
        tied.append(sum(abs(value - similar[i]) <= 1e-12 for value in similar))
    return np.array(better), np.array(tied)


def test_ranks_are_those_of_a_loop_also_with_ties(rng):
    query = rng.normal(size=(40, 3))
    gallery = query + rng.normal(size=(40, 3))
    gallery[10:20] = gallery[0]
    gallery[5] = 0
    found = rank_of_own(query, gallery)
    better, tied = slow_ranks(query, gallery)
    np.testing.assert_array_equal(found.better, better)
    np.testing.assert_array_equal(found.tied, tied)
    assert found.tied.max() == 11


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7])
@pytest.mark.parametrize("num", [7, 100, 1201])
def test_a_constant_embedding_scores_exactly_chance(constant, num, rng):
    flat, other = np.full((num, 16), constant), rng.normal(size=(num, 16))
    for k in (1, 5, 10):
        ranks = rank_of_own(other, flat)
        np.testing.assert_array_equal(recall_at(ranks, k), min(1, k / num))
        np.testing.assert_array_equal(ranks.expected(), (num + 1) / 2)
    # As queries they are all one question: each of n answers is right for one of n eyes.
    assert recall_at(rank_of_own(flat, other), 1).mean() == pytest.approx(1 / num)


def test_itself_is_found_first_and_scale_does_not_matter(rng):
    own = rng.normal(size=(50, 4))
    ranks = rank_of_own(own, own * rng.uniform(0.1, 10, (50, 1)))
    assert recall_at(ranks, 1).mean() == 1
    np.testing.assert_array_equal(ranks.expected(), 1)


def test_an_embedding_that_is_not_finite_is_refused(rng):
    own = rng.normal(size=(5, 4))
    own[2, 1] = np.nan
    with pytest.raises(DataError, match="embedding is not finite"):
        rank_of_own(own, own)


def codes_of(data, rng, *, known):
    """Components that depend on features linearly (`known`) or on nothing."""
    features = knowing_features(data, strength=0.0)
    mixing = rng.normal(size=(16, 12))
    parts = [
        part @ mixing if known else rng.normal(size=(len(part), 12))
        for part in (features.train, features.val, features.test)
    ]
    return features, OctCodes(train=parts[0], val=parts[1], test=parts[2])


def test_what_is_linear_is_found_in_both_directions(data, rng):
    features, codes = codes_of(data, rng, known=True)
    rows = rows_of(data, features, codes=codes)
    for spec in SPECS:
        extra = rows[spec.name, "ridge"].extra
        assert extra["recall_at_1"] > 0.9
        assert extra["median_rank"] == 1


def test_noise_finds_chance_and_chance_is_printed(data, rng):
    features, codes = codes_of(data, rng, known=False)
    row = rows_of(data, features, codes=codes)["cfp_to_oct", "ridge"]
    # One eye of each of 40 patients a side: 10 of 40 by chance.
    assert row.chance == pytest.approx(10 / 40)
    assert row.extra["mean_gallery_size"] == 40
    assert row.extra["chance_median_rank"] == 20.5
    # 80 queries at 0.25: three standard deviations are 0.15.
    assert row.eyes.scores.mean() == pytest.approx(0.25, abs=0.15)
    result = result_of(row, num_draws=100, seed=0)
    assert (result.num_eyes, result.num_patients, result.metric) == (80, 40, "R@10")


def test_laterality_alone_finds_nothing(data):
    """Both sides know the side of the eye and nothing else: exactly chance, by stratifying."""
    side = [(split.eyes == "OS")[:, None] * 2.0 - 1 for split in (data.train, data.val, data.test)]
    features = knowing_features(data, strength=0.0)
    features = replace(features, train=side[0], val=side[1], test=side[2])
    codes = OctCodes(train=side[0], val=side[1], test=side[2])
    for row in rows_of(data, features, codes=codes).values():
        assert row.eyes.scores.mean() == pytest.approx(row.chance)


def test_a_second_visit_of_an_eye_is_not_in_the_gallery(data, rng):
    twice = data.test.keep(np.ones(len(data.test), bool))
    twice = replace(
        twice,
        **{
            name: np.concatenate([getattr(twice, name)] * 2)
            for name in ("images_nhwc", "scans_nvzx", "labels", "patient_ids", "eyes")
        },
    )
    again = replace(data, test=twice)
    features, codes = codes_of(again, rng, known=True)
    row = rows_of(again, features, codes=codes)["oct_to_cfp", "ridge"]
    assert row.extra["mean_gallery_size"] == 40
    assert len(row.eyes.truth) == 80


def test_heads_of_an_arm_are_measured_beside_the_ridge(data, rng):
    features, codes = codes_of(data, rng, known=False)
    embedding = rng.normal(size=(len(data.test), 5)).astype(np.float32)
    seen = []

    def embed(name):
        def call(images):
            seen.append((name, images.shape, images.dtype))
            return embedding

        return call

    heads = RetrievalHeads(embed_cfp=embed("cfp"), embed_oct=embed("oct"))
    rows = rows_of(data, features, codes=codes, heads=heads)
    assert list(rows) == [(s.name, r) for r in ("ridge", "zero_shot") for s in SPECS]
    assert rows["cfp_to_oct", "zero_shot"].extra["recall_at_1"] == 1
    assert seen == [("cfp", (80, 32, 32, 3), np.uint8), ("oct", (80, 2, 24, 32), np.uint8)]


def test_codes_are_white_on_training_scans_and_made_by_them_alone(data):
    codes = oct_codes(data, 3)
    np.testing.assert_allclose(codes.train.mean(0), 0, atol=1e-9)
    # Float32 components: covariance to four digits.
    np.testing.assert_allclose(np.cov(codes.train.T), np.eye(3), atol=1e-3)
    other = oct_codes(replace(data, test=data.val, val=data.test), 3)
    np.testing.assert_array_equal(other.train, codes.train)
    np.testing.assert_array_equal(other.val, codes.test)
    with pytest.raises(ConfigError, match="use fewer components"):
        oct_codes(data, 500)


def test_without_scans_the_rows_say_so(data):
    blind = replace(data, train=replace(data.train, scans_nvzx=None))
    rows = rows_of(blind, knowing_features(data, strength=0.0))
    assert [row.eyes for row in rows.values()] == [None, None]
    assert all("load the data with_oct=True" in row.note for row in rows.values())


def test_an_eye_that_lacks_a_scan_takes_no_part(data):
    """What such an eye's scans hold, zeros or noise, changes no figure."""

    def lacking(split, value):
        present = np.ones((len(split), 2), bool)
        present[::5, 1] = False
        scans = np.where(present[:, :, None, None], split.scans_nvzx, value).astype(np.uint8)
        return replace(split, scans_nvzx=scans, scans_present_nv=present)

    features = knowing_features(data, strength=0.0)
    found = []
    for value in (0, 200):
        parts = {name: lacking(getattr(data, name), value) for name in ("train", "val", "test")}
        found.append(rows_of(replace(data, **parts), features)["cfp_to_oct", "ridge"])
    assert len(found[0].eyes.truth) == 80 - 16
    np.testing.assert_array_equal(found[0].eyes.scores, found[1].eyes.scores)
    assert found[0].extra == found[1].extra


def test_a_split_without_a_complete_eye_is_a_note(data):
    nothing = np.zeros((len(data.val), 2), bool)
    blind = replace(data, val=replace(data.val, scans_present_nv=nothing))
    rows = rows_of(blind, knowing_features(data, strength=0.0))
    assert all("eyes with both B-scans in every split" in row.note for row in rows.values())
    small = replace(data, train=data.train.keep(np.arange(len(data.train)) < 3))
    features = knowing_features(small, strength=0.0)
    rows = rows_of(small, features)
    assert all("use fewer components" in row.note for row in rows.values())
