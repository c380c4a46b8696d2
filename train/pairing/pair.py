"""From a raw list to a data set: screen, choose, convert, write, and account for every row.

out/
├── index.csv       one row a visit, written last: a folder without it is unfinished
├── audit.csv       one row for each raw row that is in no triple, with its reason
├── pairing.json    counts, settings, fingerprints
├── cfp/ID_EYE.jpg  the photograph's own bytes
└── oct_h/ oct_v/   B-scans, 8-bit grey PNG
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_runtime.errors import DataError
from train.pairing.encode import EncodedFile, encode_triple
from train.pairing.labels import join_labels
from train.pairing.match import MISSING_REASON, Triple, choose_triple, slot_of
from train.pairing.privacy import Pseudonyms
from train.pairing.raw import RawImage, RawList
from train.pairing.reasons import Reason, Rejection
from train.pairing.records import PairedVisit, PairingSummary, write_audit, write_records
from train.pairing.screen import reject, screen_images
from train.pairing.settings import PairSettings
from train.pairing.split import draw_split
from train.pairing.times import require_one_form
from train.phantom.writer import refuse_used_folder

__all__ = ["pair_list"]

Progress = Callable[[str, int, int], None]


def pair_list(
    raw: RawList,
    out: Path,
    *,
    settings: PairSettings | None = None,
    pseudonyms: Pseudonyms | None = None,
    progress: Progress | None = None,
) -> PairingSummary:
    """Pair a raw list and write the data set.

    Args:
        raw: Every row of the list.
        out: A folder that is empty or does not exist yet.
        settings: The rules; the strict ones where None.
        pseudonyms: Replaces patient ids, before anything else is done.
        progress: Called with (what is counted, done, in all).

    Returns:
        What became of every row.

    Raises:
        DataError: `out` is used, times are written in two forms, or no triple could be made
            (audit.csv and pairing.json are written and say why).
    """
    settings = settings or PairSettings()
    refuse_used_folder(out)
    form = require_one_form((image.row, image.acquired) for image in raw.images)
    if pseudonyms is not None:
        raw = raw.pseudonymized(pseudonyms)
    out.mkdir(parents=True, exist_ok=True)
    kept, rejections = screen_images(
        raw.images, settings, progress=_counting(progress, "files read")
    )
    writer = _VisitWriter(out, settings, raw.label_names, _other_days(kept))
    visits = _by_visit(kept)
    for done, images in enumerate(visits, start=1):
        writer.write(images)
        if progress is not None:
            progress("visits", done, len(visits))
    summary = PairingSummary(
        raw=raw,
        settings=settings,
        time_form=None if form is None else form.value,
        pseudonymized=pseudonyms is not None,
        visits=tuple(writer.visits),
        rejections=(*raw.rejections, *rejections, *writer.rejections),
    )
    write_audit(out, summary)
    if not summary.visits:
        write_records(out, summary, with_index=False)
        raise DataError(
            f"none of the {raw.num_rows} rows is part of a triple; audit.csv in the output "
            "folder has the reason of each"
        )
    write_records(out, summary, with_index=True)
    return summary


class _VisitWriter:
    """Writes visits one after another and remembers what is in the data set."""

    def __init__(
        self,
        out: Path,
        settings: PairSettings,
        label_names: Sequence[str],
        other_days: dict[tuple[str, str, str], int],
    ) -> None:
        self.visits: list[PairedVisit] = []
        self.rejections: list[Rejection] = []
        self._out = out
        self._settings = settings
        self._label_names = label_names
        self._other_days = other_days
        self._used: set[str] = set()

    def write(self, images: Sequence[RawImage]) -> None:
        """Make the visit's triple; an image that fails gives way to the next nearest.

        An image that was not chosen cannot change the choice, so dropping the failed one and
        choosing again is the same as never having had it.
        """
        rest = list(images)
        while True:
            triple = choose_triple(rest, allow_missing=self._settings.allow_missing)
            if isinstance(triple, str):
                self._reject_incomplete(rest, triple)
                return
            files = encode_triple(triple, self._settings, is_used=self._used.__contains__)
            if not isinstance(files, tuple):
                break
            failed, why = files
            self.rejections.append(reject(failed, why.reason, column="path", detail=why.detail))
            rest.remove(failed)
        self._write_files(triple, files)
        chosen = {image.row for image in triple.images}
        detail = "the day has a triple of nearer images"
        self.rejections += [
            reject(image, Reason.SURPLUS, detail=detail)
            for image in rest
            if image.row not in chosen
        ]

    def _reject_incomplete(self, images: Sequence[RawImage], missing: str) -> None:
        for image in images:
            days = self._other_days.get((image.patient_id, image.eye, missing), 0)
            # Days of this slot are all other days: the slot is empty on this one.
            detail = f"the eye has one on {days} other day(s)" if days else "the eye has none"
            self.rejections.append(reject(image, MISSING_REASON[missing], detail=detail))

    def _write_files(self, triple: Triple, files: Sequence[EncodedFile]) -> None:
        stem = _stem(triple.cfp)
        paths = {}
        for file in files:
            paths[file.column] = f"{file.column}/{stem}{file.suffix}"
            target = self._out / paths[file.column]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.data)
            self._used.add(file.sha256)
        labels, conflicts = join_labels(triple.images, self._label_names)
        self.visits.append(
            PairedVisit(
                triple=triple,
                paths=paths,
                split=_split(triple.cfp, self._settings),
                labels=labels,
                label_conflicts=conflicts,
            )
        )


def _split(image: RawImage, settings: PairSettings) -> str:
    if image.split is not None:
        return image.split
    return draw_split(image.patient_id, salt=settings.salt, shares=settings.shares)


def _stem(image: RawImage) -> str:
    """A file name that holds no id: a hash of the visit, and the eye."""
    digest = hashlib.sha256("\0".join(image.visit).encode()).hexdigest()
    return f"{digest[:16]}_{image.eye}"


def _by_visit(images: Sequence[RawImage]) -> list[list[RawImage]]:
    """The images of each visit, visits in the order of patient, eye and day."""
    groups: dict[tuple[str, str, str], list[RawImage]] = defaultdict(list)
    for image in images:
        groups[image.visit].append(image)
    return [groups[key] for key in sorted(groups)]


def _other_days(images: Sequence[RawImage]) -> dict[tuple[str, str, str], int]:
    """(patient, eye, slot) -> on how many days the eye has such an image."""
    days: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for image in images:
        days[image.patient_id, image.eye, slot_of(image)].add(image.visit[2])
    return {key: len(found) for key, found in days.items()}


def _counting(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
