"""REFUGE (2018): glaucoma, disc and cup of 1,200 photographs in three parts.

    SRC/
    ├── Training400/Glaucoma/g0001.jpg, Non-Glaucoma/n0001.jpg
    ├── Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp, Non-Glaucoma/n0001.bmp
    ├── REFUGE-Validation400/V0001.jpg
    ├── REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp, Fovea_locations.csv (may be missing)
    ├── Test400/T0001.jpg
    └── REFUGE-Test-GT/Disc_Cup_Masks/{G,N}/T0001.bmp, Glaucoma_label_and_Fovea_location.csv

Masks hold 0 in the cup, 128 in the rim, 255 outside the disc. The tables come as Excel
sheets: save them as CSV. A part that is missing as a whole is not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError
from train.imports.facts import SetFacts
from train.imports.files import Pictures, relative
from train.imports.records import (
    LeftOut,
    MaskSource,
    Reading,
    ReadOptions,
    Record,
    raise_problems,
)
from train.imports.sets.layout import SetLayout
from train.imports.tables import read_cells

__all__ = ["REFUGE", "disc_and_cup"]

_ZEISS, _CANON = "refuge/zeiss-visucam-500", "refuge/canon-cr-2"
_VAL_TABLE = ("Fovea_locations.csv", "Glaucoma Label")
_TEST_TABLE = ("Glaucoma_label_and_Fovea_location.csv", "Label(Glaucoma=1)")
_FOVEA = {"Fovea_X": "fovea_x_value", "Fovea_Y": "fovea_y_value"}
_MAX_PX = 16384

FACTS = SetFacts(
    name="refuge",
    title="REFUGE, retinal fundus glaucoma challenge",
    home="REFUGE grand challenge, MICCAI 2018",
    citation="Orlando et al., Medical Image Analysis 2020, 59:101570",
    terms="research use under the challenge's rules; no redistribution",
    mapping=(
        ("folder Glaucoma / Non-Glaucoma of Training400", "glaucoma 1 / 0"),
        ("column Glaucoma Label or Label(Glaucoma=1)", "glaucoma"),
        ("mask 0 and 128 / 0", "masks disc / cup"),
        ("Fovea_X, Fovea_Y of the two tables", "fovea_x_value, fovea_y_value"),
    ),
    patients="neither patient nor eye is said",
    split="the challenge's training, validation and test",
    checked="description",
)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Photographs of one folder and where their masks are."""

    split: str
    images: str
    masks: str
    site: str
    glaucoma: float | None = None
    table: tuple[str, str] | None = None


_PARTS = (
    *(
        _Part(
            split="train",
            images=f"Training400/{name}",
            masks=f"Annotation-Training400/Disc_Cup_Masks/{name}",
            site=_ZEISS,
            glaucoma=value,
        )
        for name, value in (("Glaucoma", 1.0), ("Non-Glaucoma", 0.0))
    ),
    _Part(
        split="val",
        images="REFUGE-Validation400",
        masks="REFUGE-Validation400-GT/Disc_Cup_Masks",
        site=_CANON,
        table=_VAL_TABLE,
    ),
    *(
        _Part(
            split="test",
            images="Test400",
            masks=f"REFUGE-Test-GT/Disc_Cup_Masks/{name}",
            site=_CANON,
            table=_TEST_TABLE,
        )
        for name in ("G", "N")
    ),
)


def disc_and_cup(path: Path) -> dict[str, MaskSource]:
    """Both masks of a file of 0 (cup), 128 (rim) and 255 (outside)."""
    rim, outside = 128, 255
    return {
        "disc": MaskSource(
            files=(path,), inside=frozenset((0, rim)), outside=frozenset((outside,))
        ),
        "cup": MaskSource(files=(path,), inside=frozenset((0,)), outside=frozenset((rim, outside))),
    }


def _read(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FACTS.name)
    problems: list[str] = []
    records: list[Record] = []
    left_out: list[LeftOut] = []
    tables: dict[Path, dict[str, dict[str, float]]] = {}
    pictures = {p.images: Pictures(root, root / p.images) for p in _PARTS if _is_there(root, p)}
    for part in (part for part in _PARTS if part.images in pictures):
        masks = Pictures(root, root / part.masks)
        labels = _table_labels(root, part, tables, problems)
        for stem in masks.stems:
            image = pictures[part.images].find(stem, relative(root, masks.path(stem)), problems)
            if labels and stem not in labels:
                problems.append(f"{relative(root, masks.path(stem))}: no row of the table names it")
            if image is None:
                continue
            known = {} if part.glaucoma is None else {"glaucoma": part.glaucoma}
            records.append(
                Record(
                    name=stem,
                    image=image,
                    where=relative(root, image),
                    site=part.site,
                    labels=known | labels.get(stem, {}),
                    masks=disc_and_cup(masks.path(stem)),
                    split=part.split,
                )
            )
    for one in pictures.values():
        left_out += one.not_asked("no mask of its name")
    raise_problems(problems, "correct the tables or complete the folders")
    return Reading(records=tuple(records), left_out=tuple(left_out), tables=tuple(tables))


def _is_there(root: Path, part: _Part) -> bool:
    """Whether a part is there; half of one is an error."""
    images, masks = (root / part.images).is_dir(), (root / part.masks).is_dir()
    if images != masks:
        missing = part.masks if images else part.images
        raise DataError(f"SRC has no folder '{missing}'; complete this part or remove it whole")
    return images


def _table_labels(
    root: Path,
    part: _Part,
    tables: dict[Path, dict[str, dict[str, float]]],
    problems: list[str],
) -> Mapping[str, dict[str, float]]:
    """Picture -> labels, each table read once; the validation part may be without one."""
    if part.table is None:
        return {}
    name, column = part.table
    path = (root / part.masks.split("/")[0]) / name
    if part.split == "val" and not path.exists() and not path.with_suffix(".xlsx").exists():
        return {}
    if path in tables:
        return tables[path]
    found = tables.setdefault(path, {})
    for row in read_cells(path, problems, required=("ImgName", column, *_FOVEA), ignored=("ID",)):
        glaucoma = row.whole(column, 0, 1)
        labels = {n: row.number_in(c, 0, _MAX_PX) for c, n in _FOVEA.items()}
        labels["glaucoma"] = None if glaucoma is None else float(glaucoma)
        stem = row.text("ImgName").split(".")[0]
        found[stem] = {n: value for n, value in labels.items() if value is not None}
    return found


REFUGE = SetLayout(facts=FACTS, read=_read)
