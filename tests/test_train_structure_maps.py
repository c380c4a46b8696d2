"""Structure maps: true places, neutral maps where nothing is found, sizes, masks, tokens."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.image import decode_image
from edge_runtime.preprocess import PreprocessSpec, preprocess
from train.phantom.eye import RenderedEye, render_eye, render_latent
from train.structure.config import STRUCTURES
from train.structure.field import axes, find_field, robust_z, smooth
from train.structure.geometry import SquareGeometry
from train.structure.maps import (
    StructureMaps,
    StructureQuality,
    structure_from_masks,
    structure_maps,
)
from train.structure.ridges import find_ridges, vessel_probability
from train.structure.tokens import structure_tokens, token_structure

SIZES = (96, 160, pytest.param(448, marks=pytest.mark.slow))


def in_circle(image: np.ndarray) -> np.ndarray:
    """What preprocessing leaves of a picture whose circle fills the square."""
    x, y = axes(image.shape[0])
    return image * (x * x + y * y < 0.98**2)[..., None].astype(np.uint8)


@pytest.fixture(scope="module")
def rendered() -> RenderedEye:
    """A gradable right eye."""
    return render_eye(0, 3, "OD", image_px=96)


@pytest.fixture(scope="module")
def picture(rendered: RenderedEye) -> np.ndarray:
    return in_circle(rendered.cfp_hwc)


@pytest.fixture(scope="module")
def maps(picture: np.ndarray) -> StructureMaps:
    return structure_maps(picture)


def test_finds_the_places_of_a_synthetic_eye(rendered, maps):
    anatomy = rendered.eye.anatomy
    assert [one.found for one in maps.quality] == [True] * 4
    assert np.hypot(*np.subtract(maps.disc_xy, anatomy.disc_xy)) < anatomy.disc_radius
    assert np.hypot(*np.subtract(maps.fovea_xy, anatomy.fovea_xy)) < 2 * anatomy.disc_radius
    assert maps.eye == "OD"


def test_maps_are_soft_in_range_and_nothing_lies_outside_the_field(maps):
    for name in STRUCTURES:
        values = getattr(maps, name)
        assert values.dtype == np.float32
        assert values.shape == (96, 96)
        assert values.min() >= 0
        assert values.max() <= 1
        assert (values[maps.fov == 0] == 0).all()
    assert 0.7 < maps.fov.mean() < 0.78
    assert maps.stacked().shape == (96, 96, 4)


@pytest.mark.parametrize("size_px", SIZES)
def test_every_size_gives_the_same_places(size_px, rendered, maps):
    other = structure_maps(in_circle(render_eye(0, 3, "OD", image_px=size_px).cfp_hwc))
    diameter = 2 * rendered.eye.anatomy.disc_radius
    assert other.disc.shape == (size_px, size_px)
    assert np.hypot(*np.subtract(other.disc_xy, maps.disc_xy)) < 0.5 * diameter
    assert np.hypot(*np.subtract(other.fovea_xy, maps.fovea_xy)) < 0.5 * diameter
    for name in STRUCTURES:
        assert abs(getattr(other, name).mean() - getattr(maps, name).mean()) < 0.04


def test_a_mirrored_eye_is_the_other_eye(picture, maps):
    mirrored = structure_maps(np.ascontiguousarray(picture[:, ::-1]))
    assert mirrored.eye == "OS"
    for here, there in ((maps.disc_xy, mirrored.disc_xy), (maps.fovea_xy, mirrored.fovea_xy)):
        assert np.hypot(here[0] + there[0], here[1] - there[1]) < 0.06


def test_the_given_eye_decides_the_side(picture, maps):
    assert structure_maps(picture, eye="OD").fovea_xy == maps.fovea_xy
    other = structure_maps(picture, eye="OS")
    assert not other.quality[3].found
    assert other.quality[3].reason == "the fovea lies outside the field of view"
    assert other.eye == "OS"
    assert other.disc_xy == maps.disc_xy


def test_the_same_pixels_give_the_same_maps_and_stay_as_they_are(picture, maps):
    before = picture.copy()
    assert np.array_equal(structure_maps(picture).stacked(), maps.stacked())
    assert np.array_equal(picture, before)


def nothing_to_see() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    flat = np.full((96, 96, 3), (150, 80, 40), np.uint8)
    noise = np.clip(flat + rng.normal(0, 8, flat.shape), 0, 255).astype(np.uint8)
    ramp = (flat * np.linspace(0.3, 1, 96)[None, :, None]).astype(np.uint8)
    return {
        "black": np.zeros((96, 96, 3), np.uint8),
        "white": np.full((96, 96, 3), 255, np.uint8),
        "flat": in_circle(flat),
        "noise": in_circle(noise),
        "ramp": in_circle(ramp),
        "one pixel": np.pad(np.full((1, 1, 3), 255, np.uint8), ((48, 47), (48, 47), (0, 0))),
        "small": in_circle(flat)[:32, :32],
    }


@pytest.mark.parametrize("name", list(nothing_to_see()))
def test_nothing_to_see_gives_a_neutral_prior_with_a_reason(name):
    maps = structure_maps(nothing_to_see()[name])
    assert maps.disc_xy is maps.fovea_xy is maps.eye is None
    for position, structure in ((2, "disc"), (3, "macula")):
        values = getattr(maps, structure)[maps.fov > 0]
        assert values.min() == values.max() > 0
        assert maps.quality[position].confidence == 0
        assert not maps.quality[position].found
        assert len(maps.quality[position].reason) > 10
    assert np.isfinite(maps.stacked()).all()


def spoiled(rendered: RenderedEye, **capture: object) -> np.ndarray:
    eye = rendered.eye
    changed = replace(eye, capture=replace(eye.capture, **capture))
    return in_circle(render_latent(changed, image_px=96).cfp_hwc)


@pytest.mark.parametrize(
    "capture", [{"defocus": 6.0}, {"gain": 0.09}, {"media_opacity": 2.4, "veil": 0.8}]
)
def test_a_picture_too_bad_to_see_vessels_is_not_given_a_disc(capture, rendered):
    maps = structure_maps(spoiled(rendered, **capture))
    assert [one.found for one in maps.quality] == [True, False, False, False]
    for structure in ("vessels", "disc", "macula"):
        inside = getattr(maps, structure)[maps.fov > 0]
        assert inside.min() == inside.max() > 0
    assert maps.quality[3].reason == "disc: no vessels that could lead to the disc"


def test_a_field_beside_the_disc_is_not_given_one(rendered):
    maps = structure_maps(spoiled(rendered, field_shift_xy=(-0.55, 0.0)))
    assert maps.quality[1].found
    assert maps.disc_xy is None
    assert maps.quality[2].reason == "no bright place where vessels meet stands out"


def test_beside_the_middle_a_side_needs_a_dark_spot():
    """A disc in the middle of a field without a fovea: both sides are as good."""
    disc = np.hypot(*axes(96)) < 0.11
    flat = in_circle(np.full((96, 96, 3), (150, 80, 40), np.uint8))
    maps = structure_from_masks(flat, disc=disc)
    assert maps.quality[3].reason.startswith("decentred: on which side")
    assert maps.eye is None
    known = structure_from_masks(flat, disc=disc, eye="OS")
    assert known.quality[3].reason == "from the disc only: no dark spot there"
    assert known.fovea_xy[0] > 0.4


def test_masks_come_first(rendered, picture, maps):
    vessels, disc = rendered.masks["vessels"] > 0, rendered.masks["disc"] > 0
    given = structure_from_masks(picture, vessels=vessels, disc=disc)
    assert np.array_equal(given.vessels > 0, vessels & (given.fov > 0))
    assert np.array_equal(given.disc > 0, disc & (given.fov > 0))
    anatomy = rendered.eye.anatomy
    assert given.disc_xy == pytest.approx(anatomy.disc_xy, abs=0.02)
    assert given.disc_radius == pytest.approx(anatomy.disc_radius, rel=0.15)
    assert [one.reason for one in given.quality[1:3]] == ["mask", "mask"]
    assert given.quality[2].confidence == 1
    only_disc = structure_from_masks(picture, disc=disc)
    assert np.array_equal(only_disc.vessels, maps.vessels)


def test_an_empty_disc_mask_says_there_is_no_disc(picture):
    given = structure_from_masks(picture, disc=np.zeros((96, 96), np.bool_))
    assert given.quality[2].reason == "the mask of the disc is empty"
    assert given.quality[3].reason == "disc: the mask of the disc is empty"
    assert given.fovea_xy is None


def test_refuses_what_is_no_picture(picture):
    with pytest.raises(ConfigError, match="eye is 'left'; give 'OD', 'OS' or None"):
        structure_maps(picture, eye="left")
    with pytest.raises(ValueError, match=r"not \(96, 96, 3\) float32"):
        structure_maps(picture.astype(np.float32))
    with pytest.raises(ValueError, match=r"not \(96, 95, 3\) uint8"):
        structure_maps(picture[:, :95])
    with pytest.raises(ValueError, match="16 px is too small; give 32 or more"):
        structure_maps(picture[:16, :16])
    with pytest.raises(ValueError, match=r"mask disc is \(96, 96\) uint8, not \(96, 96\) bool"):
        structure_from_masks(picture, disc=np.zeros((96, 96), np.uint8))
    with pytest.raises(ValueError, match=r"found False with confidence 0\.5"):
        StructureQuality(found=False, confidence=0.5, reason="")


def test_a_cut_circle_has_a_cut_field(picture):
    cut = picture.copy()
    cut[:10], cut[-10:] = 2, 2  # what a black frame holds after JPEG
    field = find_field(cut)
    assert field.lit
    assert not field.inside[:9].any()
    assert not field.inside[-9:].any()
    assert field.inside[12:-12, 40:56].all()


def test_a_dark_line_has_its_direction():
    image = np.full((96, 96, 3), 120, np.uint8)
    cv2.line(image, (20, 28), (76, 68), (60, 60, 60), 2, cv2.LINE_AA)
    image = in_circle(image)
    field = find_field(image)
    ridges = find_ridges(image, field)
    assert ridges.angle[48, 48] == pytest.approx(np.arctan2(40, 56), abs=0.1)
    soft = vessel_probability(ridges)
    assert soft[48, 48] > 0.9
    assert soft[30, 66] < 0.1


def test_robust_z_and_smooth_against_plain_numpy(rng):
    values = rng.normal(7, 3, (60, 60)).astype(np.float32)
    values[:3] = 500  # what a mean would not survive
    z = robust_z(values, np.ones((60, 60), np.bool_))
    assert abs(z[10:].mean()) < 0.3
    assert z[10:].std() == pytest.approx(1, abs=0.25)
    wave = np.sin(np.arange(96) / 15)[None].repeat(96, 0).astype(np.float32)
    exact = cv2.GaussianBlur(wave, (0, 0), 10.0)
    assert np.abs(smooth(wave, 10.0) - exact)[24:-24, 24:-24].max() < 0.02


def test_tokens_are_the_means_of_patches(maps):
    tokens = token_structure(maps, 16)
    assert tokens.shape == (36, 4)
    assert tokens.dtype == np.float32
    for t, k in ((0, 0), (7, 1), (14, 3), (22, 2), (35, 0)):
        row, col = divmod(t, 6)
        patch = maps.stacked()[row * 16 : row * 16 + 16, col * 16 : col * 16 + 16, k]
        assert tokens[t, k] == pytest.approx(patch.mean(), abs=1e-6)
    with pytest.raises(ValueError, match="side 96 is not a multiple of the patch 20"):
        token_structure(maps, 20)


def test_a_batch_is_its_pictures_one_by_one(picture, maps):
    both = np.stack([picture, np.zeros_like(picture)])
    tokens, quality = structure_tokens(both, 16, eyes=["OD", "OS"])
    assert tokens.shape == (2, 36, 4)
    assert quality.dtype == np.float32
    assert np.array_equal(tokens[0], token_structure(maps, 16))
    assert np.array_equal(quality[0], maps.confidences())
    assert quality[1].tolist() == [0, 0, 0, 0]
    again, _ = structure_tokens(both, 16)
    assert np.array_equal(again, tokens)
    with pytest.raises(ValueError, match="1 eyes for 2 pictures"):
        structure_tokens(both, 16, eyes=["OD"])


@pytest.mark.parametrize("shift", [(0, 0), (-60, 20)])
def test_geometry_follows_preprocessing(shift):
    """A bright spot and its mask arrive where `point` says, also where the circle is cut off."""
    frame = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(frame, (200 + shift[0], 150 + shift[1]), 140, (150, 80, 40), -1)
    spot = np.zeros((300, 400), np.uint8)
    cv2.circle(spot, (230, 120), 6, 255, -1)
    frame[spot > 0] = (255, 255, 255)
    decoded = decode_image(cv2.imencode(".png", frame[..., ::-1])[1].tobytes())
    made = preprocess(decoded, PreprocessSpec(size_px=96))
    geometry = SquareGeometry.of(made.field_of_view, decoded.reduction)
    x, y = axes(96)
    seen = made.image_hwc[..., 2] > 150
    mask = geometry.mask(spot > 0, 96)
    expected = geometry.point(230, 120)
    assert (float(x[seen].mean()), float(y[seen].mean())) == pytest.approx(expected, abs=0.02)
    center = ((x * mask).sum() / mask.sum(), (y * mask).sum() / mask.sum())
    assert center == pytest.approx(expected, abs=0.01)
