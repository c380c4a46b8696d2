"""Vessel sets: DRIVE, CHASE_DB1 and STARE, a photograph with one or two observers' masks.

    DRIVE: SRC/training/images/21_training.tif, 1st_manual/21_manual1.gif,
                        mask/21_training_mask.gif
           SRC/test/    likewise, 01_test.tif, and 2nd_manual/01_manual2.gif
    CHASE: SRC/Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png
    STARE: SRC/stare-images/im0001.ppm, labels-ah/im0001.ah.ppm, labels-vk/im0001.vk.ppm,
           each of them also with .gz

The first observer is the truth; the second, and DRIVE's field of view, go beside the index.
"""

from __future__ import annotations

import re
from pathlib import Path

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

__all__ = ["CHASE_DB1", "DRIVE", "STARE"]

_SECOND = "vessels_second_observer"
_CHASE_NAME = re.compile(r"Image_(\d+)([LR])")
_CHASE_EYES = {"L": "OS", "R": "OD"}
_MAPPING = (
    ("first observer", "mask vessels"),
    ("second observer", "mask vessels_second_observer, beside the index"),
)

DRIVE_FACTS = SetFacts(
    name="drive",
    title="DRIVE, digital retinal images for vessel extraction",
    home="DRIVE grand challenge",
    citation="Staal et al., IEEE Trans Med Imaging 2004, 23:501-509",
    terms="research use; registration; no redistribution",
    mapping=(*_MAPPING, ("mask of the field of view", "mask fov, beside the index")),
    patients="neither patient nor eye is said",
    split="the set's 20 and 20; val from train by seed",
    checked="reduced",
)
CHASE_FACTS = SetFacts(
    name="chase-db1",
    title="CHASE_DB1, both eyes of 14 children",
    home="Kingston University, Retinal Image Analysis",
    citation="Fraz et al., IEEE Trans Biomed Eng 2012, 59:2538-2548",
    terms="Creative Commons Attribution 4.0 as its publisher states it",
    mapping=_MAPPING,
    patients="number in the name; L is OS, R is OD",
    split="by seed, both eyes of a child together",
    checked="description",
)
STARE_FACTS = SetFacts(
    name="stare",
    title="STARE, structured analysis of the retina, vessel part",
    home="Clemson University, the STARE project",
    citation="Hoover et al., IEEE Trans Med Imaging 2000, 19:203-210",
    terms="free for research; name the source",
    mapping=(("labels-ah", "mask vessels"), ("labels-vk", f"mask {_SECOND}, beside the index")),
    patients="neither patient nor eye is said",
    split="by seed",
    checked="description",
)


def _read_drive(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(DRIVE_FACTS.name)
    problems: list[str] = []
    records: list[Record] = []
    for split, word in (("train", "training"), ("test", "test")):
        folder = root / word
        pictures = Pictures(root, folder / "images")
        kinds = _drive_masks(root, folder, word)
        for stem in pictures.stems:
            image = pictures.path(stem)
            number, where = stem.split("_")[0], relative(root, image)
            found = {
                name: masks.find(f"{number}_{tail}", where, problems)
                for name, (masks, tail) in kinds.items()
            }
            records.append(
                Record(
                    name=stem,
                    image=image,
                    where=where,
                    site=DRIVE_FACTS.name,
                    masks=_sources(found),
                    split=split,
                )
            )
    raise_problems(problems, "complete the folders")
    blind = sum("vessels" not in record.masks for record in records)
    note = f"{blind} test pictures without observers: this release keeps them back"
    return Reading(records=tuple(records), notes=(note,) if blind else ())


def _drive_masks(root: Path, folder: Path, word: str) -> dict[str, tuple[Pictures, str]]:
    """Mask -> pictures and the end of their names. The challenge's test part has no observers."""
    kinds = {"vessels": ("1st_manual", "manual1"), "fov": ("mask", f"{word}_mask")}
    if word == "test":
        kinds[_SECOND] = ("2nd_manual", "manual2")
    return {
        name: (Pictures(root, folder / place), tail)
        for name, (place, tail) in kinds.items()
        if word == "training" or place == "mask" or (folder / "1st_manual").is_dir()
    }


def _read_chase(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(CHASE_FACTS.name)
    problems: list[str] = []
    records: list[Record] = []
    pictures = Pictures(root, root)
    for stem in pictures.stems:
        match = _CHASE_NAME.fullmatch(stem)
        if match is None:
            continue
        image = pictures.path(stem)
        where = relative(root, image)
        found = {"vessels": pictures.find(f"{stem}_1stHO", where, problems)}
        found[_SECOND] = pictures.find(f"{stem}_2ndHO", where, problems)
        records.append(
            Record(
                name=stem,
                image=image,
                where=where,
                site=CHASE_FACTS.name,
                patient_id=match[1],
                eye=_CHASE_EYES[match[2]],
                masks=_sources(found),
            )
        )
    raise_problems(problems, "complete the folder")
    loose = pictures.not_asked("not named Image_NUMBER and L or R")
    return Reading(records=tuple(records), left_out=tuple(loose))


def _read_stare(root: Path, options: ReadOptions) -> Reading:
    options.refuse_quality_tables(STARE_FACTS.name)
    problems: list[str] = []
    records: list[Record] = []
    left_out: list[LeftOut] = []
    pictures = Pictures(root, root / "stare-images")
    first, second = Pictures(root, root / "labels-ah"), Pictures(root, root / "labels-vk")
    for stem in first.stems:
        where = relative(root, first.path(stem))
        image = pictures.find(stem, where, problems)
        found = {"vessels": first.path(stem), _SECOND: second.find(stem, where, problems)}
        if image is not None:
            records.append(
                Record(
                    name=stem,
                    image=image,
                    where=where,
                    site=STARE_FACTS.name,
                    masks=_sources(found),
                )
            )
    raise_problems(problems, "complete the folders")
    left_out += pictures.not_asked("the observers drew no vessels on it")
    left_out += second.not_asked("only the second observer drew vessels")
    return Reading(records=tuple(records), left_out=tuple(left_out))


def _sources(found: dict[str, Path | None]) -> dict[str, MaskSource]:
    return {name: MaskSource(files=(path,)) for name, path in found.items() if path is not None}


DRIVE = SetLayout(facts=DRIVE_FACTS, read=_read_drive)
CHASE_DB1 = SetLayout(facts=CHASE_FACTS, read=_read_chase)
STARE = SetLayout(facts=STARE_FACTS, read=_read_stare)
