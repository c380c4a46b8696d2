"""Walk the elements of a DICOM file to its last byte, and keep only those that are asked for.

Nothing else of the file is held, so no patient's name can reach a message or a result. pydicom
is not used for this: it hands over what it could read of a cut data set, inflates without a
limit, and repeats values in its warnings.

Layout: DICOM PS3.10, section 7.1 (preamble, file meta); PS3.5, sections 7.1 (elements), 7.5
(sequences), A.4 (encapsulated pixels), A.5 (deflated).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass, field

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats.header import DecodeLimits

__all__ = ["DicomItem", "is_dicom", "read_dicom"]

IMPLICIT_LITTLE, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

_PREAMBLE, _MAGIC = 128, b"DICM"
_META_LENGTH, _TRANSFER_SYNTAX = 0x00020000, 0x00020010
_LENGTH_TAGS, _META_TAGS = range(_META_LENGTH, _META_LENGTH + 1), range(0x00020001, 0x00030000)
_ALL_TAGS, _DATA_TAGS = range(1 << 32), range(0x00030000, 1 << 32)
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_MAX_DEPTH = 16
_MAX_ELEMENTS = 20_000  # a photograph has some hundred; each costs about a microsecond


@dataclass(frozen=True, kw_only=True)
class DicomItem:
    """The wanted elements of a data set or of one item of a sequence.

    Attributes:
        values: bytes of an element by its tag (group << 16 | element).
        sequences: items of a sequence by its tag.
        fragments: of encapsulated pixels, without the offset table; empty where they are not.
    """

    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list[DicomItem]] = field(default_factory=dict)
    fragments: list[bytes] = field(default_factory=list)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file."""
    return data[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC


def read_dicom(
    data: bytes, wanted: Collection[int], sequences: Collection[int], limits: DecodeLimits
) -> tuple[str, DicomItem]:
    """Walk one file.

    Args:
        data: its bytes; `is_dicom` holds.
        wanted: tags whose values are kept.
        sequences: tags of the sequences whose items are kept; also those that hold them.
        limits: of the inflated size.

    Returns:
        The transfer syntax UID and the data set.

    Raises:
        ImageUnreadableError: cut, damaged, tags out of order, or big endian.
        ImageLimitError: inflates to more bytes than a file may have, or too many elements.
    """
    start = _PREAMBLE + len(_MAGIC)
    head = _Reader(data[: start + 12], (_META_LENGTH,), ()).data_set(
        start, start + 12, _LENGTH_TAGS
    )
    end = start + 12 + int.from_bytes(head.values.get(_META_LENGTH, b""), "little")
    if end > len(data) or _META_LENGTH not in head.values:
        raise _damaged("its file meta information is not whole")
    meta = _Reader(data, (_TRANSFER_SYNTAX,), ()).data_set(start + 12, end, _META_TAGS)
    if _TRANSFER_SYNTAX not in meta.values:
        raise _damaged("its file meta information names no transfer syntax")
    syntax = meta.values[_TRANSFER_SYNTAX].decode("ascii", "replace").rstrip("\0 ")
    if syntax == BIG_ENDIAN:
        raise ImageUnreadableError(
            "DICOM is big endian, which was retired; export it as Explicit VR Little Endian"
        )
    body, start = (_inflate(data[end:], limits), 0) if syntax == DEFLATED else (data, end)
    reader = _Reader(body, wanted, sequences, explicit=syntax != IMPLICIT_LITTLE)
    return syntax, reader.data_set(start, len(body), _DATA_TAGS)


def _inflate(data: bytes, limits: DecodeLimits) -> bytes:
    max_bytes = int(limits.max_megabytes * 1e6)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise _damaged(f"its deflated data set does not inflate ({error})") from error
    if len(body) > max_bytes:
        raise ImageLimitError(
            f"the DICOM data set inflates to more than the {limits.max_megabytes:g} MB allowed"
        )
    if not stream.eof or stream.unused_data not in (b"", b"\0"):  # a padding byte may follow
        raise _damaged("its deflated data set does not end where the file ends")
    return body


class _Reader:
    """Walks little-endian elements; counts them, so that no file can keep it busy for long."""

    def __init__(
        self,
        data: bytes,
        wanted: Collection[int],
        sequences: Collection[int],
        *,
        explicit: bool = True,
    ) -> None:
        self._data = data
        self._wanted, self._sequences = frozenset(wanted), frozenset(sequences)
        self._explicit = explicit
        self._num_elements = 0

    def data_set(self, start: int, end: int, tags: range) -> DicomItem:
        """Read the elements of a data set that fills `data[start:end]`, all of them in `tags`."""
        return self._items_elements(start, end, 0, self._explicit, tags=tags, delimited=False)[0]

    def _items_elements(
        self,
        position: int,
        end: int,
        depth: int,
        explicit: bool,
        *,
        delimited: bool,
        tags: range = _ALL_TAGS,
    ) -> tuple[DicomItem, int]:
        """Read elements to `end`, or to the delimiter of an item of undefined length."""
        item, last = DicomItem(), -1
        while position < end:
            tag = self._tag(position, end)
            if tag == _ITEM_END and delimited:
                self._length(position + 4, end)
                return item, position + 8
            if tag <= last or tag not in tags:
                raise _damaged("its elements are out of order")
            last = tag
            position = self._element(item, tag, position + 4, end, depth, explicit)
        if delimited:
            raise _damaged("an item of a sequence does not end")
        return item, position

    def _element(
        self, item: DicomItem, tag: int, position: int, end: int, depth: int, explicit: bool
    ) -> int:
        """Read one element behind its tag into `item`; return where the next one begins."""
        vr, length, start = self._head(position, end, explicit)
        if length == _UNDEFINED and tag == _PIXEL_DATA:
            return self._fragments(item, start, end)
        stop = end if length == _UNDEFINED else start + length
        if stop > end:
            raise _damaged("an element passes the end of the data")
        is_sequence = vr == b"SQ" or (vr in (b"", b"UN") and tag in self._sequences)
        if length == _UNDEFINED or (is_sequence and tag in self._sequences):
            # Of unknown representation, a sequence is stored implicitly (PS3.5, 6.2.2).
            nested = explicit and vr != b"UN"
            items, stop = self._sequence(start, stop, depth + 1, nested, length == _UNDEFINED)
            if tag in self._sequences:
                item.sequences[tag] = items
        elif tag in self._wanted:
            item.values[tag] = self._data[start:stop]
        return stop

    def _head(self, position: int, end: int, explicit: bool) -> tuple[bytes, int, int]:
        """Return representation (b"" where implicit), length and start of the value."""
        if not explicit:
            return b"", self._length(position, end), position + 4
        vr = self._data[position : position + 2]
        if vr in _LONG_VRS:
            return vr, self._length(position + 4, end), position + 8
        if vr not in _SHORT_VRS or position + 4 > end:
            raise _damaged("an element has no known value representation")
        return vr, int.from_bytes(self._data[position + 2 : position + 4], "little"), position + 4

    def _sequence(
        self, position: int, end: int, depth: int, explicit: bool, delimited: bool
    ) -> tuple[list[DicomItem], int]:
        if depth > _MAX_DEPTH:
            raise _damaged("its sequences are nested too deeply")
        items: list[DicomItem] = []
        while position < end:
            tag, length = self._tag(position, end), self._length(position + 4, end)
            position += 8
            if tag == _SEQUENCE_END and delimited:
                return items, position
            stop = end if length == _UNDEFINED else position + length
            if tag != _ITEM or stop > end:
                raise _damaged("a sequence holds something else than items")
            item, position = self._items_elements(
                position, stop, depth, explicit, delimited=length == _UNDEFINED
            )
            items.append(item)
        if delimited:
            raise _damaged("a sequence does not end")
        return items, position

    def _fragments(self, item: DicomItem, position: int, end: int) -> int:
        """Read encapsulated pixels; the first fragment is the offset table."""
        is_table = True
        while position < end:
            tag, length = self._tag(position, end), self._length(position + 4, end)
            position += 8
            if tag == _SEQUENCE_END:
                return position
            if tag != _ITEM or position + length > end:
                break
            if not is_table:
                item.fragments.append(self._data[position : position + length])
            is_table = False
            position += length
        raise _damaged("its encapsulated pixels do not end")

    def _tag(self, position: int, end: int) -> int:
        self._num_elements += 1
        if self._num_elements > _MAX_ELEMENTS:
            raise ImageLimitError(f"the DICOM file has more than {_MAX_ELEMENTS} elements; refused")
        if position + 4 > end:
            raise _damaged("it ends inside an element")
        raw = self._data
        group = int.from_bytes(raw[position : position + 2], "little")
        return group << 16 | int.from_bytes(raw[position + 2 : position + 4], "little")

    def _length(self, position: int, end: int) -> int:
        if position + 4 > end:
            raise _damaged("it ends inside an element")
        return int.from_bytes(self._data[position : position + 4], "little")


def _damaged(what: str) -> ImageUnreadableError:
    return ImageUnreadableError(f"DICOM is cut or damaged: {what}; copy it again from the camera")
