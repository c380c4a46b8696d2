"""Segmentation metrics: slow references beside the fast ones, and the empty masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.segmentation_metrics import cldice, dice, false_positive_share, hd95, iou
from train.skeleton import skeletonize

ALL = (dice, iou, cldice, hd95)


def slow_border(mask):
    """Pixels with a background pixel, or the image's end, above, below, left or right."""
    padded = np.pad(mask, 1)
    steps = ((0, 1), (0, -1), (1, 0), (-1, 0))
    return [
        (y, x)
        for y, x in np.argwhere(mask)
        if any(not padded[y + 1 + dy, x + 1 + dx] for dy, dx in steps)
    ]


def slow_hd95(predicted, reference):
    a, b = slow_border(predicted), slow_border(reference)
    there = [min(np.hypot(y - v, x - u) for v, u in b) for y, x in a]
    back = [min(np.hypot(y - v, x - u) for v, u in a) for y, x in b]
    return max(np.percentile(there, 95), np.percentile(back, 95))


def slow_dice(predicted, reference):
    found = set(map(tuple, np.argwhere(predicted)))
    there = set(map(tuple, np.argwhere(reference)))
    return 2 * len(found & there) / (len(found) + len(there))


def slow_cldice(predicted, reference):
    lines_p, lines_r = skeletonize(predicted[None])[0], skeletonize(reference[None])[0]
    precision = np.mean([reference[y, x] for y, x in np.argwhere(lines_p)])
    sensitivity = np.mean([predicted[y, x] for y, x in np.argwhere(lines_r)])
    if precision + sensitivity == 0:
        return 0.0
    return 2 * precision * sensitivity / (precision + sensitivity)


def blobs(seed, num=4, size=24):
    """Random smooth masks, none of them empty."""
    rng = np.random.default_rng(seed)
    fields = [cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 1.5) for _ in range(num)]
    return np.stack([one > np.quantile(one, rng.uniform(0.5, 0.98)) for one in fields])


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize(
    ("fast", "slow"), [(dice, slow_dice), (hd95, slow_hd95), (cldice, slow_cldice)]
)
def test_fast_and_slow_agree(fast, slow, seed):
    predicted, reference = blobs(seed), blobs(seed + 1)
    expected = [slow(p, r) for p, r in zip(predicted, reference, strict=True)]
    # 1e-5: OpenCV's distances are float32
    assert np.allclose(fast(predicted, reference), expected, atol=1e-5)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
def test_symmetry_identity_and_the_tie_between_dice_and_iou(seed):
    predicted, reference = blobs(seed), blobs(seed + 1)
    for metric in ALL:
        assert np.allclose(metric(predicted, reference), metric(reference, predicted))
    assert (dice(reference, reference) == 1).all()
    assert (cldice(reference, reference) == 1).all()
    assert (hd95(reference, reference) == 0).all()
    overlap = iou(predicted, reference)
    assert np.allclose(dice(predicted, reference), 2 * overlap / (1 + overlap))


def test_a_moved_square_is_as_far_away_as_it_was_moved():
    reference = np.zeros((1, 40, 40), bool)
    reference[0, 5:15, 5:15] = True
    moved = np.roll(reference, 20, axis=2)
    # columns 5-14 against 25-34: the far side is 20 px from its nearest pixel, the near one 11;
    # the far side is 10 of 36 border pixels, so the 95th percentile is on it
    assert hd95(moved, reference) == pytest.approx([20.0])
    assert dice(moved, reference) == [0.0]


def test_hd95_ignores_a_speck_that_the_maximum_would_see():
    reference = np.zeros((1, 60, 60), bool)
    reference[0, 20:40, 20:40] = True
    speck = reference.copy()
    speck[0, 0, 0] = True
    assert hd95(speck, reference) == [0.0]


def test_a_gap_costs_cldice_more_than_dice():
    reference = np.zeros((1, 32, 64), bool)
    reference[0, 14:19, 4:60] = True
    thin, cut = np.zeros_like(reference), reference.copy()
    thin[0, 16, 4:60] = True
    cut[0, :, 24:40] = False
    assert cldice(thin, reference) > 0.97 > 0.4 > dice(thin, reference)
    assert cldice(cut, reference) < dice(cut, reference) + 0.02
    assert cldice(cut, reference) < cldice(thin, reference) - 0.1


def test_empty_masks():
    empty, full = np.zeros((1, 30, 40), bool), np.zeros((1, 30, 40), bool)
    full[0, 10:20, 10:20] = True
    for metric in ALL:
        assert np.isnan(metric(empty, empty))
        assert np.isnan(metric(full, empty))
    for metric in (dice, iou, cldice):
        assert metric(empty, full) == [0.0]
    assert hd95(empty, full) == [50.0]  # the diagonal of 30 x 40


def test_false_positives_are_counted_where_there_is_nothing_to_find():
    field = np.zeros((20, 20), bool)
    field[5:15, 5:15] = True
    reference = np.zeros((3, 20, 20), bool)
    reference[2, 8, 8] = True
    predicted = np.zeros((3, 20, 20), bool)
    predicted[1:, 0:10, 0:20] = True  # half of the field, and pixels outside that do not count
    share = false_positive_share(predicted, reference, field)
    assert share[:2].tolist() == [0.0, 0.5]
    assert np.isnan(share[2])


@pytest.mark.parametrize("metric", ALL)
def test_what_is_no_pair_of_masks_is_refused(metric):
    masks = np.zeros((2, 8, 8), bool)
    with pytest.raises(ValueError, match=r"predicted masks are uint8 of shape \(2, 8, 8\)"):
        metric(masks.astype(np.uint8), masks)
    with pytest.raises(ValueError, match=r"reference masks are bool of shape \(8, 8\)"):
        metric(masks, masks[0])
    with pytest.raises(ValueError, match=r"shapes differ: \(2, 8, 8\) and \(1, 8, 8\)"):
        metric(masks, masks[:1])
