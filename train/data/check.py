"""Everything `edge-screen data check` looks at: the index, then every file it names.

Beyond the index's own rules (train.data.index): each file must be readable to its end,
no image may appear twice under two names, a file name must not contradict the row's eye,
the two OCT scans of a visit must have one shape, and masks must fit their CFP.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import EdgeScreenError
from edge_runtime.image import decode_image
from train.data.index import EYES, IMAGE_COLUMNS, SPLITS, DataIndex, EyeVisit, scan_index
from train.data.scans import read_mask, read_scan
from train.data.table import Problem

__all__ = ["CheckReport", "Problem", "check_dataset", "examine_dataset"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The outcome of a check: all problems, and counts of the rows that could be read."""

    problems: tuple[Problem, ...]
    counts: dict[str, dict[str, int]]
    labels: dict[str, dict[str, int]]
    synthetic: bool

    def to_dict(self) -> dict[str, object]:
        """JSON types: ok, synthetic, counts by split, labels and problems."""
        return {
            "ok": not self.problems,
            "synthetic": self.synthetic,
            "counts": self.counts,
            "labels": self.labels,
            "problems": [
                {"row": p.row, "file": p.file, "column": p.column, "message": p.message}
                for p in self.problems
            ],
        }


def check_dataset(root: Path, *, progress: Progress | None = None) -> list[Problem]:
    """Every problem of the data set in `root`, in row order; empty when there is none."""
    return list(examine_dataset(root, progress=progress).problems)


def examine_dataset(root: Path, *, progress: Progress | None = None) -> CheckReport:
    """Check the index and every file, and count what is there.

    Args:
        root: The folder that holds index.csv.
        progress: Called with (visits done, visits in all).
    """
    index, problems = scan_index(root)
    first_with_content: dict[str, tuple[EyeVisit, str]] = {}
    for done, visit in enumerate(index.visits, start=1):
        problems.extend(_visit_problems(index, visit, first_with_content))
        if progress is not None:
            progress(done, len(index.visits))
    return CheckReport(
        problems=tuple(sorted(problems, key=lambda problem: problem.row or 0)),
        counts={name: _counts(index.split(name)) for name in SPLITS},
        labels={name: _label_counts(index.visits, name) for name in index.label_names},
        synthetic=_is_synthetic(root),
    )


def _visit_problems(
    index: DataIndex, visit: EyeVisit, seen: dict[str, tuple[EyeVisit, str]]
) -> list[Problem]:
    """Problems of one visit's files; `seen` maps content to where it first appeared."""
    problems: list[Problem] = []
    shapes: dict[str, tuple[int, int]] = {}
    for column, path in visit.files.items():
        file = path.relative_to(index.root).as_posix()
        messages = [_laterality_message(visit, path)]
        try:
            data = path.read_bytes()
            shapes[column] = _readable_shape(column, path, data)
            if column in IMAGE_COLUMNS:
                messages.append(_repeat_message(visit, column, data, seen))
        except OSError as error:
            messages.append(f"cannot be read ({error.strerror}); restore the file")
        except EdgeScreenError as error:
            messages.append(str(error))
        problems += [_problem(visit, column, text, file) for text in messages if text]
    return problems + _shape_problems(index, visit, shapes)


def _readable_shape(column: str, path: Path, data: bytes) -> tuple[int, int]:
    """Decode a file as its column wants it; returns (height, width) in pixels."""
    if column == "cfp":
        height, width = decode_image(data).full_size_px
        return height, width
    image = read_scan(path) if column in IMAGE_COLUMNS else read_mask(path)
    return image.shape[0], image.shape[1]


def _repeat_message(
    visit: EyeVisit, column: str, data: bytes, seen: dict[str, tuple[EyeVisit, str]]
) -> str | None:
    """Masks are left out by the caller: empty ones are rightly all alike."""
    first, first_column = seen.setdefault(hashlib.sha256(data).hexdigest(), (visit, column))
    if (first, first_column) == (visit, column):
        return None
    return (
        f"has the same content as column '{first_column}' of row {first.row_number} (patient "
        f"'{first.patient_id}', {first.eye}); one of the two is a wrong copy, replace or drop it"
    )


def _laterality_message(visit: EyeVisit, path: Path) -> str | None:
    named = {part for part in re.split(r"[^A-Za-z]+", path.stem) if part in EYES}
    if not named or not visit.eye or visit.eye in named:
        return None
    return f"'{path.name}' is named {named.pop()}, the row says {visit.eye}; correct one of them"


def _shape_problems(
    index: DataIndex, visit: EyeVisit, shapes: dict[str, tuple[int, int]]
) -> list[Problem]:
    """OCT scans of a visit share one shape; masks have the shape of their CFP."""
    problems = []
    for column, shape in shapes.items():
        reference = {"oct_v": "oct_h"}.get(column, "cfp" if column not in IMAGE_COLUMNS else column)
        expected = shapes.get(reference, shape)
        if shape != expected:
            message = (
                f"is {shape[1]} x {shape[0]} px where {reference} has {expected[1]} x "
                f"{expected[0]}; bring both to one size"
            )
            file = visit.files[column].relative_to(index.root).as_posix()
            problems.append(_problem(visit, column, message, file))
    return problems


def _problem(visit: EyeVisit, column: str, message: str, file: str) -> Problem:
    return Problem(row=visit.row_number, file=file, column=column, message=message)


def _counts(visits: Sequence[EyeVisit]) -> dict[str, int]:
    return {
        "visits": len(visits),
        "patients": len({visit.patient_id for visit in visits}),
        "cfp": sum("cfp" in visit.files for visit in visits),
        "oct": sum("oct_h" in visit.files or "oct_v" in visit.files for visit in visits),
        "paired": sum("cfp" in v.files and "oct_h" in v.files for v in visits),
    }


def _label_counts(visits: Sequence[EyeVisit], name: str) -> dict[str, int]:
    """`positive` counts values above zero: for a grade, any disease."""
    values = [visit.labels[name] for visit in visits]
    known = [value for value in values if not math.isnan(value)]
    return {"known": len(known), "positive": sum(value > 0 for value in known)}


def _is_synthetic(root: Path) -> bool:
    """Whether the data set's own dataset.json says that it is a phantom."""
    try:
        record = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # real data sets have no such file
    return isinstance(record, dict) and record.get("synthetic") is True
