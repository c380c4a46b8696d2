"""OLIVES (two trials in diabetic eyes, 2022): a folder a visit of an eye, with all its slices.

    SRC/
    ├── Prime_FULL/02-010/W36/OD/           PATIENT/W(week)/EYE
    │   ├── fundus_OD_W36.tif               (some come as .png, too)
    │   └── 0.png ... 48.png                the OCT volume
    ├── TREX DME/GILA/0201GOD/V1/OD/        ARM/PATIENT/V(visit)/EYE
    │   ├── fundus_OD_V1.tif
    │   └── TREXJ_000000.tif ... TREXJ_000048.tif
    └── OLIVES_Dataset_Labels/{ml_centric_labels,full_labels}/Biomarker_Clinical_Data_Images.csv

Source of the layout: the authors' repository (label files) and public code and notes of users
that list the unpacked archives (paths, file names, label columns). From memory: that the slices
are horizontal, and that the fundus pictures are near-infrared. A picture without colour is no
CFP: such rows are refused as not_colour unless --allow-grey-cfp is given.

What the set does not say: days. A placeholder keeps visits apart: 7 days a week number,
1 day a visit number. 49 slices are too few to read a vertical B-scan from: use
--allow-missing oct_v. A TREX patient is the digits at the start of its folder's name, since
the letters name arm and study eye.

Labels (of the visit): DRT/ME on any slice -> macular_edema 1, on none of all slices -> 0, else
unknown; BCVA -> bcva_letters_value; CST -> cst_um_value.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_runtime.errors import DataError
from train.data.index import EYES
from train.pairing.labels import is_label_value
from train.pairing.layouts.common import (
    PLACEHOLDER_NOTE,
    LayoutOptions,
    ListBuilder,
    picture_files,
    placeholder_day,
    volume_sources,
)
from train.pairing.layouts.eyes import read_label_table
from train.pairing.raw import RawList
from train.pairing.reasons import Reason
from train.pairing.times import Moment

__all__ = ["read_olives"]

_LABELS = ("macular_edema", "bcva_letters_value", "cst_um_value")
_VALUES = {"BCVA": "bcva_letters_value", "CST": "cst_um_value"}
_PATTERNS = ("Prime_FULL/*/W*/*", "TREX DME/*/*/V*/*")
_VISIT = re.compile(r"(W|V)(\d+)")
_SLICE = re.compile(r"(?:\D*?_?)(\d+)")
_TABLES = ("ml_centric_labels", "full_labels")
_NOTES = (
    PLACEHOLDER_NOTE,
    "visits are kept apart by placeholder days: 7 a week number (Prime), 1 a visit number (TREX)",
    "the fundus pictures may be near-infrared; those without colour are refused as not_colour",
)


@dataclass(frozen=True, kw_only=True)
class _VisitFolder:
    path: Path
    patient_id: str
    eye: str
    day: Moment


def read_olives(root: Path, options: LayoutOptions) -> RawList:
    """Rows of a visit: each fundus picture, and the middle slice of the volume.

    Raises:
        DataError: The folder is not laid out like OLIVES, or its labels cannot be read.
    """
    findings = _findings(root)
    rows = ListBuilder(
        kind="olives",
        root=root,
        site=options.site or "olives",
        label_names=_LABELS if findings else (),
    )
    for visit in _visits(root, rows):
        _add_visit(rows, visit, findings)
    return rows.build(_NOTES)


def _visits(root: Path, rows: ListBuilder) -> Iterator[_VisitFolder]:
    for pattern in _PATTERNS:
        for path in sorted(root.glob(pattern)):
            if not path.is_dir():
                continue
            visit = _VISIT.fullmatch(path.parent.name)
            patient = _patient(path.parent.parent.name, trial=pattern[:4])
            if visit is None or path.name not in EYES or patient is None:
                rows.refuse(rows.relative(path), Reason.UNKNOWN_FILE, "not PATIENT/VISIT/EYE")
                continue
            days = int(visit[2]) * (7 if visit[1] == "W" else 1)
            yield _VisitFolder(
                path=path, patient_id=patient, eye=path.name, day=placeholder_day(days)
            )


def _patient(name: str, *, trial: str) -> str | None:
    if trial == "Prim":
        return f"olives-prime-{name}"
    match = re.match(r"\d+", name)
    return f"olives-trex-{match[0]}" if match else None


def _add_visit(
    rows: ListBuilder, visit: _VisitFolder, findings: Mapping[str, list[Mapping[str, str]]]
) -> None:
    pictures = picture_files(visit.path)
    photos = [path for path in pictures if path.stem.lower().startswith("fundus")]
    slices = [path for path in pictures if path not in photos]
    name = rows.relative(visit.path)
    labels = _visit_labels(findings.get(name, []), num_slices=len(slices)) if findings else {}
    who = (visit.patient_id, visit.eye, visit.day)
    for path in photos:
        rows.add(rows.file(path), who=who, modality="cfp", labels=labels)
    scans = volume_sources(rows.root, slices, _SLICE) if slices else []
    if isinstance(scans, str):
        rows.refuse(name, Reason.AMBIGUOUS_GEOMETRY, scans)
        return
    for kind, source in scans:
        rows.add(source, who=who, modality="oct", scan_kind=kind, labels=labels)


def _findings(root: Path) -> dict[str, list[Mapping[str, str]]]:
    """Folder of a visit -> the label rows of its slices; empty where there is no file."""
    for folder in _TABLES:
        table = root / "OLIVES_Dataset_Labels" / folder / "Biomarker_Clinical_Data_Images.csv"
        if table.is_file():
            break
    else:
        return {}
    found: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for number, cells in read_label_table(table, required=("DRT/ME", *_VALUES)):
        paths = [value for name, value in cells.items() if name.startswith("Path")]
        if len(paths) != 1:
            raise DataError(f"{table.name}, row {number}: no column that starts with 'Path'")
        found[PurePosixPath(paths[0].lstrip("/")).parent.as_posix()].append(cells)
    return dict(found)


def _visit_labels(slices: list[Mapping[str, str]], *, num_slices: int) -> dict[str, str]:
    edema = [cells["DRT/ME"] in ("1", "1.0") for cells in slices]
    labels = {"macular_edema": ""}
    if any(edema) or (edema and len(edema) >= num_slices):
        labels["macular_edema"] = str(int(any(edema)))
    for theirs, ours in _VALUES.items():
        values = {cells[theirs] for cells in slices if cells[theirs]}
        value = values.pop() if len(values) == 1 else ""
        labels[ours] = value if is_label_value(ours, value) else ""
    return labels
