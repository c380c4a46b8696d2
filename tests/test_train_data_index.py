"""The strict index reader: what it accepts, and that each refusal names the place."""

from __future__ import annotations

import math
import shutil
from datetime import date

import pytest
from dataset_factory import COLUMNS, make_dataset, write_image, write_index

from edge_runtime.errors import ConfigError, DataError
from train.data.index import SPLITS, read_index, scan_index


def test_reads_rows_paths_and_labels(tmp_path):
    make_dataset(tmp_path)
    index = read_index(tmp_path)
    assert index.label_names == ("glaucoma", "dr_grade")
    assert [visit.row_number for visit in index.visits] == [2, 3, 4, 5, 6, 7]
    first, second = index.visits[:2]
    assert (first.patient_id, first.eye, first.acquired) == ("P000", "OD", date(2026, 1, 1))
    assert first.files["cfp"] == tmp_path / "cfp" / "P000_OD.png"
    assert second.labels["glaucoma"] == 1.0
    assert math.isnan(second.labels["dr_grade"])


def test_splits_partition_the_visits(tmp_path):
    make_dataset(tmp_path)
    index = read_index(tmp_path)
    parts = [index.split(name) for name in SPLITS]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert sorted(v.row_number for part in parts for v in part) == [2, 3, 4, 5, 6, 7]
    with pytest.raises(ConfigError, match="unknown split 'holdout'"):
        index.split("holdout")


def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path):
    make_dataset(tmp_path)
    plain = read_index(tmp_path)
    path = tmp_path / "index.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    # NaN differs from itself, so that labels are compared by their text.
    assert str(read_index(tmp_path).visits) == str(plain.visits)


def test_absent_files_are_absent_and_unknown_columns_are_labels(tmp_path):
    rows = make_dataset(tmp_path)
    for row in rows:
        row.update(vessels="", oct_v="", axial_length_mm_value="24.31")
    write_index(tmp_path, rows, (*COLUMNS, "axial_length_mm_value"))
    visit = read_index(tmp_path).visits[0]
    assert "vessels" not in visit.files
    assert "oct_v" not in visit.files
    assert visit.labels["axial_length_mm_value"] == pytest.approx(24.31)


def test_row_numbers_count_lines_as_an_editor_does(tmp_path):
    rows = make_dataset(tmp_path)
    rows[0]["site"] = "clinic\nwith a line break"
    rows[3]["eye"] = "left"
    path = write_index(tmp_path, rows)
    path.write_text(path.read_text().replace("P001", "\nP001", 1))
    line = next(
        number
        for number, text in enumerate(path.read_text().split("\n"), start=1)
        if ",left," in text
    )
    assert line == 7
    with pytest.raises(DataError, match=r"index.csv, row 7, column 'eye': unknown value 'left'"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("eye", "left", "unknown value 'left'; use OD or OS"),
        ("eye", "od", "unknown value 'od'; use OD or OS"),
        ("eye", " ", "unknown value ' '; use OD or OS"),
        ("split", "holdout", "unknown value 'holdout'; use train or val or test"),
        ("patient_id", "", "value '' is empty"),
        ("patient_id", " P001", "' P001' is empty or has spaces around it"),
        ("acquired", "01/02/2026", "'01/02/2026' is not a date; write it as YYYY-MM-DD"),
        ("acquired", "2026-02-30", "'2026-02-30' is not a date"),
        ("acquired", "20260201", "'20260201' is not a date"),
        ("glaucoma", "2", "value '2' is not 0 or 1"),
        ("glaucoma", "nan", "value 'nan' is not 0 or 1"),
        ("glaucoma", "yes", "value 'yes' is not 0 or 1"),
        ("dr_grade", "5", "value '5' is not an integer from 0 to 4"),
        ("dr_grade", "1.5", "value '1.5' is not an integer from 0 to 4"),
        ("dr_grade", "-1", "value '-1' is not an integer from 0 to 4"),
        ("dr_grade", "1e999", "value '1e999' is not an integer from 0 to 4"),
        ("cfp", "cfp/none.png", "'cfp/none.png' does not exist as a file"),
        ("cfp", "cfp", "'cfp' does not exist as a file"),
        ("cfp", "/etc/hostname", "'/etc/hostname' is absolute"),
        ("cfp", "C:/eye.png", "'C:/eye.png' is absolute"),
        ("cfp", "../outside.png", "leaves its folder by '..'"),
        ("cfp", "cfp/../cfp/P001_OD.png", "leaves its folder by '..'"),
        ("cfp", "cfp\\P001_OD.png", "contains a backslash"),
        ("cfp", "cfp/P001_OD.png ", "has spaces around it"),
        ("cfp", "x" * 5000, "File name too long"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, column, value, message):
    (tmp_path / "outside.png").write_bytes(b"reachable by '..'")
    root = tmp_path / "data"
    rows = make_dataset(root)
    rows[2][column] = value
    write_index(root, rows)
    with pytest.raises(DataError) as caught:
        read_index(root)
    assert str(caught.value).startswith(f"index.csv, row 4, column '{column}': ")
    assert message in str(caught.value)


def test_a_link_that_leaves_the_data_set_is_refused(tmp_path):
    root = tmp_path / "data"
    make_dataset(root)
    inside = root / "cfp" / "P000_OD.png"
    shutil.copy(inside, tmp_path / "outside.png")
    inside.unlink()
    inside.symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match=r"row 2, column 'cfp': .* link that leaves the data set"):
        read_index(root)


