"""The two CSV files of a reader study: what readers decided, and what the model said.

    READERS       reader_id, group, case_id, patient_id, label, decision
    PREDICTIONS   case_id, patient_id, label, truth, score, decision

A case is one eye; `label` names the finding (macular_edema), so one pair of files may hold
several studies. `decision` is 1 (present), 0 (absent) or empty: the reader, or the model,
could not tell. Either file may have a column `synthetic` with 1 in every row. Row numbers
count lines as a text editor shows them: the header is row 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from train.data.table import header_problems, split_lines

__all__ = ["MODEL", "ReaderStudy", "read_studies"]

MODEL = "model"  # what the model is called beside the groups; no group may take the name
_SYNTHETIC = "synthetic"
_READERS = ("reader_id", "group", "case_id", "patient_id", "label", "decision")
_PREDICTIONS = ("case_id", "patient_id", "label", "truth", "score", "decision")


@dataclass(frozen=True, kw_only=True)
class ReaderStudy:
    """One label: R readers and the model on C cases.

    Attributes:
        label: the finding.
        case_ids: (C,) str, in the order of PREDICTIONS.
        patient_ids: (C,) str.
        truth_c: (C,) bool.
        score_c: (C,) float; NaN where the model gave none.
        model_c: (C,) float, the model's decision 0 or 1; NaN = could not tell.
        reader_ids: (R,) str, sorted by group, then id.
        groups: (R,) str.
        decisions_rc: (R, C) float, 0 or 1; NaN = could not tell, or did not read.
        read_rc: (R, C) bool, the reader read the case.
        synthetic: a file says that the eyes are synthetic.
    """

    label: str
    case_ids: npt.NDArray[np.str_]
    patient_ids: npt.NDArray[np.str_]
    truth_c: npt.NDArray[np.bool_]
    score_c: npt.NDArray[np.float64]
    model_c: npt.NDArray[np.float64]
    reader_ids: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    decisions_rc: npt.NDArray[np.float64]
    read_rc: npt.NDArray[np.bool_]
    synthetic: bool


@dataclass(frozen=True)
class _Line:
    """One row: which file, its number, its cells."""

    file: str
    number: int
    cells: dict[str, str]

    def problem(self, column: str, message: str) -> str:
        return f"{self.file}, row {self.number}, column '{column}': {message}"


def read_studies(readers: Path, predictions: Path) -> tuple[ReaderStudy, ...]:
    """Read both files and refuse them with every problem, one a line.

    Returns:
        One study for each label of READERS, by name.

    Raises:
        DataError: a file cannot be read or breaks its contract; each problem names file,
            row, column, value and remedy.
    """
    decided, problems = _read(readers, _READERS)
    predicted, more = _read(predictions, _PREDICTIONS)
    problems += more
    problems += [text for line in (*decided, *predicted) for text in _cell_problems(line)]
    if not problems:
        problems = [*_prediction_problems(predicted), *_reader_problems(decided, predicted)]
    if problems:
        raise DataError("\n".join(problems))
    synthetic = any(line.cells.get(_SYNTHETIC) == "1" for line in (*decided, *predicted))
    labels = sorted({line.cells["label"] for line in decided})
    return tuple(_study(label, decided, predicted, synthetic) for label in labels)


def _read(path: Path, required: Sequence[str]) -> tuple[list[_Line], list[str]]:
    """The rows of a file that have one cell a column, and what is wrong with its shape."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        return [], [f"{path.name}: cannot be read ({error.strerror}); give a CSV file"]
    except UnicodeDecodeError as error:
        return [], [f"{path.name}: not UTF-8 text (byte {error.start}); save it as CSV UTF-8"]
    lines, broken = split_lines(text)
    problems = [f"{path.name}, row {one.row}: {one.message}" for one in broken]
    if len(lines) < 2:
        return [], problems or [f"{path.name}: there is no row below a header; add rows"]
    (_, columns), *body = lines
    known = {*required, _SYNTHETIC}
    named = [
        f"column '{p.column}': " if p.column else "" for p in header_problems(columns, required)
    ]
    problems += [
        f"{path.name}, row 1, {where}{one.message}"
        for where, one in zip(named, header_problems(columns, required), strict=True)
    ]
    problems += [
        f"{path.name}, row 1, column '{name}': the column is unknown; remove it (known: "
        f"{', '.join([*required, _SYNTHETIC])})"
        for name in columns
        if name not in known and len(columns) > 1
    ]
    if problems and not broken:
        return [], problems
    rows = []
    for number, cells in body:
        if len(cells) == len(columns):
            rows.append(_Line(path.name, number, dict(zip(columns, cells, strict=True))))
        else:
            problems.append(
                f"{path.name}, row {number}: {len(cells)} cells where the header has "
                f"{len(columns)}; check the commas"
            )
    return rows, problems


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


