"""IDRiD (2018): its disease grading part and its segmentation part, folders named as unpacked.

    SRC/ (B. Disease Grading)
    ├── 1. Original Images/a. Training Set/IDRiD_001.jpg, b. Testing Set/IDRiD_001.jpg
    └── 2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv, b. ..._Testing Labels.csv

    SRC/ (A. Segmentation)
    ├── 1. Original Images/a. Training Set/IDRiD_01.jpg, b. Testing Set/
    └── 2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/IDRiD_01_MA.tif ...

Numbers start anew in each part and split: names get the split in front.
"""

from __future__ import annotations

from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.files import Pictures, first_folder
from train.imports.records import LeftOut, MaskSource, Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.tables import Cells, read_cells
from train.imports.vocabulary import dr_labels

__all__ = ["IDRID_GRADING", "IDRID_SEGMENTATION"]

_IMAGES = "1. Original Images"
_PARTS = (("train", "a. Training Set"), ("test", "b. Testing Set"))
_TABLES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}
_COLUMNS = ("Image name", "Retinopathy grade", "Risk of macular edema")
_LESIONS = {
    "MA": "1. Microaneurysms",
    "HE": "2. Haemorrhages",
    "EX": "3. Hard Exudates",
    "SE": "4. Soft Exudates",
}
_DISC = ("OD", "5. Optic Disc")
_SEVERE_RISK = 2  # hard exudates within one disc diameter of the macula

_HOME = "IEEE DataPort, Indian Diabetic Retinopathy Image Dataset"
_CITATION = "Porwal et al., Data 2018, 3(3):25"
_TERMS = "Creative Commons Attribution 4.0: name the source"

GRADING_FACTS = SetFacts(
    name="idrid-grading",
    title="IDRiD, disease grading",
    home=_HOME,
    citation=_CITATION,
    terms=_TERMS,
    mapping=(
        ("Retinopathy grade 0 to 4", "dr_grade"),
        ("grade 2 or more / 1 or more", "referable_dr / diabetic_retinopathy"),
        ("Risk of macular edema 0 to 2", "dme_risk_grade"),
        ("risk 2 (exudates within a disc diameter of the macula)", "macular_edema 1; 0, 1 are 0"),
    ),
    patients="neither patient nor eye is said",
    split="the set's train and test; val from train by seed",
    checked="description",
)
SEGMENTATION_FACTS = SetFacts(
    name="idrid-segmentation",
    title="IDRiD, segmentation",
    home=_HOME,
    citation=_CITATION,
    terms=_TERMS,
    mapping=(
        ("union of microaneurysms, haemorrhages, hard and soft exudates", "mask lesions"),
        ("optic disc", "mask disc"),
    ),
    patients="neither patient nor eye is said",
    split="the set's train and test; val from train by seed",
    checked="description",
)


def _read_grading(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(GRADING_FACTS.name)
    problems: list[str] = []
    records: list[Record] = []
    loose: list[LeftOut] = []
    tables: list[Path] = []
    for split, folder in _PARTS:
        table = first_folder(root, "2. Groundtruths") / _TABLES[split]
        pictures = Pictures(root, root / _IMAGES / folder)
        tables.append(table)
        for row in read_cells(table, problems, required=_COLUMNS):
            labels = _grades(row)
            image = pictures.find(row.text("Image name"), row.where, problems)
            if image is not None:
                name = f"{split}_{image.stem}"
                records.append(
                    Record(
                        name=name,
                        image=image,
                        where=row.where,
                        site=GRADING_FACTS.name,
                        labels=labels,
                        split=split,
                    )
                )
        loose += pictures.not_asked()
    raise_problems(problems, "correct the tables or complete the folders")
    return Reading(records=tuple(records), left_out=tuple(loose), tables=tuple(tables))


def _grades(row: Cells) -> dict[str, float]:
    labels = dr_labels(row.whole("Retinopathy grade", 0, 4))
    risk = row.whole("Risk of macular edema", 0, 2)
    if risk is not None:
        labels |= {"dme_risk_grade": float(risk), "macular_edema": float(risk == _SEVERE_RISK)}
    return labels


def _read_segmentation(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(SEGMENTATION_FACTS.name)
    records: list[Record] = []
    loose: list[LeftOut] = []
    for split, folder in _PARTS:
        truth = first_folder(root, "2. All Segmentation Groundtruths") / folder
        pictures = Pictures(root, root / _IMAGES / folder)
        kinds = {k: Pictures(root, truth / name) for k, name in (*_LESIONS.items(), _DISC)}
        for stem in pictures.stems:
            image = pictures.path(stem)
            records.append(
                Record(
                    name=f"{split}_{stem}",
                    image=image,
                    where=f"{_IMAGES}/{folder}/{image.name}",
                    site=SEGMENTATION_FACTS.name,
                    masks=_masks(stem, kinds),
                    split=split,
                )
            )
        for kind in kinds.values():
            loose += kind.not_asked("no photograph of its number")
    return Reading(records=tuple(records), left_out=tuple(loose))


def _masks(stem: str, kinds: dict[str, Pictures]) -> dict[str, MaskSource]:
    """Masks of a picture.

    A kind of lesion that a picture does not have has no file. A picture without any file has
    no mask, since nothing says that somebody looked.
    """
    files = {k: p.path(f"{stem}_{k}") for k, p in kinds.items() if f"{stem}_{k}" in p.stems}
    disc = files.pop(_DISC[0], None)
    masks = {"lesions": MaskSource(files=tuple(files.values()))} if files else {}
    return masks if disc is None else {**masks, "disc": MaskSource(files=(disc,))}


IDRID_GRADING = SetLayout(facts=GRADING_FACTS, read=_read_grading)
IDRID_SEGMENTATION = SetLayout(facts=SEGMENTATION_FACTS, read=_read_segmentation)
