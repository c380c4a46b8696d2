"""Few-shot tasks: a probe on the eyes of k patients a class, over at least ten draws.

Patients are drawn, not eyes: a clinic that labels a patient labels both eyes, and two eyes
of one patient are no two examples. A patient is positive if any eye is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from edge_runtime.errors import DataError
from train.tasks.classification import scored, spread_over_draws
from train.tasks.data import TaskData
from train.tasks.features import FrozenFeatures
from train.tasks.registry import TaskSpec, truth_of
from train.tasks.results import Measurement
from train.tasks.settings import TaskSettings
from train.tasks.weighted_metrics import ScoredEyes

__all__ = ["draw_patients", "measure_few_shot"]

FloatArray = npt.NDArray[np.float64]


def draw_patients(
    truth: FloatArray,
    patient_ids: npt.NDArray[np.str_],
    *,
    label: str,
    shots: int,
    seed: int,
    draw: int,
) -> npt.NDArray[np.int64]:
    """Positions of the labelled eyes of `shots` positive and `shots` negative patients.

    Args:
        truth: (N,) 0 or 1, NaN = unknown; unknown eyes are never drawn.
        patient_ids: (N,).
        label: named in errors.
        shots: patients a class.
        seed: with `draw`, fixes the patients; fewer shots are a subset of more.
        draw: number of the draw.

    Raises:
        DataError: there are fewer patients of a class.
    """
    known = np.isfinite(truth)
    positive = np.unique(patient_ids[known & (truth == 1)])
    negative = np.setdiff1d(patient_ids[known], positive)
    rng = np.random.default_rng([seed, draw])
    chosen = []
    for name, patients in (("positive", positive), ("negative", negative)):
        if len(patients) < shots:
            raise DataError(
                f"task '{label}': {shots} {name} patients were asked for, {len(patients)} have "
                "labelled training eyes; use fewer shots"
            )
        chosen.append(rng.permutation(patients)[:shots])
    return np.flatnonzero(known & np.isin(patient_ids, np.concatenate(chosen)))


def measure_few_shot(
    features: FrozenFeatures,
    data: TaskData,
    specs: Sequence[TaskSpec],
    settings: TaskSettings,
    *,
    seed: int,
) -> Iterator[Measurement]:
    """One measurement a task and number of patients; a row that cannot be measured says so."""
    for spec in specs:
        for shots in settings.shots:
            start = time.perf_counter()
            eyes, extra, note = None, {}, ""
            try:
                eyes = _few_shot(features, data, spec, shots, settings, seed)
                extra = spread_over_draws(eyes, spec)
            except DataError as error:
                note = str(error)
            yield Measurement(
                task=spec.name,
                readout="few_shot",
                num_labels=shots,
                eyes=eyes,
                extra=extra,
                seconds=time.perf_counter() - start,
                note=note,
            )


def _few_shot(
    features: FrozenFeatures,
    data: TaskData,
    spec: TaskSpec,
    shots: int,
    settings: TaskSettings,
    seed: int,
) -> ScoredEyes:
    truth, rows = truth_of(spec, data.train), []
    for draw in range(settings.few_shot_draws):
        picked = draw_patients(
            truth, data.train.patient_ids, label=spec.name, shots=shots, seed=seed, draw=draw
        )
        probe = LogisticRegression(C=settings.few_shot_strength, max_iter=1000)
        probe.fit(features.train[picked], truth[picked])
        rows.append(probe.decision_function(features.test))
    return scored(spec, data, np.stack(rows))
