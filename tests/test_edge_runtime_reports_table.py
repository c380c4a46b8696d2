"""The table: one row an eye, stable columns, nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from screen_factory import LABELS, SCREENED_AT, entry, field_result, screening_result

from edge_runtime.reports.table import COLUMNS_AFTER, COLUMNS_BEFORE, csv_lines, safe_cell
from edge_runtime.result import NOTICE, FieldResult
from edge_runtime.screening.entries import ReportEntry
from edge_runtime.screening.inputs import planned_picture
from edge_runtime.screening.plan import PlannedEye


def table(entries: Sequence[ReportEntry], *, with_names: bool = False) -> list[dict[str, str]]:
    """The rows as a reader of CSV sees them."""
    text = "".join(csv_lines(entries, LABELS, with_names=with_names))
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def missing_field() -> FieldResult:
    """The answer for a picture that was expected and not there."""
    found = field_result(reasons=["image missing"])
    return replace(found, image_sha256=None, input_sha256=None)


def test_one_row_an_eye_with_the_answer_of_the_examination() -> None:
    eyes = {
        "OD": [field_result(0.25, seed=1)],
        "OS": [field_result(reasons=["dark", "blur"], error="too dark", seed=2)],
    }
    result = screening_result(eyes, examination_id="v1", warnings=["one; two", "three"])
    od, os_ = table([entry(3, result)])
    assert list(od) == [
        *COLUMNS_BEFORE,
        "macular_edema_probability",
        "macular_edema_threshold",
        "macular_edema_decision",
        "glaucoma_probability",
        "glaucoma_threshold",
        "glaucoma_decision",
        *COLUMNS_AFTER,
    ]
    assert (od["input_index"], od["examination_id"], od["eye"]) == ("3", "v1", "OD")
    assert (od["disposition"], od["examination_disposition"]) == ("no_refer", "ungradable")
    assert (od["glaucoma_probability"], od["glaucoma_decision"]) == ("0.25", "negative")
    assert (os_["disposition"], os_["reasons"]) == ("ungradable", "dark | blur")
    assert (os_["errors"], os_["glaucoma_probability"]) == ("too dark", "")
    assert od["warnings"] == "one; two | three"
    assert (od["screened_at"], od["notice"]) == (SCREENED_AT, NOTICE)
    assert od["image_sha256"] == f"{1:064x}"


def test_numbers_keep_every_digit() -> None:
    value = 0.1234567890123456
    (row,) = table([entry(0, screening_result({"unspecified": [field_result(value)]}))])
    assert float(row["macular_edema_probability"]) == value


def test_two_fields_give_the_most_probable_that_counts() -> None:
    fields = [field_result(0.2, seed=1), field_result(0.4, seed=2), field_result(reasons=["blur"])]
    (row,) = table([entry(0, screening_result({"unspecified": fields}))])
    assert (row["glaucoma_probability"], row["glaucoma_decision"]) == ("0.4", "negative")
    assert row["image_sha256"].split() == [f"{1:064x}", f"{2:064x}", f"{0:064x}"]


@pytest.mark.parametrize(
    ("paths", "file"),
    [([None], ""), ([None, None], ""), ([None, Path("b.jpg")], "missing | b.jpg")],
)
def test_a_missing_picture_is_an_empty_cell(paths: list[Path | None], file: str) -> None:
    fields = [missing_field() for _ in paths]
    one = entry(0, screening_result({"unspecified": fields}))
    eye = PlannedEye(eye="unspecified", pictures=tuple(planned_picture(path) for path in paths))
    one = replace(one, planned=replace(one.planned, eyes=(eye,)))
    (row,) = table([one], with_names=True)
    assert (row["file"], row["image_sha256"]) == (file, "")


def test_a_hash_keeps_the_place_of_its_field() -> None:
    fields = [missing_field(), field_result(seed=2)]
    (row,) = table([entry(0, screening_result({"unspecified": fields}))])
    assert row["image_sha256"] == f"missing {2:064x}"


def test_what_was_not_screened_has_a_row_that_says_so() -> None:
    rows = table([entry(0, None)])
    assert [row["eye"] for row in rows] == ["OD", "OS"]
    assert {row["disposition"] for row in rows} == {"not_screened"}
    assert {row["examination_disposition"] for row in rows} == {"not_screened"}
    assert {row["notice"] for row in rows} == {NOTICE}
    assert None not in rows[0]
    assert None not in rows[0].values()


def test_a_picture_of_another_examination_is_in_the_warnings() -> None:
    result = screening_result(
        {"unspecified": [field_result()]}, examination_id="v1", warnings=["x"]
    )
    (row,) = table([entry(0, result, shared_with=[(3, "v4"), (5, "=v6")])])
    assert row["disposition"] == "no_refer"
    assert row["warnings"] == (
        "the same picture was given for examination 3 (v4); find out whose it is | "
        "the same picture was given for examination 5 (=v6); find out whose it is | x"
    )


def test_names_are_there_only_when_asked_for() -> None:
    one = entry(0, screening_result({"unspecified": [field_result()]}), names=["Doe, Jane.jpg"])
    assert table([one])[0]["file"] == ""
    assert table([one], with_names=True)[0]["file"] == "Doe, Jane.jpg"


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "  =1",
        "\n=1",
        "\uff1d1",
        "=cmd|' /C calc'!A0",
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_defused(text: str) -> None:
    assert safe_cell(text).startswith("'")
    result = screening_result({"unspecified": [field_result()]}, examination_id=text)
    (row,) = table([entry(0, result, names=[f"{text}.jpg"])], with_names=True)
    assert row["examination_id"].startswith("'")
    assert row["file"].startswith("'")


def test_ordinary_text_is_left_alone_and_lines_stay_lines() -> None:
    assert safe_cell("visit-7") == "visit-7"
    assert safe_cell("a\nb\x1b[2J") == "a?b?[2J"
    result = screening_result({"unspecified": [field_result()]}, examination_id='x"y,z\r\nw')
    (row,) = table([entry(0, result)])
    assert row["examination_id"] == 'x"y,z??w'
