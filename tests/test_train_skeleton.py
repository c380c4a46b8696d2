"""Thinning: against a slow reference, and what it must never change."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.skeleton import skeletonize


def slow_skeleton(mask: np.ndarray) -> np.ndarray:
    """Guo and Hall's A1, pixel by pixel as the paper writes it."""
    image = np.pad(mask, 1).astype(bool)
    changed = True
    while changed:
        changed = False
        for subiteration in (1, 2):
            doomed = []
            for y, x in np.argwhere(image):
                p2, p3, p4 = image[y - 1, x], image[y - 1, x + 1], image[y, x + 1]
                p5, p6, p7 = image[y + 1, x + 1], image[y + 1, x], image[y + 1, x - 1]
                p8, p9 = image[y, x - 1], image[y - 1, x - 1]
                runs = (
                    int(not p2 and (p3 or p4))
                    + int(not p4 and (p5 or p6))
                    + int(not p6 and (p7 or p8))
                    + int(not p8 and (p9 or p2))
                )
                first = int(p9 or p2) + int(p3 or p4) + int(p5 or p6) + int(p7 or p8)
                second = int(p2 or p3) + int(p4 or p5) + int(p6 or p7) + int(p8 or p9)
                side = (p2 or p3 or not p5) and p4
                if subiteration == 2:
                    side = (p6 or p7 or not p9) and p8
                if runs == 1 and 2 <= min(first, second) <= 3 and not side:
                    doomed.append((y, x))
            for y, x in doomed:
                image[y, x] = False
            changed |= bool(doomed)
    return image[1:-1, 1:-1]


def pieces(mask: np.ndarray) -> tuple[int, int]:
    """Connected parts (8 neighbours) and background parts (4 neighbours, so holes + 1)."""
    padded = np.pad(mask, 1).astype(np.uint8)
    parts = cv2.connectedComponents(padded, connectivity=8)[0] - 1
    return parts, cv2.connectedComponents(1 - padded, connectivity=4)[0] - 1


def random_masks(seed: int, num: int = 6, side: int = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = [
        cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 0.5 + k % 3) for k in range(num)
    ]
    return np.stack([one > 0.1 * one.std() for one in smooth])


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=12, deadline=None)
def test_it_is_the_published_algorithm(seed):
    masks = random_masks(seed, num=3, side=14)
    expected = np.stack([slow_skeleton(mask) for mask in masks])
    assert np.array_equal(skeletonize(masks), expected)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_parts_and_holes_stay_and_nothing_is_added(seed):
    masks = random_masks(seed)
    lines = skeletonize(masks)
    assert not (lines & ~masks).any()
    assert [pieces(one) for one in lines] == [pieces(one) for one in masks]


def test_thinning_again_changes_nothing():
    lines = skeletonize(random_masks(5))
    assert np.array_equal(skeletonize(lines), lines)


def test_a_bar_becomes_its_middle_line():
    mask = np.zeros((1, 15, 40), bool)
    mask[0, 5:10, 4:36] = True
    line = skeletonize(mask)[0]
    assert line.sum(0).max() == 1
    assert set(np.flatnonzero(line.any(1))) <= {6, 7, 8}
    assert line.sum() > 24


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_squares_do_not_vanish(size):
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 3 : 3 + size, 3 : 3 + size] = True
    assert 1 <= skeletonize(mask).sum() <= size


def test_images_do_not_see_each_other_and_edges_are_background():
    masks = random_masks(3)
    alone = np.concatenate([skeletonize(masks[i : i + 1]) for i in range(len(masks))])
    assert np.array_equal(skeletonize(masks), alone)
    assert skeletonize(np.ones((1, 9, 9), bool)).sum() >= 1
    assert skeletonize(np.zeros((2, 9, 9), bool)).sum() == 0


def test_one_image_alone_is_refused():
    with pytest.raises(ValueError, match=r"masks have shape \(9, 9\); give \(N, H, W\)"):
        skeletonize(np.ones((9, 9), bool))
