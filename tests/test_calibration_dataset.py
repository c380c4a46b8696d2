"""The reader of index.csv: splits, strata, refused images, fingerprints."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
from calibration_data import fundus, read_rows, write_rows
from calibration_graphs import LABELS

from calibration.dataset import GRADE, ImageStream, read_eyes
from edge_runtime.errors import DataError
from edge_runtime.preprocess import PreprocessSpec, load_for_model

SPEC = PreprocessSpec(size_px=32)


@pytest.fixture
def data_dir(tmp_path, rng):
    """Eight patients: five train, two val, one test; one eye each."""
    (tmp_path / "cfp").mkdir()
    rows = []
    for number in range(8):
        (tmp_path / "cfp" / f"{number}.png").write_bytes(fundus(rng))
        split = "train" if number < 5 else "val" if number < 7 else "test"
        rows.append([f"P{number}", "OD", "2026-01-02", "a", split, f"cfp/{number}.png", 1, "", 1])
    write_rows(tmp_path, rows)
    return tmp_path


def test_test_eyes_are_never_returned(data_dir):
    eyes = read_eyes(data_dir, LABELS)
    assert Counter(eye.split for eye in eyes) == {"train": 5, "val": 2}
    assert {eye.patient_id for eye in eyes} == {f"P{i}" for i in range(7)}
    assert eyes[0].labels["macular_edema"] == 1.0
    assert math.isnan(eyes[0].labels["glaucoma"])
    assert eyes[0].row_number == 2


def test_eyes_without_a_photograph_are_left_out(data_dir):
    rows = read_rows(data_dir)
    rows[1][5] = ""
    write_rows(data_dir, rows)
    assert "P1" not in {eye.patient_id for eye in read_eyes(data_dir, LABELS)}


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        (4, "Train", "row 4: split 'Train'"),
        (0, "", "patient_id ''"),
        (6, "2", "row 4: macular_edema is '2'"),
        (6, "yes", "macular_edema is 'yes'"),
        (6, "nan", "macular_edema is 'nan'"),
        (5, "../outside.png", "leaves the data set"),
        (0, "P6", "patient P6 is in the splits train and val"),
    ],
)
def test_a_wrong_cell_is_named(data_dir, column, value, word):
    rows = read_rows(data_dir)
    rows[2][column] = value
    write_rows(data_dir, rows)
    with pytest.raises(DataError, match=word):
        read_eyes(data_dir, LABELS)


def test_missing_index_columns_and_cells(data_dir, tmp_path):
    with pytest.raises(DataError, match="lacks the columns amd"):
        read_eyes(data_dir, ["amd"])
    with pytest.raises(DataError, match="cannot be read"):
        read_eyes(tmp_path / "nowhere", LABELS)
    rows = read_rows(data_dir)
    write_rows(data_dir, [*rows, rows[0][:6]])
    with pytest.raises(DataError, match="row 10 has another number of cells"):
        read_eyes(data_dir, LABELS)


def test_a_byte_order_mark_and_blank_lines_change_nothing(data_dir):
    index = data_dir / "index.csv"
    plain = read_eyes(data_dir, LABELS)
    lines = index.read_text(encoding="utf-8").splitlines()
    index.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n", encoding="utf-8-sig")
    eyes = read_eyes(data_dir, LABELS)
    assert [eye.patient_id for eye in eyes] == [eye.patient_id for eye in plain]
    assert [eye.row_number for eye in eyes] == [eye.row_number + 1 for eye in plain]


def test_rows_are_numbered_as_an_editor_shows_them(data_dir):
    rows = read_rows(data_dir)
    rows[0][3] = "two\nlines"
    rows[2][4] = "Train"
    write_rows(data_dir, rows)
    with pytest.raises(DataError, match="row 5: split 'Train'"):
        read_eyes(data_dir, LABELS)


def test_a_column_twice_is_refused(data_dir):
    index = data_dir / "index.csv"
    lines = index.read_text(encoding="utf-8").splitlines()
    doubled = [f"{line},{line.split(',')[4]}" for line in lines]
    index.write_text("\n".join(doubled) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="columns split more than once"):
        read_eyes(data_dir, LABELS)


def test_an_empty_index_is_refused(data_dir):
    (data_dir / "index.csv").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="is empty"):
        read_eyes(data_dir, LABELS)


def with_grades(data_dir, grades):
    """The index with a column of grades, one for each row."""
    index = data_dir / "index.csv"
    header, *rows = index.read_text(encoding="utf-8").splitlines()
    lines = [f"{header},{GRADE}", *(f"{r},{g}" for r, g in zip(rows, grades, strict=True))]
    index.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_grades_are_read_where_there_are_any(data_dir):
    assert {eye.grade for eye in read_eyes(data_dir, LABELS)} == {""}
    with_grades(data_dir, ["0", "4", "", "2.0", "1", "3", "0", "0"])
    grades = [eye.grade for eye in read_eyes(data_dir, LABELS)]
    assert grades == ["0", "4", "", "2", "1", "3", "0"]


@pytest.mark.parametrize("grade", ["5", "-1", "mild"])
def test_a_wrong_grade_is_named(data_dir, grade):
    with_grades(data_dir, ["0", grade, "", "2", "1", "3", "0", "0"])
    with pytest.raises(DataError, match=f"row 3: dr_grade is '{grade}'"):
        read_eyes(data_dir, LABELS)


def test_stream_uses_the_runtimes_preprocessing(data_dir):
    eyes = read_eyes(data_dir, LABELS)[:3]
    calls = []
    stream = ImageStream(eyes, SPEC, lambda done, total: calls.append((done, total)))
    images = list(stream)
    for eye, image in zip(eyes, images, strict=True):
        expected = load_for_model(eye.cfp_path.read_bytes(), SPEC)[1].image_hwc
        np.testing.assert_array_equal(image, expected)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_fingerprint_is_of_the_files_and_not_of_their_order(data_dir):
    eyes = read_eyes(data_dir, LABELS)[:3]
    streams = [ImageStream(order, SPEC) for order in (eyes, eyes[::-1], eyes[:2])]
    for stream in streams:
        assert list(stream)
    digests = sorted(hashlib.sha256(eye.cfp_path.read_bytes()).hexdigest() for eye in eyes)
    expected = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert streams[0].fingerprint() == streams[1].fingerprint() == expected
    assert streams[2].fingerprint() != expected


def test_refused_images_are_recorded_and_never_replaced(data_dir):
    eyes = read_eyes(data_dir, LABELS)[:4]
    eyes[1].cfp_path.write_bytes(b"not an image")
    stream = ImageStream(eyes, SPEC)
    assert len(list(stream)) == 3
    assert stream.used == [eyes[0], eyes[2], eyes[3]]
    assert stream.refused[0][0] is eyes[1]
    with pytest.raises(DataError, match="used already"):
        next(iter(stream))


def test_a_missing_file_is_no_ungradable_eye(data_dir):
    eyes = read_eyes(data_dir, LABELS)[:1]
    eyes[0].cfp_path.unlink()
    with pytest.raises(DataError, match="row 2"):
        list(ImageStream(eyes, SPEC))
