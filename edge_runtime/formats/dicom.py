"""Read ophthalmic photographs in DICOM: one frame of 8-bit colour, and which eye it shows.

An encapsulated JPEG goes through the project's own JPEG path, so that a JPEG and the same JPEG
in a DICOM file give the same pixels. Codings whose decoders were seen to pass damaged data are
refused by name.

IOD: DICOM PS3.3, A.41 (Ophthalmic Photography 8 Bit); transfer syntaxes: PS3.5, annex A.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.dicom_elements import DicomItem, is_dicom, read_dicom
from edge_runtime.formats.dicom_facts import (
    PHOTO_SEQUENCES,
    PHOTO_TAGS,
    PIXEL_DATA,
    PhotoFacts,
    read_facts,
)
from edge_runtime.formats.dicom_pixels import decode_jpeg_ls, decode_rle, decode_stored
from edge_runtime.formats.header import DecodeLimits, ImageHeader, Pixels, check_pixel_limit
from edge_runtime.formats.icc import describe_profile, profile_warning
from edge_runtime.formats.jpeg import JPEG_START, JpegFile, open_jpeg

__all__ = ["DicomFile", "is_dicom", "open_dicom"]

_UID = "1.2.840.10008.1.2"
_STORED = {_UID, f"{_UID}.1", f"{_UID}.1.99"}
_JPEG = {f"{_UID}.4.50", f"{_UID}.4.51", f"{_UID}.4.57", f"{_UID}.4.70"}
_RLE, _JPEG_LS = f"{_UID}.5", f"{_UID}.4.80"
_REFUSED = {
    f"{_UID}.4.81": "JPEG-LS near-lossless",
    f"{_UID}.4.90": "JPEG 2000 lossless",
    f"{_UID}.4.91": "JPEG 2000",
    f"{_UID}.4.201": "High-Throughput JPEG 2000",
    f"{_UID}.4.202": "High-Throughput JPEG 2000",
    f"{_UID}.4.203": "High-Throughput JPEG 2000",
}
_JPEG_END = b"\xff\xd9"
_COLOURS = {"RGB": "RGB", "YBR_FULL": "YCbCr", "YBR_FULL_422": "YCbCr"}


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """A photograph whose data set is whole; `unpack` takes the reduction and makes RGB."""

    header: ImageHeader
    unpack: Callable[[int], Pixels]
    can_reduce: bool

    def decode(self, reduction: int) -> Pixels:
        """Decode the one frame; see `PictureFile.decode`."""
        return self.unpack(reduction)


def open_dicom(data: bytes, limits: DecodeLimits) -> DicomFile:
    """Check a DICOM file's data set, and the JPEG in it where there is one.

    Args:
        data: the file's bytes; `is_dicom` holds.
        limits: of pixels, scans and the inflated size.

    Raises:
        ImageUnreadableError: cut, damaged, another kind of object, several frames, colours or
            a transfer syntax that are not read, both eyes, or eyes that contradict each other.
        ImageLimitError: more pixels, scans or inflated bytes than the limits.
    """
    syntax, item = read_dicom(data, PHOTO_TAGS, PHOTO_SEQUENCES, limits)
    facts = read_facts(item)
    check_pixel_limit(facts.rows, facts.columns, limits)
    if syntax in _JPEG:
        jpeg = _open_frame(item, facts, limits)
        return DicomFile(
            header=_header(facts, jpeg.header), unpack=jpeg.decode, can_reduce=jpeg.can_reduce
        )
    unpack = _unpacker(syntax, item, facts)
    return DicomFile(header=_header(facts, None), unpack=lambda _: unpack(), can_reduce=False)


def _unpacker(syntax: str, item: DicomItem, facts: PhotoFacts) -> Callable[[], Pixels]:
    """Return what makes the pixels of every coding but JPEG."""
    if syntax in _STORED:
        stored = item.values.get(PIXEL_DATA, b"")
        if facts.photometric == "YBR_FULL_422" and facts.columns % 2:
            raise ImageUnreadableError("DICOM has an odd number of columns in YBR_FULL_422")
        if len(stored) not in (facts.num_stored_bytes, facts.num_stored_bytes + 1):
            raise ImageUnreadableError(
                f"DICOM has {len(stored)} bytes of pixels and needs {facts.num_stored_bytes}: the "
                "file is cut or damaged; copy it again"
            )
        return lambda: decode_stored(stored, facts)
    if syntax in (_RLE, _JPEG_LS) and facts.photometric == "YBR_FULL_422":
        raise ImageUnreadableError("DICOM has lossless coding of YBR_FULL_422; export it as RGB")
    if syntax == _RLE:
        frame = _frame(item)
        return lambda: decode_rle(frame, facts)
    if syntax == _JPEG_LS:
        frame = _frame(item)
        return lambda: decode_jpeg_ls(frame, facts)
    name = _REFUSED.get(syntax, "unknown")
    raise ImageUnreadableError(
        f"DICOM has a transfer syntax that is not read ({name}): no decoder is known that reports "
        "every damage; export it as JPEG baseline, JPEG lossless or Explicit VR Little Endian"
    )


def _open_frame(item: DicomItem, facts: PhotoFacts, limits: DecodeLimits) -> JpegFile:
    """Check the encapsulated JPEG, and that size and colours are those of the data set."""
    frame = _frame(item)
    if frame.endswith(_JPEG_END + b"\0"):  # padded to an even length
        frame = frame[:-1]
    if not frame.startswith(JPEG_START):
        raise ImageUnreadableError("DICOM says JPEG and holds none: the file is damaged")
    jpeg = open_jpeg(frame, limits)
    if jpeg.header.stored_size_px != (facts.rows, facts.columns):
        raise ImageUnreadableError(
            f"DICOM says {facts.columns}x{facts.rows} pixels, the JPEG in it has "
            f"{jpeg.header.stored_size_px[::-1]}: the file is damaged"
        )
    if jpeg.colour_space != _COLOURS[facts.photometric]:
        raise ImageUnreadableError(
            f"DICOM says {facts.photometric}, the JPEG in it is {jpeg.colour_space}: which colours "
            "are right cannot be known; export it again"
        )
    return jpeg


def _frame(item: DicomItem) -> bytes:
    if not item.fragments:
        raise ImageUnreadableError("DICOM holds no encapsulated pixels: the file is damaged")
    return b"".join(item.fragments)


def _header(facts: PhotoFacts, inner: ImageHeader | None) -> ImageHeader:
    profile = facts.icc_profile
    description = None if profile is None else describe_profile(profile)
    warnings = facts.warnings + profile_warning(description)
    return ImageHeader(
        format="dicom",
        stored_size_px=(facts.rows, facts.columns),
        num_scans=inner.num_scans if inner else 1,
        orientation=inner.orientation if inner else 1,
        icc_profile=description or (inner.icc_profile if inner else None),
        trailing_bytes=inner.trailing_bytes if inner else 0,
        laterality=facts.laterality,
        field_degrees=facts.field_degrees,
        warnings=warnings + (inner.warnings if inner else ()),
    )
