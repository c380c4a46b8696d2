"""Masks at the model's input lie where the photograph's pixels lie."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from dataset_factory import make_dataset, make_rows, write_image, write_index

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.index import read_index
from train.data.model_masks import ModelMasks, fit_mask, load_model_masks
from train.phantom.eye import render_latent
from train.phantom.sample import sample_patient

SPEC = PreprocessSpec(size_px=96)


def photograph(height: int, width: int, center: tuple[int, int], radius: int, spot) -> np.ndarray:
    """A reddish field on black with one bright disc; spot is (x, y, radius)."""
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, center, radius, (150, 60, 30), -1)
    cv2.circle(image, spot[:2], spot[2], (255, 230, 200), -1)
    return image


def encode(image: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


@pytest.mark.parametrize(
    ("height", "width", "center", "radius", "spot", "suffix"),
    [
        (128, 128, (64, 64), 60, (90, 50, 9), ".png"),
        (400, 600, (310, 190), 180, (250, 260, 30), ".png"),  # off centre
        (300, 420, (210, 150), 190, (260, 100, 24), ".png"),  # cut by the frame
        (1600, 1600, (800, 790), 760, (1050, 700, 110), ".jpg"),  # decoded at 1/8
        (90, 90, (45, 45), 40, (60, 40, 7), ".png"),  # enlarged
    ],
)
def test_a_bright_disc_and_its_mask_stay_together(height, width, center, radius, spot, suffix):
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, spot[:2], spot[2], 1, -1)
    data = encode(photograph(height, width, center, radius, spot), suffix)
    decoded, made = load_for_model(data, SPEC)
    fitted = fit_mask(mask.astype(bool), decoded, made, SPEC)
    bright = made.image_hwc[..., 1] > 145  # half way between the field's green and the disc's
    both = (fitted & bright).sum()
    # a rim of half a pixel may fall to either side: 2 both / sum > 0.93 for a disc of 6 pixels
    assert 2 * both / (fitted.sum() + bright.sum()) > 0.93
    offset = [np.argwhere(fitted).mean(0), np.argwhere(bright).mean(0)]
    assert np.abs(offset[0] - offset[1]).max() < 0.25
    scale = 96 / (2 * made.field_of_view.radius_px * decoded.reduction)
    assert fitted.sum() == pytest.approx(np.pi * (spot[2] * scale) ** 2, rel=0.12)


def test_the_phantoms_disc_mask_covers_its_bright_disc():
    found = []
    for number in range(6):
        rendered = render_latent(sample_patient(3, number)[0], image_px=128)
        decoded, made = load_for_model(encode(rendered.cfp_hwc, ".png"), SPEC)
        disc = fit_mask(rendered.masks["disc"] > 0, decoded, made, SPEC)
        if not disc.any():
            continue
        ring = cv2.dilate(disc.astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool) & ~disc
        green = made.image_hwc[..., 1].astype(float)
        found.append(green[disc].mean() - green[ring].mean())
    assert len(found) >= 4
    assert np.mean(found) > 10  # grey levels; shifted by the disc's own size it would be below 0


def test_nothing_is_inside_beyond_the_field():
    data = encode(photograph(200, 300, (150, 100), 90, (150, 100, 10)), ".png")
    decoded, made = load_for_model(data, SPEC)
    whole = fit_mask(np.ones((200, 300), bool), decoded, made, SPEC)
    assert not whole[0, 0]
    assert whole[48, 48]
    assert whole.mean() == pytest.approx(np.pi / 4 * 0.98**2, abs=0.02)


def test_masks_of_visits_and_masks_that_are_absent(tmp_path):
    rows = make_rows(tmp_path)
    rows[1]["vessels"] = ""
    write_index(tmp_path, rows)
    visits = read_index(tmp_path).visits
    found = load_model_masks(visits, ("disc", "vessels", "lesions"), SPEC)
    assert found.masks_ncss.shape == (6, 3, 96, 96)
    assert found.present_nc.tolist() == [[True, i != 1, True] for i in range(6)]
    assert found.masks_ncss[:, 0].any((1, 2)).all()
    assert not found.masks_ncss[1, 1].any()
    assert not found.masks_ncss[:, 2].any()  # drawn and empty
    again = load_model_masks(visits, ("disc", "vessels", "lesions"), SPEC, num_threads=1)
    assert np.array_equal(found.masks_ncss, again.masks_ncss)
    kept = found.keep(np.array([4, 0]))
    assert len(kept) == 2
    assert np.array_equal(kept.masks_ncss[1], found.masks_ncss[0])


def test_refusals(tmp_path):
    make_dataset(tmp_path)
    visits = read_index(tmp_path).visits
    with pytest.raises(ConfigError, match="unknown mask 'fovea'; use some of vessels, disc"):
        load_model_masks(visits, ("fovea",), SPEC)
    with pytest.raises(ConfigError, match="must be distinct"):
        load_model_masks(visits, ("disc", "disc"), SPEC)
    write_image(tmp_path / "disc" / "P001_OD.png", np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError, match=r"row 4, column 'disc': the mask is 64 x 64 px, its CFP"):
        load_model_masks(visits, ("disc",), SPEC)
    write_image(tmp_path / "cfp" / "P000_OD.png", np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(DataError, match=r"row 2: 'P000_OD.png' cannot be used \(no circular"):
        load_model_masks(visits, ("disc",), SPEC)
    with pytest.raises(ValueError, match="2 names for 1 masks"):
        ModelMasks(
            masks_ncss=np.zeros((1, 1, 8, 8), bool),
            present_nc=np.ones((1, 1), bool),
            names=("disc", "cup"),
        )
