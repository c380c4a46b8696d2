"""The enumerations of each version, with integers that move between versions.

Only integers that are documented to have moved are exact (`_KNOWN`). All others are shuffled by
version on purpose: code that writes a literal where a name belongs breaks in one version or
another. Members compare by identity, and with `int()` they give their integer, as in the binding.
"""

from __future__ import annotations

import enum
import hashlib
from functools import lru_cache
from typing import Any

from fake_tensorrt.census import Census

# Major version -> 'Class.member' -> integer, from the headers of that version.
_KNOWN: dict[int, dict[str, int]] = {
    8: {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH": 0, "BuilderFlag.VERSION_COMPATIBLE": 13},
    10: {
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": 0,
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED": 1,
        "BuilderFlag.VERSION_COMPATIBLE": 13,
        "BuilderFlag.STRIP_PLAN": 19,
    },
    11: {
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED": 0,
        "BuilderFlag.VERSION_COMPATIBLE": 12,
        "BuilderFlag.STRIP_PLAN": 18,
    },
}
SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class Member(enum.Enum):
    """Base of all: convertible to int, equal only to itself."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)


@lru_cache
def enumerations(census: Census) -> dict[str, Any]:
    """Every class of the version whose members are exactly `name`, `value` and constants."""
    found = {}
    for cls in census.classes():
        members = census.members(cls)
        names = sorted(one for one in members if one.isupper() or one[:1].isupper())
        if {"name", "value"} <= members and names:
            found[cls] = Member(cls, _integers(census.version, cls, names))
    return found


@lru_cache
def severities() -> Any:
    """`ILogger.Severity`, whose order (most severe first) is part of the interface."""
    return Member("Severity", {name: i for i, name in enumerate(SEVERITIES)})


def _integers(version: str, cls: str, names: list[str]) -> dict[str, int]:
    known = _KNOWN[int(version.partition(".")[0])]
    taken = {name: known[f"{cls}.{name}"] for name in names if f"{cls}.{name}" in known}
    free = [number for number in range(len(names) + 32) if number not in taken.values()]
    others = sorted((n for n in names if n not in taken), key=lambda n: _salt(version, cls, n))
    return {**taken, **dict(zip(others, free, strict=False))}


def _salt(version: str, cls: str, name: str) -> bytes:
    return hashlib.sha256(f"{version}/{cls}/{name}".encode()).digest()