_CHECKS: dict[str, tuple[Callable[[str], bool], str]] = {
    "decision": (lambda cell: cell in ("0", "1", ""), "give 0, 1, or nothing for 'could not tell'"),
    "truth": (lambda cell: cell in ("0", "1"), "give 0 or 1; leave cases of unknown truth out"),
    _SYNTHETIC: (lambda cell: cell in ("0", "1"), "give 0 or 1"),
    "group": (lambda cell: bool(cell.strip()) and cell != MODEL, "name the group, not 'model'"),
}
_NAMED: tuple[Callable[[str], bool], str] = (
    lambda cell: bool(cell) and cell == cell.strip(),
    "give a name without spaces around it",
)


def _cell_problems(line: _Line) -> Iterator[str]:
    for column, cell in line.cells.items():
        if column == "score":
            usable = _is_number(cell) or (cell == "" and line.cells["decision"] == "")
            remedy = "give a finite number; empty only where the decision is empty"
        else:
            check, remedy = _CHECKS.get(column, _NAMED)
            usable = check(cell)
        if not usable:
            yield line.problem(column, f"'{cell}' cannot be used; {remedy}")


def _prediction_problems(predicted: Sequence[_Line]) -> Iterator[str]:
    """What only two rows together show: repeated cases, a case of two patients, one class."""
    first: dict[tuple[str, str], _Line] = {}
    owner: dict[str, _Line] = {}
    for line in predicted:
        case, label = line.cells["case_id"], line.cells["label"]
        earlier = first.setdefault((case, label), line)
        if earlier is not line:
            yield line.problem(
                "case_id", f"'{case}' with label '{label}' is in row {earlier.number}; keep one"
            )
        known = owner.setdefault(case, line)
        if known.cells["patient_id"] != line.cells["patient_id"]:
            yield line.problem(
                "patient_id",
                f"'{line.cells['patient_id']}' where row {known.number} has "
                f"'{known.cells['patient_id']}' for case '{case}'; correct one of them",
            )
    for label in sorted({label for _, label in first}):
        values = {line.cells["truth"] for key, line in first.items() if key[1] == label}
        if len(values) < 2:
            yield (
                f"{predicted[0].file}, column 'truth': label '{label}' has truth "
                f"{values.pop()} in every row; both classes are needed"
            )


def _reader_problems(decided: Sequence[_Line], predicted: Sequence[_Line]) -> Iterator[str]:
    """Readings without a prediction, repeated readings, readers of two groups."""
    case_of = {(line.cells["case_id"], line.cells["label"]): line for line in predicted}
    first: dict[tuple[str, str, str], _Line] = {}
    group_of: dict[str, _Line] = {}
    for line in decided:
        cells = line.cells
        case, label, reader = cells["case_id"], cells["label"], cells["reader_id"]
        match = case_of.get((case, label))
        if match is None:
            yield line.problem(
                "case_id",
                f"'{case}' has no prediction for label '{label}'; add it to "
                f"{predicted[0].file} or drop the row",
            )
        elif match.cells["patient_id"] != cells["patient_id"]:
            yield line.problem(
                "patient_id",
                f"'{cells['patient_id']}' where {match.file}, row {match.number} has "
                f"'{match.cells['patient_id']}'; correct one of them",
            )
        earlier = first.setdefault((reader, case, label), line)
        if earlier is not line:
            yield line.problem(
                "case_id", f"reader '{reader}' read '{case}' in row {earlier.number}; keep one"
            )
        known = group_of.setdefault(reader, line)
        if known.cells["group"] != cells["group"]:
            yield line.problem(
                "group",
                f"'{cells['group']}' where reader '{reader}' is in '{known.cells['group']}' in row "
                f"{known.number}; a reader has one group",
            )


def _study(
    label: str, decided: Sequence[_Line], predicted: Sequence[_Line], synthetic: bool
) -> ReaderStudy:
    cases = [line.cells for line in predicted if line.cells["label"] == label]
    readings = [line.cells for line in decided if line.cells["label"] == label]
    readers = sorted({(cells["group"], cells["reader_id"]) for cells in readings})
    column = {cells["case_id"]: c for c, cells in enumerate(cases)}
    row = {reader: r for r, (_, reader) in enumerate(readers)}
    decisions = np.full((len(readers), len(cases)), np.nan)
    read = np.zeros(decisions.shape, np.bool_)
    for cells in readings:
        place = row[cells["reader_id"]], column[cells["case_id"]]
        decisions[place], read[place] = _number(cells["decision"]), True
    return ReaderStudy(
        label=label,
        case_ids=np.array([cells["case_id"] for cells in cases]),
        patient_ids=np.array([cells["patient_id"] for cells in cases]),
        truth_c=np.array([cells["truth"] == "1" for cells in cases]),
        score_c=np.array([_number(cells["score"]) for cells in cases]),
        model_c=np.array([_number(cells["decision"]) for cells in cases]),
        reader_ids=np.array([reader for _, reader in readers]),
        groups=np.array([group for group, _ in readers]),
        decisions_rc=decisions,
        read_rc=read,
        synthetic=synthetic,
    )


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
