"""RFMiD (2020): 45 findings of 3,200 photographs in the set's own three splits.

    SRC/
    ├── Training_Set/RFMiD_Training_Labels.csv, Training/1.png ...
    ├── Evaluation_Set/RFMiD_Validation_Labels.csv, Validation/1.png ...
    └── Test_Set/RFMiD_Testing_Labels.csv, Test/1.png ...

    SRC/ (as the challenge packed it)
    ├── 1. Original Images/a. Training Set/1.png, b. Validation Set/, c. Testing Set/
    └── 2. Groundtruths/a. RFMiD_Training_Labels.csv, b. ..._Validation_..., c. ..._Testing_...

Numbers start anew in each split: names get the split in front.
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.errors import DataError
from train.imports.facts import SetFacts
from train.imports.files import Pictures
from train.imports.records import LeftOut, Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout
from train.imports.tables import Cells, read_cells

__all__ = ["FINDINGS", "RFMID"]

# (split, table, folder) of the two ways in which the set is packed.
_PACKED = (
    (
        ("train", "Training_Set/RFMiD_Training_Labels.csv", "Training_Set/Training"),
        ("val", "Evaluation_Set/RFMiD_Validation_Labels.csv", "Evaluation_Set/Validation"),
        ("test", "Test_Set/RFMiD_Testing_Labels.csv", "Test_Set/Test"),
    ),
    tuple(
        (
            split,
            f"2. Groundtruths/{x}. RFMiD_{word}_Labels.csv",
            f"1. Original Images/{x}. {word} Set",
        )
        for split, x, word in (
            ("train", "a", "Training"),
            ("val", "b", "Validation"),
            ("test", "c", "Testing"),
        )
    ),
)
_TAKEN = {"DR": "diabetic_retinopathy", "ARMD": "amd", "MYA": "pathological_myopia"}
FINDINGS: tuple[str, ...] = (
    "DR",
    "ARMD",
    "MH",
    "DN",
    "MYA",
    "BRVO",
    "TSLN",
    "ERM",
    "LS",
    "MS",
    "CSR",
    "ODC",
)
FINDINGS += ("CRVO", "TV", "AH", "ODP", "ODE", "ST", "AION", "PT", "RT", "RS", "CRS", "EDN")
FINDINGS += ("RPEC", "MHL", "RP", "CWS", "CB", "ODPM", "PRH", "MNF", "HR", "CRAO", "TD", "CME")
FINDINGS += ("PTCR", "CF", "VH", "MCA", "VS", "BRAO", "PLQ", "HPED", "CL")
_NEEDED = ("ID", "Disease_Risk", *_TAKEN, "CME")

FACTS = SetFacts(
    name="rfmid",
    title="RFMiD, retinal fundus multi-disease image dataset",
    home="IEEE DataPort; RIADD grand challenge 2020",
    citation="Pachade et al., Data 2021, 6(2):14",
    terms="Creative Commons Attribution 4.0: name the source",
    mapping=(
        ("DR", "diabetic_retinopathy; no grade is said"),
        ("ARMD", "amd"),
        ("MYA", "pathological_myopia"),
        ("CME 1", "macular_edema 1; CME 0 leaves it unknown, edema has other causes"),
        ("Disease_Risk 0 / 1", "normal 1 / 0"),
        ("ODC", "not taken: cupping is a sign, no diagnosis of glaucoma"),
        ("the other findings", "not taken"),
    ),
    patients="neither patient nor eye is said",
    split="the set's training, validation and test",
    checked="description",
)


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    packed = next((way for way in _PACKED if (root / way[0][2]).is_dir()), None)
    if packed is None:
        raise DataError(f"SRC has no folder '{_PACKED[0][0][2]}'; see docs/importing.md")
    problems: list[str] = []
    records: list[Record] = []
    loose: list[LeftOut] = []
    for split, table, folder in packed:
        pictures = Pictures(root, root / folder)
        rows = read_cells(root / table, problems, required=_NEEDED, ignored=FINDINGS)
        for row in rows:
            labels = _labels(row)
            image = pictures.find(row.text("ID"), row.where, problems)
            if image is not None:
                records.append(
                    Record(
                        name=f"{split}_{image.stem}",
                        image=image,
                        where=row.where,
                        site=FACTS.name,
                        labels=labels,
                        split=split,
                    )
                )
        loose += pictures.not_asked()
    raise_problems(problems, "correct the tables or complete the folders")
    return Reading(
        records=tuple(records),
        left_out=tuple(loose),
        tables=tuple(root / table for _, table, _ in packed),
    )


def _labels(row: Cells) -> dict[str, float]:
    found = {name: row.whole(column, 0, 1) for column, name in _TAKEN.items()}
    risk = row.whole("Disease_Risk", 0, 1)
    found["normal"] = None if risk is None else 1 - risk
    found["macular_edema"] = row.whole("CME", 0, 1) or None
    return {name: float(value) for name, value in found.items() if value is not None}


RFMID = SetLayout(facts=FACTS, read=_read)
