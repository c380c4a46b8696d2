"""Reader studies made by hand or drawn: tables for the CSV reader, arrays for the statistics."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import NormalDist

import numpy as np

from train.reader_tables import ReaderStudy

READER_COLUMNS = ("reader_id", "group", "case_id", "patient_id", "label", "decision")
PREDICTION_COLUMNS = ("case_id", "patient_id", "label", "truth", "score", "decision")


def make_rows(num_patients: int = 6) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Two groups of two readers on two eyes a patient; (readings, predictions)."""
    readings, predictions = [], []
    for case in range(2 * num_patients):
        truth = case // 2 % 2
        who = {"case_id": f"C{case}", "patient_id": f"P{case // 2}", "label": "macular_edema"}
        score = 0.2 + 0.5 * truth + 0.01 * (case % 5)
        predictions.append(
            {**who, "truth": str(truth), "score": str(score), "decision": str(int(score >= 0.5))}
        )
        for number, group in enumerate(("junior", "junior", "senior", "senior")):
            wrong = (case + number) % (3 if group == "junior" else 7) == 0
            readings.append(
                {**who, "reader_id": f"R{number}", "group": group, "decision": str(truth ^ wrong)}
            )
    return readings, predictions


def write_tables(root: Path, readings, predictions, extra: tuple[str, ...] = ()):
    """readers.csv and predictions.csv in `root`; their paths."""
    paths = root / "readers.csv", root / "predictions.csv"
    columns = (*READER_COLUMNS, *extra), PREDICTION_COLUMNS
    for path, names, rows in zip(paths, columns, (readings, predictions), strict=True):
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return paths


_EASE, _MODEL_EASE = 1.0, 1.25
_PATIENT_SD, _EYE_SD, _NOISE_SD = 0.8, 0.6, 0.7


def draw_study(rng, *, num_readers: int, num_patients: int, reader_sd: float) -> ReaderStudy:
    """A study of normal latent ease: patients, eyes, readers and noise add up (Roe-Metz-like)."""
    patients = np.repeat(np.arange(num_patients), 2)
    truth = (rng.random(num_patients) < 0.4)[patients]
    ease = _PATIENT_SD * rng.normal(size=num_patients)[patients]
    ease = ease + _EYE_SD * rng.normal(size=len(patients))
    skill = reader_sd * rng.normal(size=(num_readers, 1))
    noise = _NOISE_SD * rng.normal(size=(num_readers, len(patients)))
    right = _EASE + ease + skill + noise > 0
    model = _MODEL_EASE + ease + 0.3 * rng.normal(size=len(patients))
    score = np.where(truth, model, -model)
    return ReaderStudy(
        label="macular_edema",
        case_ids=np.array([f"C{i}" for i in range(len(patients))]),
        patient_ids=patients.astype(str),
        truth_c=truth,
        score_c=score,
        model_c=(score > 0).astype(float),
        reader_ids=np.array([f"R{i}" for i in range(num_readers)]),
        groups=np.full(num_readers, "senior"),
        decisions_rc=(right == truth).astype(float),
        read_rc=np.ones_like(right),
        synthetic=True,
    )


def true_difference(reader_sd: float) -> float:
    """Model minus group in balanced accuracy, for readers and cases without end."""
    case = _PATIENT_SD**2 + _EYE_SD**2
    model = NormalDist().cdf(_MODEL_EASE / (case + 0.3**2) ** 0.5)
    return model - NormalDist().cdf(_EASE / (case + _NOISE_SD**2 + reader_sd**2) ** 0.5)
