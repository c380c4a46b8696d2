"""Which names the tensorrt binding has in which version, for the fake and the census test.

`census.json` holds, for nine published versions, every module-level name and every class with its
public members; a bit mask says in which versions a name is there (bit i = `versions[i]`). It holds
names only: neither integers of enumerations nor signatures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("census.json")


@lru_cache(maxsize=1)
def _load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


@lru_cache(maxsize=1)
def _masks() -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Module-level names with their masks, and the members of each class with theirs."""
    data = _load()
    names = {name: int(mask) for mask, text in data["names"].items() for name in text.split()}
    members = {}
    for cls, (mask, groups) in data["classes"].items():
        names[cls] = mask
        members[cls] = {one: int(bits) for bits, text in groups.items() for one in text.split()}
    return names, members


def versions() -> tuple[str, ...]:
    """Every version that was looked at, oldest first."""
    return tuple(_load()["versions"])


@cache
def present_in(path: str) -> tuple[str, ...]:
    """Versions that have 'Name' or 'Class.member'; empty for a name that never was."""
    head, _, member = path.partition(".")
    names, members = _masks()
    mask = names.get(head, 0)
    if member:
        mask &= members.get(head, {}).get(member, 0)
    return tuple(one for bit, one in enumerate(versions()) if mask >> bit & 1)


@dataclass(frozen=True, kw_only=True)
class Census:
    """The names of one version."""

    version: str

    def __post_init__(self) -> None:
        if self.version not in versions():
            raise ValueError(f"the census has {', '.join(versions())}, not {self.version}")

    def has(self, path: str) -> bool:
        """Whether this version has 'Name' or 'Class.member'."""
        return self.version in present_in(path)

    def members(self, cls: str) -> frozenset[str]:
        """The public members of a class; empty when this version lacks the class."""
        found = _masks()[1].get(cls, {})
        return frozenset(one for one in found if self.has(f"{cls}.{one}"))

    def classes(self) -> tuple[str, ...]:
        """The classes of this version."""
        return tuple(sorted(cls for cls in _masks()[1] if self.has(cls)))