def test_a_patient_in_two_splits_is_named(tmp_path):
    rows = make_dataset(tmp_path)
    rows[3]["split"] = "test"
    write_index(tmp_path, rows)
    message = r"row 5, column 'split': patient 'P001' is in 'test' here and in 'val' in row 4"
    with pytest.raises(DataError, match=message):
        read_index(tmp_path)


def test_the_same_eye_twice_on_a_day_is_named(tmp_path):
    rows = make_dataset(tmp_path)
    rows[3]["eye"] = "OD"
    write_index(tmp_path, rows)
    with pytest.raises(DataError, match=r"row 5.*'P001', eye OD, 2026-01-02 is already in row 4"):
        read_index(tmp_path)


def test_an_empty_eye_is_not_known_and_still_counts_as_a_visit(tmp_path):
    rows = make_dataset(tmp_path)
    rows[2]["eye"] = ""
    write_index(tmp_path, rows)
    assert read_index(tmp_path).visits[2].eye == ""
    rows[3].update(eye="", acquired=rows[2]["acquired"], patient_id=rows[2]["patient_id"])
    write_index(tmp_path, rows)
    with pytest.raises(DataError, match=r"row 5.*'P001', eye not known, .* is already in row 4"):
        read_index(tmp_path)


def test_the_same_eye_on_another_day_is_another_visit(tmp_path):
    rows = make_dataset(tmp_path)
    rows[3].update(eye="OD", acquired="2026-06-01")
    write_index(tmp_path, rows)
    assert len(read_index(tmp_path).visits) == 6


def test_one_file_in_two_cells_is_named(tmp_path):
    rows = make_dataset(tmp_path)
    rows[4]["oct_v"] = "./" + rows[1]["oct_v"]
    write_index(tmp_path, rows)
    with pytest.raises(DataError, match=r"row 6, column 'oct_v': 'P000_OS.png' is already used"):
        read_index(tmp_path)


def test_a_visit_without_any_image_is_refused(tmp_path):
    rows = make_dataset(tmp_path)
    rows[1].update(cfp="", oct_h="", oct_v="")
    write_index(tmp_path, rows)
    with pytest.raises(DataError, match="row 3, column 'cfp': the visit has no image"):
        read_index(tmp_path)


@pytest.mark.parametrize("missing", ["patient_id", "split", "oct_v", "lesions"])
def test_a_missing_column_is_named(tmp_path, missing):
    rows = make_dataset(tmp_path)
    write_index(tmp_path, rows, tuple(name for name in COLUMNS if name != missing))
    with pytest.raises(DataError, match=f"row 1, column '{missing}': the column is missing"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((*COLUMNS[:-1], "glaucoma"), "column 'glaucoma': the column appears 2 times"),
        ((*COLUMNS, ""), "a column has no name"),
        ((*COLUMNS, " amd"), "column ' amd': the name has spaces around it"),
    ],
)
def test_a_bad_header_is_refused(tmp_path, columns, message):
    make_dataset(tmp_path)
    path = tmp_path / "index.csv"
    body = path.read_text().split("\n", 1)[1]
    path.write_text(",".join(columns) + "\n" + body)
    with pytest.raises(DataError, match=message):
        read_index(tmp_path)


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_delimiters_are_refused_by_name(tmp_path, delimiter, word):
    rows = make_dataset(tmp_path)
    write_index(tmp_path, rows, delimiter=delimiter)
    with pytest.raises(DataError, match=f"separated by {word}; save the file with commas"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (",".join(COLUMNS).encode(), "no row below the header"),
        (",".join(COLUMNS).encode() + b"\nP1,OD\n", "row 2: 2 cells where the header has 14"),
        ("patient_id,eye\n".encode("utf-16"), "not UTF-8 text"),
        (",".join(COLUMNS).encode() + b'\n"P1,OD\n', "row 2: not well-formed CSV"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path, content, message):
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_index(tmp_path)


def test_a_missing_folder_is_refused_with_its_name(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*No such file.*folder that holds index\.csv"):
        read_index(tmp_path / "nowhere")


def test_every_problem_is_collected_in_row_order(tmp_path):
    rows = make_dataset(tmp_path)
    rows[0]["eye"] = "left"
    rows[5]["acquired"] = "soon"
    rows[2]["dr_grade"] = "9"
    write_index(tmp_path, rows)
    index, problems = scan_index(tmp_path)
    assert [(p.row, p.column) for p in problems] == [(2, "eye"), (4, "dr_grade"), (7, "acquired")]
    assert [visit.row_number for visit in index.visits] == [3, 5, 6]
    with pytest.raises(DataError, match=r"\(2 more: edge-screen data check lists every one\)"):
        read_index(tmp_path)


def test_the_fingerprint_follows_content_and_not_the_place(tmp_path):
    make_dataset(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    fingerprint = read_index(tmp_path / "a").fingerprint()
    assert len(fingerprint) == 64
    assert read_index(tmp_path / "b").fingerprint() == fingerprint
    write_image(tmp_path / "b" / "lesions" / "P000_OD.png", 255 * _one_pixel())
    assert read_index(tmp_path / "b").fingerprint() != fingerprint


def test_the_fingerprint_follows_labels(tmp_path):
    rows = make_dataset(tmp_path)
    before = read_index(tmp_path).fingerprint()
    rows[1]["dr_grade"] = "0"
    write_index(tmp_path, rows)
    assert read_index(tmp_path).fingerprint() != before


def _one_pixel():
    import numpy as np

    mask = np.zeros((128, 128), np.uint8)
    mask[64, 64] = 1
    return mask
