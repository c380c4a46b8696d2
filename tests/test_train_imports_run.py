"""The core of an import: copies of a photograph, damage, masks, links, and prepared copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from imports_factory import (
    MAKERS,
    make_aptos,
    make_mask,
    photo,
    replace_text,
    write_picture,
    write_text,
)

from edge_runtime.errors import ConfigError, DataError
from train.data.check import check_dataset
from train.data.index import read_index
from train.imports.records import ReadOptions
from train.imports.run import import_set
from train.imports.sets.prepared import COLUMNS
from train.imports.splits import SplitRule

PREPARED = ReadOptions(prepared=True)


def _record(out: Path) -> dict:
    return json.loads((out / "import.json").read_text(encoding="utf-8"))


def _prepared(root: Path, columns: str, *rows: str) -> Path:
    """Pictures images/a.png, b.png, ... and a table of `rows`."""
    for seed, name in enumerate("abcdef"):
        photo(root / "images" / f"{name}.png", seed)
    write_text(root / "index.csv", columns, *rows)
    return root


def test_copies_with_one_label_become_one_row(tmp_path):
    make_aptos(tmp_path / "in")
    images = tmp_path / "in/train_images"
    shutil.copy(images / "000c1434d8d7.png", images / "ffff.png")
    write_text(
        tmp_path / "in/train.csv",
        "id_code,diagnosis",
        *("000c1434d8d7,2", "001639a390f0,4", "0024cdab0c1e,1", "002c21358ce6,0", "ffff,2"),
    )
    import_set("aptos-2019", tmp_path / "in", tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    record = _record(tmp_path / "out")
    assert record["duplicates_merged"] == {"000c1434d8d7": ["ffff"]}
    [left_out] = record["left_out"]
    assert left_out["what"] == "ffff (train.csv, row 6)"
    assert left_out["reason"] == "same content as 000c1434d8d7"


@pytest.mark.parametrize(
    ("rows", "conflict"),
    [
        (("images/a.png,1,OD,train,2", "images/x.png,1,OD,train,3"), "with two values of dr_grade"),
        (("images/a.png,1,OD,train,2", "images/x.png,2,OD,train,2"), "under two patients"),
        (("images/a.png,1,OD,train,2", "images/x.png,1,OS,train,2"), "as two eyes"),
        (("images/a.png,,OD,train,2", "images/x.png,,OD,test,2"), "in two of the set's own splits"),
    ],
)
def test_copies_that_contradict_each_other_are_both_refused(tmp_path, rows, conflict):
    others = ("images/b.png,8,OD,train,0", "images/c.png,9,OD,test,0")
    root = _prepared(tmp_path / "in", "image,patient_id,eye,split,dr_grade", *rows, *others)
    shutil.copy(root / "images/a.png", root / "images/x.png")
    import_set("eyepacs", root, tmp_path / "out", options=PREPARED)
    record = _record(tmp_path / "out")
    assert [one["reason"] for one in record["left_out"]] == [
        f"same content as x, {conflict}",
        f"same content as a, {conflict}",
    ]
    assert {visit.patient_id for visit in read_index(tmp_path / "out").visits} == {"8", "9"}


def test_an_unknown_label_contradicts_nothing(tmp_path):
    rows = ("images/a.png,1,2", "images/x.png,1,", "images/b.png,2,0", "images/c.png,3,1")
    root = _prepared(tmp_path / "in", "image,patient_id,dr_grade", *rows)
    shutil.copy(root / "images/a.png", root / "images/x.png")
    import_set("eyepacs", root, tmp_path / "out", options=PREPARED)
    assert _record(tmp_path / "out")["duplicates_merged"] == {"a": ["x"]}


def test_a_damaged_photograph_is_left_out_with_its_reason(tmp_path):
    MAKERS["brset"](tmp_path / "in")
    damaged = tmp_path / "in/fundus_photos/img00002.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-400])
    import_set("brset", tmp_path / "in", tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    [left_out] = _record(tmp_path / "out")["left_out"]
    assert left_out["what"] == "img00002 (labels_brset.csv, row 3)"
    assert len(read_index(tmp_path / "out").visits) == 3


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (make_mask(64), "is 64 x 64 px, its photograph 128 x 128"),
        (np.arange(128 * 128).reshape(128, 128).astype(np.uint8), "two values, 0 being outside"),
        (np.full((128, 128), 255, np.uint8), "two values, 0 being outside"),
    ],
)
def test_a_mask_that_cannot_be_true_leaves_the_row_out(tmp_path, pixels, reason):
    MAKERS["fives"](tmp_path / "in")
    write_picture(tmp_path / "in/train/Ground truth/1_A.png", pixels)
    import_set("fives", tmp_path / "in", tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    [left_out] = _record(tmp_path / "out")["left_out"]
    assert reason in left_out["reason"]
    assert not (tmp_path / "out/cfp/train_1_A.png").exists()


def test_a_value_that_refuge_does_not_explain_leaves_the_row_out(tmp_path):
    MAKERS["refuge"](tmp_path / "in")
    mask = np.full((128, 128), 255, np.uint8)
    mask[40:80, 40:80] = 127
    write_picture(tmp_path / "in/REFUGE-Test-GT/Disc_Cup_Masks/G/T0001.bmp", mask)
    import_set("refuge", tmp_path / "in", tmp_path / "out")
    [left_out] = _record(tmp_path / "out")["left_out"]
    assert "holds 127, which the set does not explain" in left_out["reason"]


def test_links_are_the_files_themselves(tmp_path):
    make_aptos(tmp_path / "in")
    import_set("aptos-2019", tmp_path / "in", tmp_path / "out", link=True)
    for path in (tmp_path / "out/cfp").iterdir():
        assert path.samefile(tmp_path / "in/train_images" / path.name)
    assert _record(tmp_path / "out")["photographs"] == "hard links"


def test_folders_that_cannot_be_written_are_refused(tmp_path):
    make_aptos(tmp_path / "in")
    with pytest.raises(DataError, match="lies inside SRC"):
        import_set("aptos-2019", tmp_path / "in", tmp_path / "in/out")
    write_text(tmp_path / "used/note.txt", "mine")
    with pytest.raises(DataError, match="not empty"):
        import_set("aptos-2019", tmp_path / "in", tmp_path / "used")
    with pytest.raises(ConfigError, match="no importer 'aptos'"):
        import_set("aptos", tmp_path / "in", tmp_path / "out")


def test_the_seed_draws_other_patients(tmp_path):
    rows = [f"images/{name}.png,{name}" for name in "abcdef"]
    root = _prepared(tmp_path / "in", "image,patient_id", *rows)
    found = set()
    for seed in range(5):
        out = tmp_path / str(seed)
        import_set("odir-5k", root, out, options=PREPARED, rule=SplitRule(seed=seed))
        index = read_index(out)
        assert [len(index.split(name)) for name in ("train", "val", "test")] == [4, 1, 1]
        found.add(tuple(visit.split for visit in index.visits))
    assert len(found) > 1


def test_a_prepared_copy_reads_every_column_it_knows(tmp_path):
    columns = "image,patient_id,eye,split,age,sex,normal,dr_grade,quality,glaucoma_grade,"
    columns += "fovea_x,fovea_y,vessels,fov,keywords"
    root = _prepared(
        tmp_path / "in",
        columns,
        "images/a.png,7,OD,train,61,F,0,3,reject,early,10.5,20,masks/a.png,masks/a.png,x",
        "images/b.png,8,,test,,,,,,,,,,,",
    )
    write_picture(root / "masks/a.png", make_mask())
    import_set("odir-5k", root, tmp_path / "out", options=PREPARED)
    assert check_dataset(tmp_path / "out") == []
    first, second = read_index(tmp_path / "out").visits
    known = {name: value for name, value in first.labels.items() if value == value}
    assert known == {
        "gradable": 0,
        "quality_grade": 2,
        "dr_grade": 3,
        "referable_dr": 1,
        "diabetic_retinopathy": 1,
        "glaucoma": 1,
        "glaucoma_grade": 1,
        "normal": 0,
        "age_value": 61,
        "sex_female": 1,
        "fovea_x_value": 10.5,
        "fovea_y_value": 20,
    }
    assert set(first.files) == {"cfp", "vessels"}
    assert (tmp_path / "out/fov/a.png").is_file()
    assert (second.eye, second.split) == ("", "test")
    assert not any(value == value for value in second.labels.values())
    assert "keywords" not in COLUMNS


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ("image,laterality", "images/a.png,OD", "unknown column 'laterality'"),
        ("image,eye", "images/a.png,left", "row 2, column 'eye': 'left' is not one of OD, OS"),
        ("image,split", "images/a.png,dev", "row 2, column 'split': 'dev' is not one of"),
        ("image", "images/z.png", "row 2, column 'image': 'images/z.png' does not exist as a file"),
        ("image", "../a.png", "leaves its folder"),
        ("image,quality", "images/a.png,fine", "'fine' is not one of good, usable, reject"),
        ("image,age", "images/a.png,old", "row 2, column 'age': 'old' is not a number"),
        ("image,dr_grade", "images/a.png,1.5", "'1.5' is not whole"),
        ("image,dr_grade,diabetic_retinopathy", "images/a.png,2,0", "contradicts dr_grade"),
        ("image,glaucoma_grade", "images/a.png,late", "'late' is not one of non"),
    ],
)
def test_a_prepared_copy_with_a_fault_is_refused(tmp_path, columns, row, message):
    root = _prepared(tmp_path / "in", columns, row)
    with pytest.raises(DataError, match=message):
        import_set("odir-5k", root, tmp_path / "out", options=PREPARED)


def test_a_patient_in_two_splits_of_the_set_is_refused(tmp_path):
    rows = ("images/a.png,7,train", "images/b.png,7,test")
    root = _prepared(tmp_path / "in", "image,patient_id,split", *rows)
    with pytest.raises(DataError, match="has patient '7' in 'train' and in 'test'"):
        import_set("odir-5k", root, tmp_path / "out", options=PREPARED)
    assert not (tmp_path / "out").exists()


def test_names_that_could_leave_the_folder_or_collide_are_refused(tmp_path):
    make_aptos(tmp_path / "in")
    replace_text(tmp_path / "in/train.csv", "000c1434d8d7", "a b")
    photo(tmp_path / "in/train_images/a b.png", 9)
    with pytest.raises(DataError, match=r"row 2: 'a b'\n.*letters, digits"):
        import_set("aptos-2019", tmp_path / "in", tmp_path / "out")
