"""A clinic's list: both eyes, one or two fields; a bad row is named by line, not by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import ConfigError
from edge_runtime.screening.examination_list import read_examinations

HEADER = "examination_id,eye,path,field,sha256\n"


@pytest.fixture
def write(tmp_path: Path):
    """Write the list and return its path."""

    def write_list(text: str | bytes) -> Path:
        path = tmp_path / "list.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_list


def refused(path: Path) -> str:
    """The message of the refusal."""
    with pytest.raises(ConfigError) as caught:
        read_examinations(path)
    return str(caught.value)


def test_both_eyes_with_two_fields_in_their_order(write, tmp_path: Path) -> None:
    digest = "AB" * 32
    path = write(
        f"{HEADER}v1,OS,l.jpg,,\nv1,OD,r2.jpg,2,{digest}\nv1,OD,sub/r1.jpg,1,\nv2,unspecified,x.png,,\n"
    )
    first, second = read_examinations(path).examinations
    assert (first.examination_id, second.examination_id) == ("v1", "v2")
    assert [eye.eye for eye in first.eyes] == ["OD", "OS"]
    r1, r2 = first.eyes[0].pictures
    assert (r1.path, r2.path) == (tmp_path / "sub" / "r1.jpg", tmp_path / "r2.jpg")
    assert (r1.expected_sha256, r2.expected_sha256) == (None, digest.lower())
    assert [eye.eye for eye in second.eyes] == ["unspecified"]


def test_the_optional_columns_may_be_left_out_and_stand_anywhere(write) -> None:
    plan = read_examinations(write("path,examination_id,eye\na.jpg,v,OD\nb.jpg,v,OS\n"))
    assert [eye.pictures[0].path.name for eye in plan.examinations[0].eyes] == ["a.jpg", "b.jpg"]


def test_an_eye_without_a_row_or_a_path_is_missing(write) -> None:
    for text in ("v,OD,a.jpg,,\n", "v,OD,a.jpg,,\nv,OS,,,\n"):
        (one,) = read_examinations(write(HEADER + text)).examinations
        assert [(eye.eye, eye.pictures[0].path is None) for eye in one.eyes] == [
            ("OD", False),
            ("OS", True),
        ]


def test_a_spreadsheets_file_is_read(write) -> None:
    text = "\ufeffexamination_id,eye,path\r\n\r\nv, OD ,a.jpg\r\n,,\r\n"
    (one,) = read_examinations(write(text)).examinations
    assert one.eyes[0].pictures[0].path.name == "a.jpg"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (",OD,secret.jpg,,", "examination_id"),
        ("secret,od,secret.jpg,,", "eye is not one of OD, OS, unspecified"),
        ("secret,OD,secret.jpg,3,", "field is not one of 1, 2"),
        ("secret,OD,secret.jpg,1,abc", "sha256 is not 64 hex digits"),
        ("secret,OD,secret.jpg,1", "4 cells, the header has 5"),
        ("secret,OD,secret.jpg,1,,secret", "6 cells, the header has 5"),
        ("secret\x07,OD,secret.jpg,,", "not printable"),
        ("secret,OD,sec\0ret.jpg,,", "zero byte"),
        ("secret,OD,secret.jpg,2,", "field 2 without field 1"),
        (f"{'secret' * 40},OD,secret.jpg,,", "over 200 characters"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_not_repeated(write, row: str, problem: str) -> None:
    text = refused(write(f"{HEADER}v,OD,a.jpg,,\n{row}\nw,OD,b.jpg,,\n"))
    assert "line 3: " in text
    assert problem in text
    assert "secret" not in text


def test_lines_are_counted_as_an_editor_counts_them(write) -> None:
    text = refused(write(f'{HEADER}"v\n1",OD,a.jpg,,\n\nw,left,b.jpg,,\n'))
    assert "line 2: examination_id" in text
    assert "line 5: eye" in text


def test_rows_contradicting_each_other_are_refused(write) -> None:
    assert "line 3: this eye and field" in refused(write(f"{HEADER}v,OD,a,,\nv,OD,b,1,\n"))
    assert "line 2: the examination mixes" in refused(
        write(f"{HEADER}v,OD,a,,\nv,unspecified,b,,\n")
    )
    apart = f"{HEADER}v,OD,a,,\nw,OD,b,,\nv,OS,c,,\n"
    assert "line 4: an examination_id of further up comes again" in refused(write(apart))


def test_one_patients_picture_is_refused_under_another(write) -> None:
    path = write(f"{HEADER}anna,OD,a.jpg,,\nanna,OS,b.jpg,,\nbert,OD,c.jpg,,\nbert,OS,./b.jpg,,\n")
    text = refused(path)
    assert "line 5: this picture was given for another examination" in text
    assert "b.jpg" not in text
    twice = write(f"{HEADER}anna,OD,a.jpg,,\nanna,OS,a.jpg,,\n")
    assert len(read_examinations(twice).examinations) == 1  # the screener's: neither eye is clear


def test_every_bad_row_is_listed_up_to_twenty(write) -> None:
    text = refused(write(HEADER + "v,left,a.jpg,,\n" * 25))
    assert "line 2: " in text
    assert "line 21: " in text
    assert "line 22: " not in text
    assert "and 5 more" in text


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "header"),
        (b"examination_id;eye;path\nv;OD;a.jpg\n", "separated by commas"),
        (b"examination_id,eye\nv,OD\n", "header"),
        (b"examination_id,eye,path,note\n", "header"),
        (b"examination_id,eye,path,path\n", "header"),
        (b"examination_id,eye,path\n", "names no examination"),
        (b"examination_id,eye,path\nv,OD,\xff\xfe.jpg\n", "not UTF-8"),
        (b'examination_id,eye,path\nv,OD,"a"b.jpg\n', "broken in the row that begins on line 2"),
        (b'examination_id,eye,path\nv,OD,"a.jpg\n', "broken in the row that begins on line 2"),
    ],
)
def test_a_list_that_is_none_is_refused(write, data: bytes, problem: str) -> None:
    assert problem in refused(write(data))


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "absent.csv")
    assert "cannot be read" in refused(tmp_path)
