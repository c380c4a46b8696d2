"""ODIR-5K (Peking University, 2019): both eyes of a patient in one row, keywords for each eye.

    SRC/
    ├── ODIR-5K_Training_Annotations(Updated)_V2.csv    the sheet, saved as CSV
    └── ODIR-5K_Training_Dataset/0_left.jpg, 0_right.jpg ...

The testing part has no labels and is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.files import Pictures, first_folder
from train.imports.records import LeftOut, Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.sets.odir_words import NO_FUNDUS, eye_labels, split_keywords
from train.imports.tables import Cells, read_cells

__all__ = ["ODIR_5K"]

_TABLE = "ODIR-5K_Training_Annotations(Updated)_V2.csv"
_FOLDERS = ("ODIR-5K_Training_Dataset", "ODIR-5K_Training_Images", "Training Images")
_CLASSES = tuple("NDGCAHMO")
_EYES = {"Left": "OS", "Right": "OD"}
_COLUMNS = ("ID", "Patient Age", "Patient Sex", *(f"{side}-Fundus" for side in _EYES))
_COLUMNS += tuple(f"{side}-Diagnostic Keywords" for side in _EYES)
_SEX = {"Female": 1.0, "Male": 0.0}
_NO_AGE = 1  # the set's own filler; no patient of it is an infant

FACTS = SetFacts(
    name="odir-5k",
    title="ODIR-5K, Ocular Disease Intelligent Recognition",
    home="ODIR-2019 grand challenge, Peking University",
    citation="International Competition on Ocular Disease Intelligent Recognition, 2019",
    terms="research use; no permission to redistribute the images",
    mapping=(
        ("keyword 'normal fundus'", "normal"),
        ("keywords of (non)proliferative or diabetic retinopathy", "diabetic_retinopathy"),
        ("mild / moderate / severe nonproliferative, proliferative", "dr_grade 1 / 2 / 3 / 4"),
        ("dr_grade 2 or more", "referable_dr"),
        ("glaucoma, also suspected", "glaucoma"),
        ("cataract", "cataract"),
        ("dry or wet age-related macular degeneration", "amd"),
        ("hypertensive retinopathy", "hypertensive"),
        ("pathological myopia, myopic maculopathy", "pathological_myopia"),
        ("any other keyword", "other"),
        ("low image quality", "gradable 0"),
        ("N, D, G, C, A, H, M, O (per patient)", "not taken: keywords are per eye"),
        ("Patient Age, Patient Sex", "age_value, sex_female"),
    ),
    patients="ID; left is OS, right is OD",
    split="by seed",
    checked="reduced",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    problems: list[str] = []
    table = root / _TABLE
    rows = read_cells(table, problems, required=_COLUMNS, ignored=_CLASSES)
    pictures = Pictures(root, first_folder(root, *_FOLDERS))
    found = [one for row in rows for one in _eyes(row, pictures, problems)]
    raise_problems(problems, f"correct {table.name} or complete the folder")
    return Reading(
        records=tuple(one for one in found if isinstance(one, Record)),
        left_out=(
            *(one for one in found if isinstance(one, LeftOut)),
            *pictures.not_asked(),
        ),
        tables=(table,),
    )


def _eyes(row: Cells, pictures: Pictures, problems: list[str]) -> Iterator[Record | LeftOut]:
    person = _person(row)
    for side, eye in _EYES.items():
        name = row.text(f"{side}-Fundus")
        keywords = split_keywords(row.text(f"{side}-Diagnostic Keywords"))
        if not name:
            continue
        image = pictures.find(name.split(".")[0], row.where, problems)
        if image is None:
            continue
        strange = next((word for word in keywords if word in NO_FUNDUS), None)
        if strange:
            yield LeftOut(what=f"{name} ({row.where})", reason=f"keyword '{strange}'")
            continue
        yield Record(
            name=image.stem,
            image=image,
            where=row.where,
            site=FACTS.name,
            patient_id=row.values["ID"],
            eye=eye,
            labels={**eye_labels(keywords), **person},
        )


def _person(row: Cells) -> dict[str, float]:
    row.text("ID")
    age = row.number_in("Patient Age", 0, 120)
    sex = row.word("Patient Sex", _SEX)
    known = {} if age is None or age <= _NO_AGE else {"age_value": age}
    return known if sex is None else {**known, "sex_female": sex}


ODIR_5K = SetLayout(facts=FACTS, read=_read)
