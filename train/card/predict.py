"""Fill predictions.csv: every model over every data set, resumable by content.

A model's answers to a data set are kept as soon as they are whole. They are used again when the
table has exactly the eyes of the data set, by the SHA-256 of each picture, from a model of the
same name and SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edge_runtime.errors import ConfigError, DataError
from train.card.datasets import CardData
from train.card.readers import Answer, ModelFacts, Reader
from train.card.tables import EyeRow, PredictionRow, read_predictions, write_predictions

__all__ = ["Progress", "predict"]

Progress = Callable[[int, int, str], None]


def predict(
    path: Path,
    data: Sequence[CardData],
    readers: Sequence[Reader],
    *,
    others: Sequence[PredictionRow] = (),
    progress: Progress = lambda *_: None,
) -> tuple[PredictionRow, ...]:
    """Return all rows of the card and leave them in `path`.

    Args:
        path: predictions.csv; one that is there is read first.
        data: the data sets.
        readers: the models that can look at pictures.
        others: rows of further models, from files.
        progress: called with (pictures done, pictures in all, data set and model).

    Raises:
        ConfigError: two models have one name.
        DataError: the table cannot be used.
    """
    _require_own_names(readers, others)
    kept = list(read_predictions(path)) if path.exists() else []
    rows: list[PredictionRow] = []
    for one in data:
        for reader in readers:
            found = _known(kept, one, reader)
            if found is None:
                found = _ask(one, reader, progress)
                write_predictions(path, [*_without(kept, one, reader), *rows, *found])
            rows.extend(found)
            kept = _without(kept, one, reader)
    rows.extend(others)
    if not rows:
        raise ConfigError("no model is given; give --bundle, --arm or --predictions")
    write_predictions(path, rows)
    return tuple(rows)


def _require_own_names(readers: Sequence[Reader], others: Sequence[PredictionRow]) -> None:
    names = [model.name for reader in readers for model in reader.models]
    names += list(dict.fromkeys(row.model for row in others))
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are called '{name}'; give each a name of its own")


def _known(
    kept: Sequence[PredictionRow], data: CardData, reader: Reader
) -> list[PredictionRow] | None:
    """The rows of a reader's models if they are whole and of the same content."""
    found: list[PredictionRow] = []
    for model in reader.models:
        own = {
            (row.key, row.label): row
            for row in kept
            if (row.dataset, row.model, row.model_sha256)
            == (data.facts.name, model.name, model.sha256)
        }
        wanted = [(eye.key, label) for eye in data.eyes for label in model.labels]
        if set(wanted) != set(own):
            return None
        found.extend(own[key] for key in wanted)
    return found


def _without(kept: Sequence[PredictionRow], data: CardData, reader: Reader) -> list[PredictionRow]:
    names = {model.name for model in reader.models}
    return [row for row in kept if row.dataset != data.facts.name or row.model not in names]


def _ask(data: CardData, reader: Reader, progress: Progress) -> list[PredictionRow]:
    rows: list[list[PredictionRow]] = [[] for _ in reader.models]
    words = f"{data.facts.name}: {', '.join(model.name for model in reader.models)}"
    for number, (eye, path) in enumerate(zip(data.eyes, data.pictures, strict=True), start=1):
        try:
            picture = path.read_bytes()
        except OSError as error:
            raise DataError(f"a picture cannot be read: {error.strerror}; restore it") from error
        for place, (model, answer) in enumerate(
            zip(reader.models, reader.read(picture), strict=True)
        ):
            rows[place].extend(_rows(eye, model, answer))
        progress(number, len(data.eyes), words)
    return [row for of_model in rows for row in of_model]


def _rows(eye: EyeRow, model: ModelFacts, answer: Answer) -> list[PredictionRow]:
    values = answer.probabilities or (None,) * len(model.labels)
    return [
        PredictionRow(
            dataset=eye.dataset,
            patient_id=eye.patient_id,
            eye=eye.eye,
            image_sha256=eye.image_sha256,
            model=model.name,
            model_sha256=model.sha256,
            label=label,
            probability=value,
            threshold=threshold,
            gradable_probability=answer.gradable_probability,
            gradable_threshold=model.gradable_threshold,
            verdict=answer.verdict,
        )
        for label, value, threshold in zip(model.labels, values, model.thresholds, strict=True)
    ]
