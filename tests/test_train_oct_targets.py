"""OCT targets: flattened to Bruch's membrane, free of brightness and position, whitened."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from edge_runtime.errors import ConfigError
from train.dataset_arrays import load_split
from train.oct_flatten import bruch_rows, flatten_to_rows
from train.oct_targets import (
    OCT_TARGETS,
    OctTargetConfig,
    WhitenedComponents,
    make_oct_targets,
)
from train.phantom.truth import read_truth

BRUCH = 9  # index of Bruch's membrane among the phantom's layer boundaries


@pytest.fixture(scope="module")
def eyes(phantom_dir):
    """(scans (N, 2, Z, X) uint8, true rows of Bruch's membrane (N, 2, X)) of the phantom."""
    stems = sorted(path.stem for path in (phantom_dir / "truth").glob("*.npz"))
    scans = [
        [cv2.imread(str(phantom_dir / view / f"{stem}.png"), 0) for view in ("oct_h", "oct_v")]
        for stem in stems
    ]
    truth = [read_truth(phantom_dir / "truth" / f"{stem}.npz") for stem in stems]
    return np.array(scans), np.stack([one["boundaries_px"][:, BRUCH] for one in truth])


def test_the_membrane_is_found_from_the_image_alone(eyes):
    scans, truth = eyes
    found = bruch_rows(scans.reshape(-1, *scans.shape[2:])).reshape(truth.shape)
    error = np.abs(found - truth)
    assert truth.std() > 3  # there is something to find
    assert float(error.mean()) < 1.5
    assert float(error.mean(-1).max()) < 4.0  # and no single scan is lost


def test_flattening_brings_the_membrane_to_one_row(eyes):
    scans, truth = eyes
    flat, rows = scans.reshape(-1, *scans.shape[2:]), truth.reshape(-1, truth.shape[-1])
    marked = np.zeros(flat.shape, np.uint8)
    index = np.indices(rows.shape)
    marked[index[0], np.round(rows).astype(int), index[1]] = 255
    straight = flatten_to_rows(marked, np.round(rows).astype(np.float32), target_fraction=0.75)
    assert straight.dtype == np.float32
    assert (straight.argmax(1) == round(0.75 * flat.shape[1])).all()
    assert marked.argmax(1).std() > 3


def test_flattening_by_the_row_it_lies_on_changes_nothing():
    scan = np.random.default_rng(0).integers(0, 256, (1, 40, 16), dtype=np.uint8)
    rows = np.full((1, 16), 30, np.float32)
    np.testing.assert_array_equal(flatten_to_rows(scan, rows, target_fraction=0.75), scan)


def test_the_path_search_against_trying_every_path():
    from itertools import product

    from train.oct_flatten import _best_paths

    score = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)
    found = _best_paths(score)
    for scan in range(2):
        best, best_total = None, -np.inf
        for path in product(range(4), repeat=5):
            steps = np.abs(np.diff(path))
            if steps.max() > 1:
                continue
            total = score[scan, list(path), range(5)].sum() - 0.05 * steps.sum()
            if total > best_total:
                best, best_total = path, total
        assert tuple(found[scan]) == best


def test_every_target_scan_has_mean_0_and_sd_1(eyes):
    targets = make_oct_targets(eyes[0], OctTargetConfig())
    assert targets.shape == (len(eyes[0]), 2, 32, 32)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(targets.std((2, 3)), 1, atol=1e-4)


def _correlation(a, b):
    return np.array([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)])


