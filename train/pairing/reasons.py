"""Why a raw row is in no triple: a closed list of reasons, and one rejection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["KNOWN_COLUMNS", "Reason", "Refusal", "Rejection"]

KNOWN_COLUMNS = ("patient_id", "eye", "acquired", "site", "modality", "scan_kind", "path")


class Reason(str, Enum):
    """Every reason that audit.csv may give. The comment is what docs/pairing.md explains."""

    # The row itself cannot be used.
    MALFORMED_ROW = "malformed_row"
    MISSING_VALUE = "missing_value"
    BAD_EYE = "bad_eye"
    UNKNOWN_EYE = "unknown_eye"
    BAD_TIME = "bad_time"
    BAD_MODALITY = "bad_modality"
    BAD_SCAN_KIND = "bad_scan_kind"
    BAD_LABEL = "bad_label"
    MISSING_FILE = "missing_file"
    # The row is understood and is not what a triple is made of.
    UNWANTED_SCAN_KIND = "unwanted_scan_kind"
    NOT_COLOUR = "not_colour"
    NOT_GREY = "not_grey"
    UNREADABLE_IMAGE = "unreadable_image"
    SHAPE_MISMATCH = "shape_mismatch"
    # The row contradicts or repeats another.
    DUPLICATE_ROW = "duplicate_row"
    CONFLICTING_ROWS = "conflicting_rows"
    DUPLICATE_IMAGE = "duplicate_image"
    CONFLICTING_IMAGES = "conflicting_images"
    CONFLICTING_SITES = "conflicting_sites"
    # DICOM files and published layouts.
    NOT_DICOM = "not_dicom"
    OTHER_OBJECT = "other_object"
    AMBIGUOUS_GEOMETRY = "ambiguous_geometry"
    UNKNOWN_FILE = "unknown_file"
    NOT_LISTED = "not_listed"
    # The row is good and its day does not make a triple, or made one without it.
    NO_CFP = "no_cfp"
    NO_OCT_H = "no_oct_h"
    NO_OCT_V = "no_oct_v"
    SURPLUS = "surplus"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why one image cannot be used. `detail` holds no value of the row: it may be anything."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """One raw row that is in no triple.

    `known` holds the cells that were understood, by KNOWN_COLUMNS. A cell that was refused is
    not repeated: a shifted column could hold a name or a birth date.
    """

    row: int
    reason: Reason
    column: str = ""
    detail: str = ""
    known: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Only the columns of the audit may be known."""
        unknown = set(self.known) - set(KNOWN_COLUMNS)
        if unknown:
            raise ValueError(f"audit.csv has no column for {sorted(unknown)}")
