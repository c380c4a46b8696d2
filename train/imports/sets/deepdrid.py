"""DeepDRiD (ISBI 2020): regular fundus photographs, two fields of each eye.

    SRC/ (regular_fundus_images)
    ├── regular-fundus-training/regular-fundus-training.csv, Images/1/1_l1.jpg ...
    ├── regular-fundus-validation/regular-fundus-validation.csv, Images/265/265_l1.jpg ...
    └── Online-Challenge1&2-Evaluation/Challenge1_labels.csv, Images/347/347_l1.jpg ...

The evaluation's labels come as an Excel sheet (image_id, DR_Levels): save it as CSV. The
ultra-widefield part is another kind of picture and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.files import relative
from train.imports.records import LeftOut, Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.tables import Cells, read_cells
from train.imports.vocabulary import dr_labels

__all__ = ["DEEPDRID"]

_NAME = re.compile(r"(\d+)_([lr])\d+")
_EYES = {"l": "OS", "r": "OD"}
_LEVELS = {"l": "left_eye_DR_Level", "r": "right_eye_DR_Level"}
_COLUMNS = ("patient_id", "image_id", "Overall quality", *_LEVELS.values())
_IGNORED = ("image_path", "patient_DR_Level", "Clarity", "Field definition", "Artifact")
_EVALUATION = "Online-Challenge1&2-Evaluation"

FACTS = SetFacts(
    name="deepdrid",
    title="DeepDRiD, regular fundus images",
    home="GitHub, deepdrdoc/DeepDRiD",
    citation="Liu et al., Patterns 2022, 3(6):100512",
    terms="research use; its page names no licence: ask the authors for anything else",
    mapping=(
        ("left_eye_DR_Level or right_eye_DR_Level 0 to 4", "dr_grade"),
        ("level 2 or more / 1 or more", "referable_dr / diabetic_retinopathy"),
        ("Overall quality 1 good enough for diagnosis, 0 not", "gradable"),
        ("DR_Levels of the evaluation part", "dr_grade"),
    ),
    patients="patient_id; l is OS, r is OD; several fields of an eye",
    split="the set's training, validation and evaluation",
    checked="description",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    problems: list[str] = []
    found: list[Record | LeftOut] = []
    tables = []
    for split, word in (("train", "training"), ("val", "validation")):
        folder = root / f"regular-fundus-{word}"
        tables.append(folder / f"regular-fundus-{word}.csv")
        rows = read_cells(tables[-1], problems, required=_COLUMNS, ignored=_IGNORED)
        found += [_record(root, folder, row, split, _own_level, problems) for row in rows]
    evaluation = root / _EVALUATION
    if evaluation.is_dir():
        tables.append(evaluation / "Challenge1_labels.csv")
        rows = read_cells(tables[-1], problems, required=("image_id", "DR_Levels"))
        found += [_record(root, evaluation, row, "test", _test_level, problems) for row in rows]
    raise_problems(problems, "correct the tables or complete the folders")
    return Reading(
        records=tuple(one for one in found if isinstance(one, Record)),
        left_out=tuple(one for one in found if isinstance(one, LeftOut)),
        tables=tuple(tables),
    )


def _record(
    root: Path,
    folder: Path,
    row: Cells,
    split: str,
    labels_of: Callable[[Cells, str], dict[str, float] | None],
    problems: list[str],
) -> Record | LeftOut:
    name = row.text("image_id")
    match = _NAME.fullmatch(name)
    nothing = LeftOut(what=f"{name} ({row.where})", reason="see the problems")
    if match is None or row.values.get("patient_id", match[1]) != match[1]:
        row.complain("image_id", f"'{name}' is not PATIENT_l1 or PATIENT_r1 of its patient")
        return nothing
    image = folder / "Images" / match[1] / f"{name}.jpg"
    if not image.is_file():
        problems.append(f"{row.where}: '{relative(root, image)}' is not there")
        return nothing
    labels = labels_of(row, match[2])
    if labels is None:
        reason = "its name and the column of its grade are of different eyes"
        return LeftOut(what=f"{name} ({row.where})", reason=reason)
    return Record(
        name=name,
        image=image,
        where=row.where,
        site=FACTS.name,
        patient_id=match[1],
        eye=_EYES[match[2]],
        labels=labels,
        split=split,
    )


def _own_level(row: Cells, side: str) -> dict[str, float] | None:
    """Labels from the column of the eye; None where only the other eye's holds a grade."""
    own, other = _LEVELS[side], _LEVELS["lr".replace(side, "")]
    if not row.values[own] and row.values[other]:
        return None
    labels = dr_labels(row.whole(own, 0, 4))
    quality = row.whole("Overall quality", 0, 1)
    return labels if quality is None else {"gradable": float(quality), **labels}


def _test_level(row: Cells, _: str) -> dict[str, float]:
    return dr_labels(row.whole("DR_Levels", 0, 4))


DEEPDRID = SetLayout(facts=FACTS, read=_read)
