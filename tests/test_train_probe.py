"""The linear probe: finds what is linear, finds nothing in noise, refuses what it cannot fit."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_factory import TINY_ENCODER, make_split

from edge_runtime.errors import DataError
from train.arrays import normalize_cfp
from train.encoder import CfpEncoder
from train.probe import linear_probe, pooled_features


def _features(split, rng, *, signal):
    """Twelve random features; the fifth follows the label 'macular_edema' by `signal`."""
    features = rng.normal(size=(len(split), 12)) * 3 + 7
    features[:, 4] += signal * split.label("macular_edema")
    return features


def _probe(train, test, rng, *, signal, **changes):
    options = {"label": "macular_edema", "num_labels": 60, "num_draws": 3} | changes
    made = (_features(train, rng, signal=signal), _features(test, rng, signal=signal))
    return linear_probe(made[0], train, made[1], test, **options)


@pytest.fixture(scope="module")
def splits():
    return make_split(60), make_split(100, seed=1)


def test_a_separable_label_scores_1(splits, rng):
    result = _probe(*splits, rng, signal=100)
    assert result.auroc_mean > 0.999
    assert (result.label, result.num_labels, result.num_draws) == ("macular_edema", 60, 3)


def test_noise_scores_one_half(splits, rng):
    result = _probe(*splits, rng, signal=0, num_draws=10)
    assert result.auroc_mean == pytest.approx(0.5, abs=0.1)
    assert result.auroc_sd > 0


def test_draws_follow_the_seed(splits):
    first, again, other = (
        _probe(*splits, np.random.default_rng(0), signal=3, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.auroc_mean != other.auroc_mean


def test_eyes_without_the_label_are_left_out_on_both_sides(splits, rng):
    """Unknown eyes hold nonsense features: used anywhere, they would ruin a perfect score."""
    train, test = (replace(split, labels=split.labels.copy()) for split in splits)
    made = [_features(split, rng, signal=100) for split in (train, test)]
    for split, features in zip((train, test), made, strict=True):
        features[::3] = np.nan
        split.labels[::3, 0] = np.nan
    result = linear_probe(
        made[0], train, made[1], test, label="macular_edema", num_labels=60, num_draws=3
    )
    assert result.auroc_mean > 0.999


def test_too_few_labelled_eyes_are_refused(splits, rng):
    train, test = splits
    with pytest.raises(DataError, match="'macular_edema' is known for 120 eyes, 121 are needed"):
        _probe(train, test, rng, signal=1, num_labels=121)


def test_a_draw_of_one_class_is_refused_by_name(splits, rng):
    train, test = splits
    healthy = replace(train, labels=np.zeros_like(train.labels))
    with pytest.raises(DataError, match=r"'macular_edema'.*one class"):
        _probe(healthy, test, rng, signal=1)


def test_warnings_of_the_caller_stay_as_they_were(splits, rng):
    with warnings.catch_warnings():
        warnings.resetwarnings()
        _probe(*splits, rng, signal=1, num_draws=1)
        assert not warnings.filters


def test_features_are_means_of_tokens_whatever_the_batch():
    torch.manual_seed(0)
    encoder = CfpEncoder(TINY_ENCODER).eval()
    split = make_split(5)
    features = pooled_features(encoder, split.images_nhwc, batch_size=3)
    assert features.dtype == np.float64
    with torch.no_grad():
        expected = encoder(normalize_cfp(split.images_tensor())).mean(1).double().numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
