"""A split in memory: rows belong together, and what cannot be read is left out by name."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.index import read_index
from train.dataset_arrays import load_split


def test_row_i_is_the_same_visit_in_every_array(phantom_dir):
    index = read_index(phantom_dir)
    visits = index.split("test")
    split = load_split(phantom_dir, "test", size_px=32, with_oct=True)
    assert len(split) == len(visits) > 0
    assert split.label_names == tuple(index.label_names)
    assert split.fingerprint == index.fingerprint()
    assert split.excluded == ()
    for i, visit in enumerate(visits):
        _, picture = load_for_model(visit.files["cfp"].read_bytes(), PreprocessSpec(size_px=32))
        assert np.array_equal(split.images_nhwc[i], picture.image_hwc)
        for view, name in enumerate(("oct_h", "oct_v")):
            scan = cv2.imread(str(visit.files[name]), cv2.IMREAD_GRAYSCALE)
            assert np.array_equal(split.scans_nvzx[i, view], scan)
        assert split.patient_ids[i] == visit.patient_id
        assert split.eyes[i] == visit.eye
        for name in split.label_names:
            assert split.label(name)[i] == visit.labels[name]


def test_a_label_that_is_not_there_is_named(phantom_dir):
    split = load_split(phantom_dir, "val", size_px=32, with_oct=False)
    with pytest.raises(DataError, match=r"no label 'cataract'; it has: .*glaucoma"):
        split.label("cataract")


def test_an_index_already_read_gives_the_same(phantom_dir):
    again = load_split(read_index(phantom_dir), "val", size_px=32, with_oct=False)
    split = load_split(phantom_dir, "val", size_px=32, with_oct=False)
    assert split.scans_nvzx is None
    assert np.array_equal(again.images_nhwc, split.images_nhwc)


def test_keeping_rows_keeps_them_together(phantom_dir):
    split = load_split(phantom_dir, "test", size_px=32, with_oct=True)
    mask = np.arange(len(split)) % 2 == 1
    kept = split.keep(mask)
    assert len(kept) == mask.sum()
    for name in ("images_nhwc", "scans_nvzx", "labels", "patient_ids", "eyes"):
        assert np.array_equal(getattr(kept, name), getattr(split, name)[mask]), name
    assert kept.fingerprint == split.fingerprint


@pytest.fixture
def damaged_dir(phantom_dir, tmp_path):
    """The phantom with the first test photograph cut off."""
    folder = tmp_path / "data"
    shutil.copytree(phantom_dir, folder)
    path = read_index(folder).split("test")[0].files["cfp"]
    path.write_bytes(path.read_bytes()[:200])
    return folder


def test_an_unreadable_photograph_is_left_out_with_its_row(damaged_dir, phantom_dir):
    whole = load_split(phantom_dir, "test", size_px=32, with_oct=True)
    split = load_split(damaged_dir, "test", size_px=32, with_oct=True)
    ((row, reason),) = split.excluded
    assert row == read_index(damaged_dir).split("test")[0].row_number
    assert reason
    assert len(split) == len(whole) - 1
    assert np.array_equal(split.images_nhwc, whole.images_nhwc[1:])
    assert np.array_equal(split.scans_nvzx, whole.scans_nvzx[1:])
    assert np.array_equal(split.eyes, whole.eyes[1:])


def test_a_split_without_a_usable_visit_is_refused(damaged_dir):
    for visit in read_index(damaged_dir).split("val"):
        visit.files["cfp"].write_bytes(b"")
    with pytest.raises(DataError, match=r"split 'val' of .* has no usable visit"):
        load_split(damaged_dir, "val", size_px=32, with_oct=False)
