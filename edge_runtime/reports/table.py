"""The answers of a run as a table for a spreadsheet: one row an eye, columns in a fixed order.

A cell of text that a spreadsheet would run as a formula gets an apostrophe in front
(OWASP, "CSV Injection"). Numbers keep every digit. The same bundle gives the same columns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from edge_runtime.reports.result_words import NOT_USED, label_word, printable
from edge_runtime.result import NOTICE, EyeResult, FieldResult
from edge_runtime.screening.entries import NOT_SCREENED, ReportEntry
from edge_runtime.screening.plan import PlannedEye

__all__ = ["COLUMNS_AFTER", "COLUMNS_BEFORE", "LABEL_COLUMNS", "csv_lines", "safe_cell"]

COLUMNS_BEFORE = (
    "input_index",
    "examination_id",
    "file",
    "eye",
    "disposition",
    "examination_disposition",
    "reasons",
    "gradable_probability",
    "gradable_threshold",
)
LABEL_COLUMNS = ("probability", "threshold", "decision")
COLUMNS_AFTER = (
    "warnings",
    "errors",
    "image_sha256",
    "bundle_name",
    "bundle_version",
    "bundle_sha256",
    "engine",
    "precision",
    "software_version",
    "screened_at",
    "notice",
)
# What spreadsheets take for the start of a formula, full-width forms included.
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_SEPARATOR = " | "  # warnings hold '; ' themselves
_MISSING = "missing"
_Cell = str | int | float | None


def csv_lines(
    entries: Iterable[ReportEntry], labels: Sequence[str], *, with_names: bool
) -> Iterator[str]:
    """Yield the lines of the table, the header first.

    Args:
        entries: All examinations of the run, in order.
        labels: Names of the bundle's labels, in its order.
        with_names: Whether the column `file` holds the file names; it is empty otherwise.
    """
    label_columns = [f"{label}_{column}" for label in labels for column in LABEL_COLUMNS]
    yield _line([*COLUMNS_BEFORE, *label_columns, *COLUMNS_AFTER])
    for entry in entries:
        for position, eye in enumerate(entry.planned.eyes):
            name = _file_names(eye) if with_names else None
            before = [entry.input_index, entry.planned.examination_id, name, eye.eye]
            yield _line([*before, *_answer(entry, position, labels)])


def safe_cell(text: str) -> str:
    """Return a text that no spreadsheet runs, on one line, without control characters."""
    is_formula = text.startswith(_FORMULA_STARTS) or text.lstrip().startswith(_FORMULA_STARTS)
    clean = printable(text)
    return f"'{clean}" if is_formula else clean


def _line(cells: Iterable[_Cell]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells])
    return stream.getvalue()


def _answer(entry: ReportEntry, position: int, labels: Sequence[str]) -> list[_Cell]:
    """The cells from `disposition` on; all empty but the first for what was not screened."""
    screened = entry.screened
    if screened is None:
        empty = len(COLUMNS_BEFORE) + len(LABEL_COLUMNS) * len(labels) + len(COLUMNS_AFTER) - 6
        return [NOT_SCREENED, NOT_SCREENED, *[None] * (empty - 1), NOTICE]
    result = screened.result
    eye = result.eyes[position]
    return [
        eye.disposition.value,
        result.disposition.value,
        _SEPARATOR.join(_eye_reasons(eye)),
        min((p for p in map(_gradable, eye.fields) if p is not None), default=None),
        eye.fields[0].quality.gradable_threshold,
        *(cell for label in labels for cell in _label_cells(eye, label)),
        _SEPARATOR.join(entry.warnings),
        _SEPARATOR.join(one.error for one in eye.fields if one.error is not None),
        _together([one.image_sha256 for one in eye.fields], " "),
        result.bundle.name,
        result.bundle.version,
        result.bundle.sha256,
        result.engine.name,
        result.engine.precision,
        screened.software_version,
        screened.screened_at,
        NOTICE,
    ]


def _file_names(eye: PlannedEye) -> str | None:
    return _together([None if p.path is None else p.name for p in eye.pictures], _SEPARATOR)


def _together(texts: Sequence[str | None], separator: str) -> str | None:
    """The texts in their order, a gap between them named; None when there is none at all."""
    if all(text is None for text in texts):
        return None
    return separator.join(_MISSING if text is None else text for text in texts)


def _eye_reasons(eye: EyeResult) -> list[str]:
    """Why pictures of the eye could not be judged, each reason once."""
    return list(dict.fromkeys(text for one in eye.fields for text in one.quality.reasons))


def _gradable(one: FieldResult) -> float | None:
    return one.quality.gradable_probability


def _label_cells(eye: EyeResult, name: str) -> tuple[_Cell, ...]:
    """The label in the picture where it is most probable, one that counts before one that does not.

    Empty when no picture was run.
    """
    found = [
        (label_word(one, label), label)
        for one in eye.fields
        for label in one.labels
        if label.name == name
    ]
    if not found:
        return (None,) * len(LABEL_COLUMNS)
    word, highest = max(found, key=lambda pair: (pair[0] != NOT_USED, pair[1].probability))
    return (highest.probability, highest.threshold, word)
