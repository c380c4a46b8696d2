"""The loader: the runtime's preprocessing, nothing hidden, order kept."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from dataset_factory import make_dataset, write_image, write_index

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.index import read_index
from train.data.loader import CfpArrays, label_matrix, load_cfp, load_masks, load_oct

SPEC = PreprocessSpec(size_px=96)


@pytest.fixture
def visits(tmp_path):
    make_dataset(tmp_path)
    return read_index(tmp_path).visits


def test_images_are_exactly_the_runtimes(visits):
    arrays = load_cfp(visits, SPEC)
    assert arrays.images_nhwc.shape == (6, 96, 96, 3)
    assert arrays.images_nhwc.dtype == np.uint8
    assert arrays.kept == tuple(range(6))
    assert arrays.excluded == ()
    for image, visit in zip(arrays.images_nhwc, visits, strict=True):
        expected = load_for_model(visit.files["cfp"].read_bytes(), SPEC)[1].image_hwc
        np.testing.assert_array_equal(image, expected)
    assert len({image.tobytes() for image in arrays.images_nhwc}) == 6


def test_the_number_of_threads_changes_nothing(visits):
    one, four = (load_cfp(visits, SPEC, num_threads=number) for number in (1, 4))
    np.testing.assert_array_equal(one.images_nhwc, four.images_nhwc)
    assert one.kept == four.kept


def test_unusable_images_are_reported_with_their_reason(tmp_path):
    rows = make_dataset(tmp_path)
    path = tmp_path / rows[1]["cfp"]
    path.write_bytes(path.read_bytes()[:-30])
    black = np.zeros((128, 128, 3), np.uint8)
    write_image(tmp_path / rows[2]["cfp"], black)
    rows[4]["cfp"] = ""
    write_index(tmp_path, rows)
    visits = read_index(tmp_path).visits
    arrays = load_cfp(visits, SPEC)
    assert arrays.kept == (0, 3, 5)
    assert [position for position, _ in arrays.excluded] == [1, 2, 4]
    assert all(reason for _, reason in arrays.excluded)
    assert arrays.excluded[2][1] == "the visit has no CFP"
    expected = load_for_model(visits[3].files["cfp"].read_bytes(), SPEC)[1].image_hwc
    np.testing.assert_array_equal(arrays.images_nhwc[1], expected)


def test_progress_and_empty_input(visits):
    calls = []
    load_cfp(visits, SPEC, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]
    assert load_cfp((), SPEC).images_nhwc.shape == (0, 96, 96, 3)
    assert load_oct(()).scans_nvzx.shape[:2] == (0, 2)


def test_a_file_that_vanished_is_an_error_not_an_exclusion(visits):
    visits[3].files["cfp"].unlink()
    with pytest.raises(DataError, match=r"row 5: cannot read 'P001_OS\.png'"):
        load_cfp(visits, SPEC)


def test_zero_threads_are_refused(visits):
    with pytest.raises(ConfigError, match="num_threads is 0"):
        load_cfp(visits, SPEC, num_threads=0)


def test_every_image_belongs_to_one_visit():
    with pytest.raises(ValueError, match="2 images for 1 visits"):
        CfpArrays(images_nhwc=np.zeros((2, 8, 8, 3), np.uint8), kept=(0,), excluded=())


def test_oct_is_horizontal_then_vertical(visits):
    loaded = load_oct(visits)
    scans = loaded.scans_nvzx
    assert loaded.present_nv.all()
    assert scans.shape == (6, 2, 96, 128)
    assert scans.dtype == np.uint8
    for axis, column in enumerate(("oct_h", "oct_v")):
        stored = cv2.imread(str(visits[4].files[column]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(scans[4, axis], stored)


def test_oct_refusals_name_the_row(tmp_path):
    rows = make_dataset(tmp_path)
    write_index(tmp_path, rows)
    visits = read_index(tmp_path).visits
    write_image(visits[1].files["oct_h"], np.zeros((50, 60), np.uint8))
    with pytest.raises(DataError, match=r"row 3, column 'oct_h': shape \(50, 60\) where"):
        load_oct(visits)
    visits[0].files["oct_v"].write_bytes(b"")
    with pytest.raises(DataError, match=r"row 2, column 'oct_v': 'P000_OD\.png' is not a PNG"):
        load_oct(visits)


def test_a_missing_scan_is_zeros_and_marked_absent(tmp_path):
    rows = make_dataset(tmp_path)
    rows[0]["oct_h"] = rows[0]["oct_v"] = rows[2]["oct_v"] = ""
    write_index(tmp_path, rows)
    loaded = load_oct(read_index(tmp_path).visits)
    expected = np.ones((6, 2), bool)
    expected[0] = expected[2, 1] = False
    np.testing.assert_array_equal(loaded.present_nv, expected)
    np.testing.assert_array_equal(loaded.scans_nvzx.any((2, 3)), expected)


def test_a_set_without_any_scan_is_refused(tmp_path):
    rows = make_dataset(tmp_path)
    for row in rows:
        row["oct_h"] = row["oct_v"] = ""
    write_index(tmp_path, rows)
    with pytest.raises(DataError, match="no visit has an OCT scan"):
        load_oct(read_index(tmp_path).visits)


def test_masks_are_bool_in_file_pixels(visits):
    masks = load_masks(visits, "disc")
    assert masks.shape == (6, 128, 128)
    assert masks.dtype == np.bool_
    assert masks[0].sum() == 20 * 20
    assert not load_masks(visits, "lesions").any()
    with pytest.raises(ConfigError, match="unknown mask 'macula'"):
        load_masks(visits, "macula")


def test_label_matrix_keeps_order_and_unknowns(visits):
    matrix = label_matrix(visits, ("dr_grade", "glaucoma"))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix[:, 1], [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(matrix[:, 0], [0, math.nan, 2, 3, 4, 0])
    with pytest.raises(DataError, match="no label 'amd'; it has: dr_grade, glaucoma"):
        label_matrix(visits, ("amd",))


def test_a_phantom_data_set_loads_whole(phantom_dir):
    visits = read_index(phantom_dir).visits
    arrays = load_cfp(visits, PreprocessSpec(size_px=128))
    assert len(arrays.kept) + len(arrays.excluded) == len(visits)
    assert len(arrays.kept) >= 0.8 * len(visits)
    assert load_oct(visits).scans_nvzx.shape == (len(visits), 2, 96, 128)
    assert load_masks(visits, "vessels").any()
