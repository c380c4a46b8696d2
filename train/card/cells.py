"""Join the two tables: one cell is one output of one model against one truth of one data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from train.card.metrics import Scored
from train.card.tables import EyeRow, PredictionRow

__all__ = ["Cell", "Verdicts", "cells_of", "output_title", "score", "verdicts_of"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The eyes of a data set whose truth is known, and what a model says of them.

    Attributes:
        dataset: name.
        model: name.
        output: of the model.
        truth_name: column that it is held against.
        eyes: N rows.
        truth: (N,) bool.
        probability: (N,) float64; NaN where the gate refused the picture.
        refused: (N,) bool, ungradable to this model.
        threshold: locked operating point; None = the model has none.
    """

    dataset: str
    model: str
    output: str
    truth_name: str
    eyes: tuple[EyeRow, ...]
    truth: BoolArray
    probability: FloatArray
    refused: BoolArray
    threshold: float | None

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """(N,) patient of each eye."""
        return np.array([eye.patient_id for eye in self.eyes], np.str_)


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What a model says of the gradability of every eye of a data set.

    Attributes:
        dataset: name.
        model: name.
        eyes: N rows.
        gradable_probability: (N,) float64; NaN where the gate refused the picture or the model
            has no such output.
        gated: (N,) bool, refused by the cheap gate.
        refused: (N,) bool, refused by the gate or by the model.
    """

    dataset: str
    model: str
    eyes: tuple[EyeRow, ...]
    gradable_probability: FloatArray
    gated: BoolArray
    refused: BoolArray


_Answers = dict[tuple[str, str, str], dict[tuple[str, ...], PredictionRow]]


def cells_of(
    eyes: Sequence[EyeRow],
    predictions: Sequence[PredictionRow],
    also: Sequence[tuple[str, str]] = (),
) -> tuple[Cell, ...]:
    """Every output with a truth of its name in the data set, and the pairs of `also`.

    Raises:
        DataError: a prediction is of an eye that is not there, an eye has none, a truth is
            neither 0 nor 1, or one output has two thresholds.
    """
    by_set = _by_set(eyes)
    answers = _answers(by_set, predictions)
    cells = []
    for (dataset, model, output), rows in answers.items():
        names = {name for eye in by_set[dataset] for name in eye.values}
        for truth_name in (output, *(truth for name, truth in also if name == output)):
            if truth_name in names:
                cells.append(_cell(by_set[dataset], rows, model, output, truth_name))
    return tuple(cells)


def verdicts_of(
    eyes: Sequence[EyeRow], predictions: Sequence[PredictionRow]
) -> tuple[Verdicts, ...]:
    """One a data set and model; every output of a model says the same of an eye.

    Raises:
        DataError: as `cells_of`.
    """
    by_set = _by_set(eyes)
    first: dict[tuple[str, str], Verdicts] = {}
    for (dataset, model, _), rows in _answers(by_set, predictions).items():
        if (dataset, model) not in first:
            own = tuple(by_set[dataset])
            of_eye = [rows[eye.key] for eye in own]
            first[dataset, model] = Verdicts(
                dataset=dataset,
                model=model,
                eyes=own,
                gradable_probability=_floats([row.gradable_probability for row in of_eye]),
                gated=np.array([row.probability is None for row in of_eye]),
                refused=np.array([row.refused for row in of_eye]),
            )
    return tuple(first.values())


def output_title(output: str, truth_name: str) -> str:
    """The output, and the truth where it has another name."""
    return output if truth_name in ("", output) else f"{output} against {truth_name}"


def score(cell: Cell, among: BoolArray, values: FloatArray | None = None) -> Scored:
    """The eyes of a cell at `among`, their patients numbered among themselves.

    Args:
        cell: whose truth.
        among: (N,) bool.
        values: (N,) scores; None = the probabilities.
    """
    distinct, patients = np.unique(cell.patients[among], return_inverse=True)
    return Scored(
        truth=cell.truth[among],
        scores=(cell.probability if values is None else values)[among],
        patients=patients.astype(np.int64).reshape(-1),
        num_patients=len(distinct),
    )


def _by_set(eyes: Sequence[EyeRow]) -> dict[str, list[EyeRow]]:
    found: dict[str, list[EyeRow]] = {}
    for eye in eyes:
        found.setdefault(eye.dataset, []).append(eye)
    return found


def _answers(by_set: dict[str, list[EyeRow]], predictions: Sequence[PredictionRow]) -> _Answers:
    """(data set, model, output) -> eye -> row, every eye of the data set once."""
    found: _Answers = {}
    for row in predictions:
        found.setdefault((row.dataset, row.model, row.label), {})[row.key] = row
    for (dataset, model, output), rows in found.items():
        where = f"predictions of '{model}', output '{output}'"
        if dataset not in by_set:
            raise DataError(f"{where} are of data set '{dataset}', which is not on this card")
        wanted = {eye.key for eye in by_set[dataset]}
        if unknown := rows.keys() - wanted:
            raise DataError(
                f"{where} name {len(unknown)} eyes that data set '{dataset}' does not have; "
                "predict the same split"
            )
        if missing := wanted - rows.keys():
            raise DataError(
                f"{where} lack {len(missing)} of {len(wanted)} eyes of data set '{dataset}'; a "
                "refused picture needs a row with its verdict"
            )
    return found


def _cell(
    eyes: Sequence[EyeRow],
    rows: dict[tuple[str, ...], PredictionRow],
    model: str,
    output: str,
    truth_name: str,
) -> Cell:
    known = tuple(eye for eye in eyes if truth_name in eye.values)
    truth = np.array([eye.values[truth_name] for eye in known])
    if not np.isin(truth, (0, 1)).all():
        raise DataError(
            f"column '{truth_name}' of data set '{eyes[0].dataset}' is no label of 0 and 1; score "
            "a label, or a grade's own label"
        )
    own = [rows[eye.key] for eye in known]
    thresholds = {row.threshold for row in own}
    if len(thresholds) > 1:
        raise DataError(
            f"output '{output}' of '{model}' has the thresholds {sorted(map(str, thresholds))}; a "
            "locked operating point is one number"
        )
    return Cell(
        dataset=eyes[0].dataset,
        model=model,
        output=output,
        truth_name=truth_name,
        eyes=known,
        truth=truth == 1,
        probability=_floats([row.probability for row in own]),
        refused=np.array([row.refused for row in own]),
        threshold=thresholds.pop(),
    )


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if one is None else one for one in values], np.float64)
