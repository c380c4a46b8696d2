"""The table of eyes: what a published set does not say, told by the user and never guessed.

CSV columns: `eye_id` as the set names the eye, `eye` (OD or OS); if known also `patient_id`
and `acquired` (YYYY-MM-DD).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError
from train.data.index import EYES
from train.data.table import header_problems, split_lines
from train.pairing.times import Moment, TimeForm, parse_moment

__all__ = ["EyeEntry", "read_eye_table", "read_label_table"]


@dataclass(frozen=True, kw_only=True)
class EyeEntry:
    """What the table says of one eye; "" and None are not said."""

    eye: str
    patient_id: str = ""
    acquired: Moment | None = None


def read_eye_table(path: Path) -> dict[str, EyeEntry]:
    """Read the table; any doubt refuses it whole, since it replaces what a set should say.

    Raises:
        DataError: Missing, malformed, an eye twice, or a value that is no OD, OS or day.
    """
    table: dict[str, EyeEntry] = {}
    for number, cells in read_label_table(path, required=("eye_id", "eye")):
        where = f"{path.name}, row {number}"
        eye_id = cells["eye_id"]
        if not eye_id or eye_id in table:
            raise DataError(f"{where}: eye_id is empty or there already; give one row an eye")
        if cells["eye"] not in EYES:
            raise DataError(f"{where}: eye is not OD or OS; look at the picture, do not guess")
        table[eye_id] = EyeEntry(
            eye=cells["eye"],
            patient_id=cells.get("patient_id", ""),
            acquired=_day(cells.get("acquired", ""), where),
        )
    return table


def _day(text: str, where: str) -> Moment | None:
    if not text:
        return None
    moment = parse_moment(text)
    if moment is None or moment.form is not TimeForm.DAY:
        raise DataError(f"{where}: acquired is not a day; write YYYY-MM-DD or leave it empty")
    return moment


def read_label_table(
    path: Path, *, required: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """A small CSV file of a set: (row number, cells by column, trimmed) of each line.

    Raises:
        DataError: It cannot be read, is malformed, or lacks a required column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path.name} as UTF-8 text; check the file") from error
    lines, broken = split_lines(text)
    columns = [name.strip() for name in lines[0][1]] if lines else []
    problems = broken or header_problems(columns, required)
    if problems or not lines:
        message = problems[0].message if problems else "the file is empty"
        raise DataError(f"{path.name}: {message}")
    rows = []
    for number, line in lines[1:]:
        if len(line) != len(columns):
            raise DataError(f"{path.name}, row {number}: {len(line)} cells for {len(columns)}")
        rows.append((number, dict(zip(columns, map(str.strip, line), strict=True))))
    return rows
