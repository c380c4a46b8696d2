"""Parsers of single cells of index.csv; each adds a problem instead of guessing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path, PurePosixPath

from train.data.table import Problem, Row

__all__ = ["parse_date", "parse_label", "parse_path", "parse_word"]

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_GRADE = 4


def parse_word(
    row: Row, column: str, problems: list[Problem], *, allowed: Sequence[str] | None = None
) -> str:
    """A non-empty word without spaces around it, one of `allowed` when given."""
    value = row.cells[column]
    if allowed is not None and value not in allowed:
        problems.append(row.problem(column, f"unknown value '{value}'; use {' or '.join(allowed)}"))
    elif not value or value != value.strip():
        problems.append(row.problem(column, f"value '{value}' is empty or has spaces around it"))
    return value


def parse_date(row: Row, column: str, problems: list[Problem]) -> date | None:
    """An ISO date, YYYY-MM-DD."""
    value = row.cells[column]
    if _ISO_DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass  # well-formed but no day of the calendar, such as 2024-02-30
    problems.append(row.problem(column, f"'{value}' is not a date; write it as YYYY-MM-DD"))
    return None


def parse_label(row: Row, column: str, problems: list[Problem]) -> float:
    """A label's value; NaN for an empty cell or a refused one."""
    text = row.cells[column]
    if not text:
        return math.nan
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    rule = _broken_rule(column, value)
    if rule is None:
        return value
    problems.append(row.problem(column, f"value '{text}' is not {rule}; leave it empty if unknown"))
    return math.nan


def _broken_rule(column: str, value: float) -> str | None:
    """What the value should have been, from the column's name; None when it is that."""
    if column.endswith("_value"):
        return None if math.isfinite(value) else "a finite number"
    if column.endswith("_grade"):
        fits = value.is_integer() and 0 <= value <= _MAX_GRADE
        return None if fits else f"an integer from 0 to {_MAX_GRADE}"
    return None if value in (0.0, 1.0) else "0 or 1"


def parse_path(
    root: Path, real_root: str, row: Row, column: str, problems: list[Problem]
) -> Path | None:
    """An existing regular file inside `root`, also after following links.

    `real_root` is `root` with its own links followed: asked once, not once a file.
    """
    value = row.cells[column]
    message = _path_problem(root, real_root, value)
    if message is None:
        return root / value
    problems.append(row.problem(column, f"'{value}' {message}"))
    return None


def _path_problem(root: Path, real_root: str, value: str) -> str | None:
    if value != value.strip():
        return "has spaces around it; remove them"
    if "\\" in value or "\0" in value:
        return "contains a backslash or NUL; write the path with '/'"
    pure = PurePosixPath(value)
    if pure.is_absolute() or re.match(r"[A-Za-z]:", value):
        return "is absolute; write it relative to the folder of index.csv"
    if ".." in pure.parts:
        return "leaves its folder by '..'; keep every file inside the data set"
    path = root / value
    try:
        if not path.is_file():
            return "does not exist as a file; restore it or empty the cell"
        real_path = os.path.realpath(path)
    except OSError as error:
        return f"cannot be looked up ({error.strerror}); correct the path"
    if not real_path.startswith(real_root.rstrip(os.sep) + os.sep):
        return "is a link that leaves the data set; copy the file in"
    return None
