"""What a pairing run leaves behind: audit.csv, pairing.json and, last of all, index.csv."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.safe_files import write_file
from train.data.index import FILE_COLUMNS, IMAGE_COLUMNS, SPLITS
from train.data.table import INDEX_NAME
from train.pairing.match import Triple
from train.pairing.raw import RawList
from train.pairing.reasons import KNOWN_COLUMNS, Reason, Rejection
from train.pairing.settings import PairSettings

__all__ = ["AUDIT_NAME", "SUMMARY_NAME", "PairedVisit", "PairingSummary"]
__all__ += ["csv_bytes", "write_audit", "write_records"]

AUDIT_NAME = "audit.csv"
SUMMARY_NAME = "pairing.json"
_AUDIT_COLUMNS = ("row", "reason", "column", "detail", *KNOWN_COLUMNS)
_NO_SITE = "(not known)"


@dataclass(frozen=True, kw_only=True)
class PairedVisit:
    """One row of index.csv.

    Attributes:
        triple: The images it is made of.
        paths: Column -> path in the data set.
        split: train, val or test.
        labels: Label -> text.
        label_conflicts: Labels that the images disagree on; unknown in the index.
    """

    triple: Triple
    paths: Mapping[str, str]
    split: str
    labels: Mapping[str, str]
    label_conflicts: tuple[str, ...]

    def index_row(self) -> dict[str, str]:
        """Cells of index.csv."""
        cfp = self.triple.cfp
        patient_id, eye, day = cfp.visit
        row = {"patient_id": patient_id, "eye": eye, "acquired": day, "site": cfp.site}
        row["split"] = self.split
        row.update({name: self.paths.get(name, "") for name in FILE_COLUMNS})
        return {**row, **self.labels}


@dataclass(frozen=True, kw_only=True)
class PairingSummary:
    """What became of every raw row.

    Attributes:
        raw: The list as it was paired (with pseudonyms, where asked for).
        settings: The rules.
        time_form: How the list writes its times; None where no row is understood.
        pseudonymized: Whether patient ids were replaced; then paths are not in the audit.
        visits: In the order of index.csv.
        rejections: Every row that is in no visit.
    """

    raw: RawList
    settings: PairSettings
    time_form: str | None
    pseudonymized: bool
    visits: tuple[PairedVisit, ...]
    rejections: tuple[Rejection, ...]

    def __post_init__(self) -> None:
        """Every raw row is in one visit or in the audit, and in one of them only.

        Raises:
            ValueError: A row is lost or counted twice.
        """
        used = [image.row for visit in self.visits for image in visit.triple.images]
        accounted = Counter([*used, *(one.row for one in self.rejections)])
        expected = Counter(self.raw.row_numbers)
        if accounted != expected:
            lost = sorted((expected - accounted) | (accounted - expected))
            raise ValueError(f"rows {lost[:5]} are lost or counted twice")

    def to_dict(self) -> dict[str, Any]:
        """The content of pairing.json."""
        gaps_us = [visit.triple.gap_us for visit in self.visits if len(visit.triple.images) > 1]
        return {
            "tool": "edge-screen data pair",
            "version": __version__,
            "source": {
                "kind": self.raw.kind,
                "sha256": self.raw.sha256,
                "rows": self.raw.num_rows,
                "times": self.time_form,
                "ignored_columns": list(self.raw.ignored_columns),
            },
            "settings": self.settings.to_dict(),
            "pseudonymized": self.pseudonymized,
            "rows": {
                "paired": self.raw.num_rows - len(self.rejections),
                "rejected": len(self.rejections),
            },
            "visits": len(self.visits),
            "images": {
                name: sum(name in visit.paths for visit in self.visits) for name in IMAGE_COLUMNS
            },
            "by_reason": self._by_reason(),
            "by_site": self._by_site(),
            "by_split": self._by_split(),
            "largest_gap_s": max(gaps_us, default=0) / 1e6,
            "label_conflicts": dict(
                Counter(name for visit in self.visits for name in visit.label_conflicts)
            ),
            "notes": list(self.raw.notes),
        }

    def _by_reason(self) -> dict[str, int]:
        """Every reason, those that did not occur with 0."""
        found = Counter(one.reason for one in self.rejections)
        return {reason.value: found[reason] for reason in Reason}

    def _by_site(self) -> dict[str, dict[str, int]]:
        visits = Counter(visit.triple.cfp.site for visit in self.visits)
        paired = Counter(one.site for visit in self.visits for one in visit.triple.images)
        rejected = Counter(one.known.get("site") or _NO_SITE for one in self.rejections)
        return {
            site: {"visits": visits[site], "paired": paired[site], "rejected": rejected[site]}
            for site in sorted({*visits, *paired, *rejected})
        }

    def _by_split(self) -> dict[str, dict[str, int]]:
        counts = {}
        for name in SPLITS:
            there = [visit for visit in self.visits if visit.split == name]
            patients = {visit.triple.cfp.patient_id for visit in there}
            counts[name] = {"patients": len(patients), "visits": len(there)}
        return counts


def write_audit(out: Path, summary: PairingSummary) -> None:
    """Write audit.csv, in the order of the raw rows."""
    rows = []
    for one in sorted(summary.rejections, key=lambda rejection: rejection.row):
        cells = dict(one.known)
        if summary.pseudonymized:
            cells["path"] = ""  # a hospital's paths often hold the id, or a name
        cells.update(row=str(one.row), reason=one.reason.value)
        rows.append({**cells, "column": one.column, "detail": one.detail})
    write_file(out / AUDIT_NAME, csv_bytes(_AUDIT_COLUMNS, rows))


def write_records(out: Path, summary: PairingSummary, *, with_index: bool) -> None:
    """Write pairing.json, then index.csv: the data set is finished when that is there."""
    columns = ("patient_id", "eye", "acquired", "site", "split", *FILE_COLUMNS)
    index = csv_bytes(
        (*columns, *summary.raw.label_names), (visit.index_row() for visit in summary.visits)
    )
    record = {**summary.to_dict(), "index_sha256": hashlib.sha256(index).hexdigest()}
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_file(out / SUMMARY_NAME, text.encode())
    if with_index:
        write_file(out / INDEX_NAME, index)


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    """Rows as UTF-8 CSV with a header; a missing cell is empty."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()
