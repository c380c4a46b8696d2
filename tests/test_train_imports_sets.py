"""Every importer on a tree made to its layout: what is taken, what is not, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from imports_factory import (
    MAKERS,
    make_disc_cup,
    make_eyeq,
    make_mask,
    make_messidor,
    replace_text,
    write_picture,
)

from edge_runtime.errors import ConfigError, DataError
from train.data.check import check_dataset
from train.data.index import FILE_COLUMNS, read_index
from train.imports.records import ReadOptions
from train.imports.run import import_set
from train.imports.sets import SETS
from train.imports.vocabulary import LABELS

# Photographs in the made tree, and the set's own splits that must come through.
COUNTS = {
    "odir-5k": (5, {}),
    "eyepacs": (6, {"test": 2}),
    "aptos-2019": (4, {}),
    "messidor-2": (4, {}),
    "idrid-grading": (5, {"test": 2}),
    "idrid-segmentation": (4, {"test": 1}),
    "deepdrid": (10, {"train": 4, "val": 4, "test": 2}),
    "brset": (4, {}),
    "refuge": (5, {"train": 2, "val": 1, "test": 2}),
    "gamma": (3, {}),
    "rfmid": (4, {"train": 2, "val": 1, "test": 1}),
    "drive": (5, {"test": 2}),
    "chase-db1": (4, {}),
    "stare": (3, {}),
    "hrf": (3, {}),
    "fives": (6, {"test": 2}),
}


@pytest.fixture
def imported(tmp_path):
    """Make a set's tree and import it; rows of index.csv by the stem of their photograph."""

    def run(name: str, **options: object) -> tuple[dict[str, dict[str, str]], dict]:
        MAKERS[name](tmp_path / "in")
        return _import(name, tmp_path, **options)

    return run


def _import(name: str, folder: Path, **options: object) -> tuple[dict, dict]:
    import_set(name, folder / "in", folder / "out", **options)
    assert check_dataset(folder / "out") == []
    with (folder / "out" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["cfp"]).stem: row for row in csv.DictReader(file)}
    return rows, json.loads((folder / "out" / "import.json").read_text(encoding="utf-8"))


def _known(row: dict[str, str]) -> dict[str, float]:
    return {name: float(row[name]) for name in LABELS if row.get(name)}


def test_every_set_has_a_tree_and_a_count():
    assert set(MAKERS) == set(SETS) == set(COUNTS)
    assert all(layout.facts.name == name for name, layout in SETS.items())


