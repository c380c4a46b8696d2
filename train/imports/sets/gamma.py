"""GAMMA (2021), its photographs alone; `edge-screen data pair --layout gamma` takes the OCT too.

SRC/
├── glaucoma_grading_training_GT.csv          data, non, early, mid_advanced
├── fovea_localization_training_GT.csv        data, Fovea_X, Fovea_Y (may be missing)
├── Disc_Cup_Mask/0001.png                   (may be missing)
└── multi-modality_images/0001/0001.jpg
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.errors import DataError
from train.imports.facts import SetFacts
from train.imports.files import Pictures, first_folder, relative
from train.imports.records import LeftOut, Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.sets.refuge import disc_and_cup
from train.imports.tables import read_cells
from train.pairing.layouts.gamma import GRADES_TABLE, read_gamma_labels

__all__ = ["GAMMA"]

_FOVEA_TABLE = "fovea_localization_training_GT.csv"
_FOVEA = {"Fovea_X": "fovea_x_value", "Fovea_Y": "fovea_y_value"}
_MAX_PX = 16384

FACTS = SetFacts(
    name="gamma",
    title="GAMMA, glaucoma grading from multi-modality images, photographs",
    home="GAMMA grand challenge, MICCAI 2021",
    citation="Wu et al., Medical Image Analysis 2023, 90:102938",
    terms="research use under the challenge's rules; no redistribution",
    mapping=(
        ("non / early / mid_advanced", "glaucoma_grade 0 / 1 / 2"),
        ("early or mid_advanced", "glaucoma 1; non is 0"),
        ("disc and cup mask 0 and 128 / 0", "masks disc / cup"),
        ("Fovea_X, Fovea_Y", "fovea_x_value, fovea_y_value"),
    ),
    patients="neither patient nor eye is said",
    split="by seed: only the training half has labels",
    checked="reduced",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    problems: list[str] = []
    folder = first_folder(root, "multi-modality_images")
    tables = [root / f"{GRADES_TABLE}.csv"]
    grades = read_gamma_labels(root)
    if not grades:
        raise DataError(f"{tables[0].name} is not there; only the training half has labels")
    fovea = _fovea(root / _FOVEA_TABLE, tables, problems)
    masks = Pictures(root, root / "Disc_Cup_Mask") if (root / "Disc_Cup_Mask").is_dir() else None
    records = []
    for name in sorted(grades):
        image = folder / name / f"{name}.jpg"
        if not image.is_file():
            problems.append(f"{tables[0].name}: '{relative(root, image)}' is not there")
            continue
        mask = masks.find(name, tables[0].name, problems) if masks else None
        records.append(
            Record(
                name=name,
                image=image,
                where=relative(root, image),
                site=FACTS.name,
                labels={n: float(v) for n, v in grades[name].items()} | fovea.get(name, {}),
                masks=disc_and_cup(mask) if mask else {},
            )
        )
    raise_problems(problems, "correct the tables or complete the folders")
    ungraded = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name not in grades]
    return Reading(
        records=tuple(records),
        left_out=tuple(LeftOut(what=p.name, reason="no row names it") for p in ungraded),
        tables=tuple(tables),
        notes=("the OCT volumes are not imported: `edge-screen data pair` reads them",),
    )


def _fovea(path: Path, tables: list[Path], problems: list[str]) -> dict[str, dict[str, float]]:
    """Picture -> place of the fovea in pixels; empty where the table is not there."""
    if not path.exists() and not path.with_suffix(".xlsx").exists():
        return {}
    tables.append(path)
    found: dict[str, dict[str, float]] = {}
    for row in read_cells(path, problems, required=("data", *_FOVEA)):
        places = {name: row.number_in(column, 0, _MAX_PX) for column, name in _FOVEA.items()}
        number = row.whole("data", 1, 9999)
        if number is not None:
            found[f"{number:04d}"] = {n: v for n, v in places.items() if v is not None}
    return found


GAMMA = SetLayout(facts=FACTS, read=_read)
