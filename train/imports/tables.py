"""Label tables of published sets, read strictly: every column known, every value in its range."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError
from train.data.table import header_problems, split_lines

__all__ = ["Cells", "read_cells"]

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SHEETS = (".xlsx", ".xls")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One row of a table; its readers add to `problems` instead of guessing."""

    table: str
    number: int
    values: Mapping[str, str]
    problems: list[str]

    @property
    def where(self) -> str:
        """Table and row, as a text editor numbers it."""
        return f"{self.table}, row {self.number}"

    def complain(self, column: str, message: str) -> None:
        """Add a problem of this row."""
        self.problems.append(f"{self.where}, column '{column}': {message}")

    def text(self, column: str) -> str:
        """A value that must be there."""
        if not self.values[column]:
            self.complain(column, "the cell is empty")
        return self.values[column]

    def whole(self, column: str, low: int, high: int, *, empty: bool = False) -> int | None:
        """An integer in [low, high]; None where the cell is empty, if that is allowed."""
        value = self.number_in(column, low, high, empty=empty)
        if value is not None and value != int(value):
            self.complain(column, f"'{self.values[column]}' is not whole")
            return None
        return None if value is None else int(value)

    def number_in(
        self, column: str, low: float, high: float, *, empty: bool = False
    ) -> float | None:
        """A number in [low, high]; None where the cell is empty, if that is allowed."""
        text = self.values[column]
        if not text and empty:
            return None
        if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
            self.complain(column, f"'{text}' is not a number from {low:g} to {high:g}")
            return None
        return float(text)

    def word(self, column: str, words: Mapping[str, float], *, empty: bool = False) -> float | None:
        """What one of `words` stands for."""
        text = self.values[column]
        if not text and empty:
            return None
        if text not in words:
            self.complain(column, f"'{text}' is not one of {', '.join(words)}")
        return words.get(text)


def read_cells(
    path: Path,
    problems: list[str],
    *,
    required: Sequence[str],
    ignored: Sequence[str] = (),
    numbered: bool = False,
    separator: str = ",",
) -> list[Cells]:
    """Read a CSV file whose columns are all known.

    Args:
        path: the table. Where only an Excel sheet of its name is there, the message says so.
        problems: rows add what is wrong with them here.
        required: columns that must be there.
        ignored: columns that may be there and are not read.
        numbered: a first column without a name, as pandas writes it, is left out.
        separator: of the cells; another one than ',' only where no cell holds a comma.

    Raises:
        DataError: the table is missing, malformed, or has another set of columns.
    """
    lines = [
        (number, [cell.strip() for cell in cells]) for number, cells in _lines(path, separator)
    ]
    (_, columns), *body = lines
    if numbered and not columns[0]:
        columns, body = columns[1:], [(number, cells[1:]) for number, cells in body]
    width = max((i + 1 for i, name in enumerate(columns) if name), default=0)
    columns = columns[:width]
    faults = header_problems(columns, required)
    strange = [name for name in columns if name not in (*required, *ignored)]
    if faults:
        column = f", column '{faults[0].column}'" if faults[0].column else ""
        raise DataError(f"{path.name}{column}: {faults[0].message}")
    if strange:
        raise DataError(
            f"{path.name}: unknown column '{strange[0]}'; this is not the published table, or a "
            "version that the importer does not know"
        )
    rows = []
    for number, cells in body:
        if len(cells) < width or any(cells[width:]):
            problems.append(f"{path.name}, row {number}: {len(cells)} cells for {width} columns")
            continue
        values = dict(zip(columns, cells, strict=False))
        rows.append(Cells(table=path.name, number=number, values=values, problems=problems))
    return rows


def _lines(path: Path, separator: str) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        sheets = [s for s in _SHEETS if path.with_suffix(s).exists()]
        remedy = "check SRC"
        if sheets:
            remedy = (
                f"save the sheet of {path.stem}{sheets[0]} as {path.name} (CSV UTF-8) beside it"
            )
        raise DataError(f"{path.name} is not there; {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read as UTF-8 text; save it again") from error
    lines, broken = split_lines(text if separator == "," else text.replace(separator, ","))
    if broken or not lines:
        message = str(broken[0].message) if broken else "the file is empty"
        raise DataError(f"{path.name}: {message}")
    return lines