@pytest.mark.parametrize("name", SETS)
def test_a_set_becomes_a_data_set(name, imported, tmp_path):
    count, official = COUNTS[name]
    rows, record = imported(name)
    assert len(rows) == count
    splits = defaultdict(set)
    for row in rows.values():
        splits[row["patient_id"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    for split, num in official.items():
        assert sum(row["split"] == split for row in rows.values()) == num, split
    labels = set(next(iter(rows.values()))) - {"patient_id", "eye", "acquired", "site", "split"}
    assert labels - set(FILE_COLUMNS) <= set(LABELS)
    assert record["terms"] == SETS[name].facts.terms
    assert record["source"]["files"] >= count
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.parametrize("name", sorted(set(SETS) - {"stare"}))
def test_photographs_keep_their_bytes(name, imported, tmp_path):
    imported(name)
    sources = {path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    written = [path.read_bytes() for path in (tmp_path / "out" / "cfp").iterdir()]
    assert set(written) <= sources
    assert len(set(written)) == COUNTS[name][0]


def test_a_second_import_is_the_same(tmp_path):
    MAKERS["eyepacs"](tmp_path / "in")
    for name in ("a", "b"):
        import_set("eyepacs", tmp_path / "in", tmp_path / name)
    assert (tmp_path / "a/index.csv").read_bytes() == (tmp_path / "b/index.csv").read_bytes()
    assert (tmp_path / "a/import.json").read_bytes() == (tmp_path / "b/import.json").read_bytes()


def test_odir_labels_are_those_of_the_eye(imported):
    rows, record = imported("odir-5k")
    assert {rows[n]["eye"] for n in ("0_left", "1_left")} == {"OS"}
    assert rows["0_right"]["eye"] == "OD"
    left, right = _known(rows["0_left"]), _known(rows["0_right"])
    assert (left["cataract"], left["normal"], left["dr_grade"]) == (1, 0, 0)
    assert (right["cataract"], right["normal"]) == (0, 1)
    assert (left["age_value"], left["sex_female"]) == (69, 1)
    worse = _known(rows["1_left"])
    assert (worse["dr_grade"], worse["referable_dr"], worse["hypertensive"]) == (2, 1, 1)
    assert _known(rows["1_right"]) == {"gradable": 0, "age_value": 57, "sex_female": 0}
    assert _known(rows["2_right"])["glaucoma"] == 1
    assert "age_value" not in _known(rows["2_right"])
    [left_out] = record["left_out"]
    assert left_out["what"].startswith("2_left.jpg")
    assert "anterior segment" in left_out["reason"]


def test_eyepacs_takes_quality_from_eyeq(imported, tmp_path):
    options = ReadOptions(quality_tables=(make_eyeq(tmp_path / "Label_EyeQ_train.csv"),))
    rows, record = imported("eyepacs", options=options)
    assert _known(rows["13_left"]) == {
        "gradable": 0,
        "quality_grade": 2,
        "dr_grade": 2,
        "referable_dr": 1,
        "diabetic_retinopathy": 1,
    }
    assert _known(rows["10_right"])["gradable"] == 1
    assert "gradable" not in _known(rows["13_right"]), "a picture that EyeQ lacks is unknown"
    assert (rows["13_left"]["patient_id"], rows["13_left"]["eye"]) == ("13", "OS")
    assert "1 rows of EyeQ" in " ".join(record["notes"])


def test_eyeq_of_another_grade_is_refused(imported, tmp_path):
    table = make_eyeq(tmp_path / "eyeq.csv")
    replace_text(table, "10_left.jpeg,0,0", "10_left.jpeg,0,4")
    with pytest.raises(DataError, match=r"trainLabels.csv, row 2.*EyeQ has DR_grade 4"):
        imported("eyepacs", options=ReadOptions(quality_tables=(table,)))


def test_eyeq_belongs_to_eyepacs_only(imported, tmp_path):
    options = ReadOptions(quality_tables=(make_eyeq(tmp_path / "eyeq.csv"),))
    with pytest.raises(ConfigError, match="--eyeq belongs to eyepacs"):
        imported("aptos-2019", options=options)


def test_a_set_without_patients_says_so(imported):
    rows, record = imported("aptos-2019")
    row = rows["000c1434d8d7"]
    assert (row["patient_id"], row["eye"]) == ("aptos-2019-000c1434d8d7", "")
    assert _known(row) == {"dr_grade": 2, "referable_dr": 1, "diabetic_retinopathy": 1}
    notes = " ".join(record["notes"])
    assert "names no patients" in notes
    assert "does not say which eye" in notes


def test_messidor_pairs_share_a_split(imported):
    rows, _ = imported("messidor-2")
    first, second = rows["20051020_43808_0100_PP"], rows["20051020_43832_0100_PP"]
    assert (first["eye"], second["eye"]) == ("OS", "OD")
    assert first["patient_id"] == second["patient_id"]
    assert _known(rows["IM000002"]) == {"gradable": 0}
    assert _known(second)["macular_edema"] == 1


def test_messidor_without_pairs_knows_no_eye(tmp_path):
    make_messidor(tmp_path / "in", with_pairs=False)
    rows, _ = _import("messidor-2", tmp_path)
    assert {row["eye"] for row in rows.values()} == {""}


def test_idrid_risk_and_masks(imported, tmp_path):
    rows, _ = imported("idrid-grading")
    assert _known(rows["train_IDRiD_002"])["macular_edema"] == 0
    assert _known(rows["train_IDRiD_003"])["macular_edema"] == 1
    assert _known(rows["train_IDRiD_002"])["dme_risk_grade"] == 1
    MAKERS["idrid-segmentation"](tmp_path / "seg" / "in")
    rows, _ = _import("idrid-segmentation", tmp_path / "seg")
    lesions = cv2.imread(str(tmp_path / "seg/out" / rows["train_IDRiD_01"]["lesions"]), -1)
    union = sum(np.roll(make_mask() > 0, 4 * k, axis=1).astype(int) for k in range(4)) > 0
    np.testing.assert_array_equal(lesions > 0, union)
    without = cv2.imread(str(tmp_path / "seg/out" / rows["train_IDRiD_02"]["lesions"]), -1)
    assert 0 < np.count_nonzero(without) < np.count_nonzero(lesions)


def test_deepdrid_fields_of_an_eye_are_visits_of_their_own(imported, tmp_path):
    rows, _ = imported("deepdrid")
    first, second = rows["1_l1"], rows["1_l2"]
    assert (first["eye"], second["eye"], rows["1_r1"]["eye"]) == ("OS", "OS", "OD")
    assert (first["acquired"], second["acquired"]) == ("1900-01-01", "1900-01-02")
    assert _known(first) == {"gradable": 0, "dr_grade": 2, "referable_dr": 1,
                             "diabetic_retinopathy": 1}  # fmt: skip
    assert _known(rows["347_r1"])["dr_grade"] == 0
    # The published table has a right eye's picture with the left eye's grade: nobody knows which.
    table = tmp_path / "in/regular-fundus-training/regular-fundus-training.csv"
    replace_text(table, "1_r2.jpg,1,,0,", "1_r2.jpg,1,0,,")
    import_set("deepdrid", tmp_path / "in", tmp_path / "again")
    record = json.loads((tmp_path / "again/import.json").read_text())
    assert [one["reason"] for one in record["left_out"]] == [
        "its name and the column of its grade are of different eyes"
    ]


def test_brset_cameras_and_findings(imported):
    rows, _ = imported("brset")
    assert rows["img00001"]["site"] == "brset/canon-cr"
    assert (rows["img00001"]["eye"], rows["img00002"]["eye"]) == ("OD", "OS")
    assert rows["img00001"]["split"] == rows["img00002"]["split"]
    known = _known(rows["img00003"])
    assert (known["gradable"], known["hypertensive"], known["amd"]) == (0, 1, 1)
    assert "age_value" not in known
    assert _known(rows["img00004"])["pathological_myopia"] == 1
    assert "glaucoma" not in _known(rows["img00001"]), "a large cup is no diagnosis"


def test_refuge_disc_holds_the_cup(imported, tmp_path):
    rows, _ = imported("refuge")
    assert [_known(rows[n]).get("glaucoma") for n in ("g0001", "n0001", "V0001", "T0002")] == [
        1, 0, None, 0]  # fmt: skip
    assert _known(rows["T0001"])["fovea_y_value"] == 64.25
    assert rows["g0001"]["site"] != rows["T0001"]["site"]
    disc, cup = (cv2.imread(str(tmp_path / "out" / rows["g0001"][n]), -1) for n in ("disc", "cup"))
    np.testing.assert_array_equal(disc > 0, make_disc_cup() < 255)
    np.testing.assert_array_equal(cup > 0, make_disc_cup() == 0)


def test_refuge_pictures_without_a_row_are_refused(tmp_path):
    MAKERS["refuge"](tmp_path / "in")
    table = tmp_path / "in/REFUGE-Test-GT/Glaucoma_label_and_Fovea_location.csv"
    replace_text(table, "2,T0002.jpg,0,61,65\n", "")
    with pytest.raises(DataError, match=r"N/T0002\.bmp: no row of the table names it"):
        import_set("refuge", tmp_path / "in", tmp_path / "out")


def test_gamma_grades(imported):
    rows, _ = imported("gamma")
    grades = [(_known(rows[f"000{i}"])["glaucoma_grade"], _known(rows[f"000{i}"])["glaucoma"])
              for i in (1, 2, 3)]  # fmt: skip
    assert grades == [(0, 0), (1, 1), (2, 1)]
    assert _known(rows["0001"])["fovea_x_value"] == 50.5


def test_rfmid_leaves_unknown_what_it_does_not_say(imported):
    rows, _ = imported("rfmid")
    healthy, ill = _known(rows["train_1"]), _known(rows["train_2"])
    assert (healthy["normal"], healthy["diabetic_retinopathy"]) == (1, 0)
    assert "macular_edema" not in healthy
    assert "dr_grade" not in ill
    assert (ill["normal"], ill["macular_edema"]) == (0, 1)
    assert _known(rows["val_1"])["pathological_myopia"] == 1


@pytest.mark.parametrize("name", ["drive", "stare", "chase-db1", "hrf", "fives"])
def test_vessels_are_the_first_observers(name, imported, tmp_path):
    rows, _ = imported(name)
    for row in rows.values():
        vessels = cv2.imread(str(tmp_path / "out" / row["vessels"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(vessels, make_mask())


def test_drive_as_the_challenge_gives_it_has_no_test_vessels(tmp_path):
    MAKERS["drive"](tmp_path / "in")
    for name in ("1st_manual", "2nd_manual"):
        shutil.rmtree(tmp_path / "in/test" / name)
    rows, record = _import("drive", tmp_path)
    assert [bool(rows[n]["vessels"]) for n in ("21_training", "01_test")] == [True, False]
    assert "2 test pictures without observers" in " ".join(record["notes"])


def test_what_the_index_has_no_column_for_lies_beside_it(imported, tmp_path):
    _, record = imported("drive")
    assert record["beside_the_index"] == ["fov", "vessels_second_observer"]
    second = sorted((tmp_path / "out/vessels_second_observer").iterdir())
    assert [path.name for path in second] == ["01_test.png", "02_test.png"]


def test_ppm_becomes_png_pixel_for_pixel(imported, tmp_path):
    rows, record = imported("stare")
    assert record["converted_from_ppm"] == sorted(rows)
    source = cv2.imread(str(tmp_path / "in/stare-images/im0002.ppm"), cv2.IMREAD_UNCHANGED)
    written = cv2.imread(str(tmp_path / "out" / rows["im0002"]["cfp"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, source)


def test_a_name_says_one_disease(imported):
    rows, _ = imported("fives")
    assert _known(rows["train_1_A"]) == {"amd": 1, "normal": 0}
    healthy = {"normal": 1, "amd": 0, "diabetic_retinopathy": 0, "glaucoma": 0}
    assert _known(rows["train_4_N"]) == healthy


def _remove(root: Path, *names: str) -> None:
    for name in names:
        (root / name).unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "odir-5k": (
        lambda root: _remove(root, "ODIR-5K_Training_Dataset/0_left.jpg"),
        r"V2\.csv, row 2: no picture '0_left'",
    ),
    "eyepacs": (
        lambda root: replace_text(root / "trainLabels.csv", "13_left,2", "13_left,7"),
        r"trainLabels\.csv, row 4, column 'level': '7' is not a number from 0 to 4",
    ),
    "aptos-2019": (
        lambda root: replace_text(root / "train.csv", "diagnosis", "diagnosis,site"),
        r"train\.csv: unknown column 'site'",
    ),
    "messidor-2": (
        lambda root: replace_text(root / "messidor_data.csv", "PP.png,3,1,1", "PP.png,,1,1"),
        r"messidor_data\.csv, row 3, column 'adjudicated_dr_grade': '' is not",
    ),
    "idrid-grading": (
        lambda root: replace_text(
            root / "2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv", "2,1", "2,3"
        ),
        r"row 3, column 'Risk of macular edema': '3' is not",
    ),
    "idrid-segmentation": (
        lambda root: (root / "1. Original Images/b. Testing Set").rename(root / "elsewhere"),
        r"no folder '1\. Original Images/b\. Testing Set'",
    ),
    "deepdrid": (
        lambda root: replace_text(
            root / "regular-fundus-training/regular-fundus-training.csv", "jpg,1,2", "jpg,2,2"
        ),
        r"row 3, column 'Overall quality': '2' is not",
    ),
    "brset": (
        lambda root: replace_text(root / "labels_brset.csv", "48,12,1,2,", "48,12,1,3,"),
        r"labels_brset\.csv, row 3, column 'exam_eye': '3' is not 1 or 2",
    ),
    "refuge": (
        lambda root: (root / "REFUGE-Validation400-GT").rename(root.parent / "elsewhere"),
        r"no folder 'REFUGE-Validation400-GT.*complete this part",
    ),
    "gamma": (
        lambda root: replace_text(root / "glaucoma_grading_training_GT.csv", "2,0,1,0", "2,1,1,0"),
        r"glaucoma_grading_training_GT\.csv, row 3: not one grade",
    ),
    "rfmid": (
        lambda root: replace_text(root / "Test_Set/RFMiD_Testing_Labels.csv", ",DR,", ",XYZ,"),
        r"RFMiD_Testing_Labels\.csv.*'DR'.*missing",
    ),
    "drive": (
        lambda root: _remove(root, "training/1st_manual/21_manual1.gif"),
        r"21_training\.tif: no picture '21_manual1'",
    ),
    "chase-db1": (
        lambda root: _remove(root, "Image_01L_1stHO.png"),
        r"Image_01L\.jpg: no picture 'Image_01L_1stHO'",
    ),
    "stare": (
        lambda root: _remove(root, "stare-images/im0002.ppm"),
        r"im0002\.ah\.ppm: no picture 'im0002'",
    ),
    "hrf": (
        lambda root: (root / "images/01_g.jpg").rename(root / "images/01_x.jpg"),
        r"'images/01_x\.jpg' is not named NUMBER_",
    ),
    "fives": (
        lambda root: _remove(root, "test/Ground truth/1_A.png"),
        r"test/Original/1_A\.png: no picture '1_A'",
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_malformed_set_is_refused_with_its_place(name, tmp_path):
    breaks, message = BROKEN[name]
    MAKERS[name](tmp_path / "in")
    breaks(tmp_path / "in")
    with pytest.raises(DataError, match=message):
        import_set(name, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "index.csv").exists()


def test_a_picture_without_a_row_is_named(tmp_path):
    MAKERS["aptos-2019"](tmp_path / "in")
    extra = write_picture(tmp_path / "in/train_images/extra.png", make_mask())
    _, record = _import("aptos-2019", tmp_path)
    assert record["left_out"] == [
        {"what": f"train_images/{extra.name}", "reason": "no row names it"}
    ]


def test_the_index_reads_back(imported, tmp_path):
    imported("deepdrid")
    index = read_index(tmp_path / "out")
    assert [len(index.split(name)) for name in ("train", "val", "test")] == [4, 4, 2]
