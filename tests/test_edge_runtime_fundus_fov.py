from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from fundus_factory import centred_fundus, fundus, jpeg_bytes

from edge_runtime.fundus.fov import find_field_of_view
from edge_runtime.image import decode_image


def assert_near(view, cx, cy, radius, tolerance):
    assert view is not None
    found = (view.cx_px, view.cy_px, view.radius_px)
    np.testing.assert_allclose(found, (cx, cy, radius), atol=tolerance)


@pytest.mark.parametrize("side", [96, 128, 160, 256, 400, 512, 1024])
@pytest.mark.parametrize("fill", [0.8, 0.985])
def test_circle_within_half_a_pixel(side, fill, rng):
    radius = fill * side / 2
    cx, cy = side / 2 + rng.uniform(-1, 1, 2) * (side / 2 - radius)
    image = fundus(side, side, cx=cx, cy=cy, radius=radius)
    tolerance = 0.5 if side <= 512 else 1.0
    assert_near(find_field_of_view(image), cx, cy, radius, tolerance)


@pytest.mark.parametrize("side", [128, 256, 512])
def test_jpeg_ringing_does_not_move_the_circle(side):
    image = decode_image(jpeg_bytes(centred_fundus(side), quality=80)).image_hwc
    assert_near(find_field_of_view(image), side / 2, side / 2, 0.95 * side / 2, 0.5)


@pytest.mark.parametrize("side", [128, 256, 400])
@pytest.mark.parametrize("fill", [1.0, 1.15])
def test_circle_that_touches_or_leaves_the_frame_on_all_sides(side, fill):
    view = find_field_of_view(centred_fundus(side, fill=fill))
    assert_near(view, side / 2, side / 2, fill * side / 2, 0.6)
    assert view.clipped_fraction == pytest.approx(1 - 1 / fill**2, abs=0.02)


def test_field_cut_by_the_frame_and_by_black_bars():
    cut = fundus(300, 400, cx=200, cy=150, radius=190)
    view = find_field_of_view(cut)
    assert_near(view, 200, 150, 190, 0.6)
    assert view.clipped_fraction == pytest.approx(1 - 300 / 380, abs=0.01)
    bars = np.pad(cut, ((20, 20), (0, 0), (0, 0)))  # straight edges inside the frame
    assert_near(find_field_of_view(bars), 200, 170, 190, 1.0)


@pytest.mark.parametrize("bar", [6, 12])
def test_arcs_in_the_corners_alone_are_enough(bar):
    # A camera that writes most of the frame full: the field's edge shows in the corners only.
    image = fundus(400, 400, cx=200, cy=200, radius=248)
    image[:bar] = image[-bar:] = 0
    assert_near(find_field_of_view(image), 200, 200, 248, 1.5)


def test_side_notch_does_not_move_the_circle():
    image = centred_fundus(400)
    image[150:180, 5:40] = (190, 95, 45)
    image[150:180, 370:] = (190, 95, 45)
    assert_near(find_field_of_view(image), 200, 200, 190, 0.7)


@pytest.mark.parametrize("shape", [(1500, 2200), (1920, 2560)])
def test_every_decode_scale_finds_the_same_circle(shape):
    height, width = shape
    data = jpeg_bytes(
        fundus(height, width, cx=width / 2 + 31, cy=height / 2 - 7, radius=0.46 * height)
    )
    circles = []
    for max_reduction in (1, 2, 4, 8):
        decoded = decode_image(data, target_px=96, max_reduction=max_reduction)
        assert decoded.reduction == max_reduction
        view = find_field_of_view(
            decoded.image_hwc, reduction=decoded.reduction, full_size_px=decoded.full_size_px
        )
        circles.append(np.array([view.cx_px, view.cy_px, view.radius_px]) * max_reduction)
    np.testing.assert_allclose(circles, [circles[0]] * 4, atol=1.0)
    truth = (width / 2 + 31, height / 2 - 7, 0.46 * height)
    np.testing.assert_allclose(circles[0], truth, atol=0.005 * height)


def test_images_without_a_circle(rng):
    page = np.full((300, 400, 3), 250, np.uint8)
    for row in range(40, 280, 20):
        cv2.putText(page, "the quick brown fox", (10, row), 0, 0.7, (10, 10, 10))
    ramp = np.broadcast_to(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (300, 300, 3))
    scene = np.zeros((300, 300, 3), np.uint8)
    scene[120:] = (60, 140, 50)
    scene[:120] = (120, 170, 230)
    square = np.zeros((300, 300, 3), np.uint8)
    square[30:270, 30:270] = (190, 95, 45)
    images = {
        "black": np.zeros((300, 300, 3), np.uint8),
        "white": np.full((300, 300, 3), 255, np.uint8),
        "uniform red": np.broadcast_to(np.array([180, 80, 40], np.uint8), (300, 300, 3)),
        "noise": rng.integers(0, 256, (300, 300, 3), dtype=np.uint8),
        "text": page,
        "ramp": ramp,
        "scene": scene,
        "square": square,
        "tiny": centred_fundus(16),
    }
    found = [
        name for name, image in images.items() if find_field_of_view(np.ascontiguousarray(image))
    ]
    assert found == []


def test_circle_on_white_is_refused():
    image = centred_fundus(300)
    y, x = np.ogrid[:300, :300]
    image[np.hypot(x - 150, y - 150) > 143] = 255
    assert find_field_of_view(image) is None


def test_real_validation_images(real_data_dir):
    found = {}
    for folder in ("odir256", "eyepacs400"):
        with (real_data_dir / folder / "index.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "val"][::4]
        views = [
            find_field_of_view(
                decode_image((real_data_dir / folder / row["image"]).read_bytes()).image_hwc
            )
            for row in rows
        ]
        found[folder] = np.mean([view is not None for view in views])
    assert min(found.values()) >= 0.97
