"""HRF and FIVES: vessels of photographs whose one diagnosis is in the file's name.

    HRF:   SRC/images/01_dr.JPG, 01_g.jpg, 01_h.jpg; manual1/01_dr.tif; mask/01_dr_mask.tif
    FIVES: SRC/train/Original/1_A.png, train/Ground truth/1_A.png; test/ likewise

A name says one thing of an eye: other diseases are known to be absent in healthy eyes only.
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.errors import DataError
from train.imports.facts import SetFacts
from train.imports.files import Pictures, relative
from train.imports.records import LeftOut, MaskSource, Reading, ReadOptions, Record, raise_problems
from train.imports.sets.layout import SetLayout

__all__ = ["FIVES", "HRF"]

_HRF_CLASSES = {"h": None, "dr": "diabetic_retinopathy", "g": "glaucoma"}
_FIVES_CLASSES = {"N": None, "D": "diabetic_retinopathy", "G": "glaucoma", "A": "amd"}

HRF_FACTS = SetFacts(
    name="hrf",
    title="HRF, high-resolution fundus images",
    home="Friedrich-Alexander-Universitaet Erlangen-Nuernberg, Pattern Recognition Lab",
    citation="Budai et al., Int J Biomed Imaging 2013, 154860",
    terms="Creative Commons Attribution 4.0: name the source",
    mapping=(
        ("manual1", "mask vessels"),
        ("mask of the field of view", "mask fov, beside the index"),
        ("_h", "normal 1, diabetic_retinopathy 0, glaucoma 0"),
        ("_dr / _g", "diabetic_retinopathy 1 / glaucoma 1, normal 0, the other unknown"),
    ),
    patients="neither patient nor eye is said",
    split="by seed",
    checked="description",
)
FIVES_FACTS = SetFacts(
    name="fives",
    title="FIVES, fundus image vessel segmentation",
    home="figshare",
    citation="Jin et al., Scientific Data 2022, 9:475",
    terms="Creative Commons Attribution 4.0: name the source",
    mapping=(
        ("Ground truth", "mask vessels"),
        ("_N", "normal 1, amd 0, diabetic_retinopathy 0, glaucoma 0"),
        ("_A / _D / _G", "amd / diabetic_retinopathy / glaucoma 1, normal 0, others unknown"),
        ("Quality Assessment", "not taken"),
    ),
    patients="neither patient nor eye is said",
    split="the set's train and test; val from train by seed",
    checked="description",
)


def _read_hrf(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(HRF_FACTS.name)
    problems: list[str] = []
    records: list[Record] = []
    pictures, manual, fields = (Pictures(root, root / n) for n in ("images", "manual1", "mask"))
    for stem in pictures.stems:
        image = pictures.path(stem)
        where = relative(root, image)
        found = {"vessels": manual.find(stem, where, problems)}
        found["fov"] = fields.find(f"{stem}_mask", where, problems)
        labels = _labels(stem, where, _HRF_CLASSES)
        masks = {n: MaskSource(files=(path,)) for n, path in found.items() if path is not None}
        records.append(
            Record(
                name=stem,
                image=image,
                where=where,
                site=HRF_FACTS.name,
                labels=labels,
                masks=masks,
            )
        )
    raise_problems(problems, "complete the folders")
    return Reading(records=tuple(records))


def _read_fives(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(FIVES_FACTS.name)
    problems: list[str] = []
    records: list[Record] = []
    left_out: list[LeftOut] = []
    for split in ("train", "test"):
        pictures, truth = (Pictures(root, root / split / n) for n in ("Original", "Ground truth"))
        for stem in pictures.stems:
            image = pictures.path(stem)
            where = relative(root, image)
            mask = truth.find(stem, where, problems)
            records.append(
                Record(
                    name=f"{split}_{stem}",
                    image=image,
                    where=where,
                    site=FIVES_FACTS.name,
                    labels=_labels(stem, where, _FIVES_CLASSES),
                    masks={} if mask is None else {"vessels": MaskSource(files=(mask,))},
                    split=split,
                )
            )
        left_out += truth.not_asked("no photograph of its name")
    raise_problems(problems, "complete the folders")
    return Reading(records=tuple(records), left_out=tuple(left_out))


def _labels(stem: str, where: str, classes: dict[str, str | None]) -> dict[str, float]:
    """What the letter behind the number says.

    Raises:
        DataError: it is none of the set's.
    """
    number, _, letter = stem.partition("_")
    if not number.isdigit() or letter not in classes:
        raise DataError(f"'{where}' is not named NUMBER_ and one of {', '.join(classes)}")
    disease = classes[letter]
    if disease is None:
        return {"normal": 1.0} | {name: 0.0 for name in classes.values() if name}
    return {"normal": 0.0, disease: 1.0}


HRF = SetLayout(facts=HRF_FACTS, read=_read_hrf)
FIVES = SetLayout(facts=FIVES_FACTS, read=_read_fives)
