from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_photo_factory import photo_bytes
from fundus_factory import centred_fundus, fundus, jpeg_bytes, png_bytes
from wrong_input_factory import WRONG_INPUT, in_circle

from edge_runtime.bundle_parts.manifest import Protocol
from edge_runtime.errors import BundleFormatError, ConfigError, FieldOfViewError, ImageError
from edge_runtime.fundus import quality
from edge_runtime.fundus.quality import QualityLimits, assess_image
from edge_runtime.preprocess import PreprocessSpec, load_for_model

SPEC = PreprocessSpec(size_px=96)
LIMITS = QualityLimits()
NOT_COLOUR = "not a colour fundus photograph"


def assess(image, *, spec=SPEC, limits=LIMITS):
    return assess_image(*load_for_model(png_bytes(image), spec), limits)


def disc(colour, side=256):
    """A disc of one colour."""
    image = np.zeros((side, side, 3), np.uint8)
    cv2.circle(image, (side // 2, side // 2), side // 2 - 8, colour, -1)
    return image


def test_synthetic_fundus_is_accepted_with_all_measures():
    report = assess(centred_fundus(256))
    assert report.gradable
    assert report.reasons == ()
    assert all(np.isfinite(value) for value in report.measures.values())
    assert {"colour", "luma", "detail", "visible_share"} <= set(report.measures)
    json.dumps(report.measures, allow_nan=False)


def test_grey_saved_as_colour():
    grey = np.repeat(centred_fundus(256)[..., :1], 3, axis=2)
    report = assess(grey)
    assert report.reasons == (NOT_COLOUR,)
    assert report.measures["colour"] == 0


def test_green_tinted_autofluorescence_is_refused():
    grey = centred_fundus(256)[..., 0]
    assert NOT_COLOUR in assess(np.dstack([grey // 3, grey, grey // 3])).reasons
    assert NOT_COLOUR in assess(np.dstack([grey // 2, grey, grey // 2])).reasons


def test_noise_in_a_circle(rng):
    image = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    image[disc((1, 1, 1))[..., 0] == 0] = 0
    assert NOT_COLOUR in assess(image).reasons


def test_swapped_channels_are_refused():
    image = np.ascontiguousarray(centred_fundus(256))
    swapped = image.copy()
    swapped[..., 0] = (image[..., 2] * 1.2).astype(np.uint8)
    swapped[..., 2] = image[..., 0]
    assert NOT_COLOUR in assess(swapped).reasons


@pytest.mark.parametrize("name", ["detail", "colour", "step_share", "centre_offset"])
def test_a_statistic_that_is_no_number_passes_nothing(monkeypatch, name):
    measured = {**assess(centred_fundus(256)).measures, name: float("nan")}
    monkeypatch.setattr(quality, "measure_field", lambda _: measured)
    monkeypatch.setattr(quality, "_frame_measures", lambda *_: {})
    assert assess(centred_fundus(256)).reasons == ("artefact",)


def test_uniform_disc_has_no_detail():
    assert "blur" in assess(disc((180, 80, 40))).reasons


def test_strong_blur_is_refused_and_light_blur_is_not():
    image = centred_fundus(256)
    assert assess(cv2.GaussianBlur(image, (0, 0), 2)).gradable
    details = [
        assess(fundus_blur(image, sigma)).measures["detail"] for sigma in (0.5, 4.0, 8.0, 16.0)
    ]
    assert details == sorted(details, reverse=True)


def fundus_blur(image, sigma):
    """Blur inside the field only: the rim of a defocused photograph stays sharp."""
    weight = (image.max(2) > 0).astype(np.float32)
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)
    share = np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
    return np.where(weight[..., None] > 0, blurred / share[..., None], 0).astype(np.uint8)


def test_dark_field():
    report = assess((centred_fundus(256) * 0.12).astype(np.uint8))
    assert "dark" in report.reasons
    assert NOT_COLOUR not in report.reasons


def test_burnt_out_field():
    image = centred_fundus(256).astype(int)
    burnt = np.where(image.max(2, keepdims=True) > 20, image + np.array([60, 170, 60]), 0).clip(
        0, 255
    )
    assert "overexposed" in assess(burnt.astype(np.uint8)).reasons


@pytest.mark.parametrize("lost", [0.35, 0.5])
def test_rows_that_never_arrived_are_refused(lost):
    """An uncompressed file whose tail is zero decodes without a word."""
    image = centred_fundus(512)
    assert assess(image).gradable
    image[-int(lost * 512) :] = 0
    assert not assess(image).gradable


def test_off_centre_and_small_field():
    aside = fundus(300, 600, cx=160, cy=150, radius=140)
    assert assess(aside).reasons == ("off-centre",)
    small = fundus(600, 600, cx=300, cy=300, radius=110)
    assert "small field" in assess(small).reasons


@pytest.mark.parametrize("size_px", [64, 96, 224, 448])
def test_measures_do_not_depend_on_the_input_size(size_px):
    image = centred_fundus(512)
    reference = assess(image).measures
    other = assess(image, spec=PreprocessSpec(size_px=size_px)).measures
    for name in ("colour", "red_excess", "luma", "centre_offset", "field_share"):
        assert other[name] == pytest.approx(reference[name], rel=0.03, abs=0.01)
    assert other["detail"] == pytest.approx(reference["detail"], rel=0.25)


def test_each_limit_decides():
    image = centred_fundus(256)
    for name, value in {
        "min_colour": 0.99,
        "min_red_excess": 5,
        "min_luma": 255,
        "max_detail": 0,
        "min_warm_share": 1.1,
        "min_hue_spread": 1,
        "max_hue_spread": 0,
        "max_edge_contrast": 0,
        "max_roughness": 0,
        "max_step": 0,
        "min_detail": 1,
        "min_visible": 1.1,
        "min_field_share": 2,
    }.items():
        assert not assess(image, limits=QualityLimits(**{name: value})).gradable, name


def test_limits_round_trip_and_are_strict():
    limits = QualityLimits(min_luma=7.5)
    assert QualityLimits.from_dict(json.loads(json.dumps(limits.to_dict()))) == limits
    with pytest.raises(BundleFormatError, match="surprise"):
        QualityLimits.from_dict({**limits.to_dict(), "surprise": 1})
    values = limits.to_dict()
    del values["min_detail"]
    with pytest.raises(BundleFormatError, match="min_detail"):
        QualityLimits.from_dict(values)
    with pytest.raises(BundleFormatError, match="min_luma"):
        QualityLimits.from_dict({**limits.to_dict(), "min_luma": "7"})


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
def test_limits_out_of_range(value):
    with pytest.raises(ConfigError, match="max_burnt"):
        QualityLimits(max_burnt=value)


def verdicts(paths):
    """One of 'gradable', the reasons, or the error, for each path."""
    found = []
    for path in paths:
        try:
            report = assess_image(*load_for_model(path.read_bytes(), SPEC), LIMITS)
            found.append(", ".join(report.reasons) or "gradable")
        except ImageError as error:
            found.append(str(error))
    return found


def rows_of(folder, splits):
    with (folder / "index.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] in splits]


def test_wrong_modality_is_refused_as_files_and_as_colour(real_data_dir):
    paths = sorted((real_data_dir / "wrong_modality").glob("*.png"))
    assert len(paths) == 10
    assert all(NOT_COLOUR in verdict for verdict in verdicts(paths))
    reasons = [assess(cv2.imread(str(path), cv2.IMREAD_COLOR)).reasons for path in paths]
    assert all(NOT_COLOUR in words for words in reasons)


def test_good_real_photographs_are_accepted(real_data_dir):
    eyepacs = real_data_dir / "eyepacs400"
    good = [row for row in rows_of(eyepacs, ("train", "val")) if row["quality"] == "good"]
    assert len(good) > 100
    found = verdicts([eyepacs / row["image"] for row in good])
    assert found.count("gradable") >= 0.98 * len(found)


@pytest.mark.slow
def test_normal_odir_validation_eyes_are_accepted(real_data_dir):
    odir = real_data_dir / "odir256"
    normal = [row for row in rows_of(odir, ("val",)) if row["normal"] == "1"]
    found = verdicts([odir / row["image"] for row in normal])
    assert found.count("gradable") >= 0.98 * len(found)


def test_phantom_photographs_are_accepted(phantom_dir):
    with (phantom_dir / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["gradable"] == "1"]
    assert len(rows) >= 10
    found = verdicts([phantom_dir / row["cfp"] for row in rows])
    assert found.count("gradable") >= 0.95 * len(found)


WRONG = [(name, framed) for name in WRONG_INPUT for framed in ("as it is", "in a circle")]


@pytest.mark.parametrize(("name", "framed"), WRONG)
def test_wrong_input_is_refused(name, framed):
    image = WRONG_INPUT[name]()
    try:
        report = assess(in_circle(image) if framed == "in a circle" else image)
    except FieldOfViewError:
        return
    assert not report.gradable
    if name not in ("red", "red ramp", "white", "black"):
        assert NOT_COLOUR in report.reasons


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_photographs_of_other_things_are_refused(name, framed):
    folder = Path(pytest.importorskip("sklearn").__file__).parent / "datasets" / "images"
    photograph = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)[..., ::-1]
    found = []
    for side in (200, 300, 427):
        for top in range(0, 427 - side + 1, 40):
            for left in range(0, 640 - side + 1, 40):
                crop = np.ascontiguousarray(photograph[top : top + side, left : left + side])
                try:
                    found.append(assess(in_circle(crop) if framed else crop).gradable)
                except ImageError:
                    found.append(False)
    assert len(found) > 80
    assert np.mean(found) <= 0.02


def with_eye_texture(image):
    """The synthetic fundus with the fine grain that lets nothing look flat."""
    grain = np.random.default_rng(4).normal(0, 2, image.shape)
    return np.where(image > 0, np.clip(image + grain, 1, 255), 0).astype(np.uint8)


def test_artefacts_are_named():
    image = with_eye_texture(centred_fundus(480))
    assert assess(image).gradable
    y, x = np.mgrid[:480, :480]
    inside = image.max(2) > 0
    glare = image.copy()
    glare[(y < 190) & inside] = np.clip(glare[(y < 190) & inside] * 2.4, 0, 249)
    lost = image.copy()
    lost[(y > 260) & (np.hypot(x - 240, y - 240) < 225)] = 128
    shifted = image.copy().astype(int)
    shifted[(y > 230) & inside] -= np.array([35, 14, 6])
    shadow = image.astype(float)
    shadow[(y < 235)] *= 0.3
    for broken in (glare, lost, shifted.clip(0, 255), shadow):
        assert "artefact" in assess(broken.astype(np.uint8)).reasons


def test_a_cut_field_or_a_smooth_lid_is_no_artefact():
    image = with_eye_texture(centred_fundus(480))
    image[:70] = image[-70:] = 0
    assert assess(image).reasons == ()


PROTOCOL = Protocol(
    fields_per_eye=1,
    field_degrees=45.0,
    cameras=("Cam A",),
    min_pixels_per_degree=28.0,
    warn_pixels_per_degree=35.0,
)


@pytest.mark.parametrize(
    ("side", "reasons", "num_warnings"),
    [(1200, ("too few pixels per degree",), 0), (1500, (), 1), (1800, (), 0)],
)
def test_pixels_per_degree_of_the_file_decide(side, reasons, num_warnings):
    # At 0.95 of the frame, 45 degrees: 25.3, 31.7 and 38 pixels per degree; decoded at 1/8.
    decoded, prepared = load_for_model(jpeg_bytes(centred_fundus(side)), SPEC)
    assert decoded.reduction == 8
    report = assess_image(decoded, prepared, LIMITS, protocol=PROTOCOL)
    assert report.measures["pixels_per_degree"] == pytest.approx(0.95 * side / 45, rel=0.01)
    assert (report.reasons, len(report.warnings)) == (reasons, num_warnings)


@pytest.mark.parametrize(
    ("degrees", "is_outside"),
    [
        (None, False),
        (38.5, False),
        (45, False),
        (51.5, False),
        (38.0, True),
        (52, True),
        (30, True),
    ],
)
def test_the_angle_that_the_file_names_is_the_one_that_counts(degrees, is_outside):
    free = replace(PROTOCOL, min_pixels_per_degree=None, warn_pixels_per_degree=None)
    tags = {} if degrees is None else {"HorizontalFieldOfView": degrees}
    data = photo_bytes(centred_fundus(256), **tags)
    report = assess_image(*load_for_model(data, SPEC), LIMITS, protocol=free)
    assert report.gradable
    measured = report.measures["pixels_per_degree"]
    assert measured == pytest.approx(0.95 * 256 / (degrees or 45), rel=0.02)
    assert len(report.warnings) == is_outside
    if is_outside:
        assert report.warnings[0] == (
            f"the file says a field of {degrees:g} degrees, the protocol 45: outside of what the "
            "bundle was made for"
        )


def test_too_few_pixels_for_the_files_own_angle_are_refused():
    # 1800 pixels are 38 a degree of the protocol's 45, and 17 a degree of 100.
    decoded, prepared = load_for_model(jpeg_bytes(centred_fundus(1800)), SPEC)
    assert assess_image(decoded, prepared, LIMITS, protocol=PROTOCOL).gradable
    wide = replace(decoded, field_degrees=100.0)
    report = assess_image(wide, prepared, LIMITS, protocol=PROTOCOL)
    assert report.reasons == ("too few pixels per degree",)
    assert report.warnings[0].startswith("the file says a field of 100 degrees")


def test_without_limits_pixels_per_degree_are_only_recorded():
    free = replace(PROTOCOL, min_pixels_per_degree=None, warn_pixels_per_degree=None)
    decoded, prepared = load_for_model(png_bytes(centred_fundus(256)), SPEC)
    report = assess_image(decoded, prepared, LIMITS, protocol=free)
    assert report.gradable
    assert report.warnings == ()
    assert report.measures["pixels_per_degree"] == pytest.approx(5.4, rel=0.02)
    assert "pixels_per_degree" not in assess_image(decoded, prepared, LIMITS).measures
