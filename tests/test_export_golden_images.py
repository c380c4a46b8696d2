"""Golden pictures: one of each finding, and one encoded file that a camera would screen."""

from __future__ import annotations

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from bundle_factory import SIZE_PX, tiny_onnx
from fundus_factory import centred_fundus, png_bytes

from calibration.run_models import score_models
from edge_runtime.errors import DataError
from edge_runtime.fundus.quality import QualityLimits, assess_image
from edge_runtime.image import decode_image
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from export.golden_images import make_golden, order_golden_visits
from train.data.index import read_index

LABELS = ("macular_edema", "glaucoma")
SPEC = PreprocessSpec(size_px=SIZE_PX)


def golden_of(visits, num_images=2):
    return make_golden(visits, SPEC, tiny_onnx(), num_images=num_images, limits=QualityLimits())


def is_gradable(data: bytes) -> bool:
    return assess_image(*load_for_model(data, SPEC), QualityLimits()).gradable


@pytest.fixture
def gradable_visits(phantom_dir, tmp_path):
    """Three gradable visits of a copy, whose pictures a test may overwrite."""
    shutil.copytree(phantom_dir / "cfp", tmp_path / "cfp")
    visits = [visit for visit in read_index(phantom_dir).visits if visit.labels["gradable"] == 1]
    return [
        replace(visit, files={"cfp": tmp_path / "cfp" / visit.files["cfp"].name})
        for visit in visits[:3]
    ]


def darken(visit) -> None:
    """Write a picture that has a field of view and is too dark to be screened."""
    dark = (centred_fundus(128) * 0.12).astype(np.uint8)
    visit.files["cfp"].write_bytes(png_bytes(dark))
    assert (
        "dark"
        in assess_image(
            *load_for_model(visit.files["cfp"].read_bytes(), SPEC), QualityLimits()
        ).reasons
    )


def test_golden_visits_begin_with_one_of_each_finding(phantom_dir) -> None:
    visits = read_index(phantom_dir).visits
    order = order_golden_visits(visits, LABELS, num_images=6)
    assert sorted(v.row_number for v in order) == sorted(v.row_number for v in visits)
    for position, name in enumerate(LABELS):
        assert any(v.labels[name] == 1 for v in visits)
        assert order[position].labels[name] == 1


def test_outputs_are_the_models_and_the_encoded_picture_is_the_first(gradable_visits) -> None:
    golden = golden_of(gradable_visits, num_images=3)
    scores = score_models({"fp32": tiny_onnx()}, golden.image_nhwc)["fp32"]
    np.testing.assert_array_equal(golden.logits["fp32"], scores.logits)
    assert golden.encoded == gradable_visits[0].files["cfp"].read_bytes()
    np.testing.assert_array_equal(golden.encoded_image_hwc, golden.image_nhwc[0])


def test_a_dark_first_eye_is_golden_but_not_the_encoded_one(gradable_visits) -> None:
    darken(gradable_visits[0])
    golden = golden_of(gradable_visits)
    assert len(golden.image_nhwc) == 2
    assert golden.image_nhwc[0].mean() < 0.3 * golden.image_nhwc[1].mean()
    assert golden.encoded == gradable_visits[1].files["cfp"].read_bytes()
    assert is_gradable(golden.encoded)


def test_the_encoded_picture_may_come_after_the_golden_ones(gradable_visits) -> None:
    for visit in gradable_visits[:2]:
        darken(visit)
    golden = golden_of(gradable_visits, num_images=2)
    assert len(golden.image_nhwc) == 2
    assert golden.encoded == gradable_visits[2].files["cfp"].read_bytes()


@pytest.mark.parametrize("gradable", [0.0, float("nan")])
def test_an_eye_that_is_not_labelled_gradable_is_not_the_encoded_one(
    gradable_visits, gradable
) -> None:
    first, *rest = gradable_visits
    first = replace(first, labels={**first.labels, "gradable": gradable})
    assert is_gradable(first.files["cfp"].read_bytes())  # by its pixels it could be
    golden = golden_of([first, *rest])
    assert golden.encoded == rest[0].files["cfp"].read_bytes()
    with pytest.raises(DataError, match=r"none of the 1 photographs .* labelled gradable"):
        golden_of([first])


def test_without_a_picture_that_passes_the_gate_there_is_no_bundle(gradable_visits) -> None:
    for visit in gradable_visits:
        darken(visit)
    with pytest.raises(DataError, match=r"passes the quality gate.*add a gradable eye to 'val'"):
        golden_of(gradable_visits)


def test_without_a_usable_picture_there_is_no_bundle(gradable_visits) -> None:
    gradable_visits[0].files["cfp"].write_bytes(b"not an image")
    for visits in ([], gradable_visits[:1]):
        with pytest.raises(DataError, match="no usable photograph in 'val'"):
            golden_of(visits)


def test_a_refused_picture_is_passed_over(gradable_visits) -> None:
    gradable_visits[0].files["cfp"].write_bytes(b"not an image")
    golden = golden_of(gradable_visits)
    assert golden.encoded == gradable_visits[1].files["cfp"].read_bytes()


def test_a_jpeg_data_set_gets_a_lossless_golden_file(gradable_visits) -> None:
    visit = gradable_visits[0]
    picture = cv2.imread(str(visit.files["cfp"]))
    visit.files["cfp"].write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    golden = golden_of([visit], num_images=1)
    assert decode_image(golden.encoded).format == "png"
    again = load_for_model(golden.encoded, SPEC)[1].image_hwc
    np.testing.assert_array_equal(golden.encoded_image_hwc, again)
    close = np.abs(again.astype(int) - golden.image_nhwc[0])  # the same eye, decoded at 1/k
    assert close.mean() < 4
