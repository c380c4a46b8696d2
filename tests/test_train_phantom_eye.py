"""Rendered eyes: photograph, scans, masks, faint cues, camera pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_runtime.errors import ConfigError
from train.phantom.camera import camera_frame, render_camera_jpeg
from train.phantom.eye import RenderedEye, render_eye, render_latent
from train.phantom.latent import LatentEye
from train.phantom.oct import BOUNDARY_NAMES
from train.phantom.sample import sample_patient


@pytest.fixture(scope="module", autouse=True)
def one_opencv_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def rendered() -> list[RenderedEye]:
    return [render_latent(eye) for number in range(12) for eye in sample_patient(11, number)]


def gradable_eyes(count: int) -> list[LatentEye]:
    eyes = [eye for number in range(count) for eye in sample_patient(7, number)]
    return [eye for eye in eyes if not eye.capture.ungradable_kind][:count]


def in_field(size_px: int, radius: float = 0.97) -> np.ndarray:
    axis = (np.arange(size_px) + 0.5) / size_px * 2 - 1
    return np.hypot(axis[None], axis[:, None]) < radius


def test_shapes_and_types(rendered: list[RenderedEye]) -> None:
    one = rendered[0]
    assert (one.cfp_hwc.shape, one.cfp_hwc.dtype) == ((128, 128, 3), np.uint8)
    assert (one.oct_zx.shape, one.oct_zx.dtype) == ((2, 96, 128), np.uint8)
    assert one.boundaries_px.shape == (2, len(BOUNDARY_NAMES), 128)
    assert one.boundaries_px.dtype == np.float32
    for mask in one.masks.values():
        assert mask.shape == (128, 128)
        assert set(np.unique(mask)) <= {0, 255}


def test_surround_is_black_and_field_is_not(rendered: list[RenderedEye]) -> None:
    outside = ~in_field(128, 1.01)
    for one in rendered:
        assert one.cfp_hwc[outside].max() == 0
        assert one.cfp_hwc[in_field(128, 0.9)].mean() > 5


def test_boundaries_are_ordered_and_inside_the_scan(rendered: list[RenderedEye]) -> None:
    for one in rendered:
        assert np.all(np.diff(one.boundaries_px, axis=1) >= 0)
        assert one.boundaries_px.min() >= 0
        assert one.boundaries_px.max() < 96


def test_tissue_is_brighter_than_vitreous(rendered: list[RenderedEye]) -> None:
    rows = np.arange(96)[:, None]
    for one in rendered:
        for scan, edges in zip(one.oct_zx, one.boundaries_px, strict=True):
            above = scan[rows < edges[0] - 1]
            pigment = scan[(rows > edges[8]) & (rows < edges[9])]
            assert pigment.mean() > 3 * above.mean()


def test_disc_and_cup_masks_follow_the_latents(rendered: list[RenderedEye]) -> None:
    checked = 0
    for one in rendered:
        anatomy = one.eye.anatomy
        disc, cup = one.masks["disc"] > 0, one.masks["cup"] > 0
        if np.hypot(*anatomy.disc_xy) > 0.8 or one.eye.capture.ungradable_kind == "decentred":
            continue
        checked += 1
        centroid = (np.argwhere(disc).mean(0)[::-1] + 0.5) / 64 - 1
        assert np.allclose(centroid, anatomy.disc_xy, atol=0.02)
        assert not np.any(cup & ~disc)
        assert cup.sum() / disc.sum() == pytest.approx(anatomy.cup_ratio**2, abs=0.08)
    assert checked > 12


def test_vessel_mask_covers_a_plausible_share(rendered: list[RenderedEye]) -> None:
    for one in rendered:
        share = (one.masks["vessels"] > 0)[in_field(128)].mean()
        low = 0.01 if one.eye.capture.ungradable_kind == "decentred" else 0.04
        assert low < share < 0.25


def test_lesion_mask_is_empty_exactly_without_lesions(rendered: list[RenderedEye]) -> None:
    for one in rendered:
        lesions, labels = one.eye.lesions, one.eye.labels()
        count = len(lesions.drusen) + len(lesions.microaneurysms) + len(lesions.exudates)
        if count == 0:
            assert not one.masks["lesions"].any()
        if labels["dr_grade"] >= 2 and one.eye.capture.ungradable_kind != "decentred":
            assert one.masks["lesions"].any()


def test_left_eye_has_its_disc_on_the_left(rendered: list[RenderedEye]) -> None:
    for one in rendered:
        if one.eye.capture.ungradable_kind == "decentred":
            continue
        columns = np.argwhere(one.masks["disc"] > 0)[:, 1]
        assert (columns.mean() > 64) == (one.eye.anatomy.laterality == "OD")


def test_edema_is_faint_in_the_photograph_and_plain_in_the_scans() -> None:
    photograph, scans = [], []
    for eye in gradable_eyes(12):
        pair = [
            render_latent(replace(eye, disease=replace(eye.disease, edema=edema, schisis=0.0)))
            for edema in (0.0, 0.8)
        ]
        photograph.append(np.abs(np.subtract(*(one.cfp_hwc.astype(int) for one in pair))).mean())
        scans.append(np.abs(np.subtract(*(one.oct_zx.astype(int) for one in pair))).mean())
    assert 0.0 < np.mean(photograph) < 1.0
    assert np.mean(scans) > 8.0


def test_schisis_opens_a_dark_cavity_in_the_outer_nuclear_layer() -> None:
    for eye in gradable_eyes(6):
        sick = render_latent(replace(eye, disease=replace(eye.disease, schisis=0.9, edema=0.0)))
        well = render_latent(replace(eye, disease=replace(eye.disease, schisis=0.0, edema=0.0)))
        for k in (0, 1):
            thick = [
                one.boundaries_px[k, 6, 64] - one.boundaries_px[k, 5, 64] for one in (sick, well)
            ]
            assert thick[0] > thick[1] + 8


def test_glaucoma_thins_the_nerve_fibre_layer() -> None:
    for eye in gradable_eyes(6):
        thickness = []
        for severity in (0.0, 0.9):
            one = render_latent(replace(eye, disease=replace(eye.disease, glaucoma=severity)))
            thickness.append((one.boundaries_px[:, 1] - one.boundaries_px[:, 0]).mean())
        assert thickness[1] < 0.6 * thickness[0]


def test_failures_look_like_failures() -> None:
    (eye,) = gradable_eyes(1)
    plain = render_latent(eye).cfp_hwc.astype(float)
    changes = {"dark": {"gain": 0.15}, "overexposed": {"gain": 2.8}, "defocus": {"defocus": 6.0}}
    pictures = {
        kind: render_latent(
            replace(eye, capture=replace(eye.capture, ungradable_kind=kind, **change))  # type: ignore[arg-type]
        ).cfp_hwc.astype(float)
        for kind, change in changes.items()
    }
    assert pictures["dark"].mean() < 0.3 * plain.mean()
    assert pictures["overexposed"].mean() > 1.5 * plain.mean()
    inner = in_field(128, 0.8)

    def detail(picture: np.ndarray) -> float:
        smooth = cv2.GaussianBlur(picture, (0, 0), 3)
        return float((cv2.GaussianBlur(picture, (0, 0), 1) - smooth)[inner].std())

    assert detail(pictures["defocus"]) < 0.5 * detail(plain)


def test_rendering_repeats_exactly() -> None:
    first, again = (render_eye(3, 1, "OS") for _ in range(2))
    assert np.array_equal(first.cfp_hwc, again.cfp_hwc)
    assert np.array_equal(first.oct_zx, again.oct_zx)


@pytest.mark.parametrize("image_px", [60, 130, 2048])
def test_unusable_sizes_are_refused(image_px: int) -> None:
    with pytest.raises(ConfigError, match=f"image_px is {image_px}"):
        render_eye(0, 0, "OD", image_px=image_px)


def test_larger_picture_reduced_matches_the_small_one() -> None:
    inside = in_field(128)
    for eye in gradable_eyes(4):
        small = render_latent(eye).cfp_hwc.astype(float)
        large = render_latent(eye, image_px=768).cfp_hwc
        reduced = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
        assert np.abs(small - reduced)[inside].mean() < 3.5
        assert abs((small - reduced)[inside].mean()) < 1.0


def test_camera_jpeg_is_what_a_camera_writes() -> None:
    (eye,) = gradable_eyes(1)
    data = render_camera_jpeg(eye, width_px=1024)
    assert data[:4] == b"\xff\xd8\xff\xe1"
    assert data[6:12] == b"Exif\x00\x00"
    assert data[-2:] == b"\xff\xd9"
    frame = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    height, width = frame.shape[:2]
    assert width == 1024
    assert height < width
    assert frame[:20, :20].max() < 20
    assert frame[height // 2, width // 2].max() > 40
    assert render_camera_jpeg(eye, width_px=1024, exif=False)[2:4] == b"\xff\xe0"
    sampling = data[data.index(b"\xff\xc0") + 11]
    assert sampling == 0x22


def test_camera_frame_reduced_matches_the_small_picture() -> None:
    (eye,) = gradable_eyes(1)
    frame = camera_frame(eye, 1500)
    height, width = frame.shape[:2]
    rows = np.flatnonzero((frame.max(axis=2) > 25).sum(1) > 20)
    half = (rows[-1] - rows[0] + 1) / 2 / 0.985
    top, left = round(height / 2 - half), round(width / 2 - half)
    top = max(0, top)
    square = frame[top : height - top, left : width - left]
    reduced = cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    small = render_latent(eye).cfp_hwc.astype(float)
    assert np.abs(small - reduced)[in_field(128, 0.9)].mean() < 5


def test_camera_width_out_of_range_is_refused() -> None:
    (eye,) = gradable_eyes(1)
    with pytest.raises(ConfigError, match="width_px is 100"):
        render_camera_jpeg(eye, width_px=100)
