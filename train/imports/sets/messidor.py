"""MESSIDOR-2 with the adjudicated grades that Google Brain put on Kaggle.

    SRC/
    ├── messidor_data.csv     image_id, adjudicated_dr_grade, adjudicated_dme, adjudicated_gradable
    ├── messidor-2.csv        left;right: file names of one examination (may be missing)
    └── IMAGES/20051020_43808_0100_PP.png, IM000001.JPG ...

The set comes in pairs, one examination a pair. Its own list of them is separated by semicolons.
"""

from __future__ import annotations

from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.files import Pictures
from train.imports.records import Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.tables import Cells, read_cells
from train.imports.vocabulary import dr_labels

__all__ = ["MESSIDOR_2"]

_GRADES = ("image_id", "adjudicated_dr_grade", "adjudicated_dme", "adjudicated_gradable")
_EYES = {"left": "OS", "right": "OD"}

FACTS = SetFacts(
    name="messidor-2",
    title="MESSIDOR-2 with adjudicated grades",
    home="ADCIS (images); Kaggle data set google-brain/messidor2-dr-grades (grades)",
    citation="Decenciere et al., Image Anal Stereol 2014; Krause et al., Ophthalmology 2018",
    terms="research and education after registration with ADCIS; no redistribution",
    mapping=(
        ("adjudicated_dr_grade 0 to 4", "dr_grade"),
        ("grade 2 or more / 1 or more", "referable_dr / diabetic_retinopathy"),
        ("adjudicated_dme", "macular_edema"),
        ("adjudicated_gradable", "gradable"),
    ),
    patients="messidor-2.csv, if it is there; else neither patient nor eye is said",
    split="by seed",
    checked="description",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    problems: list[str] = []
    table, pairs = root / "messidor_data.csv", root / "messidor-2.csv"
    pictures = Pictures(root, root / "IMAGES")
    eyes = _eyes(pairs, problems) if pairs.exists() else {}
    records = []
    for row in read_cells(table, problems, required=_GRADES):
        name = row.text("image_id").rpartition(".")[0] or row.values["image_id"]
        labels = _labels(row)
        image = pictures.find(name, row.where, problems)
        if image is None:
            continue
        patient, eye = eyes.get(name, (None, ""))
        records.append(
            Record(
                name=name,
                image=image,
                where=row.where,
                site=FACTS.name,
                patient_id=patient,
                eye=eye,
                labels=labels,
            )
        )
    raise_problems(problems, f"correct {table.name} or complete the folder")
    return Reading(
        records=tuple(records),
        left_out=tuple(pictures.not_asked()),
        tables=(table, *([pairs] if pairs.exists() else [])),
    )


def _labels(row: Cells) -> dict[str, float]:
    """An ungradable picture has no grade; a gradable one must have all."""
    gradable = row.whole("adjudicated_gradable", 0, 1)
    ungradable = gradable == 0
    grade = row.whole("adjudicated_dr_grade", 0, 4, empty=ungradable)
    edema = row.whole("adjudicated_dme", 0, 1, empty=ungradable)
    labels = dr_labels(grade)
    if edema is not None:
        labels["macular_edema"] = float(edema)
    return labels if gradable is None else {"gradable": float(gradable), **labels}


def _eyes(path: Path, problems: list[str]) -> dict[str, tuple[str, str]]:
    """Picture -> examination, named after its left picture, and eye."""
    eyes: dict[str, tuple[str, str]] = {}
    for row in read_cells(path, problems, required=tuple(_EYES), separator=";"):
        stems = {side: row.text(side).rpartition(".")[0] or row.values[side] for side in _EYES}
        for side, eye in _EYES.items():
            if stems[side] in eyes:
                row.complain(side, f"'{stems[side]}' is in a pair already")
            eyes[stems[side]] = (stems["left"], eye)
    return eyes


MESSIDOR_2 = SetLayout(facts=FACTS, read=_read)
