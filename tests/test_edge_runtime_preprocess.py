from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest
from fundus_factory import centred_fundus, fundus, jpeg_bytes, png_bytes

from edge_runtime.errors import BundleFormatError, ConfigError, FieldOfViewError
from edge_runtime.image import decode_image
from edge_runtime.preprocess import (
    PreprocessSpec,
    _resize_square,
    crop_box,
    load_for_model,
    preprocess,
)

SPEC = PreprocessSpec(size_px=96)


def difference(a, b):
    """Mean and largest absolute difference in grey levels."""
    gap = np.abs(a.astype(int) - b.astype(int))
    return gap.mean(), gap.max()


def test_output_shape_and_black_outside():
    _, out = load_for_model(png_bytes(centred_fundus(256)), SPEC)
    assert out.image_hwc.shape == (96, 96, 3)
    assert out.image_hwc.dtype == np.uint8
    assert out.image_hwc.flags.c_contiguous
    y, x = np.mgrid[:96, :96] - 47.5
    distance = np.hypot(x, y)
    assert not out.image_hwc[distance > 0.98 * 48].any()
    assert (out.image_hwc[distance < 0.97 * 48].sum(1) > 0).all()
    assert out.warnings == ()


@pytest.mark.parametrize("size_px", [32, 224])
def test_every_bit_inside_is_that_of_the_resize(size_px):
    """The steps by hand, and the mask as its definition: no pixel inside may lose a bit."""
    image = centred_fundus(512)
    side = image.shape[0]
    found = load_for_model(png_bytes(image), PreprocessSpec(size_px=size_px))[1]
    left, top, box = crop_box(found.field_of_view)
    square = np.zeros((box, box, 3), np.uint8)
    y0, y1, x0, x1 = max(top, 0), min(top + box, side), max(left, 0), min(left + box, side)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    while square.shape[0] > 4 * size_px:
        even = square.shape[0] // 2 * 2
        half = (even // 2, even // 2)
        square = cv2.resize(square[:even, :even], half, interpolation=cv2.INTER_AREA)
    double = cv2.resize(square, (2 * size_px, 2 * size_px), interpolation=cv2.INTER_LINEAR_EXACT)
    expected = cv2.resize(double, (size_px, size_px), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:size_px, :size_px] - (size_px - 1) / 2
    inside = np.hypot(y, x) <= 0.98 * size_px / 2
    assert np.array_equal(found.image_hwc[inside], expected[inside])
    assert not found.image_hwc[~inside].any()


def test_outside_the_frame_is_black():
    data = png_bytes(fundus(300, 400, cx=200, cy=150, radius=190))
    _, out = load_for_model(data, SPEC)
    rows = np.flatnonzero(out.image_hwc.any((1, 2)))
    assert rows[0] == pytest.approx(96 * 40 / 380, abs=1.5)
    assert rows[-1] == pytest.approx(96 * 340 / 380, abs=1.5)


@pytest.mark.parametrize("size_px", [96, 224])
def test_the_same_eye_at_any_file_size_gives_the_same_input(size_px):
    spec = PreprocessSpec(size_px=size_px)
    outputs = [
        load_for_model(png_bytes(centred_fundus(side)), spec)[1].image_hwc
        for side in (256, 400, 777, 1500)
    ]
    for output in outputs[1:]:
        mean, _ = difference(outputs[0], output)
        assert mean < 1.5


@pytest.mark.parametrize("side", [128, 256, 700])
@pytest.mark.parametrize("pads", [((8, 8), (8, 8)), ((0, 13), (31, 2)), ((40, 0), (0, 0))])
def test_a_black_border_changes_nothing(side, pads):
    image = centred_fundus(side)
    _, plain = load_for_model(png_bytes(image), SPEC)
    _, padded = load_for_model(png_bytes(np.pad(image, (*pads, (0, 0)))), SPEC)
    mean, largest = difference(plain.image_hwc, padded.image_hwc)
    assert mean < 1.0
    assert largest < 60  # single pixels on the steepest texture, for half a pixel of the crop


@pytest.mark.parametrize("encode", [jpeg_bytes, png_bytes])
def test_deterministic_to_the_bit(encode):
    data = encode(centred_fundus(300))
    first = load_for_model(data, SPEC)[1].image_hwc.copy()
    load_for_model(encode(centred_fundus(300, seed=5)), SPEC)
    np.testing.assert_array_equal(load_for_model(data, SPEC)[1].image_hwc, first)


@pytest.fixture(scope="module")
def camera_jpeg():
    return jpeg_bytes(fundus(1960, 2200, cx=1110, cy=985, radius=930))


@pytest.mark.parametrize(("size_px", "reduction"), [(96, 8), (224, 4)])
def test_decode_scale_hardly_matters(size_px, reduction, camera_jpeg):
    spec = PreprocessSpec(size_px=size_px)
    chosen, out = load_for_model(camera_jpeg, spec)
    assert chosen.reduction == reduction
    for max_reduction in (1, 2, 4):
        decoded = decode_image(camera_jpeg, target_px=size_px, max_reduction=max_reduction)
        mean, _ = difference(out.image_hwc, preprocess(decoded, spec).image_hwc)
        assert mean < 1.0


def test_small_field_in_a_wide_frame_is_decoded_again():
    data = jpeg_bytes(fundus(1600, 2400, cx=1200, cy=800, radius=360))
    spec = PreprocessSpec(size_px=150)
    assert decode_image(data, target_px=150).reduction == 8
    decoded, out = load_for_model(data, spec)
    assert decoded.reduction == 4
    assert 2 * out.field_of_view.radius_px >= 150
    assert out.warnings == ()


def test_too_few_pixels_are_enlarged_with_a_warning():
    decoded, out = load_for_model(jpeg_bytes(centred_fundus(128)), PreprocessSpec(size_px=224))
    assert decoded.reduction == 1
    assert out.image_hwc.shape == (224, 224, 3)
    assert "enlarged" in out.warnings[0]


def test_large_fields_are_not_aliased():
    # One-pixel stripes must average out, as a plain bilinear reduction would not do.
    image = centred_fundus(1600)
    flat = image.copy()
    image[:, ::2] = (image[:, ::2] * 0.5).astype(np.uint8)
    image[:, 1::2] = np.minimum(image[:, 1::2] * 1.5, 255).astype(np.uint8)
    spec = PreprocessSpec(size_px=100)
    mean, _ = difference(
        load_for_model(png_bytes(image), spec)[1].image_hwc,
        load_for_model(png_bytes(flat), spec)[1].image_hwc,
    )
    assert mean < 6


def test_field_of_view_is_in_pixels_of_the_decoded_image():
    decoded, out = load_for_model(jpeg_bytes(centred_fundus(1600)), SPEC)
    assert decoded.reduction == 8
    assert out.field_of_view.radius_px * 8 == pytest.approx(0.95 * 800, abs=4)


def test_no_field_and_too_small_a_field():
    with pytest.raises(FieldOfViewError, match="no circular field"):
        load_for_model(png_bytes(np.zeros((200, 200, 3), np.uint8)), SPEC)
    with pytest.raises(FieldOfViewError, match=r"radius of 2\d\.\d px"):
        load_for_model(png_bytes(centred_fundus(60)), SPEC)
    loose = PreprocessSpec(size_px=96, min_radius_px=20)
    assert load_for_model(png_bytes(centred_fundus(60)), loose)[1].image_hwc.any()


def test_spec_round_trip_through_json():
    spec = PreprocessSpec(size_px=224, min_radius_px=40, mask_radius_fraction=0.95)
    assert PreprocessSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert PreprocessSpec.from_dict(spec.to_dict()).sha256() == spec.sha256()


def test_hash_depends_on_every_field_and_on_nothing_else():
    specs = [
        SPEC,
        PreprocessSpec(size_px=97),
        PreprocessSpec(size_px=96, min_radius_px=33),
        PreprocessSpec(size_px=96, mask_radius_fraction=0.97),
    ]
    assert len({spec.sha256() for spec in specs}) == len(specs)
    one = PreprocessSpec(size_px=96, mask_radius_fraction=1)
    assert one.sha256() == PreprocessSpec(size_px=96, mask_radius_fraction=1.0).sha256()


@pytest.mark.parametrize(
    "change",
    [{"extra": 1}, {"size_px": None}, {"size_px": "96"}, {"version": 3}, {"size_px": True}],
)
def test_from_dict_refuses(change):
    with pytest.raises(BundleFormatError):
        PreprocessSpec.from_dict({**SPEC.to_dict(), **change})


def test_from_dict_names_what_is_missing():
    values = SPEC.to_dict()
    del values["size_px"]
    with pytest.raises(BundleFormatError, match="size_px"):
        PreprocessSpec.from_dict(values)


@pytest.mark.parametrize(
    "change",
    [
        {"size_px": 8},
        {"size_px": 5000},
        {"version": 0},
        {"min_radius_px": 1},
        {"mask_radius_fraction": 1.1},
        {"mask_radius_fraction": float("nan")},
    ],
)
def test_spec_out_of_range(change):
    with pytest.raises(ConfigError, match=next(iter(change)) + "|version"):
        PreprocessSpec(**{"size_px": 96, **change})


def test_camera_originals_end_to_end(real_data_dir):
    paths = sorted((real_data_dir / "fullres" / "images").iterdir())
    assert len(paths) >= 10
    for path in paths:
        decoded, out = load_for_model(path.read_bytes(), PreprocessSpec(size_px=224))
        assert 2 * out.field_of_view.radius_px >= 224
        assert out.warnings == ()
        assert decoded.reduction in ((1,) if path.suffix == ".png" else (4, 8))


def test_the_resize_gives_the_same_bytes_on_every_machine():
    """The constant was computed on x86-64 and on aarch64 (emulated, see `make wheel-aarch64`).

    Noise of whole numbers, so that every machine starts from the same bytes. The sides take every
    branch: enlarged, shrunk by less and by more than two, exactly two, and halved first.
    """
    digest = hashlib.sha256()
    for side in (80, 128, 192, 257, 383, 500, 1000):
        square = np.random.default_rng(side).integers(0, 256, (side, side, 3)).astype(np.uint8)
        digest.update(_resize_square(square, 96).tobytes())
    assert digest.hexdigest() == "328f86c4fbbdd1de53c83b914a5298eea26f59365512c642f8c5457e04566d3f"
