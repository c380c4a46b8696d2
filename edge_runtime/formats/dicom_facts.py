"""What a DICOM photograph says about itself, checked: kind, size, colours, and which eye.

Only the tags below are read. Values are never repeated in a message, except for those of the
short lists in this file: any other value may be a patient's name in the wrong place.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.dicom_elements import DicomItem

__all__ = ["PHOTO_SEQUENCES", "PHOTO_TAGS", "PIXEL_DATA", "PhotoFacts", "read_facts"]

PIXEL_DATA = 0x7FE00010
_SOP_CLASS, _LATERALITY, _IMAGE_LATERALITY = 0x00080016, 0x00200060, 0x00200062
_FRAME_LATERALITY, _FRAME_ANATOMY = 0x00209072, 0x00209071
_SHARED_GROUPS, _FRAME_GROUPS = 0x52009229, 0x52009230
_FIELD_OF_VIEW, _FRAMES, _ICC_PROFILE = 0x0022000C, 0x00280008, 0x00282000
_SAMPLES, _PHOTOMETRIC, _PLANAR = 0x00280002, 0x00280004, 0x00280006
_ROWS, _COLUMNS = 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH_BIT, _SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
PHOTO_SEQUENCES = (_SHARED_GROUPS, _FRAME_GROUPS, _FRAME_ANATOMY)
PHOTO_TAGS = (
    *(_SOP_CLASS, _LATERALITY, _IMAGE_LATERALITY, _FRAME_LATERALITY, _FIELD_OF_VIEW, _FRAMES),
    *(_ICC_PROFILE, _SAMPLES, _PHOTOMETRIC, _PLANAR, _ROWS, _COLUMNS, _ALLOCATED, _STORED),
    *(_HIGH_BIT, _SIGNED, PIXEL_DATA),
)
_PHOTO_8_BIT = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
_PHOTO_16_BIT = "1.2.840.10008.5.1.4.1.1.77.1.5.2"
_EYES = {"R": "OD", "L": "OS"}
_MAX_FIELD_DEGREES = 360


@dataclass(frozen=True, kw_only=True)
class PhotoFacts:
    """The checked facts of one photograph.

    Attributes:
        rows: pixels.
        columns: pixels.
        photometric: "RGB", "YBR_FULL" or "YBR_FULL_422".
        is_planar: whether uncompressed channels stand one behind the other.
        laterality: "OD", "OS" or None.
        field_degrees: horizontal field of view, or None.
        icc_profile: bytes, or None.
        warnings: what a reader of the result should know.
    """

    rows: int
    columns: int
    photometric: str
    is_planar: bool
    laterality: str | None
    field_degrees: float | None
    icc_profile: bytes | None
    warnings: tuple[str, ...]

    @property
    def num_stored_bytes(self) -> int:
        """Bytes of uncompressed pixels: two pixels share their colours in YBR_FULL_422."""
        return self.rows * self.columns * (2 if self.photometric == "YBR_FULL_422" else 3)


def read_facts(item: DicomItem) -> PhotoFacts:
    """Check the data set of one file.

    Raises:
        ImageUnreadableError: not one frame of an 8-bit colour ophthalmic photograph, an
            impossible layout, both eyes, or eyes that contradict each other.
    """
    _check_kind(item)
    photometric = _text(item, _PHOTOMETRIC)
    if photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        raise ImageUnreadableError(
            "DICOM has a photometric interpretation that is not read (RGB, YBR_FULL and "
            "YBR_FULL_422 are); export the colour photograph"
        )
    rows, columns = _number(item, _ROWS), _number(item, _COLUMNS)
    if rows == 0 or columns == 0:
        raise ImageUnreadableError(f"DICOM has an impossible size, {columns}x{rows} pixels")
    degrees, warnings = _field_degrees(item)
    return PhotoFacts(
        rows=rows,
        columns=columns,
        photometric=photometric,
        is_planar=_is_planar(item),
        laterality=_laterality(item),
        field_degrees=degrees,
        icc_profile=item.values.get(_ICC_PROFILE),
        warnings=warnings,
    )


def _check_kind(item: DicomItem) -> None:
    sop_class = _text(item, _SOP_CLASS)
    if sop_class != _PHOTO_8_BIT:
        kind = "Ophthalmic Photography 16 Bit" if sop_class == _PHOTO_16_BIT else "another kind"
        raise ImageUnreadableError(
            f"DICOM object is {kind}; only Ophthalmic Photography 8 Bit is read, export that"
        )
    frames = _text(item, _FRAMES)
    if frames not in ("", "1"):
        raise ImageUnreadableError("DICOM has more than one frame; give one picture a file")
    if _number(item, _SAMPLES) == 1:
        raise ImageUnreadableError("not a colour fundus photograph: one channel (DICOM)")
    layout = [_number(item, tag) for tag in (_SAMPLES, _ALLOCATED, _STORED, _HIGH_BIT, _SIGNED)]
    if layout != [3, 8, 8, 7, 0]:
        raise ImageUnreadableError(
            f"DICOM has {layout[0]} samples of {layout[2]} bits in {layout[1]}; export three "
            "unsigned samples of 8 bits"
        )


def _is_planar(item: DicomItem) -> bool:
    """Whether channels stand one behind the other; required of colours (PS3.3, C.7.6.3.1.3)."""
    configuration = _number(item, _PLANAR)
    if configuration not in (0, 1):
        raise ImageUnreadableError(
            f"DICOM has planar configuration {configuration}, which is neither 0 nor 1: the file "
            "is damaged; copy it again"
        )
    return configuration == 1


def _laterality(item: DicomItem) -> str | None:
    """Return the eye that every element which names one agrees on."""
    named = {_text(one, tag) for one, tag in _lateralities(item)} - {""}
    if not named <= set(_EYES):
        raise ImageUnreadableError(
            "DICOM names no single eye (its laterality is B, or neither R nor L); give one eye a "
            "file"
        )
    if len(named) > 1:
        raise ImageUnreadableError(
            "DICOM contradicts itself about the eye (ImageLaterality, Laterality and "
            "FrameLaterality differ); find out which eye it is"
        )
    return _EYES[named.pop()] if named else None


def _lateralities(item: DicomItem) -> Iterator[tuple[DicomItem, int]]:
    yield item, _IMAGE_LATERALITY
    yield item, _LATERALITY
    for groups in (_SHARED_GROUPS, _FRAME_GROUPS):
        for group in item.sequences.get(groups, []):
            for anatomy in group.sequences.get(_FRAME_ANATOMY, []):
                yield anatomy, _FRAME_LATERALITY


def _field_degrees(item: DicomItem) -> tuple[float | None, tuple[str, ...]]:
    raw = item.values.get(_FIELD_OF_VIEW, b"")
    if not raw:
        return None, ()
    degrees = struct.unpack("<f", raw)[0] if len(raw) == 4 else math.nan
    if 0 < degrees <= _MAX_FIELD_DEGREES:
        return float(degrees), ()
    return None, ("the DICOM file's horizontal field of view is impossible and was ignored",)


def _text(item: DicomItem, tag: int) -> str:
    return item.values.get(tag, b"").decode("ascii", "replace").strip("\0 ")


def _number(item: DicomItem, tag: int) -> int:
    raw = item.values.get(tag, b"")
    if len(raw) != 2:
        raise ImageUnreadableError(
            f"DICOM element ({tag >> 16:04x},{tag & 0xFFFF:04x}) is missing or not one number; "
            "export the photograph again"
        )
    return int.from_bytes(raw, "little")
