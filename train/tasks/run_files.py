"""A run on disk: `results.json` for people and tables, `predictions.npz` for comparisons.

    results.json       seed, settings, data fingerprint, one object a row
    predictions.npz    <task>/<readout>/<labels>/{patient_ids, truth, scores}

No pickle. results.json is written last and by renaming, so a folder that has one is whole.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.errors import DataError
from edge_runtime.metrics import Interval
from train.tasks.registry import TASKS
from train.tasks.results import TaskResult, TaskRun
from train.tasks.weighted_metrics import ScoredEyes

__all__ = ["load_run", "save_run"]

_RESULTS, _PREDICTIONS = "results.json", "predictions.npz"
_SCHEMA_VERSION = 1
_ARRAYS = ("patient_ids", "truth", "scores")


def save_run(folder: Path, run: TaskRun) -> None:
    """Write a run; an earlier one in the folder is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"schema_version": _SCHEMA_VERSION, **run.to_dict()}, indent=2, allow_nan=False
    )
    (folder / _RESULTS).unlink(missing_ok=True)  # never new predictions beside old results
    arrays = {
        f"{key}/{name}": getattr(eyes, name)
        for key, eyes in run.predictions.items()
        for name in _ARRAYS
    }
    part = folder / f"{_PREDICTIONS}.part"
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(folder / _PREDICTIONS)
    part = folder / f"{_RESULTS}.part"
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(folder / _RESULTS)


def load_run(folder: Path) -> TaskRun:
    """Read a run.

    Raises:
        DataError: a file is missing, damaged, or of another version.
    """
    for name in (_RESULTS, _PREDICTIONS):
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} has no {name}; give a folder that evaluate tasks --out wrote"
            )
    try:
        record = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
        return _run_of(record, _predictions(folder / _PREDICTIONS))
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"the run in {folder} is damaged: {error!r}; evaluate again") from error


def _predictions(path: Path) -> dict[str, ScoredEyes]:
    with np.load(path, allow_pickle=False) as arrays:
        keys = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
        return {
            key: ScoredEyes(**{name: arrays[f"{key}/{name}"] for name in _ARRAYS}) for key in keys
        }


def _run_of(record: dict[str, Any], predictions: dict[str, ScoredEyes]) -> TaskRun:
    version = record.pop("schema_version")
    if version != _SCHEMA_VERSION:
        raise ValueError(f"schema version {version}, this program reads {_SCHEMA_VERSION}")
    results = tuple(_result_of(one) for one in record.pop("results"))
    known = {one.key for one in results}
    if not predictions.keys() <= known:
        raise ValueError(f"predictions of rows without a result: {predictions.keys() - known}")
    return TaskRun(results=results, predictions=predictions, **record)


def _result_of(record: dict[str, Any]) -> TaskResult:
    if record["task"] not in TASKS:
        raise ValueError(f"unknown task {record['task']!r}")
    interval = record.pop("interval")
    return TaskResult(interval=None if interval is None else Interval(**interval), **record)
