"""EyePACS as given to Kaggle's Diabetic Retinopathy Detection (2015), and EyeQ's quality for it.

    SRC/
    ├── trainLabels.csv               image, level
    ├── train/10_left.jpeg ...
    ├── retinopathy_solution.csv      image, level, Usage    (only with test/)
    └── test/1_left.jpeg ...

EyeQ (2019) names files of this set: Label_EyeQ_train.csv and Label_EyeQ_test.csv with
image, quality (0 good, 1 usable, 2 reject), DR_grade.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.files import Pictures
from train.imports.records import LeftOut, Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.tables import Cells, read_cells
from train.imports.vocabulary import dr_labels, quality_labels

__all__ = ["EYEPACS"]

_NAME = re.compile(r"(\d+)_(left|right)")
_EYES = {"left": "OS", "right": "OD"}
_PARTS = (("train", "trainLabels.csv"), ("test", "retinopathy_solution.csv"))

FACTS = SetFacts(
    name="eyepacs",
    title="EyePACS, Kaggle Diabetic Retinopathy Detection, with EyeQ quality as an option",
    home="Kaggle competition diabetic-retinopathy-detection; EyeQ on its authors' GitHub page",
    citation="Cuadros and Bresnick, EyePACS, 2009; Fu et al., EyeQ, MICCAI 2019",
    terms="competition and research use; EyeQ's page names no licence for its labels",
    mapping=(
        ("level 0 to 4", "dr_grade"),
        ("level 2 or more", "referable_dr"),
        ("level 1 or more", "diabetic_retinopathy"),
        ("EyeQ quality 0 / 1 / 2", "quality_grade 0 good / 1 usable / 2 reject"),
        ("EyeQ quality 2", "gradable 0; 0 and 1 are gradable 1"),
    ),
    patients="number before _left or _right",
    split="the competition's train and test, where both are there; else by seed",
    checked="reduced",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    problems: list[str] = []
    quality = _quality(options.quality_tables, problems)
    records: list[Record] = []
    tables = list(options.quality_tables)
    loose: list[LeftOut] = []
    for split, name in _PARTS:
        if split == "test" and not (root / name).exists() and not (root / split).exists():
            continue
        tables.append(root / name)
        pictures = Pictures(root, root / split)
        ignored = ("Usage",) if split == "test" else ()
        for row in read_cells(root / name, problems, required=("image", "level"), ignored=ignored):
            record = _record(row, split, pictures, quality, problems)
            if record is not None:
                records.append(record)
        loose += pictures.not_asked()
    raise_problems(problems, "correct the tables or complete the folders")
    unused = len(set(quality) - {record.name for record in records})
    note = f"{unused} rows of EyeQ name pictures that are not here"
    return Reading(
        records=tuple(records),
        left_out=tuple(loose),
        tables=tuple(tables),
        notes=(note,) if unused else (),
    )


def _record(
    row: Cells,
    split: str,
    pictures: Pictures,
    quality: Mapping[str, tuple[int, int | None]],
    problems: list[str],
) -> Record | None:
    name = row.text("image")
    level = row.whole("level", 0, 4)
    match = _NAME.fullmatch(name)
    if match is None:
        row.complain("image", f"'{name}' is not NUMBER_left or NUMBER_right")
        return None
    image = pictures.find(name, row.where, problems)
    grade, dr_grade = quality.get(name, (None, None))
    if dr_grade is not None and dr_grade != level:
        row.complain("level", f"{level}, where EyeQ has DR_grade {dr_grade}")
    if image is None:
        return None
    return Record(
        name=name,
        image=image,
        where=row.where,
        site=FACTS.name,
        patient_id=match[1],
        eye=_EYES[match[2]],
        labels={**dr_labels(level), **quality_labels(grade)},
        split=split,
    )


def _quality(paths: tuple[Path, ...], problems: list[str]) -> dict[str, tuple[int, int | None]]:
    """Picture -> quality and DR grade."""
    found: dict[str, tuple[int, int | None]] = {}
    for path in paths:
        rows = read_cells(path, problems, required=("image", "quality", "DR_grade"), numbered=True)
        for row in rows:
            name = row.text("image").split(".")[0]
            quality = row.whole("quality", 0, 2)
            if name in found:
                row.complain("image", f"'{name}' has a quality already")
            if quality is not None:
                found[name] = (quality, row.whole("DR_grade", 0, 4))
    return found


EYEPACS = SetLayout(facts=FACTS, read=_read)
