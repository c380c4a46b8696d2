"""A hospital's CSV: which rows are understood, why the others are not, and what is repeated."""

from __future__ import annotations

import pytest
from pairing_factory import COLUMNS, RawFolder

from edge_runtime.errors import ConfigError, DataError
from train.pairing.csv_list import read_csv_list
from train.pairing.reasons import Reason


@pytest.fixture
def folder(tmp_path):
    made = RawFolder(tmp_path)
    made.visit()
    return made


def test_rows_carry_the_numbers_of_the_text_editor(folder):
    raw = read_csv_list(folder.write())
    assert [image.row for image in raw.images] == [2, 3, 4]
    assert [image.modality for image in raw.images] == ["cfp", "oct", "oct"]
    assert raw.rejections == ()
    assert len(raw.sha256) == 64


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("patient_id", "", Reason.MISSING_VALUE),
        ("patient_id", " P1", Reason.MISSING_VALUE),
        ("site", "", Reason.MISSING_VALUE),
        ("eye", "R", Reason.BAD_EYE),
        ("eye", "", Reason.MISSING_VALUE),
        ("acquired", "05.01.2026 09:00", Reason.BAD_TIME),
        ("modality", "CFP", Reason.BAD_MODALITY),
        ("scan_kind", "macular", Reason.BAD_SCAN_KIND),
        ("scan_kind", "", Reason.BAD_SCAN_KIND),
        ("path", "a\\b.png", Reason.MISSING_FILE),
    ],
)
def test_a_refused_cell_names_its_column_and_never_its_value(folder, column, value, reason):
    folder.rows[1][column] = value
    raw = read_csv_list(folder.write())
    (rejection,) = raw.rejections
    assert (rejection.row, rejection.reason, rejection.column) == (3, reason, column)
    assert column not in rejection.known
    assert rejection.known["modality" if column != "modality" else "eye"]
    assert not value.strip() or value.strip() not in rejection.detail.split()


def test_a_shifted_row_repeats_nothing(folder):
    """A name that slipped into another column must not reach the audit."""
    row = folder.rows[1]
    values = ["Jane Doe", *(row[name] for name in COLUMNS[:-1])]
    row.update(zip(COLUMNS, values, strict=True))
    (rejection,) = read_csv_list(folder.write()).rejections
    assert rejection.known == {}
    assert rejection.reason is Reason.BAD_EYE
    assert "Jane" not in repr(rejection)


def test_a_row_of_another_length_is_a_rejection_not_an_error(folder):
    path = folder.write()
    with path.open("a") as stream:
        stream.write("P9,OD,2026-01-05\n")
    (rejection,) = read_csv_list(path).rejections
    assert (rejection.row, rejection.reason) == (5, Reason.MALFORMED_ROW)


def test_only_named_labels_are_carried(folder):
    for row in folder.rows:
        row.update(name="Jane Doe", dr_grade="3")
    raw = read_csv_list(folder.write((*COLUMNS, "name", "dr_grade")), labels=("dr_grade",))
    assert raw.label_names == ("dr_grade",)
    assert raw.ignored_columns == ("name",)
    assert {image.labels["dr_grade"] for image in raw.images} == {"3"}
    assert "Jane" not in repr(raw)


def test_a_label_must_be_what_its_name_says(folder):
    for row, value in zip(folder.rows, ("4", "", "7"), strict=True):
        row["dr_grade"] = value
    raw = read_csv_list(folder.write((*COLUMNS, "dr_grade")), labels=("dr_grade",))
    assert [(one.row, one.reason) for one in raw.rejections] == [(4, Reason.BAD_LABEL)]


@pytest.mark.parametrize("label", ["split", "disc", "path", "nothing", " x"])
def test_labels_that_cannot_be(folder, label):
    with pytest.raises(ConfigError, match=r"label|column"):
        read_csv_list(folder.write(), labels=(label,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row below a header"),
        ("patient_id;eye\nP1;OD\n", "semicolons"),
        ("patient_id,eye\nP1,OD\n", "missing"),
        (",".join(COLUMNS) + "\n", "no row below a header"),
        (",".join(COLUMNS) + '\n"P1,OD', "quotes"),
    ],
)
def test_a_list_that_is_broken_as_a_whole(tmp_path, text, message):
    path = tmp_path / "raw.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_csv_list(path)


def test_a_list_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot read the raw list"):
        read_csv_list(tmp_path / "none.csv")
    (tmp_path / "raw.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_csv_list(tmp_path / "raw.csv")
