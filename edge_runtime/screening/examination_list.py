"""Read a clinic's list of examinations: a CSV with a row a picture, strictly.

    examination_id,eye,path,field,sha256
    visit-7,OD,photos/a.jpg,1,
    visit-7,OS,photos/b.jpg,1,

`field` and `sha256` may be left out, or left empty. Rows of one examination stand together. An
examination that names OD or OS expects both eyes: the eye without a row, or with an empty path,
is a missing picture. One path under two examinations is a bad row: one patient's picture would
answer for another. Every bad row is reported with its line number and without its content, because
a list names patients.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import ConfigError
from edge_runtime.examination import EYES
from edge_runtime.screening.inputs import planned_picture
from edge_runtime.screening.plan import PlannedExamination, PlannedEye, PlannedPicture, ScreenPlan

__all__ = ["OPTIONAL_COLUMNS", "REQUIRED_COLUMNS", "read_examinations"]

REQUIRED_COLUMNS = ("examination_id", "eye", "path")
OPTIONAL_COLUMNS = ("field", "sha256")
MAX_LIST_BYTES = 64_000_000
MAX_ID_CHARACTERS = 200
_FIELDS = ("1", "2")
_NUM_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row that is right by itself."""

    line: int
    examination_id: str = field(repr=False)
    eye: str
    picture: PlannedPicture
    field_number: int


def read_examinations(path: Path) -> ScreenPlan:
    """Return the examinations of a list in the order of their first rows.

    Args:
        path: The CSV, UTF-8, separated by commas; paths in it are relative to its folder.

    Raises:
        ConfigError: If the file cannot be read, its header is wrong, or a row is; the message
            names every bad row by its line (the first 20 of them).
    """
    lines = _numbered_rows(_read_text(path), path)
    header = next(lines, (1, []))[1]
    _check_header(header, path)
    problems: list[str] = []
    rows = [
        row
        for row in (_row(line, header, cells, path.parent, problems) for line, cells in lines)
        if row
    ]
    examinations = _group(rows, problems)
    if problems:
        _refuse(path, problems)
    if not examinations:
        raise ConfigError(f"the list {path} names no examination; give one row a picture")
    return ScreenPlan(examinations=tuple(examinations))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_LIST_BYTES + 1)
        if len(data) > MAX_LIST_BYTES:
            raise ConfigError(f"the list {path} is larger than {MAX_LIST_BYTES} bytes; split it")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"the list {path} cannot be read ({error.strerror}); check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the list {path} is not UTF-8; save it as 'CSV UTF-8'") from error


def _numbered_rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield every row that is not empty, with the number of the line that it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, [cell.strip() for cell in cells]
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(
            f"the list {path} is broken in the row that begins on line {line} ({error}); check "
            "its quotes"
        ) from error


def _check_header(header: Sequence[str], path: Path) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in header]
    known = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS}
    if missing or not known.issuperset(header) or len(set(header)) < len(header):
        raise ConfigError(
            f"the header of the list {path} is not {','.join(REQUIRED_COLUMNS)}"
            f"[,{'][,'.join(OPTIONAL_COLUMNS)}]; name these columns, each once, separated by commas"
        )


def _row(
    line: int, header: Sequence[str], cells: Sequence[str], folder: Path, problems: list[str]
) -> _Row | None:
    """Return the row, or None with what is wrong with it added to `problems`."""
    if len(cells) != len(header):
        problems.append(f"line {line}: {len(cells)} cells, the header has {len(header)}")
        return None
    values = dict(zip(header, cells, strict=True))
    found = list(_cell_problems(values))
    problems.extend(f"line {line}: {problem}" for problem in found)
    if found:
        return None
    path = folder / values["path"] if values["path"] else None
    sha256 = values.get("sha256", "").lower() or None
    return _Row(
        line=line,
        examination_id=values["examination_id"],
        eye=values["eye"],
        picture=planned_picture(path, expected_sha256=sha256),
        field_number=int(values.get("field") or 1),
    )


def _cell_problems(values: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with a row by itself; no text repeats a cell."""
    identity = values["examination_id"]
    if not identity or len(identity) > MAX_ID_CHARACTERS or not identity.isprintable():
        yield f"examination_id is empty, not printable or over {MAX_ID_CHARACTERS} characters"
    if values["eye"] not in EYES:
        yield f"eye is not one of {', '.join(EYES)}"
    if "\0" in values["path"]:
        yield "path holds a zero byte"
    if values.get("field", "") not in ("", *_FIELDS):
        yield f"field is not one of {', '.join(_FIELDS)} (or empty, which is 1)"
    if not re.fullmatch("(?:[0-9a-fA-F]{64})?", values.get("sha256", "")):
        yield "sha256 is not 64 hex digits (or empty)"


def _group(rows: Sequence[_Row], problems: list[str]) -> list[PlannedExamination]:
    examinations: list[PlannedExamination] = []
    seen: set[str] = set()
    pictures: dict[Path, str] = {}
    for identity, group in itertools.groupby(rows, lambda row: row.examination_id):
        together = list(group)
        if identity in seen:
            problems.append(
                f"line {together[0].line}: an examination_id of further up comes again; keep the "
                "rows of an examination together"
            )
        seen.add(identity)
        problems.extend(_group_problems(together))
        problems.extend(_taken_problems(together, pictures))
        examinations.append(
            PlannedExamination(eyes=tuple(_eyes(together)), examination_id=identity)
        )
    return examinations


def _group_problems(rows: Sequence[_Row]) -> Iterator[str]:
    places: set[tuple[str, int]] = set()
    for row in rows:
        if (row.eye, row.field_number) in places:
            yield f"line {row.line}: this eye and field of the examination has a row already"
        places.add((row.eye, row.field_number))
    eyes = {row.eye for row in rows}
    if "unspecified" in eyes and len(eyes) > 1:
        yield f"line {rows[0].line}: the examination mixes 'unspecified' with OD or OS"
    for row in rows:
        if row.field_number > 1 and (row.eye, 1) not in places:
            yield f"line {row.line}: field {row.field_number} without field 1 of the same eye"


def _taken_problems(rows: Sequence[_Row], pictures: dict[Path, str]) -> Iterator[str]:
    """Refuse one patient's picture under another; noted in `pictures`, by path.

    Under two eyes of one examination it is for the screener, which clears neither.
    """
    for row in rows:
        path = row.picture.path
        if path is not None and pictures.setdefault(path, row.examination_id) != row.examination_id:
            yield f"line {row.line}: this picture was given for another examination further up"


def _eyes(rows: Sequence[_Row]) -> Iterator[PlannedEye]:
    """Yield the eyes in the order OD, OS; the one without a row as missing."""
    expected = ("unspecified",) if rows[0].eye == "unspecified" else ("OD", "OS")
    for eye in expected:
        found = sorted((row for row in rows if row.eye == eye), key=lambda row: row.field_number)
        pictures = tuple(row.picture for row in found) or (planned_picture(None),)
        yield PlannedEye(eye=eye, pictures=pictures)


def _refuse(path: Path, problems: Sequence[str]) -> None:
    shown = [*problems[:_NUM_SHOWN]]
    if len(problems) > _NUM_SHOWN:
        shown.append(f"and {len(problems) - _NUM_SHOWN} more")
    listed = "\n  ".join(shown)
    raise ConfigError(f"the list {path} has bad rows; nothing was screened:\n  {listed}")
