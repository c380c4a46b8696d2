"""Keywords, tables, splits and facts of the importers, each by itself."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imports_factory import gif_bytes, make_mask, write_text

from edge_runtime.errors import ConfigError, DataError
from train.imports.facts import SetFacts
from train.imports.pixels import mask_png, read_photograph
from train.imports.records import MaskSource, Reading, Record, raise_problems
from train.imports.sets.odir_words import eye_labels, split_keywords
from train.imports.splits import SplitRule, assign_splits
from train.imports.tables import read_cells
from train.imports.vocabulary import LABELS, dr_labels, ordered_labels, quality_labels


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("mild nonproliferative retinopathy", 1),
        ("moderate non proliferative retinopathy", 2),
        ("severe nonproliferative retinopathy", 3),
        ("proliferative diabetic retinopathy", 4),
        ("severe proliferative diabetic retinopathy", 4),
        ("mild nonproliferative retinopathy\uff0csevere nonproliferative retinopathy", 3),
        ("diabetic retinopathy", None),
        ("nonproliferative retinopathy", None),
        ("non proliferative retinopathy", None),
        ("mild nonproliferative retinopathy, suspected diabetic retinopathy", None),
        ("glaucoma", 0),
    ],
)
def test_odir_grades(text, grade):
    labels = eye_labels(split_keywords(text))
    assert labels.get("dr_grade") == grade
    assert labels["diabetic_retinopathy"] == (grade != 0)
    assert ("referable_dr" in labels) == (grade is not None)


def test_odir_keywords_about_the_picture_are_no_finding():
    assert eye_labels(("normal fundus", "lens dust"))["other"] == 0
    assert eye_labels(("low image quality",)) == {"gradable": 0}
    assert eye_labels(("low image quality", "drusen"))["other"] == 1
    assert eye_labels(()) == {}


@given(st.integers(0, 4))
def test_dr_labels_agree_with_each_other(grade):
    labels = dr_labels(grade)
    assert labels["referable_dr"] <= labels["diabetic_retinopathy"]
    assert (labels["referable_dr"] == 1) == (grade >= 2)
    assert set(labels) <= set(LABELS)


def test_what_is_unknown_has_no_label():
    assert dr_labels(None) == quality_labels(None) == {}
    assert quality_labels(2)["gradable"] == 0
    assert ordered_labels({"normal", "gradable"}) == ("gradable", "normal")
    with pytest.raises(DataError, match="'drusen' is not in the vocabulary"):
        ordered_labels({"drusen"})


@given(
    st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=20),
    st.integers(0, 99),
    st.booleans(),
)
def test_a_patient_has_one_split_and_every_part_gets_somebody(patients, seed, official):
    patients = [*patients, "x", "y", "z"]
    own = [(p, ("test" if p == "x" else "train") if official else None) for p in patients]
    splits, _ = assign_splits(own, SplitRule(seed=seed))
    assert set(splits) == set(patients)
    assert set(splits.values()) == {"train", "val", "test"}
    if official:
        assert [p for p, split in splits.items() if split == "test"] == ["x"]
    assert assign_splits(own[::-1], SplitRule(seed=seed))[0] == splits


def test_a_train_part_alone_is_drawn_like_no_split():
    own = [(str(i), "train") for i in range(20)]
    splits, how = assign_splits(own, SplitRule(val_share=0.2, test_share=0.3))
    counts = [list(splits.values()).count(name) for name in ("train", "val", "test")]
    assert counts == [10, 4, 6]
    assert "seed 0" in how


def test_a_validation_part_of_the_set_is_kept():
    own = [("a", "train"), ("b", "val"), ("c", "test"), ("d", "train")]
    splits, how = assign_splits(own, SplitRule(seed=5))
    assert (splits, how) == (dict(own), "the set's own")


def test_shares_and_half_named_splits_are_refused():
    with pytest.raises(ConfigError, match="below 1"):
        SplitRule(val_share=0.5, test_share=0.5)
    with pytest.raises(DataError, match="some rows have a split and some have none"):
        assign_splits([("a", "test"), ("b", None)], SplitRule())


def _table(path: Path, *lines: str, **options: object) -> tuple[list, list[str]]:
    problems: list[str] = []
    write_text(path, *lines)
    return read_cells(path, problems, required=("id", "grade"), **options), problems


def test_a_table_names_row_and_column(tmp_path):
    rows, problems = _table(tmp_path / "t.csv", "id,grade", "a,2", "b,9", "c,", "d,x", "e")
    values = [row.whole("grade", 0, 4) for row in rows]
    assert values == [2, None, None, None]
    assert problems == [
        "t.csv, row 6: 1 cells for 2 columns",
        "t.csv, row 3, column 'grade': '9' is not a number from 0 to 4",
        "t.csv, row 4, column 'grade': '' is not a number from 0 to 4",
        "t.csv, row 5, column 'grade': 'x' is not a number from 0 to 4",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("id,grade,extra", "a,1,2"), "unknown column 'extra'"),
        (("id", "a"), "column 'grade': the column is missing"),
        (("id;grade", "a;1"), "separated by semicolons"),
        ((), "the file is empty"),
        (("id,grade,id", "a,1,b"), "appears 2 times"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        _table(tmp_path / "t.csv", *lines)


def test_empty_columns_at_the_end_and_a_column_of_numbers_are_left_out(tmp_path):
    rows, problems = _table(tmp_path / "t.csv", "id,grade,,", "a,1,,", "b,2,,x")
    assert [row.values for row in rows] == [{"id": "a", "grade": "1"}]
    assert problems == ["t.csv, row 3: 4 cells for 2 columns"]
    rows, _ = _table(tmp_path / "n.csv", ",id,grade", "0,a,1", numbered=True)
    assert rows[0].values == {"id": "a", "grade": "1"}


def test_a_sheet_that_is_not_a_table_yet_is_named(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"save the sheet of t\.xlsx as t\.csv"):
        read_cells(tmp_path / "t.csv", [], required=("id",))


def test_a_gif_mask_is_read_exactly(tmp_path):
    path = tmp_path / "m.gif"
    path.write_bytes(gif_bytes(make_mask()))
    png = mask_png(MaskSource(files=(path,)), (128, 128))
    import cv2

    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, make_mask())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1f\x8b broken", "gzip"),
        (gzip.compress(b"P6\n128 128\n255\n" + bytes(100)), "PPM"),
        (gzip.compress(b"P6 and so on" * 99)[:-9], "gzip file is cut"),
        (b"GIF89a", "GIF"),
    ],
)
def test_a_photograph_that_is_none_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        read_photograph(data)


def test_readings_and_facts_refuse_what_cannot_be_right(tmp_path):
    with pytest.raises(DataError, match="gives no photograph"):
        Reading(records=())
    record = Record(name="a", image=tmp_path / "a.png", where="t.csv, row 2", site="s")
    with pytest.raises(DataError, match=r"row 2: 'a' is there already"):
        Reading(records=(record, Record(name="a", image=tmp_path, where="t.csv, row 2", site="s")))
    words = dict.fromkeys(("name", "title", "home", "citation", "terms", "patients", "split"), "x")
    with pytest.raises(ConfigError, match="checked is 'never'"):
        SetFacts(**words, mapping=(), checked="never")


def test_many_problems_are_cut_short():
    with pytest.raises(DataError, match=r"p9\n\(5 more\)\nrepair"):
        raise_problems([f"p{i}" for i in range(15)], "repair")
    raise_problems([], "nothing")
