"""A hospital's raw list as CSV: one row an image.

Columns, in any order:

    patient_id, eye (OD|OS), acquired (ISO date and time, with or without a zone), site,
    modality (cfp|oct), scan_kind, path (relative to the list's folder, or absolute)

`scan_kind` is macula_h, macula_v, disc or other for OCT; for a CFP it is the field, such as
macula or disc, or empty. Of the further columns only those named as labels are read.
Row numbers count lines as a text editor shows them: the header is row 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from edge_runtime.errors import ConfigError, DataError
from train.data.index import EYES
from train.data.table import header_problems, split_lines
from train.pairing.labels import is_label_value, require_label_names
from train.pairing.raw import MODALITIES, OCT_KINDS, RawImage, RawList
from train.pairing.reasons import KNOWN_COLUMNS, Reason, Rejection
from train.pairing.sources import FileSource
from train.pairing.times import parse_moment

__all__ = ["read_csv_list"]

_CLOSED = ("eye", "acquired", "modality", "scan_kind")
_FILLED = ("patient_id", "eye", "acquired", "site", "modality", "path")


def read_csv_list(path: Path, *, labels: Sequence[str] = ()) -> RawList:
    """Read the list; rows that cannot be understood become rejections.

    Args:
        path: The CSV file, UTF-8, commas.
        labels: Further columns to carry over as labels of the data set. The others are not
            read: they may hold names, birth dates or notes.

    Raises:
        DataError: The file as a whole cannot be read: missing, not UTF-8, quotes that do not
            close, a column that is missing.
        ConfigError: A label is no column of the list, or its name is taken.
    """
    require_label_names(labels)
    data, lines = _read(path)
    (_, columns), *body = lines
    problems = header_problems(columns, KNOWN_COLUMNS)
    if problems:
        raise DataError(f"{path.name}: {problems[0].column or 'header'}: {problems[0].message}")
    missing = [name for name in labels if name not in columns]
    if missing:
        raise ConfigError(f"the list has no column '{missing[0]}' to take as a label")
    rows = [_parse_line(path.parent, number, columns, line, labels) for number, line in body]
    return RawList(
        kind="csv",
        images=tuple(row for row in rows if isinstance(row, RawImage)),
        rejections=tuple(row for row in rows if isinstance(row, Rejection)),
        sha256=hashlib.sha256(data).hexdigest(),
        label_names=tuple(labels),
        ignored_columns=tuple(one for one in columns if one not in (*KNOWN_COLUMNS, *labels)),
    )


def _read(path: Path) -> tuple[bytes, list[tuple[int, list[str]]]]:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read the raw list ({error.strerror}); check its path") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text (byte {error.start}); save it as CSV UTF-8"
        ) from error
    lines, broken = split_lines(text)
    if broken:
        raise DataError(f"{path.name}, row {broken[0].row}: {broken[0].message}")
    if len(lines) < 2:
        raise DataError(f"{path.name} has no row below a header; export the list again")
    return data, lines


def _parse_line(
    root: Path, number: int, columns: Sequence[str], line: Sequence[str], labels: Sequence[str]
) -> RawImage | Rejection:
    if len(line) != len(columns):
        detail = f"{len(line)} cells where the header has {len(columns)}"
        return Rejection(row=number, reason=Reason.MALFORMED_ROW, detail=detail)
    cells = dict(zip(columns, line, strict=True))
    faults = {name: fault for name in (*KNOWN_COLUMNS, *labels) if (fault := _fault(name, cells))}
    moment = parse_moment(cells["acquired"])
    if faults or moment is None:
        column, (reason, detail) = next(iter(faults.items()))
        known = _understood(cells, set(faults))
        return Rejection(row=number, reason=reason, column=column, detail=detail, known=known)
    return RawImage(
        row=number,
        acquired=moment,
        source=FileSource(root=root, name=PurePosixPath(cells["path"]).as_posix()),
        labels={name: cells[name] for name in labels},
        **{name: cells[name] for name in ("patient_id", "eye", "site", "modality", "scan_kind")},
    )


def _fault(name: str, cells: Mapping[str, str]) -> tuple[Reason, str] | None:
    """(reason, detail) when a cell is refused; the detail never repeats the value."""
    value = cells[name]
    if (name in _FILLED and not value) or value != value.strip():
        return Reason.MISSING_VALUE, "empty, or spaces around the value"
    if name == "eye" and value not in EYES:
        return Reason.BAD_EYE, "not OD or OS"
    if name == "acquired" and parse_moment(value) is None:
        return Reason.BAD_TIME, "not an ISO date and time"
    if name == "modality" and value not in MODALITIES:
        return Reason.BAD_MODALITY, "not cfp or oct"
    if name == "scan_kind" and cells["modality"] == "oct" and value not in OCT_KINDS:
        return Reason.BAD_SCAN_KIND, f"for oct one of {', '.join(OCT_KINDS)}"
    if name == "path" and ("\\" in value or "\0" in value):
        return Reason.MISSING_FILE, "backslash or NUL in the path; write it with '/'"
    if name not in KNOWN_COLUMNS and value and not is_label_value(name, value):
        return Reason.BAD_LABEL, "not what a label of this name may hold"
    return None


def _understood(cells: Mapping[str, str], refused: set[str]) -> dict[str, str]:
    """The cells that the audit may repeat: those that were not refused.

    Two refused cells of the closed columns look like a row whose columns are shifted; then
    every cell may hold anything, a name included, and none is repeated.
    """
    if len(refused & set(_CLOSED)) > 1:
        return {}
    return {name: cells[name] for name in KNOWN_COLUMNS if name not in refused}
