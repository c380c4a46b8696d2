"""Strict reader of a data set's `index.csv`: one row is one visit of one eye.

Columns, all required, in any order:

    patient_id, eye (OD|OS; empty = not known), acquired (YYYY-MM-DD), site, split (train|val|test),
    cfp, oct_h, oct_v, vessels, disc, cup, lesions     file paths, empty = absent

Every further column is a label; an empty cell means unknown. What a label may hold
follows from its column's name and from nothing else:

    *_grade     an integer from 0 to 4 (for example dr_grade, the ICDR scale)
    *_value     any finite number (for example axial_length_mm_value)
    the rest    0 or 1

Paths use '/', are relative to the data set's folder and stay inside it. A patient is in
one split only; a patient's eye has one row a day; a file belongs to one cell.
Row numbers count lines as a text editor shows them: the header is row 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from edge_runtime.errors import ConfigError, DataError
from train.data.table import INDEX_NAME, Problem, Row, read_table
from train.data.values import parse_date, parse_label, parse_path, parse_word

__all__ = [
    "EYES",
    "FILE_COLUMNS",
    "IMAGE_COLUMNS",
    "MASK_COLUMNS",
    "SPLITS",
    "DataIndex",
    "EyeVisit",
    "read_index",
    "scan_index",
]

EYES = ("OD", "OS")
SPLITS = ("train", "val", "test")
IMAGE_COLUMNS = ("cfp", "oct_h", "oct_v")
MASK_COLUMNS = ("vessels", "disc", "cup", "lesions")
FILE_COLUMNS = IMAGE_COLUMNS + MASK_COLUMNS
_REQUIRED = ("patient_id", "eye", "acquired", "site", "split", *FILE_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class EyeVisit:
    """One eye of one patient on one day; `eye` is "" where nobody says which.

    `files` holds the columns that are present, as absolute paths. `labels` holds every
    label of the index; NaN is unknown.
    """

    row_number: int
    patient_id: str
    eye: str
    acquired: date
    site: str
    split: str
    files: Mapping[str, Path]
    labels: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DataIndex:
    """All visits of a data set, in the order of the file."""

    root: Path
    visits: tuple[EyeVisit, ...]
    label_names: tuple[str, ...]

    def split(self, name: str) -> tuple[EyeVisit, ...]:
        """The visits of one split: train, val or test. It may be empty."""
        if name not in SPLITS:
            raise ConfigError(f"unknown split '{name}'; use one of {', '.join(SPLITS)}")
        return tuple(visit for visit in self.visits if visit.split == name)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over every row's values and every file's content.

        The folder's place on disk, the order of columns and file times do not matter.
        """
        digest = hashlib.sha256()
        for visit in self.visits:
            digest.update(json.dumps(self._canonical(visit), sort_keys=True).encode())
        return digest.hexdigest()

    def _canonical(self, visit: EyeVisit) -> dict[str, object]:
        return {
            "who": [visit.patient_id, visit.eye, visit.acquired.isoformat(), visit.site],
            "split": visit.split,
            "files": {name: _file_sha256(path) for name, path in visit.files.items()},
            "labels": {
                name: None if math.isnan(value) else value for name, value in visit.labels.items()
            },
        }


def read_index(root: Path) -> DataIndex:
    """Read `root/index.csv` and refuse it at its first problem.

    Files are checked to exist, not opened; `train.data.check` opens them.

    Raises:
        DataError: The index breaks its contract; names row, column, value and remedy.
    """
    index, problems = scan_index(root)
    if not problems:
        return index
    more = len(problems) - 1
    tail = f" ({more} more: edge-screen data check lists every one)" if more else ""
    raise DataError(f"{problems[0]}{tail}")


def scan_index(root: Path) -> tuple[DataIndex, list[Problem]]:
    """Read `root/index.csv` and collect every problem instead of stopping at the first.

    Returns:
        The index of the rows that could be understood, and the problems in row order.
    """
    rows, columns, problems = read_table(root, required=_REQUIRED)
    label_names = tuple(name for name in columns if name not in _REQUIRED)
    real_root = os.path.realpath(root)
    visits = []
    for row in rows:
        visit, found = _parse_visit(root, real_root, row, label_names)
        problems.extend(found)
        if visit is not None:
            visits.append(visit)
    index = DataIndex(root=root, visits=tuple(visits), label_names=label_names)
    problems.extend(_cross_row_problems(index.visits))
    return index, sorted(problems, key=lambda problem: problem.row or 0)


def _parse_visit(
    root: Path, real_root: str, row: Row, label_names: Sequence[str]
) -> tuple[EyeVisit | None, list[Problem]]:
    """One row as a visit, or its problems."""
    problems: list[Problem] = []
    cells = row.cells
    patient_id = parse_word(row, "patient_id", problems)
    eye = parse_word(row, "eye", problems, allowed=EYES) if cells["eye"] else ""
    acquired = parse_date(row, "acquired", problems)
    split = parse_word(row, "split", problems, allowed=SPLITS)
    files = {
        name: path
        for name in FILE_COLUMNS
        if cells[name] and (path := parse_path(root, real_root, row, name, problems)) is not None
    }
    labels = {name: parse_label(row, name, problems) for name in label_names}
    if not any(cells[name] for name in IMAGE_COLUMNS):
        problems.append(
            row.problem(
                "cfp", "the visit has no image; give a cfp, oct_h or oct_v, or drop the row"
            )
        )
    if problems or acquired is None:
        return None, problems
    visit = EyeVisit(
        row_number=row.number,
        patient_id=patient_id,
        eye=eye,
        acquired=acquired,
        site=cells["site"],
        split=split,
        files=files,
        labels=labels,
    )
    return visit, problems


def _cross_row_problems(visits: Sequence[EyeVisit]) -> list[Problem]:
    """Problems that only two rows together show."""
    problems: list[Problem] = []
    first_of_patient: dict[str, EyeVisit] = {}
    first_of_visit: dict[tuple[str, str, date], EyeVisit] = {}
    first_of_file: dict[Path, EyeVisit] = {}
    for visit in visits:
        problems.extend(_split_problem(visit, first_of_patient.setdefault(visit.patient_id, visit)))
        key = (visit.patient_id, visit.eye, visit.acquired)
        problems.extend(_repeat_problem(visit, first_of_visit.setdefault(key, visit)))
        for column, path in visit.files.items():
            if path in first_of_file:
                owner = first_of_file[path].row_number
                message = f"'{path.name}' is already used in row {owner}; a file has one cell"
                problems.append(_problem(visit, column, message))
            first_of_file.setdefault(path, visit)
    return problems


def _split_problem(visit: EyeVisit, first: EyeVisit) -> list[Problem]:
    if visit.split == first.split:
        return []
    message = (
        f"patient '{visit.patient_id}' is in '{visit.split}' here and in '{first.split}' in row "
        f"{first.row_number}; put all visits of a patient in one split"
    )
    return [_problem(visit, "split", message)]


def _repeat_problem(visit: EyeVisit, first: EyeVisit) -> list[Problem]:
    if visit is first:
        return []
    message = (
        f"patient '{visit.patient_id}', eye {visit.eye or 'not known'}, {visit.acquired} is "
        f"already in row {first.row_number}; join the two rows or correct one of them"
    )
    return [_problem(visit, "acquired", message)]


def _problem(visit: EyeVisit, column: str, message: str) -> Problem:
    return Problem(row=visit.row_number, file=INDEX_NAME, column=column, message=message)


def _file_sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error}; restore the file or drop it") from error
