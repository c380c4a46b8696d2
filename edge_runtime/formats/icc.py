"""Name the colour profile of a picture: training never converts, so a reader must know of it.

ICC.1:2022, section 7 (header, tag table), 10.15 (multiLocalizedUnicodeType); the older
textDescriptionType is in ICC.1:2001-04, section 6.5.17.
"""

from __future__ import annotations

__all__ = ["describe_profile", "profile_warning"]

_NO_DESCRIPTION = "without a description"
_TABLE_START, _ENTRY_BYTES, _MAX_TAGS, _MAX_TEXT = 128, 12, 100, 32


def describe_profile(profile: bytes) -> str:
    """Return the description in the profile, printable ASCII of at most 32 characters."""
    count = int.from_bytes(profile[_TABLE_START : _TABLE_START + 4], "big")
    for index in range(min(count, _MAX_TAGS)):
        entry = profile[_TABLE_START + 4 + _ENTRY_BYTES * index :][:_ENTRY_BYTES]
        if entry[:4] == b"desc":
            start, size = int.from_bytes(entry[4:8], "big"), int.from_bytes(entry[8:12], "big")
            return _printable(_text(profile[start : start + size])) or _NO_DESCRIPTION
    return _NO_DESCRIPTION


def profile_warning(description: str | None) -> tuple[str, ...]:
    """Say that colours may be off; nothing about sRGB, which is what training saw."""
    if description is None or "srgb" in description.lower():
        return ()
    named = description
    if description != _NO_DESCRIPTION:
        named = f"named {description!r} by the file"
    return (f"colour profile {named} is not sRGB and was not applied",)


def _text(body: bytes) -> str:
    if body[:4] == b"desc":  # version 2: length, then ASCII
        return body[12 : 12 + int.from_bytes(body[8:12], "big")].decode("ascii", "replace")
    if body[:4] == b"mluc":  # version 4: the first language's length and place, UTF-16
        size, start = int.from_bytes(body[20:24], "big"), int.from_bytes(body[24:28], "big")
        return body[start : start + size].decode("utf-16-be", "replace")
    return ""


def _printable(text: str) -> str:
    return "".join(c for c in text if " " <= c <= "~")[:_MAX_TEXT].strip()
