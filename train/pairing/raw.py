"""The raw list: images as a hospital or a published set names them, and the rows refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from train.pairing.privacy import Pseudonyms
from train.pairing.reasons import KNOWN_COLUMNS, Rejection
from train.pairing.sources import ImageSource
from train.pairing.times import Moment

__all__ = ["MODALITIES", "OCT_KINDS", "RawImage", "RawList", "rows_sha256"]

MODALITIES = ("cfp", "oct")
OCT_KINDS = ("macula_h", "macula_v", "disc", "other")


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """One row whose every cell is understood.

    Attributes:
        row: Number of the row in the raw list, as the audit names it.
        patient_id: As written, or its pseudonym.
        eye: OD or OS.
        acquired: When it was taken.
        site: Where.
        modality: cfp or oct.
        scan_kind: For oct one of OCT_KINDS; for cfp the field, such as macula, or "".
        source: Where the pixels are.
        labels: Label name -> text that train.data.values accepts; "" is unknown.
        split: The split that a published set gives the patient; None draws it.
    """

    row: int
    patient_id: str
    eye: str
    acquired: Moment
    site: str
    modality: str
    scan_kind: str
    source: ImageSource
    labels: Mapping[str, str]
    split: str | None = None

    @property
    def visit(self) -> tuple[str, str, str]:
        """Patient, eye and day: what a triple must have in common."""
        return (self.patient_id, self.eye, self.acquired.day.isoformat())

    @property
    def order(self) -> tuple[int, str]:
        """The total order that breaks ties: time, then name. Row numbers do not count."""
        return (self.acquired.instant_us, self.source.name)

    def known(self) -> dict[str, str]:
        """The cells of the audit."""
        cells = (self.patient_id, self.eye, self.acquired.text, self.site, self.modality)
        return dict(zip(KNOWN_COLUMNS, (*cells, self.scan_kind, self.source.name), strict=True))


@dataclass(frozen=True, kw_only=True)
class RawList:
    """Every row of a raw list, each of them exactly once: as an image or as a rejection.

    Attributes:
        kind: "csv", "dicom" or the name of a published layout.
        images: The rows that are understood.
        rejections: The others.
        sha256: Of what the list is made of.
        label_names: The labels that `images` carry, in the order of the index.
        ignored_columns: Further columns that are not carried over.
        notes: What a reader of the result must know about this list.
    """

    kind: str
    images: tuple[RawImage, ...]
    rejections: tuple[Rejection, ...]
    sha256: str
    label_names: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """A row number that appears twice would be counted twice."""
        if len(set(self.row_numbers)) != self.num_rows:
            raise ValueError("a row number appears twice in the raw list")

    @property
    def row_numbers(self) -> list[int]:
        """Of every row."""
        return [one.row for one in self.images] + [one.row for one in self.rejections]

    @property
    def num_rows(self) -> int:
        """All rows."""
        return len(self.images) + len(self.rejections)

    def pseudonymized(self, pseudonyms: Pseudonyms) -> RawList:
        """The same list with patient ids replaced; paths leave the audit, too."""
        images = tuple(
            replace(image, patient_id=pseudonyms.replace(image.patient_id)) for image in self.images
        )
        rejections = tuple(
            replace(one, known=_pseudonymized(one.known, pseudonyms)) for one in self.rejections
        )
        return replace(self, images=images, rejections=rejections)


def _pseudonymized(known: Mapping[str, str], pseudonyms: Pseudonyms) -> dict[str, str]:
    cells = dict(known)
    if "patient_id" in cells:
        cells["patient_id"] = pseudonyms.replace(cells["patient_id"])
    return cells


def rows_sha256(images: Iterable[RawImage], rejections: Sequence[Rejection]) -> str:
    """Fingerprint of a list that is no single file: over every row's cells, sorted."""
    rows = [json.dumps([image.known(), dict(image.labels)], sort_keys=True) for image in images]
    rows += [json.dumps([dict(one.known), one.reason.value], sort_keys=True) for one in rejections]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
