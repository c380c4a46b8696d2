"""The two tables that a card is computed from: `eyes.csv` and `predictions.csv`.

    eyes.csv         one row an eye: data set, patient, eye, site, SHA-256 of the picture, then
                     every label of any data set; an empty cell is unknown
    predictions.csv  one row an eye, model and output

Whoever writes `predictions.csv` rows, in whatever language, has a model on the card. An empty
`probability` says that the model gave none, because the gate refused the picture: `verdict` then
says why. Both tables name patients as the data set does and belong with it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError

__all__ = [
    "PASSED",
    "PREDICTION_COLUMNS",
    "EyeRow",
    "PredictionRow",
    "read_eyes",
    "read_predictions",
    "write_eyes",
    "write_predictions",
]

PASSED = "passed"
_EYE_COLUMNS = ("dataset", "patient_id", "eye", "site", "image_sha256")
PREDICTION_COLUMNS = (
    *("dataset", "patient_id", "eye", "image_sha256", "model", "model_sha256", "label"),
    *("probability", "threshold", "gradable_probability", "gradable_threshold", "verdict"),
)
_NUMBERS = ("probability", "threshold", "gradable_probability", "gradable_threshold")
EyeKey = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class EyeRow:
    """One picture of an eye and what is known about it; `values` has no unknown label."""

    dataset: str
    patient_id: str
    eye: str
    site: str
    image_sha256: str
    values: Mapping[str, float]

    @property
    def key(self) -> EyeKey:
        """What joins the tables."""
        return (self.dataset, self.patient_id, self.eye, self.image_sha256)


@dataclass(frozen=True, kw_only=True)
class PredictionRow:
    """What a model says of one output of one eye.

    Attributes:
        probability: of the disease; None = the gate refused the picture.
        threshold: locked operating point of this output; None = the model has none.
        gradable_probability: of the model; None = not run, or without such an output.
        gradable_threshold: below it the eye is refused; None = the model has none.
        verdict: of the quality gate: 'passed', or its reasons.
    """

    dataset: str
    patient_id: str
    eye: str
    image_sha256: str
    model: str
    model_sha256: str
    label: str
    probability: float | None
    threshold: float | None
    gradable_probability: float | None
    gradable_threshold: float | None
    verdict: str

    @property
    def key(self) -> EyeKey:
        """What joins the tables."""
        return (self.dataset, self.patient_id, self.eye, self.image_sha256)

    @property
    def refused(self) -> bool:
        """Whether the eye is ungradable to this model."""
        if self.verdict != PASSED or self.probability is None:
            return True
        if self.gradable_probability is None or self.gradable_threshold is None:
            return False
        return self.gradable_probability < self.gradable_threshold


def write_eyes(path: Path, eyes: Sequence[EyeRow]) -> None:
    """Write eyes.csv, as a whole or not at all."""
    labels = list(dict.fromkeys(name for eye in eyes for name in eye.values))
    rows = (
        [*eye.key[:3], eye.site, eye.image_sha256]
        + [_text(eye.values.get(name)) for name in labels]
        for eye in eyes
    )
    _write(path, (*_EYE_COLUMNS, *labels), rows)


def read_eyes(path: Path) -> tuple[EyeRow, ...]:
    """Read eyes.csv.

    Raises:
        DataError: columns, a number or a repeated row are wrong; row and remedy are named.
    """
    columns, rows = _read(path)
    if columns[: len(_EYE_COLUMNS)] != _EYE_COLUMNS:
        raise DataError(
            f"{path.name} begins with {columns[:5]}, not {_EYE_COLUMNS}; write it again"
        )
    eyes = []
    for number, cells in rows:
        known = {
            name: value
            for name in columns[len(_EYE_COLUMNS) :]
            if (value := _number(path, number, name, cells[name])) is not None
        }
        who = {name: cells[name] for name in _EYE_COLUMNS}
        eyes.append(EyeRow(**who, values=known))
    _require_once(path, [eye.key for eye in eyes])
    return tuple(eyes)


def write_predictions(path: Path, rows: Iterable[PredictionRow]) -> None:
    """Write a predictions table, as a whole or not at all."""
    cells = ([_text(getattr(row, name)) for name in PREDICTION_COLUMNS] for row in rows)
    _write(path, PREDICTION_COLUMNS, cells)


def read_predictions(path: Path) -> tuple[PredictionRow, ...]:
    """Read a predictions table.

    Raises:
        DataError: columns, a number or a repeated row are wrong; row and remedy are named.
    """
    columns, rows = _read(path)
    if columns != PREDICTION_COLUMNS:
        raise DataError(
            f"{path.name} has the columns {', '.join(columns)}; it needs "
            f"{', '.join(PREDICTION_COLUMNS)}"
        )
    found = []
    for number, cells in rows:
        texts = {name: cells[name] for name in columns if name not in _NUMBERS}
        numbers = {name: _share(path, number, name, cells[name]) for name in _NUMBERS}
        whole: dict[str, Any] = {**texts, **numbers}
        found.append(PredictionRow(**whole))
        verdict = texts["verdict"]
        if (found[-1].probability is None) == (verdict == PASSED):
            raise DataError(
                f"{path.name}, row {number}: verdict '{verdict}' does not fit probability "
                f"'{cells['probability']}'; a refused picture has none, a passed one has one"
            )
    _require_once(path, [(*row.key, row.model, row.label) for row in found])
    return tuple(found)


def _share(path: Path, number: int, column: str, text: str) -> float | None:
    value = _number(path, number, column, text)
    if value is not None and not 0.0 <= value <= 1.0:
        raise DataError(f"{path.name}, row {number}: {column} is {text}; it must lie in 0..1")
    return value


def _number(path: Path, number: int, column: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{path.name}, row {number}: {column} is '{text}'; give a number, or leave it empty"
        )
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    part.replace(path)


def _read(path: Path) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """Header, and each row with its line number."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.reader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}; write it again") from error
    if len(lines) < 2:
        raise DataError(f"{path.name} has no row below its header; write it again")
    columns, *body = lines
    for number, cells in enumerate(body, start=2):
        if len(cells) != len(columns):
            raise DataError(
                f"{path.name}, row {number}: {len(cells)} cells where the header has "
                f"{len(columns)}; correct the row"
            )
    rows = [(n, dict(zip(columns, cells, strict=True))) for n, cells in enumerate(body, start=2)]
    return tuple(columns), rows


def _require_once(path: Path, keys: Sequence[tuple[str, ...]]) -> None:
    first: dict[tuple[str, ...], int] = {}
    for number, key in enumerate(keys, start=2):
        if key in first:
            raise DataError(
                f"{path.name}, row {number} repeats row {first[key]}; each eye has one row a "
                "model and output: remove one"
            )
        first[key] = number
