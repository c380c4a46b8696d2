"""From a published set to a data set: read, look at every file, settle copies, split, write.

out/
├── index.csv       one row a photograph, written last: a folder without it is unfinished
├── import.json     mapping, terms, counts, hashes, every row left out with its reason
├── cfp/            photographs, byte for byte
└── vessels/ ...    masks, one folder a kind, 8-bit grey PNG of 0 and 255
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import ConfigError, DataError
from train.imports.duplicates import settle_duplicates
from train.imports.ledger import SourceLedger
from train.imports.pixels import Photograph, mask_png, read_photograph
from train.imports.records import LeftOut, Reading, ReadOptions, Record, raise_problems
from train.imports.sets import SETS
from train.imports.sets.prepared import read_prepared
from train.imports.splits import SplitRule, assign_splits
from train.imports.summary import ImportedRow, ImportSummary, write_import
from train.phantom.writer import refuse_used_folder

__all__ = ["import_set"]

Progress = Callable[[str, int, int], None]
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A record whose photograph was looked at; its bytes are read again when they are written."""

    record: Record
    suffix: str
    shape: tuple[int, int]
    converted: bool
    sha256: str


def import_set(
    name: str,
    src: Path,
    out: Path,
    *,
    options: ReadOptions | None = None,
    rule: SplitRule | None = None,
    link: bool = False,
    progress: Progress | None = None,
) -> ImportSummary:
    """Import a published set. The caller has shown its terms and had them accepted.

    Args:
        name: of the set, a key of `train.imports.sets.SETS`.
        src: its folder, unpacked.
        out: a folder that is empty or does not exist yet, outside `src`.
        options: what the user adds to the set.
        rule: how patients without an official split are drawn.
        link: hard links instead of copies.
        progress: called with (what is counted, done, in all).

    Raises:
        ConfigError: there is no such set, or an option does not belong to it.
        DataError: the set breaks its layout, or `out` cannot be used.
    """
    if name not in SETS:
        raise ConfigError(f"no importer '{name}'; edge-screen data import --list names them")
    options = options or ReadOptions()
    _refuse_out(src, out)
    reading = _read(name, src, options)
    _require_safe(reading.records)
    ledger = SourceLedger(root=src)
    tables = {path.name: hashlib.sha256(ledger.read(path)).hexdigest() for path in reading.tables}
    seen, damaged = _look(reading, ledger, progress)
    settled = settle_duplicates([s.record for s in seen], {s.record.name: s.sha256 for s in seen})
    patients = {r.name: r.patient_id or f"{name}-{r.name}" for r in settled.kept}
    official = [(patients[record.name], record.split) for record in settled.kept]
    splits, how = assign_splits(official, rule or SplitRule())
    writer = _Writer(out=out, ledger=ledger, link=link)
    written = writer.write([s for s in seen if s.record.name in patients], progress)
    if not written:
        raise DataError("no photograph of the set can be used; nothing was written to the index")
    summary = ImportSummary(
        facts=SETS[name].facts,
        prepared=options.prepared,
        rows=_rows(written, patients, splits),
        left_out=(*reading.left_out, *damaged, *settled.left_out, *writer.left_out),
        merged=settled.merged,
        tables=tables,
        source=ledger.summary(),
        split=how,
        linked=link,
        notes=reading.notes,
    )
    write_import(out, summary)
    return summary


def _refuse_out(src: Path, out: Path) -> None:
    refuse_used_folder(out)
    if out.resolve().is_relative_to(src.resolve()):
        raise DataError("--out lies inside SRC; give a folder elsewhere")


def _read(name: str, src: Path, options: ReadOptions) -> Reading:
    """The set as published, or a reduced copy of it."""
    if not options.prepared:
        return SETS[name].read(src, options)
    options.refuse_quality_tables(f"{name} --prepared")
    return read_prepared(src, SETS[name].facts)


