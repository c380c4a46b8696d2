"""Eyes and predictions of a card made by hand: a model that knows the truth a little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from train.card.config import CardConfig
from train.card.datasets import DataFacts
from train.card.metrics import Scored
from train.card.tables import PASSED, EyeRow, PredictionRow

QUICK = CardConfig(num_draws=200, in_domain=("clinic",))
OUTPUTS = ("glaucoma", "amd")


def scored(num_patients: int = 40, seed: int = 0, *, ties: bool = True) -> Scored:
    """Two eyes a patient; scores know the truth a little, with ties where asked."""
    rng = np.random.default_rng(seed)
    truth = rng.random(2 * num_patients) < 0.35
    scores = np.clip(0.3 + 0.25 * truth + rng.normal(0, 0.2, truth.size), 0, 1)
    return Scored(
        truth=truth,
        scores=np.round(scores, 1) if ties else scores,
        patients=np.repeat(np.arange(num_patients), 2),
        num_patients=num_patients,
    )


def eyes(num_patients: int = 60, *, dataset: str = "clinic", seed: int = 0) -> list[EyeRow]:
    """Two eyes a patient with two labels, age, sex, quality and two sites."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(num_patients):
        age, sex = float(rng.integers(25, 90)), float(rng.integers(2))
        for eye in ("OD", "OS"):
            values = {name: float(rng.random() < 0.35) for name in OUTPUTS}
            values |= {"age_value": age, "sex_female": sex, "quality_grade": float(rng.integers(3))}
            rows.append(
                EyeRow(
                    dataset=dataset,
                    patient_id=f"P{patient:03d}",
                    eye=eye,
                    site=("north", "south")[patient % 2],
                    image_sha256=f"{dataset}-{patient}-{eye}",
                    values=values,
                )
            )
    return rows


def predictions(
    rows: list[EyeRow],
    model: str = "M",
    *,
    strength: float = 0.3,
    seed: int = 0,
    threshold: float | None = 0.5,
) -> list[PredictionRow]:
    """One row an eye and output; every ninth eye is refused by the gate, some by the model."""
    rng = np.random.default_rng(seed)
    found = []
    for number, eye in enumerate(rows):
        gated = number % 9 == 8
        gradable = float(rng.uniform(0.4, 1.0))
        for label in OUTPUTS:
            value = 0.35 + strength * eye.values.get(label, 0.0) + rng.normal(0, 0.15)
            found.append(
                PredictionRow(
                    dataset=eye.dataset,
                    patient_id=eye.patient_id,
                    eye=eye.eye,
                    image_sha256=eye.image_sha256,
                    model=model,
                    model_sha256="0" * 64,
                    label=label,
                    probability=None if gated else float(np.clip(value, 0, 1)),
                    threshold=threshold,
                    gradable_probability=None if gated else gradable,
                    gradable_threshold=0.5,
                    verdict="too dark" if gated else PASSED,
                )
            )
    return found


def without_label(rows: list[EyeRow], name: str) -> list[EyeRow]:
    """The same eyes with one label unknown."""
    return [replace(one, values={k: v for k, v in one.values.items() if k != name}) for one in rows]


def facts(name: str = "clinic", *, synthetic: bool = True, role: str = "in-domain") -> DataFacts:
    """What is said of the data set of `eyes()`; its terms would end a cell of a table."""
    return DataFacts(
        name=name,
        role=role,
        split="test",
        synthetic=synthetic,
        fingerprint="0" * 64,
        terms="ours | only",
        derived=(),
        num_eyes=120,
        num_patients=60,
    )
