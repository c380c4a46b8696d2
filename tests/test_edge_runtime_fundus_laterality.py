from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from fundus_factory import centred_fundus, png_bytes

from edge_runtime.errors import ImageError
from edge_runtime.fundus.laterality import OTHER_EYE, Laterality, guess_laterality, look_alike
from edge_runtime.preprocess import PreprocessSpec, load_for_model

SPEC = PreprocessSpec(size_px=96)


def prepared(data):
    return load_for_model(data, SPEC)[1].image_hwc


def phantom_eyes(phantom_dir):
    with (phantom_dir / "index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["gradable"] == "1":
                yield row["eye"], prepared((phantom_dir / row["cfp"]).read_bytes())


def test_phantom_eyes_are_told_apart(phantom_dir):
    guesses = [(eye, guess_laterality(image).eye) for eye, image in phantom_eyes(phantom_dir)]
    spoken = [(eye, guess) for eye, guess in guesses if guess is not None]
    assert len(spoken) >= 0.7 * len(guesses)
    assert np.mean([eye == guess for eye, guess in spoken]) >= 0.95


def test_a_mirrored_picture_is_the_other_eye(phantom_dir):
    for _, image in phantom_eyes(phantom_dir):
        side = guess_laterality(image).disc_side
        mirrored = guess_laterality(np.ascontiguousarray(image[:, ::-1])).disc_side
        assert mirrored == pytest.approx(-side, abs=0.05)


def test_no_disc_is_doubt():
    assert guess_laterality(prepared(png_bytes(centred_fundus(256)))).eye is None
    for level in (0, 5, 128, 255):
        guess = guess_laterality(np.full((96, 96, 3), level, np.uint8))
        assert guess.eye is None
        assert guess.disc_side == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size_px", [96, 224, 512])
def test_the_input_size_does_not_matter(size_px, phantom_dir):
    _, image = next(iter(phantom_eyes(phantom_dir)))
    scaled = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    expected = guess_laterality(image).disc_side
    assert guess_laterality(scaled).disc_side == pytest.approx(expected, abs=0.1)


def test_a_warning_only_against_a_named_eye():
    right = Laterality(disc_side=0.7)
    assert right.warnings("OS") == (OTHER_EYE,)
    assert right.warnings("OD") == right.warnings("unspecified") == ()
    assert Laterality(disc_side=-0.7).warnings("OD") == (OTHER_EYE,)
    assert Laterality(disc_side=-0.49).warnings("OD") == ()


@pytest.mark.parametrize(
    ("sides", "alike"),
    [
        ({"OD": 0.7, "OS": 0.7}, True),
        ({"OD": -0.7, "OS": -0.6}, True),
        ({"OD": 0.7, "OS": -0.7}, False),
        ({"OD": -0.7, "OS": 0.7}, False),
        ({"OD": 0.7, "OS": 0.4}, False),
        ({"OD": 0.7, "OS": None}, False),
        ({"OD": 0.7}, False),
        ({"unspecified": 0.7}, False),
    ],
)
def test_two_pictures_of_one_side(sides, alike):
    assert look_alike(sides) is alike


@pytest.mark.slow
def test_when_it_speaks_of_odir_validation_eyes_it_is_right(real_data_dir):
    odir = real_data_dir / "odir256"
    with (odir / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    spoken = []
    for row in rows:
        try:
            guess = guess_laterality(prepared((odir / row["image"]).read_bytes())).eye
        except ImageError:
            continue
        if guess is not None:
            spoken.append(guess == row["eye"])
    assert len(spoken) >= 0.75 * len(rows)
    assert np.mean(spoken) >= 0.98
