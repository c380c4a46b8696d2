"""GAMMA (glaucoma grading from CFP and OCT volumes, 2021): one folder an eye.

    SRC/
    ├── glaucoma_grading_training_GT.csv     data, non, early, mid_advanced (one of them 1)
    └── multi-modality_images/0001/
        ├── 0001.jpg                         the photograph
        └── 0001/0_image.jpg ... 255_image.jpg   the OCT volume, 512 x 992 px a slice

Source of the layout: the challenge's baseline code and its many copies (folder and file names,
sorting by the number before '_', the label columns, 256 slices). From memory: that the slices
of the Topcon volume are horizontal, which the code does not say. The labels come as xlsx:
save the sheet as CSV beside it.

What the set does not say: eye (the table of eyes must), day, patient (an eye counts as a
patient of its own unless the table of eyes says otherwise).

Labels: non -> glaucoma 0, glaucoma_grade 0; early -> 1, 1; mid_advanced -> 1, 2.
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
    volume_sources,
)
from train.pairing.layouts.eyes import read_label_table
from train.pairing.raw import RawList
from train.pairing.reasons import Reason

__all__ = ["GRADES", "GRADES_TABLE", "read_gamma", "read_gamma_labels"]

GRADES = {"non": ("0", "0"), "early": ("1", "1"), "mid_advanced": ("1", "2")}
_LABELS = ("glaucoma", "glaucoma_grade")
_SLICE = re.compile(r"(\d+)_\w+")
GRADES_TABLE = "glaucoma_grading_training_GT"
_NOTES = (
    PLACEHOLDER_NOTE,
    "the pairing of photograph and volume is the set's own; right or left come from --eyes",
    "the set names no patients: where --eyes does not, two eyes of one patient may be in two "
    "splits",
    "oct_v is the middle column of the volume's slices, stretched to the width of a slice",
)


def read_gamma(root: Path, options: LayoutOptions) -> RawList:
    """Three rows an eye: photograph, middle slice, middle column of the volume.

    Raises:
        ConfigError: No table of eyes is given.
        DataError: The folder is not laid out like GAMMA, or its labels cannot be read.
    """
    eyes = options.require_eyes("GAMMA")
    folder = require_folder(root, "multi-modality_images")
    labels = read_gamma_labels(root)
    rows = ListBuilder(
        kind="gamma", root=root, site=options.site or "gamma", label_names=_LABELS if labels else ()
    )
    for path in picture_files(folder):
        rows.refuse(rows.relative(path), Reason.UNKNOWN_FILE)
    for sample in sorted(path for path in folder.iterdir() if path.is_dir()):
        entry = eyes.get(sample.name)
        if entry is None:
            rows.refuse(rows.relative(sample), Reason.UNKNOWN_EYE, "not in the table of eyes")
            continue
        day = entry.acquired or placeholder_day()
        who = (entry.patient_id or f"gamma-{sample.name}", entry.eye, day)
        found = labels.get(sample.name, {})
        for path in picture_files(sample):
            if path.stem == sample.name:
                rows.add(rows.file(path), who=who, modality="cfp", labels=found)
            else:
                rows.refuse(rows.relative(path), Reason.UNKNOWN_FILE)
        slices = picture_files(sample / sample.name)
        scans = volume_sources(root, slices, _SLICE) if slices else []
        if isinstance(scans, str):
            rows.refuse(f"{rows.relative(sample)}/{sample.name}", Reason.AMBIGUOUS_GEOMETRY, scans)
            continue
        for kind, source in scans:
            rows.add(source, who=who, modality="oct", scan_kind=kind, labels=found)
    return rows.build(_NOTES)


def read_gamma_labels(root: Path) -> dict[str, dict[str, str]]:
    """Eye id -> labels; empty where the set comes without (its validation and test parts).

    Raises:
        DataError: the table is still an Excel sheet, or a row is not one grade for one eye.
    """
    table = root / f"{GRADES_TABLE}.csv"
    if not table.is_file():
        if table.with_suffix(".xlsx").exists():
            raise DataError(
                f"the labels are in {GRADES_TABLE}.xlsx; save the sheet as {table.name}"
            )
        return {}
    labels = {}
    for number, cells in read_label_table(table, required=("data", *GRADES)):
        chosen = [name for name in GRADES if cells[name] in ("1", "1.0")]
        if len(chosen) != 1 or not cells["data"].isdigit():
            raise DataError(f"{table.name}, row {number}: not one grade for one eye")
        values = zip(_LABELS, GRADES[chosen[0]], strict=True)
        labels[f"{int(cells['data']):04d}"] = dict(values)
    return labels