def test_brightness_gain_does_not_change_targets(eyes):
    bright = eyes[0] // 2 * 2  # even, so that half of it is exact
    flattened = OctTargetConfig()
    np.testing.assert_allclose(
        make_oct_targets(bright // 2, flattened), make_oct_targets(bright, flattened), atol=0.02
    )
    raw = OctTargetConfig(kind="raw")
    change = np.abs(make_oct_targets(bright // 2, raw) - make_oct_targets(bright, raw))
    assert change.mean() > 0.05


def test_a_vertical_shift_hardly_changes_targets(eyes):
    scans = eyes[0]
    shifted = np.empty_like(scans)
    shifted[:, :, 5:], shifted[:, :, :5] = scans[:, :, :-5], scans[:, :, :1]
    kept, moved = (
        _correlation(make_oct_targets(shifted, config), make_oct_targets(scans, config))
        for config in (OctTargetConfig(), OctTargetConfig(kind="raw"))
    )
    assert kept.min() > 0.97
    assert kept.mean() > 0.99
    assert moved.mean() < 0.9


def test_raw_targets_are_the_pixels_where_they_lay(eyes):
    scans = eyes[0][:2]
    targets = make_oct_targets(scans, OctTargetConfig(kind="raw", side_px=32))
    rows, cols = scans.shape[2] // 32, scans.shape[3] // 32
    boxes = scans.reshape(2, 2, 32, rows, 32, cols).mean((3, 5))
    np.testing.assert_allclose(targets, boxes / 255 - 0.5, atol=1e-5)


def test_normalized_targets_have_mean_0_and_sd_1_in_every_patch(eyes):
    scans, _ = eyes
    config = OctTargetConfig(kind="normalized")
    targets = make_oct_targets(scans, config)
    tiles = targets.reshape(len(scans), 2, 4, 8, 4, 8)
    np.testing.assert_allclose(tiles.mean((3, 5)), 0, atol=1e-4)
    spread = tiles.std((3, 5))
    assert spread.max() < 1.0
    assert float(np.median(spread)) > 0.8  # most patches hold more than speckle
    raw = make_oct_targets(scans, OctTargetConfig(kind="raw")) * 255
    flat = raw.reshape(tiles.shape).std((3, 5))
    np.testing.assert_allclose(spread, flat / np.sqrt(flat**2 + 4), atol=1e-3)


def test_every_kind_of_target_is_another_one(eyes):
    scans, _ = eyes
    made = [make_oct_targets(scans, OctTargetConfig(kind=kind)) for kind in OCT_TARGETS]
    assert len({one.tobytes() for one in made}) == len(OCT_TARGETS) == 3
    assert all(one.dtype == np.float32 and np.isfinite(one).all() for one in made)


def test_chunks_do_not_matter(eyes):
    config = OctTargetConfig()
    np.testing.assert_array_equal(
        make_oct_targets(eyes[0][:7], config, chunk=3), make_oct_targets(eyes[0][:7], config)
    )


def test_a_blank_scan_gives_zeros_and_not_nan():
    targets = make_oct_targets(np.full((1, 2, 24, 32), 7, np.uint8), OctTargetConfig())
    assert not targets.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pixels"}, "kind is 'pixels'; choose one of 'flattened', 'normal"),
        ({"side_px": 30}, "side_px 30 is not a multiple of 8"),
        ({"num_components": -1}, "num_components is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        OctTargetConfig(**changes)


@pytest.fixture(scope="module")
def targets():
    """Random targets whose components differ a thousandfold in variance."""
    rng = np.random.default_rng(0)
    scale = np.geomspace(30, 1, 32)
    return (rng.normal(size=(400, 32)) * scale).reshape(400, 2, 4, 4).astype(np.float32)


def test_the_whitened_loss_against_a_slow_reference(targets, rng):
    whitened = WhitenedComponents.fit(targets, 5)
    predicted = rng.normal(size=(7, 2, 4, 4)).astype(np.float32)
    centred = targets.reshape(400, -1).astype(np.float64)
    covariance = np.cov(centred.T)
    variances, vectors = np.linalg.eigh(covariance)
    total = 0.0
    for i in range(7):
        error = (predicted[i] - targets[i]).ravel().astype(np.float64)
        for k in range(1, 6):
            total += (vectors[:, -k] @ error) ** 2 / variances[-k] / (7 * 5)
    found = whitened(torch.from_numpy(predicted), torch.from_numpy(targets[:7]))
    assert float(found) == pytest.approx(total, rel=1e-3)


def test_predicting_the_mean_scan_costs_about_1(targets):
    mean = torch.from_numpy(targets.mean(0, keepdims=True)).expand(400, 2, 4, 4)
    every = torch.from_numpy(targets)
    for num_components in (1, 5, 12):
        whitened = WhitenedComponents.fit(targets, num_components)
        assert float(whitened(mean, every)) == pytest.approx(1, abs=0.01)
        assert float(whitened(every, every)) == 0


def test_the_whitened_loss_ignores_autocast(targets):
    """bfloat16 would round errors to three digits; losses stay float32."""
    whitened = WhitenedComponents.fit(targets, 5)
    predicted, truth = torch.from_numpy(targets[10:20]), torch.from_numpy(targets[:10])
    exact = whitened(predicted, truth)
    with torch.autocast("cpu", torch.bfloat16):
        inside = whitened(predicted, truth)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, exact)


def test_too_few_eyes_for_the_components_are_refused(targets):
    with pytest.raises(ConfigError, match="12 eyes cannot give 12 components"):
        WhitenedComponents.fit(targets[:12], 12)


def test_components_travel_with_the_state_dict(targets):
    fitted = WhitenedComponents.fit(targets, 5)
    assert set(fitted.state_dict()) == {"directions", "spreads"}
    gram = fitted.directions @ fitted.directions.T
    torch.testing.assert_close(gram, torch.eye(5), atol=1e-5, rtol=0)


def test_targets_of_a_loaded_split_follow_its_rows(phantom_dir, eyes):
    split = load_split(phantom_dir, "test", size_px=32, with_oct=True)
    assert split.scans_nvzx is not None
    config = OctTargetConfig()
    together = make_oct_targets(split.scans_nvzx, config)
    alone = make_oct_targets(split.scans_nvzx[1:2], config)
    np.testing.assert_array_equal(together[1:2], alone)
    assert any(np.array_equal(split.scans_nvzx[1], scans) for scans in eyes[0])