def _require_safe(records: Sequence[Record]) -> None:
    """Names become file names; on some disks two that differ by case are one file."""
    odd = [f"{r.where}: '{r.name}'" for r in records if not _SAFE_NAME.fullmatch(r.name)]
    raise_problems(odd, "a picture's name holds letters, digits, '_', '.' and '-' only")
    counts = Counter(record.name.lower() for record in records)
    alike = [f"{r.where}: '{r.name}'" for r in records if counts[r.name.lower()] > 1]
    raise_problems(alike, "these names differ by case alone; rename one")


def _look(
    reading: Reading, ledger: SourceLedger, progress: Progress | None
) -> tuple[list[_Seen], list[LeftOut]]:
    """Read and decode every photograph once."""
    seen, damaged = [], []
    for done, record in enumerate(reading.records, start=1):
        try:
            photograph = read_photograph(ledger.read(record.image))
        except DataError as error:
            damaged.append(LeftOut(what=f"{record.name} ({record.where})", reason=str(error)))
        else:
            seen.append(_seen(record, photograph))
        if progress is not None:
            progress("photographs read", done, len(reading.records))
    return seen, damaged


def _seen(record: Record, photograph: Photograph) -> _Seen:
    return _Seen(
        record=record,
        suffix=photograph.suffix,
        shape=photograph.shape,
        converted=photograph.converted,
        sha256=hashlib.sha256(photograph.data).hexdigest(),
    )


@dataclass(kw_only=True)
class _Writer:
    """Writes photographs and masks; remembers rows whose masks do not fit."""

    out: Path
    ledger: SourceLedger
    link: bool

    def __post_init__(self) -> None:
        self.left_out: list[LeftOut] = []

    def write(
        self, seen: Sequence[_Seen], progress: Progress | None
    ) -> list[tuple[_Seen, dict[str, str]]]:
        """Each record that is written, with its paths by column."""
        written = []
        for done, one in enumerate(seen, start=1):
            try:
                masks = {
                    name: mask_png(source, one.shape) for name, source in one.record.masks.items()
                }
                for path in (p for source in one.record.masks.values() for p in source.files):
                    self.ledger.read(path)
            except DataError as error:
                what = f"{one.record.name} ({one.record.where})"
                self.left_out.append(LeftOut(what=what, reason=str(error)))
                continue
            written.append((one, self._write_one(one, masks)))
            if progress is not None:
                progress("photographs written", done, len(seen))
        return written

    def _write_one(self, one: _Seen, masks: dict[str, bytes]) -> dict[str, str]:
        files = {"cfp": f"cfp/{one.record.name}{one.suffix}"}
        self._put_photograph(one, self._place(files["cfp"]))
        for name, data in masks.items():
            files[name] = f"{name}/{one.record.name}.png"
            self._place(files[name]).write_bytes(data)
        return files

    def _place(self, name: str) -> Path:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _put_photograph(self, one: _Seen, target: Path) -> None:
        if self.link and not one.converted:
            try:
                os.link(one.record.image, target)
            except OSError as error:
                raise DataError(
                    f"no hard link to '{one.record.image.name}' ({error.strerror}); "
                    "leave out --link"
                ) from error
            return
        data = one.record.image.read_bytes()
        if one.converted:
            data = read_photograph(data).data
        if hashlib.sha256(data).hexdigest() != one.sha256:
            raise DataError(f"'{one.record.image.name}' changed while it was imported; start anew")
        target.write_bytes(data)


def _rows(
    written: Sequence[tuple[_Seen, dict[str, str]]],
    patients: Mapping[str, str],
    splits: Mapping[str, str],
) -> tuple[ImportedRow, ...]:
    rows = []
    before: Counter[tuple[str, str]] = Counter()
    for one, files in written:
        patient = patients[one.record.name]
        eye = (patient, one.record.eye)
        rows.append(
            ImportedRow(
                record=one.record,
                patient_id=patient,
                split=splits[patient],
                repeat=before[eye],
                files=files,
                converted=one.converted,
            )
        )
        before[eye] += 1
    return tuple(rows)
