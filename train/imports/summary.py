"""What an import leaves behind beside the pictures: index.csv and import.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.safe_files import write_file
from train.data.index import FILE_COLUMNS, MASK_COLUMNS, SPLITS
from train.data.table import INDEX_NAME
from train.imports.facts import CHECKED, SetFacts
from train.imports.records import LeftOut, Record
from train.imports.vocabulary import ordered_labels
from train.pairing.layouts.common import PLACEHOLDER_NOTE, placeholder_day
from train.pairing.records import csv_bytes

__all__ = ["RECORD_NAME", "ImportSummary", "ImportedRow", "write_import"]

RECORD_NAME = "import.json"
_EYE_NOTE = "the set does not say which eye: the cell 'eye' is empty there"
_PATIENT_NOTE = (
    "the set names no patients: each photograph counts as a patient of its own, so two eyes of "
    "one person may be in two splits"
)


@dataclass(frozen=True, kw_only=True)
class ImportedRow:
    """One row of the index.

    Attributes:
        record: it is made of.
        patient_id: as written; the set's name and the picture's where the set has none.
        split: train, val or test.
        repeat: how many pictures of the same eye came before.
        files: index column or name of `BESIDE` -> path in the data set.
        converted: the photograph was PPM.
    """

    record: Record
    patient_id: str
    split: str
    repeat: int
    files: Mapping[str, str]
    converted: bool

    def cells(self) -> dict[str, str]:
        """Of index.csv."""
        day = placeholder_day(self.repeat).text
        row = {"patient_id": self.patient_id, "eye": self.record.eye, "acquired": day}
        row |= {"site": self.record.site, "split": self.split}
        row |= {name: self.files.get(name, "") for name in FILE_COLUMNS}
        return row | {name: f"{value:.15g}" for name, value in self.record.labels.items()}


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """The whole of an import, as import.json has it."""

    facts: SetFacts
    prepared: bool
    rows: tuple[ImportedRow, ...]
    left_out: tuple[LeftOut, ...]
    merged: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, str]
    source: Mapping[str, object]
    split: str
    linked: bool
    notes: tuple[str, ...]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Labels that some row knows."""
        return ordered_labels({name for row in self.rows for name in row.record.labels})

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        beside = sorted({n for row in self.rows for n in row.files if n not in FILE_COLUMNS})
        return {
            "software": f"edge-screen {__version__}",
            "set": self.facts.name,
            "title": self.facts.title,
            "citation": self.facts.citation,
            "terms": self.facts.terms,
            "terms_accepted": True,
            "layout": "prepared index.csv" if self.prepared else "as published",
            "importer_checked_on": CHECKED[self.facts.checked],
            "mapping": [list(pair) for pair in self.facts.mapping],
            "split": self.split,
            "counts": self._counts(),
            "labels": self._label_counts(),
            "masks": {n: sum(n in row.files for row in self.rows) for n in MASK_COLUMNS},
            "beside_the_index": beside,
            "photographs": "hard links" if self.linked else "copied byte for byte",
            "converted_from_ppm": [r.record.name for r in self.rows if r.converted],
            "duplicates_merged": {name: list(copies) for name, copies in self.merged.items()},
            "left_out": [{"what": one.what, "reason": one.reason} for one in self.left_out],
            "tables_sha256": dict(self.tables),
            "source": dict(self.source),
            "notes": list(self._all_notes()),
        }

    def _all_notes(self) -> tuple[str, ...]:
        nameless = any(row.record.patient_id is None for row in self.rows)
        eyeless = any(not row.record.eye for row in self.rows)
        more = ((_PATIENT_NOTE,) if nameless else ()) + ((_EYE_NOTE,) if eyeless else ())
        return (*self.notes, *more, PLACEHOLDER_NOTE)

    def _counts(self) -> dict[str, dict[str, int]]:
        groups = {name: [row for row in self.rows if row.split == name] for name in SPLITS}
        return {
            name: {"patients": len({row.patient_id for row in rows}), "photographs": len(rows)}
            for name, rows in groups.items()
        }

    def _label_counts(self) -> dict[str, dict[str, int]]:
        """Known and above 0, over all splits."""
        counts = {}
        for name in self.label_names:
            known = [r.record.labels[name] for r in self.rows if name in r.record.labels]
            counts[name] = {"known": len(known), "above_0": sum(value > 0 for value in known)}
        return counts


def write_import(out: Path, summary: ImportSummary) -> None:
    """Write import.json and, last of all, index.csv: a folder without it is unfinished."""
    text = json.dumps(summary.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(out / RECORD_NAME, f"{text}\n".encode())
    columns = ("patient_id", "eye", "acquired", "site", "split", *FILE_COLUMNS)
    rows = [row.cells() for row in summary.rows]
    write_file(out / INDEX_NAME, csv_bytes((*columns, *summary.label_names), rows))
