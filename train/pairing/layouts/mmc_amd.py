"""MMC-AMD (normal, dry AMD, PCV, wet AMD from CFP and OCT, 2019): names say class and eye.

    SRC/
    ├── mmc-amd/ImageData/                       (or ImageData/ in SRC itself)
    │   ├── cfp-clahe-448x448/f-w-1544817.jpg        f-EYE[_N], an EYE is CLASS-NUMBER
    │   └── oct-median3x3-448x448/o-w-1544817_1.jpg  o-EYE[_N]
    └── mmc-amd-splitAP-{train,val,test}/ImageSets/{cfp,oct}.txt   image names, a line each

Source of the layout: the authors' repository li-xirong/mmc-amd (path building, name parsing,
the classes h, d, p, w, the split lists 'AP' without a subject in two parts). From memory: that
the B-scans pass through the macula; the set does not say in which direction, and they are
filed as horizontal. The photographs come processed (CLAHE, 448 px).

What the set does not say: eye (the table of eyes must), day, and which eyes belong to one
subject. The split lists are therefore kept as they are: they alone know.

Labels: h -> amd 0; d, p, w -> amd 1; dry_amd, pcv, wet_amd are 1 for their class.
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime.errors import DataError
from train.data.index import SPLITS
from train.pairing.layouts.common import (
    PLACEHOLDER_NOTE,
    LayoutOptions,
    ListBuilder,
    picture_files,
    placeholder_day,
    require_folder,
)
from train.pairing.raw import RawList
from train.pairing.reasons import Reason

__all__ = ["read_mmc_amd"]

_NAME = re.compile(r"(?P<kind>[fo])-(?P<eye>(?P<group>[hdpw])-[^_-]+)(?:_\d+)?")
_CLASSES = {"h": "", "d": "dry_amd", "p": "pcv", "w": "wet_amd"}
_LABELS = ("amd", "dry_amd", "pcv", "wet_amd")
_NOTES = (
    PLACEHOLDER_NOTE,
    "CFP and OCT of one eye id are paired as the set's own code does; right or left come from "
    "--eyes",
    "the direction of a B-scan is not named; all are filed as oct_h",
    "the photographs were processed by the authors (CLAHE, 448 px)",
)
_OWN_SPLIT = "the splits are the set's own (splitAP: no subject in two parts)"
_NO_SPLIT = "no split lists: where --eyes names no patient, two eyes of one may be in two splits"


def read_mmc_amd(root: Path, options: LayoutOptions) -> RawList:
    """One row an image; several B-scans of an eye compete for its one pair.

    Raises:
        ConfigError: No table of eyes is given.
        DataError: The folder is not laid out like MMC-AMD, or an eye is in two split lists.
    """
    eyes = options.require_eyes("MMC-AMD")
    images = require_folder(root, "mmc-amd/ImageData", "ImageData")
    splits = _splits(root)
    rows = ListBuilder(
        kind="mmc-amd", root=root, site=options.site or "mmc-amd", label_names=_LABELS
    )
    for modality, letter in (("cfp", "f"), ("oct", "o")):
        for path in picture_files(_modality_folder(images, modality)):
            match = _NAME.fullmatch(path.stem)
            name = rows.relative(path)
            if match is None or match["kind"] != letter:
                rows.refuse(name, Reason.UNKNOWN_FILE, "not named like an original image")
                continue
            entry = eyes.get(match["eye"])
            split = splits.get(match["eye"])
            if entry is None:
                rows.refuse(name, Reason.UNKNOWN_EYE, "not in the table of eyes")
            elif splits and split is None:
                rows.refuse(name, Reason.NOT_LISTED, "in none of the split lists")
            else:
                patient_id = entry.patient_id or f"mmc-amd-{match['eye']}"
                rows.add(
                    rows.file(path),
                    who=(patient_id, entry.eye, entry.acquired or placeholder_day()),
                    modality=modality,
                    scan_kind="" if modality == "cfp" else "macula_h",
                    labels=_labels(match["group"]),
                    split=split,
                )
    return rows.build((*_NOTES, _OWN_SPLIT if splits else _NO_SPLIT))


def _modality_folder(images: Path, modality: str) -> Path:
    found = [path for path in images.iterdir() if re.fullmatch(rf"{modality}(-.*)?", path.name)]
    if len(found) != 1:
        raise DataError(f"ImageData has {len(found)} folders of {modality} images; keep one")
    return found[0]


def _labels(group: str) -> dict[str, str]:
    disease = _CLASSES[group]
    return {name: str(int(bool(disease) and name in ("amd", disease))) for name in _LABELS}


def _splits(root: Path) -> dict[str, str]:
    """Eye id -> split, from the lists; empty where there are none."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        for modality in ("cfp", "oct"):
            path = root / f"mmc-amd-splitAP-{split}" / "ImageSets" / f"{modality}.txt"
            for line in path.read_text(encoding="utf-8").split() if path.is_file() else []:
                match = _NAME.fullmatch(line)
                if match is not None and splits.setdefault(match["eye"], split) != split:
                    raise DataError(f"eye {match['eye']} is in two split lists; keep one")
    return splits
