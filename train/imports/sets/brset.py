"""BRSET, the Brazilian multilabel set (PhysioNet).

SRC/
├── labels_brset.csv
└── fundus_photos/img00001.jpg ...
"""

from __future__ import annotations

import re
from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.files import Pictures
from train.imports.records import Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.tables import Cells, read_cells
from train.imports.vocabulary import dr_labels

__all__ = ["BRSET"]

_EYES = {"1": "OD", "2": "OS"}
_FINDINGS = {
    "macular_edema": "macular_edema",
    "amd": "amd",
    "hypertensive_retinopathy": "hypertensive",
    "myopic_fundus": "pathological_myopia",
}
_QUALITY = {"Adequate": 1.0, "Inadequate": 0.0}
_SEX = {"1": 0.0, "2": 1.0}
_COLUMNS: tuple[str, ...] = (
    "image_id",
    "patient_id",
    "camera",
    "patient_age",
    "patient_sex",
    "exam_eye",
)
_COLUMNS += ("DR_ICDR", "quality", *_FINDINGS)
# What the table holds besides. The spellings are the publisher's own, of several versions.
_IGNORED: tuple[str, ...] = (
    "comorbidities",
    "diabetes_time_y",
    "diabetes_time",
    "insuline",
    "diabetes",
)
_IGNORED += ("nationality", "optic_disc", "vessels", "macula", "DR_SDRG", "focus")
_IGNORED += ("Illuminaton", "iluminaton", "image_field", "artifacts")
_IGNORED += ("diabetic_retinopathy", "scar", "nevus", "vascular_occlusion", "drusens")
_IGNORED += ("hemorrhage", "retinal_detachment", "increased_cup_disc", "other")

FACTS = SetFacts(
    name="brset",
    title="BRSET, a Brazilian multilabel ophthalmological dataset",
    home="PhysioNet, brazilian-ophthalmological",
    citation="Nakayama et al., PLOS Digital Health 2024; PhysioNet",
    terms="PhysioNet credentialed health data licence: training and a signed agreement",
    mapping=(
        ("DR_ICDR 0 to 4", "dr_grade"),
        ("DR_ICDR 2 or more / 1 or more", "referable_dr / diabetic_retinopathy"),
        ("macular_edema, amd", "macular_edema, amd"),
        ("hypertensive_retinopathy", "hypertensive"),
        ("myopic_fundus", "pathological_myopia"),
        ("quality Adequate / Inadequate", "gradable 1 / 0"),
        ("patient_age, patient_sex 1 male 2 female", "age_value, sex_female"),
        ("increased_cup_disc", "not taken: a sign, no diagnosis of glaucoma"),
        ("DR_SDRG and the rest", "not taken"),
    ),
    patients="patient_id; exam_eye 1 is OD, 2 is OS",
    split="by seed",
    checked="description",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    problems: list[str] = []
    table = root / "labels_brset.csv"
    pictures = Pictures(root, root / "fundus_photos")
    records = []
    for row in read_cells(table, problems, required=_COLUMNS, ignored=_IGNORED):
        image = pictures.find(row.text("image_id").split(".")[0], row.where, problems)
        labels = _labels(row)
        eye = row.values["exam_eye"]
        if eye not in _EYES:
            row.complain("exam_eye", f"'{eye}' is not 1 or 2")
        elif image is not None:
            records.append(
                Record(
                    name=image.stem,
                    image=image,
                    where=row.where,
                    site=f"{FACTS.name}/{_camera(row)}",
                    patient_id=row.text("patient_id"),
                    eye=_EYES[eye],
                    labels=labels,
                )
            )
    raise_problems(problems, f"correct {table.name} or complete the folder")
    return Reading(records=tuple(records), left_out=tuple(pictures.not_asked()), tables=(table,))


def _camera(row: Cells) -> str:
    return re.sub(r"[^a-z0-9]+", "-", row.text("camera").lower()).strip("-")


def _labels(row: Cells) -> dict[str, float]:
    labels = dr_labels(row.whole("DR_ICDR", 0, 4, empty=True))
    found: dict[str, float | None] = {
        name: row.whole(column, 0, 1, empty=True) for column, name in _FINDINGS.items()
    }
    found["gradable"] = row.word("quality", _QUALITY)
    found["age_value"] = row.number_in("patient_age", 0, 120, empty=True)
    found["sex_female"] = row.word("patient_sex", _SEX, empty=True)
    return labels | {name: float(value) for name, value in found.items() if value is not None}


BRSET = SetLayout(facts=FACTS, read=_read)
