"""A reduced copy of a set: its pictures made smaller by somebody, with one table index.csv.

    SRC/
    ├── index.csv     image, and any of the columns below
    └── images/ ...

Such copies are common, since originals are large. The set's name still says whose terms
hold. Columns that are not listed here are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from train.data.index import EYES, MASK_COLUMNS, SPLITS
from train.data.table import INDEX_NAME, Problem, Row
from train.data.values import parse_path
from train.imports.facts import SetFacts
from train.imports.records import MaskSource, Reading, Record, raise_problems
from train.imports.tables import Cells, read_cells
from train.imports.vocabulary import BESIDE, dr_labels, quality_labels
from train.pairing.layouts.gamma import GRADES

__all__ = ["COLUMNS", "read_prepared"]

_BINARY: tuple[str, ...] = (
    "normal",
    "diabetic_retinopathy",
    "glaucoma",
    "cataract",
    "amd",
    "hypertensive",
)
_BINARY += ("pathological_myopia", "macular_edema", "other", "gradable")
_MASKS = (*MASK_COLUMNS, *BESIDE)
_SEX = {"F": 1.0, "M": 0.0}
_QUALITY = {"good": 0.0, "usable": 1.0, "reject": 2.0}
_FOVEA = {"fovea_x": "fovea_x_value", "fovea_y": "fovea_y_value"}
_MAX_PX = 16384
COLUMNS: tuple[str, ...] = (
    "image",
    "patient_id",
    "eye",
    "split",
    "age",
    "sex",
    *_BINARY,
    "dr_grade",
    "quality",
)
COLUMNS += ("glaucoma_grade", *_FOVEA, *_MASKS)
_NOT_READ = ("image_id", "keywords")


def read_prepared(root: Path, facts: SetFacts) -> Reading:
    """Read `root/index.csv`; the site of every row is the set's name.

    Raises:
        DataError: the table breaks its rules; every row and column is named.
    """
    problems: list[str] = []
    table = root / INDEX_NAME
    rows = read_cells(table, problems, required=("image",), ignored=(*COLUMNS[1:], *_NOT_READ))
    records = [record for row in rows if (record := _record(root, row, facts)) is not None]
    raise_problems(problems, f"correct {table.name} or complete the folder")
    return Reading(records=tuple(records), tables=(table,))


def _record(root: Path, row: Cells, facts: SetFacts) -> Record | None:
    image = _path(root, row, "image")
    masks = {
        name: MaskSource(files=(path,))
        for name in _MASKS
        if row.values.get(name) and (path := _path(root, row, name)) is not None
    }
    labels = _labels(row)
    eye, split = _one_of(row, "eye", EYES), _one_of(row, "split", SPLITS)
    if image is None:
        return None
    return Record(
        name=image.stem,
        image=image,
        where=row.where,
        site=facts.name,
        patient_id=row.values.get("patient_id") or None,
        eye=eye,
        labels=labels,
        masks=masks,
        split=split or None,
    )


def _path(root: Path, row: Cells, column: str) -> Path | None:
    """An existing file inside the folder."""
    found: list[Problem] = []
    cells = Row(number=row.number, cells=row.values)
    path = parse_path(root, str(root.resolve()), cells, column, found)
    for problem in found:
        row.complain(column, problem.message)
    return path


def _one_of(row: Cells, column: str, allowed: tuple[str, ...]) -> str:
    """One of the words, or "" where the cell or the column is not there."""
    value = row.values.get(column, "")
    if value and value not in allowed:
        row.complain(column, f"'{value}' is not one of {', '.join(allowed)}")
    return value


def _labels(row: Cells) -> dict[str, float]:
    have: Mapping[str, str] = row.values
    grade = row.whole("dr_grade", 0, 4, empty=True) if "dr_grade" in have else None
    labels = dr_labels(grade)
    quality = row.word("quality", _QUALITY, empty=True) if "quality" in have else None
    labels |= quality_labels(None if quality is None else int(quality))
    for name in (name for name in _BINARY if have.get(name)):
        value = row.whole(name, 0, 1)
        if value is not None and labels.setdefault(name, float(value)) != value:
            row.complain(name, f"{value} contradicts dr_grade or quality of its row")
    age = row.number_in("age", 0, 120, empty=True) if "age" in have else None
    sex = row.word("sex", _SEX, empty=True) if "sex" in have else None
    more = {"age_value": age, "sex_female": sex}
    more |= {n: row.number_in(c, 0, _MAX_PX) for c, n in _FOVEA.items() if have.get(c)}
    labels |= {name: value for name, value in more.items() if value is not None}
    return labels | _glaucoma(row)


def _glaucoma(row: Cells) -> dict[str, float]:
    """GAMMA's word as its two labels."""
    word = row.values.get("glaucoma_grade", "")
    if not word:
        return {}
    if word not in GRADES:
        row.complain("glaucoma_grade", f"'{word}' is not one of {', '.join(GRADES)}")
        return {}
    glaucoma, grade = GRADES[word]
    return {"glaucoma": float(glaucoma), "glaucoma_grade": float(grade)}
