"""Walk the one directory of a classic TIFF file: every entry inside the file, none kept twice.

Layout: TIFF revision 6.0, section 2; types 6 to 12 are those of the revision, 13 is IFD.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.errors import ImageUnreadableError

__all__ = ["TIFF_STARTS", "Entries", "read_directory"]

TIFF_STARTS = (b"II*\x00", b"MM\x00*")
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_NUMBER_CODES = {3: "H", 4: "I", 13: "I"}
_SUBFILE_TYPE, _SUB_DIRECTORIES = 254, 330


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The entries of a directory, by tag.

    Attributes:
        values: whole numbers of the entries that hold such (types SHORT, LONG, IFD).
        blobs: the bytes of the others.
        end: offset behind the last byte that the directory or its values occupy.
    """

    values: dict[int, tuple[int, ...]]
    blobs: dict[int, bytes]
    end: int

    def all(self, tag: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return the numbers of an entry.

        Raises:
            ImageUnreadableError: the tag is missing and there is no default.
        """
        found = self.values.get(tag, None if tag in self.blobs else default)
        if not found:
            raise _damaged(f"entry {tag} is missing or holds no whole numbers")
        return found

    def one(self, tag: int, default: int | None = None) -> int:
        """Return the one number of an entry.

        Raises:
            ImageUnreadableError: missing without a default, or several numbers.
        """
        found = self.all(tag, None if default is None else (default,))
        if len(found) != 1:
            raise _damaged(f"entry {tag} has {len(found)} numbers instead of 1")
        return int(found[0])

    def size(self, tag: int) -> int:
        """Return the one number of an entry that gives a size in pixels.

        Raises:
            ImageUnreadableError: as `one`, or it is 0.
        """
        found = self.one(tag)
        if found == 0:
            raise _damaged(f"entry {tag} gives a size of 0 pixels")
        return found

    def has(self, tag: int) -> bool:
        """Whether the entry is there, whatever its type."""
        return tag in self.values or tag in self.blobs

    def raw(self, tag: int) -> bytes | None:
        """Return the bytes of an entry that holds no numbers, None where it is missing."""
        return self.blobs.get(tag)


def read_directory(data: bytes, max_counts: Mapping[int, int]) -> Entries:
    """Read the only directory of a file.

    Args:
        data: the file's bytes, beginning with one of `TIFF_STARTS`.
        max_counts: the tags that are kept, and how many values each may have: entries can
            share their bytes, so that a small file could fill the memory.

    Raises:
        ImageUnreadableError: cut, an entry twice, outside the file or with too many values, or
            more than one page.
    """
    order = "<" if data[:2] == b"II" else ">"
    start = _number(data, order + "I", 4)
    count = _number(data, order + "H", start)
    entries = Entries(values={}, blobs={}, end=start + 6 + 12 * count)
    if _number(data, order + "I", start + 2 + 12 * count) != 0:
        raise ImageUnreadableError("TIFF has more than one page; export one image a file")
    end, counts = entries.end, {**max_counts, _SUBFILE_TYPE: 1, _SUB_DIRECTORIES: 1}
    for index in range(count):
        end = max(end, _read_entry(data, order, start + 2 + 12 * index, entries, counts))
    if entries.values.get(_SUBFILE_TYPE, (0,)) != (0,) or _SUB_DIRECTORIES in entries.values:
        raise ImageUnreadableError("TIFF has more than one picture; export one image a file")
    return Entries(values=entries.values, blobs=entries.blobs, end=end)


def _read_entry(
    data: bytes, order: str, at: int, entries: Entries, max_counts: Mapping[int, int]
) -> int:
    """Read one entry into `entries` if it is kept; return the offset behind its value."""
    tag, kind, count = (int(value) for value in struct.unpack_from(order + "HHI", data, at))
    size = _TYPE_BYTES.get(kind, 0) * count
    start = at + 8 if size <= 4 else _number(data, order + "I", at + 8)
    if size == 0 or start + size > len(data):
        raise _damaged(f"entry {tag} lies outside the file or has no type")
    code = _NUMBER_CODES.get(kind)
    if tag not in max_counts:
        return max(at + 12, start + size)
    if entries.has(tag) or count > max_counts[tag]:
        raise _damaged(f"entry {tag} stands twice or has {count} values")
    if code is None:
        entries.blobs[tag] = data[start : start + size]
    else:
        entries.values[tag] = struct.unpack_from(f"{order}{count}{code}", data, start)
    return max(at + 12, start + size)


def _number(data: bytes, code: str, at: int) -> int:
    if at + struct.calcsize(code) > len(data):
        raise _damaged(f"the file ends before byte {at + struct.calcsize(code)}")
    (value,) = struct.unpack_from(code, data, at)
    return int(value)


def _damaged(what: str) -> ImageUnreadableError:
    return ImageUnreadableError(f"TIFF is cut or damaged: {what}; copy it again from the camera")
