"""APTOS 2019 Blindness Detection (Kaggle): a grade for each picture, no patient, no eye.

    SRC/
    ├── train.csv                 id_code, diagnosis
    └── train_images/ID.png

The competition's test part has no labels and is not read.
"""

from __future__ import annotations

from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.files import Pictures
from train.imports.records import Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.tables import read_cells
from train.imports.vocabulary import dr_labels

__all__ = ["APTOS"]

FACTS = SetFacts(
    name="aptos-2019",
    title="APTOS 2019 Blindness Detection",
    home="Kaggle competition aptos2019-blindness-detection",
    citation="Asia Pacific Tele-Ophthalmology Society, APTOS 2019 Blindness Detection",
    terms="competition rules: non-commercial and academic use",
    mapping=(
        ("diagnosis 0 to 4", "dr_grade"),
        ("diagnosis 2 or more", "referable_dr"),
        ("diagnosis 1 or more", "diabetic_retinopathy"),
    ),
    patients="neither patient nor eye is said",
    split="by seed",
    checked="description",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    problems: list[str] = []
    table = root / "train.csv"
    pictures = Pictures(root, root / "train_images")
    records = []
    for row in read_cells(table, problems, required=("id_code", "diagnosis")):
        grade = row.whole("diagnosis", 0, 4)
        image = pictures.find(row.text("id_code"), row.where, problems)
        if image is not None:
            records.append(
                Record(
                    name=image.stem,
                    image=image,
                    where=row.where,
                    site=FACTS.name,
                    labels=dr_labels(grade),
                )
            )
    raise_problems(problems, f"correct {table.name} or complete the folder")
    return Reading(records=tuple(records), left_out=tuple(pictures.not_asked()), tables=(table,))


APTOS = SetLayout(facts=FACTS, read=_read)
