"""The two CSV files of a reader study: what they become, and how they are refused."""

from __future__ import annotations

import numpy as np
import pytest
from reader_factory import make_rows, write_tables

from edge_runtime.errors import DataError
from train.reader_tables import read_studies


def refusal(tmp_path, readings, predictions, extra=()):
    with pytest.raises(DataError) as refused:
        read_studies(*write_tables(tmp_path, readings, predictions, extra))
    return str(refused.value).splitlines()


def test_rows_become_arrays_whatever_their_order(tmp_path):
    readings, predictions = make_rows()
    (study,) = read_studies(*write_tables(tmp_path, readings, predictions))
    (again,) = read_studies(*write_tables(tmp_path, readings[::-1], predictions))
    assert study.reader_ids.tolist() == ["R0", "R1", "R2", "R3"]
    assert study.groups.tolist() == ["junior", "junior", "senior", "senior"]
    assert study.case_ids.tolist() == [row["case_id"] for row in predictions]
    assert study.truth_c.tolist() == [row["truth"] == "1" for row in predictions]
    assert study.read_rc.all()
    assert not study.synthetic
    for name in ("decisions_rc", "read_rc", "model_c", "score_c"):
        assert np.array_equal(getattr(study, name), getattr(again, name))
    wanted = {(r["reader_id"], r["case_id"]): float(r["decision"]) for r in readings}
    for r, reader in enumerate(study.reader_ids):
        for c, case in enumerate(study.case_ids):
            assert study.decisions_rc[r, c] == wanted[reader, case]


def test_undecided_and_unread_are_two_things(tmp_path):
    readings, predictions = make_rows()
    readings[0]["decision"] = ""
    unread = readings.pop(5)
    predictions[3] |= {"decision": "", "score": ""}
    (study,) = read_studies(*write_tables(tmp_path, readings, predictions))
    assert np.isnan(study.decisions_rc[0, 0])
    assert study.read_rc[0, 0]
    assert unread["reader_id"] == "R1"
    assert not study.read_rc[1, 1]
    assert np.isnan(study.model_c[3])
    assert np.isnan(study.score_c[3])


def test_labels_are_studies_of_their_own_and_synthetic_is_said(tmp_path):
    readings, predictions = make_rows()
    other = [{**row, "label": "schisis"} for row in readings if row["reader_id"] != "R0"]
    both = [{**row, "synthetic": "1"} for row in readings + other]
    paths = write_tables(
        tmp_path, both, predictions + [{**row, "label": "schisis"} for row in predictions],
        ("synthetic",),
    )  # fmt: skip
    first, second = read_studies(*paths)
    assert (first.label, second.label) == ("macular_edema", "schisis")
    assert (len(first.reader_ids), len(second.reader_ids)) == (4, 3)
    assert first.synthetic
    assert second.synthetic


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("readings", "decision", "yes", "'yes' cannot be used; give 0, 1, or nothing"),
        ("readings", "reader_id", "", "'' cannot be used; give a name"),
        ("readings", "group", "model", "'model' cannot be used; name the group"),
        ("readings", "group", "senior", "'senior' where reader 'R0' is in"),
        ("readings", "case_id", " C0", "' C0' cannot be used; give a name without spaces"),
        ("readings", "case_id", "C99", "'C99' has no prediction for label 'macular_edema'"),
        ("readings", "patient_id", "P9", "'P9' where predictions.csv, row 3 has 'P0'"),
        ("predictions", "truth", "", "'' cannot be used; give 0 or 1"),
        ("predictions", "score", "nan", "'nan' cannot be used; give a finite number"),
        ("predictions", "score", "", "'' cannot be used; give a finite number; empty only where"),
        ("predictions", "case_id", "C0", "'C0' with label 'macular_edema' is in row 2; keep one"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, table, column, value, message):
    readings, predictions = make_rows()
    row = {"readings": readings[4], "predictions": predictions[1]}[table]
    row[column] = value
    lines = refusal(tmp_path, readings, predictions)
    where = "readers.csv, row 6" if table == "readings" else "predictions.csv, row 3"
    assert any(line.startswith(f"{where}, column '{column}': {message}") for line in lines), lines


def test_every_problem_is_listed(tmp_path):
    readings, predictions = make_rows()
    readings[0]["decision"], readings[7]["decision"] = "2", "x"
    predictions[2]["truth"] = "maybe"
    lines = refusal(tmp_path, readings, predictions)
    assert [line.split(",")[1] for line in lines] == [" row 2", " row 9", " row 4"]


def test_repeated_readings_and_one_class_are_refused(tmp_path):
    readings, predictions = make_rows()
    lines = refusal(tmp_path, [*readings, readings[0]], predictions)
    assert lines == [
        "readers.csv, row 50, column 'case_id': reader 'R0' read 'C0' in row 2; keep one"
    ]
    (line,) = refusal(tmp_path, [{**readings[0], "label": "amd"}], predictions)
    assert "column 'case_id': 'C0' has no prediction for label 'amd'; add it" in line
    for row in predictions:
        row["truth"] = "1"
    (line,) = refusal(tmp_path, readings, predictions)
    assert line.startswith("predictions.csv, column 'truth': label 'macular_edema' has truth 1")


def test_broken_files_are_refused(tmp_path):
    readings, predictions = make_rows()
    lines = refusal(tmp_path, [{**r, "age": "60"} for r in readings], predictions, ("age",))
    assert lines[0].startswith("readers.csv, row 1, column 'age': the column is unknown; remove it")
    paths = write_tables(tmp_path, readings, predictions)
    text = paths[0].read_text()
    for broken, message in (
        (text.replace(",", ";"), "columns are separated by semicolons"),
        (text.replace("decision", "answer", 1), "column 'decision': the column is missing"),
        (text.replace("R1,junior", "R1,x,junior", 1), "row 3: 7 cells where the header has 6"),
        ("", "there is no row below a header"),
    ):
        paths[0].write_text(broken)
        with pytest.raises(DataError, match=message):
            read_studies(*paths)
    paths[0].write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"readers\.csv: not UTF-8 text"):
        read_studies(*paths)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file"):
        read_studies(tmp_path / "none.csv", paths[1])
