"""index.csv as rows of text cells: encoding, header and row shape, nothing about meaning."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["INDEX_NAME", "Problem", "Row", "header_problems", "read_table", "split_lines"]

INDEX_NAME = "index.csv"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a data set.

    `row` is the line of index.csv in a text editor (None: the whole file). `file` is the
    file the problem is in, relative to the data set. `message` has value and remedy.
    """

    row: int | None
    file: str
    column: str | None
    message: str

    def __str__(self) -> str:
        """Where, then what: one line."""
        where = [self.file if self.row is None or self.file == INDEX_NAME else INDEX_NAME]
        where += [f"row {self.row}"] if self.row is not None else []
        where += [f"column '{self.column}'"] if self.column is not None else []
        where += [f"file '{self.file}'"] if self.row is not None and self.file != INDEX_NAME else []
        return f"{', '.join(where)}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of index.csv: its number in a text editor and its cells by column."""

    number: int
    cells: Mapping[str, str]

    def problem(self, column: str, message: str, *, file: str = INDEX_NAME) -> Problem:
        """A problem in one of this row's cells."""
        return Problem(row=self.number, file=file, column=column, message=message)


def read_table(
    root: Path, *, required: Sequence[str]
) -> tuple[list[Row], tuple[str, ...], list[Problem]]:
    """Read `root/index.csv`: comma-separated UTF-8 with a header; a byte order mark is allowed.

    Returns:
        Rows with one cell per column, the column names, and the problems found. When the
        header is wrong there are no rows: their cells could not be told apart.
    """
    text, problem = _read_text(root)
    if problem is not None:
        return [], (), [problem]
    lines, broken = split_lines(text)
    if not lines:
        remedy = "the file is empty; it needs a header and one row a visit"
        return [], (), broken or [_whole(remedy)]
    (_, columns), *body = lines
    problems = header_problems(columns, required)
    if problems:
        return [], (), problems
    rows, malformed = _rows(columns, body)
    problems = malformed + broken
    if not rows and not problems:
        problems = [_whole("there is no row below the header; add one row a visit")]
    return rows, tuple(columns), problems


def _read_text(root: Path) -> tuple[str, Problem | None]:
    path = root / INDEX_NAME
    try:
        return path.read_bytes().decode("utf-8-sig"), None
    except OSError as error:
        remedy = "give the folder that holds index.csv"
        return "", _whole(f"cannot read '{path}': {error.strerror}; {remedy}")
    except UnicodeDecodeError as error:
        return "", _whole(f"not UTF-8 text (byte {error.start}); save it as CSV UTF-8")


def split_lines(text: str) -> tuple[list[tuple[int, list[str]]], list[Problem]]:
    """Cells of each non-blank line with the number of the line it starts on.

    Returns:
        The lines up to where the text stops being well-formed, and that place as a problem.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for cells in reader:
            if cells:
                lines.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        message = f"not well-formed CSV ({error}); check the quotes from here on"
        return lines, [Problem(row=start, file=INDEX_NAME, column=None, message=message)]
    return lines, []


def header_problems(columns: Sequence[str], required: Sequence[str]) -> list[Problem]:
    """What is wrong with the names of the columns: separator, empty, repeated, missing."""
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        mark = "semicolons" if ";" in columns[0] else "tabs"
        return [_header(None, f"columns are separated by {mark}; save the file with commas")]
    problems = []
    for name, count in Counter(columns).items():
        if not name.strip():
            problems.append(_header(name, "a column has no name; name it or remove it"))
        elif name != name.strip():
            problems.append(_header(name, "the name has spaces around it; remove them"))
        elif count > 1:
            problems.append(_header(name, f"the column appears {count} times; keep one"))
    for name in required:
        if name not in columns:
            remedy = "add it (cells may be empty where the contract says so)"
            problems.append(_header(name, f"the column is missing; {remedy}"))
    return problems


def _rows(
    columns: Sequence[str], body: Sequence[tuple[int, list[str]]]
) -> tuple[list[Row], list[Problem]]:
    rows, problems = [], []
    for number, cells in body:
        if len(cells) == len(columns):
            rows.append(Row(number=number, cells=dict(zip(columns, cells, strict=True))))
            continue
        message = f"{len(cells)} cells where the header has {len(columns)}; check the commas"
        problems.append(Problem(row=number, file=INDEX_NAME, column=None, message=message))
    return rows, problems


def _header(column: str | None, message: str) -> Problem:
    return Problem(row=1, file=INDEX_NAME, column=column, message=message)


def _whole(message: str) -> Problem:
    return Problem(row=None, file=INDEX_NAME, column=None, message=message)
