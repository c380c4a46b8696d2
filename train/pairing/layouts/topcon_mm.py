"""TOPCON-MM (eleven findings on CFP and OCT of a Topcon Triton, 2023): names say who and which.

    SRC/
    ├── fundus_images/PATIENT-SIDE-SCAN.png   SIDE is L, R, OS or OD
    ├── oct_images/PATIENT-SIDE-SCAN.png
    ├── fundus_labels.csv                     image name, then a column a finding, 0 or 1
    └── oct_labels.csv

Source of the layout: the set's README (folders, names, label files, findings) and the authors'
repository xmed-lab/FDDM (order and abbreviations of the findings; that an eye is PATIENT-SIDE).
From memory: that the published B-scans are horizontal; the README does not say. The header of
the label files is in neither: both spellings of the findings are read, any other is refused.

What the set does not say: the day. Photograph and scans of an eye are paired as its authors do.

Labels: dAMD or wAMD -> amd; DR -> any_dr; the other findings keep a name of their own. The two
files speak of one modality each, and a finding that shows on one only differs: the data set
then has 'unknown' (counted as label_conflicts in pairing.json).
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime.errors import DataError
from train.pairing.layouts.common import (
    PLACEHOLDER_NOTE,
    LayoutOptions,
    ListBuilder,
    picture_files,
    placeholder_day,
    require_folder,
)
from train.pairing.layouts.eyes import read_label_table
from train.pairing.raw import RawList
from train.pairing.reasons import Reason

__all__ = ["read_topcon_mm"]

_NAME = re.compile(r"(?P<patient>.+)-(?P<side>L|R|OS|OD)-(?P<scan>[^-]+)", re.IGNORECASE)
_EYES = {"L": "OS", "OS": "OS", "R": "OD", "OD": "OD"}
# Lower-case heading of the label files -> our label; "" is not carried over.
_FINDINGS = {
    "nor": "",
    "normal": "",
    "amd": "dry_amd",
    "damd": "dry_amd",
    "wamd": "wet_amd",
    "dr": "any_dr",
    "csc": "csc",
    "ped": "ped",
    "mem": "epiretinal_membrane",
    "fld": "fluid",
    "exu": "exudation",
    "cnv": "cnv",
    "rvo": "rvo",
}
_LABELS = ("amd", *dict.fromkeys(name for name in _FINDINGS.values() if name))
_NOTES = (
    PLACEHOLDER_NOTE,
    "CFP and OCT of one PATIENT-SIDE are paired as the set's own code does",
    "the direction of a B-scan is not named; all are filed as oct_h",
)


def read_topcon_mm(root: Path, options: LayoutOptions) -> RawList:
    """One row an image; several scans of an eye compete for its one pair.

    Raises:
        DataError: The folder is not laid out like TOPCON-MM, or a label file has a heading or
            value that is not known.
    """
    rows = ListBuilder(
        kind="topcon-mm", root=root, site=options.site or "topcon-mm", label_names=_LABELS
    )
    for modality, folder, table in (
        ("cfp", "fundus_images", "fundus_labels.csv"),
        ("oct", "oct_images", "oct_labels.csv"),
    ):
        pictures = picture_files(require_folder(root, folder))
        labels = _labels(root / table)
        for path in pictures:
            match = _NAME.fullmatch(path.stem)
            if match is None:
                rows.refuse(rows.relative(path), Reason.UNKNOWN_FILE, "not PATIENT-SIDE-SCAN")
                continue
            eye = _EYES[match["side"].upper()]
            rows.add(
                rows.file(path),
                who=(f"topcon-{match['patient']}", eye, placeholder_day()),
                modality=modality,
                scan_kind="" if modality == "cfp" else "macula_h",
                labels=labels.get(path.stem, {}),
            )
    return rows.build(_NOTES)


def _labels(table: Path) -> dict[str, dict[str, str]]:
    """Image name without its ending -> our labels."""
    labels = {}
    for number, cells in read_label_table(table):
        (name, *findings) = cells
        found: dict[str, str] = {}
        for heading in findings:
            ours = _FINDINGS.get(heading.lower())
            if ours is None or cells[heading] not in ("0", "1"):
                raise DataError(
                    f"{table.name}, row {number}, column '{heading}': not a known finding with "
                    "0 or 1; see the page on pairing"
                )
            found[ours] = cells[heading]
        found.pop("", None)
        amd = [found[kind] for kind in ("dry_amd", "wet_amd") if kind in found]
        labels[Path(cells[name]).stem] = {**found, "amd": max(amd, default="")}
    return labels
